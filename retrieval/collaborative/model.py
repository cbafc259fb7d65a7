"""What a collaborative model is: what users took up together is all that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from explorank.retrieval.collaborative.interactions import Interactions


class CollaborativeModel(Protocol):
    """Scores every item for whoever took up a set of items, seen in training or not; immutable.

    Items of the history are scored like all others: leaving them out is the retriever's business.
    """

    Options: ClassVar[type[Any]]
    """A frozen dataclass with defaults."""

    @property
    def item_ids(self) -> NDArray[np.str_]:
        """(n,) the items, in the order of the scores."""

    @classmethod
    def fit(cls, interactions: Interactions, *, options: Any = None, seed: int = 0) -> Self:
        """Return a model of `interactions`; the same interactions, options and seed give the same model."""

    def scores(self, history: Sequence[str]) -> NDArray[np.float32]:
        """Return (n,) scores, the higher the better; unknown items of the history are passed over."""

    def scores_of_many(self, histories: csr_matrix) -> NDArray[np.float32]:
        """Return (m, n) scores for histories (m, n) with 1 where an item was taken up, in the order of `item_ids`."""

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the model that `save` wrote; raise `CorruptArtefact` naming the file that is not intact."""
