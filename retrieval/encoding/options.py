"""How encoders are adapted: frozen options, checked where they are made. No torch is needed to read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from explorank.retrieval.errors import InvalidOption

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the steps done and the steps there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """How a text encoder, or a head over it, learns what is liked together.

    The defaults suit one core and some thousand short texts: minutes with `body="lora"`, seconds with `frozen`.
    """

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    body: Literal["frozen", "lora"] = "frozen"
    """`lora` trains low-rank changes to the model's linear layers. `frozen` leaves the model as it is and trains a head
    over its vectors alone: no text is read again, so that it takes seconds."""
    head: Literal["none", "linear", "mlp", "gated"] = "mlp"
    """A map over the text's vector, which begins as the identity: x + W x + b, or x + V relu(U x + b). `gated` joins it
    with other vectors of the items, and begins near the text's."""
    rank: int = 16
    """The rank of LoRA's changes."""
    alpha: int = 32
    """LoRA's changes are multiplied by alpha / rank."""
    dropout: float = 0.0
    """The share of a LoRA layer's inputs that is dropped in training."""
    target_modules: tuple[str, ...] = ()
    """The layers that LoRA changes, by the end of their names; none means all linear ones."""
    hidden: int = 512
    """Width of the MLP head's hidden layer."""
    steps: int = 1_000
    """Optimiser steps."""
    batch_size: int = 256
    """Pairs in a step; the more, the more items each liked one is told apart from."""
    mini_batch: int = 32
    """Texts that the model reads at a time; it bounds memory and changes nothing else but rounding."""
    learning_rate: float = 1e-3
    """Of AdamW, after warm-up."""
    weight_decay: float = 0.01
    """Of AdamW."""
    warmup: float = 0.1
    """The share of the steps in which the learning rate rises; after it, it falls to 0."""
    scale: float = 20.0
    """What cosines are multiplied by before the softmax: 1 / temperature."""
    decay: float = 0.9
    """The weight of an item of the history relative to the next newer one, as `retrieval.decay` in serving."""
    popularity_correction: bool = True
    """Take the logarithm of each item's share of the pairs off its logit, so that the vectors learn what is likely to
    be liked and not only what is liked together."""
    noise: float = 0.0
    """The length of a random vector that is added to what the head reads of each item in training (unit vectors). It
    keeps the head from learning items by heart."""
    hard_negatives: int = 0
    """Items per pair that the untouched encoder finds near and the user did not like, added to what the liked item is
    told apart from."""
    hard_after: int = 20
    """How many of the nearest items are spared as hard negatives: they may be liked and not yet known."""
    distillation: float = 0.1
    """The weight of a teacher's lessons (MarginMSE) beside what users did; without lessons it does not count."""
    lessons: int = 64
    """Lessons in a step."""
    dims: tuple[int, ...] = ()
    """Numbers of first dimensions that should do by themselves (Matryoshka); none trains all dimensions as one."""
    max_tokens: int = 48
    """Texts are cut to so many tokens while training the body."""
    looks: int = 5
    """How many times the run is saved, and judged where there are validation pairs."""

    def __post_init__(self) -> None:
        if self.body == "frozen" and self.head == "none":
            raise InvalidOption(
                "body='frozen' with head='none' leaves nothing to train. Set head='mlp', or body='lora'."
            )
        for name in ("rank", "hidden", "steps", "batch_size", "mini_batch", "lessons", "max_tokens", "looks"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"{name}={getattr(self, name)} trains nothing. Set 1 or more.")
        for name in ("alpha", "learning_rate", "scale"):
            if not getattr(self, name) > 0:
                raise InvalidOption(
                    f"{name}={getattr(self, name)} would change nothing. Set a number above 0."
                )
        if self.noise < 0:
            raise InvalidOption(f"noise={self.noise} is a length; set 0 or more.")
        if self.distillation < 0:
            raise InvalidOption(f"distillation={self.distillation} is a weight; set 0 or more.")
        if self.hard_negatives < 0 or self.hard_after < 0:
            raise InvalidOption(
                f"hard_negatives={self.hard_negatives} and hard_after={self.hard_after} count items; set 0 or more."
            )
        if not 0 < self.decay <= 1:
            raise InvalidOption(
                f"decay={self.decay} is not in (0, 1]; older items would weigh more than newer ones, or nothing at all."
            )
        if any(size < 1 for size in self.dims):
            raise InvalidOption(f"dims={self.dims} holds a number of dimensions below 1. Remove it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """How a text encoder reads the catalogue's own texts before it learns what is liked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    rank: int = 16
    """The rank of LoRA's changes."""
    alpha: int = 32
    """LoRA's changes are multiplied by alpha / rank."""
    dropout: float = 0.0
    """The share of a LoRA layer's inputs that is dropped in training."""
    target_modules: tuple[str, ...] = ()
    """The layers that LoRA changes, by the end of their names; none means all linear ones."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 64
    """Texts in a step."""
    masked: float = 0.15
    """The share of a text's tokens that have to be guessed."""
    learning_rate: float = 5e-4
    """Of AdamW, after warm-up."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_tokens: int = 64
    """Texts are cut to so many tokens."""
    looks: int = 5
    """How many times the run is saved."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "steps", "batch_size", "max_tokens", "looks"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"{name}={getattr(self, name)} trains nothing. Set 1 or more.")
        if not 0 < self.masked < 1:
            raise InvalidOption(
                f"masked={self.masked} leaves nothing to guess, or nothing to guess from. Set a share between 0 and 1; "
                "0.15 is usual."
            )
        if not self.learning_rate > 0:
            raise InvalidOption(f"learning_rate={self.learning_rate} changes nothing. Set a number above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRanking:
    """How a cross-encoder learns to foresee from texts whether an item will be liked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    negatives: int = 3
    """Items that the user did not like, drawn evenly for each one that they did."""
    history: int = 5
    """How many of the latest liked items' texts are read beside the candidate's, the newest first."""
    steps: int = 500
    """Optimiser steps."""
    batch_size: int = 16
    """Pairs of history and liked item in a step; each comes with its negatives."""
    learning_rate: float = 5e-5
    """Of AdamW, after warm-up."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_tokens: int = 96
    """History and candidate are cut to so many tokens together, the history first."""
    looks: int = 5
    """How many times the run is saved."""

    def __post_init__(self) -> None:
        for name in ("negatives", "history", "steps", "batch_size", "max_tokens", "looks"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"{name}={getattr(self, name)} trains nothing. Set 1 or more.")
        if not self.learning_rate > 0:
            raise InvalidOption(f"learning_rate={self.learning_rate} changes nothing. Set a number above 0.")
