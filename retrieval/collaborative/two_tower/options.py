"""How towers are built and trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from explorank.retrieval.collaborative._training import Device
from explorank.retrieval.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowerOptions:
    """How towers are built and trained."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    dim: int = 64
    """Numbers per output vector."""
    hidden: int = 128
    """Units of the user tower's hidden layer."""
    id_dropout: float = 0.2
    """The share of training items whose id is hidden, so that content alone learns to place them, in [0, 1); without
    content nothing is hidden."""
    history_dropout: float = 0.1
    """The share of training interactions whose user's history is hidden, so that what is known of users alone learns to
    place them, in [0, 1); where nothing is known of users, nothing is hidden."""
    feature_dropout: float = 0.1
    """The share of training interactions whose user's columns are all hidden, and of the columns hidden for the others,
    so that neither an anonymous visitor nor a missing column is a surprise, in [0, 1)."""
    temperature: float = 0.2
    """Cosines are divided by it before the softmax, above 0; smaller ones push harder apart what is near."""
    logq: float = 1.0
    """How much of the popularity correction is applied, 0 to 1: 1 corrects in-batch negatives for being drawn as often
    as they are popular."""
    learning_rate: float = 0.003
    """Adam's."""
    weight_decay: float = 1e-5
    """Decoupled, per step and learning rate."""
    batch_size: int = 1024
    """Interactions per step; each one's negatives are the others' items."""
    history: int = 100
    """Items of a user's history that are pooled at most, drawn anew for each step; all of them when serving."""
    epochs: int = 60
    """Passes over the interactions at most."""
    patience: int = 6
    """Training stops after so many epochs without a better recall on the validation cut, and keeps the best."""
    validation_share: float = 0.1
    """The share of interactions held out for that: each user's latest where times are known, else random ones.
    With 0 all epochs are trained, and the last is kept."""
    device: Device = "auto"
    """Where it is trained: `auto` takes a CUDA device where there is one. It is served on the CPU."""

    def __post_init__(self) -> None:
        whole = ("dim", "hidden", "batch_size", "history", "epochs", "patience")
        shares = ("id_dropout", "history_dropout", "feature_dropout", "validation_share")
        wrong = [name for name in whole if getattr(self, name) < 1]
        wrong += [name for name in ("temperature", "learning_rate") if not getattr(self, name) > 0]
        wrong += [name for name in shares if not 0 <= getattr(self, name) < 1]
        wrong += [] if 0 <= self.logq <= 1 else ["logq"]
        wrong += [] if self.weight_decay >= 0 else ["weight_decay"]
        if wrong:
            name = wrong[0]
            raise InvalidOption(
                f"TwoTower: {name}={getattr(self, name)} leaves nothing to train or to train on. Sizes are 1 or more, "
                "rates above 0, shares in [0, 1)."
            )
