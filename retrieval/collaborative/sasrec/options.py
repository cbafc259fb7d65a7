"""How the transformer is built and trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from explorank.retrieval.collaborative._training import Device
from explorank.retrieval.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class SASRecOptions:
    """How the transformer is built and trained."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    dim: int = 64
    """Numbers per vector of an item or a user, a multiple of `heads`."""
    layers: int = 1
    """Blocks of self-attention."""
    heads: int = 2
    """Into how many parts each attention is split."""
    history: int = 50
    """How many of a user's latest items are read, in training and serving; those before are forgotten."""
    dropout: float = 0.2
    """The share of activations that training hides, in [0, 1)."""
    temperature: float = 0.1
    """Cosines are divided by it before the softmax, above 0; smaller ones push harder apart what is near."""
    negatives: int = 2000
    """Items that each next item is told apart from, drawn anew for each step; where there are no more, it is told
    apart from all."""
    learning_rate: float = 0.003
    """Adam's."""
    batch_size: int = 64
    """Histories per step."""
    epochs: int = 60
    """Passes over the histories at most."""
    patience: int = 6
    """Training stops after so many epochs without a better recall on the validation cut, and keeps the best."""
    validation_share: float = 0.1
    """The share of each user's interactions, the latest, that are held out for that. With 0 all epochs are trained,
    and the last is kept."""
    device: Device = "auto"
    """Where it is trained: `auto` takes a CUDA device where there is one. It is served on the CPU."""

    def __post_init__(self) -> None:
        whole = ("dim", "layers", "heads", "history", "negatives", "batch_size", "epochs", "patience")
        wrong = [name for name in whole if getattr(self, name) < 1]
        wrong += [name for name in ("temperature", "learning_rate") if not getattr(self, name) > 0]
        wrong += [name for name in ("dropout", "validation_share") if not 0 <= getattr(self, name) < 1]
        if wrong:
            name = wrong[0]
            raise InvalidOption(
                f"SASRec: {name}={getattr(self, name)} leaves nothing to train or to train on. Sizes are 1 or more, "
                "rates above 0, shares in [0, 1)."
            )
        if self.dim % self.heads:
            raise InvalidOption(
                f"SASRec: dim={self.dim} cannot be split into heads={self.heads} equal parts. Set `dim` to a multiple "
                "of `heads`."
            )
