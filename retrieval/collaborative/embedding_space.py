"""A learnt space ready to be served: the items' vectors, the user's side, and a search for the greatest products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._files import Checksums, checksums_within, read_manifest, write_manifest
from explorank.retrieval._index_files import INDEX_MANIFEST
from explorank.retrieval.collaborative._arrays import MANIFEST
from explorank.retrieval.collaborative.embedding_model import EmbeddingModel, user_vector
from explorank.retrieval.collaborative.implicit_als import ImplicitALS
from explorank.retrieval.collaborative.length_ordered_scan import LengthOrderedScan
from explorank.retrieval.collaborative.sasrec import SASRec
from explorank.retrieval.collaborative.two_tower import TwoTower
from explorank.retrieval.errors import InvalidVectors
from explorank.retrieval.faiss_index import FaissIndex
from explorank.retrieval.index_tuning import Progress
from explorank.retrieval.user_features import UserFeatures

SPACE_MANIFEST: Final = "space.json"
_FORMAT: Final = "explorank.embedding_space/1"
_MODEL: Final = "model"
_INDEX: Final = "index"
_SCAN: Final = "scan"
EMBEDDING_MODELS: Final[Mapping[str, type[EmbeddingModel]]] = MappingProxyType(
    {model.name: model for model in (ImplicitALS, TwoTower, SASRec)}
)
"""The models that a saved space may hold, by name."""
_NONE: Final[NDArray[np.int64]] = np.zeros(0, np.int64)
_NOTHING: Final = (_NONE, np.zeros(0, np.float32))
_UNIT: Final = 1e-5
"""By how much rounding alone may take the square of a unit row's length in float32 from 1."""


class EmbeddingSpace:
    """Items and users of an `EmbeddingModel` in one space; immutable, and safe for use from many threads.

    A user's best items have the greatest inner product with the user's vector. Where all items are of length 1, as
    those of networks are, these are the nearest by cosine, and a FAISS index tuned on items and users finds them; else
    a `LengthOrderedScan` does, exactly.
    """

    model: EmbeddingModel
    """In the rows of the catalogue."""

    def __init__(self, model: EmbeddingModel, search: FaissIndex | LengthOrderedScan) -> None:
        """Take a model and what searches the items that it places, by their rows; use `build` or `load`."""
        self.model, self._search = model, search
        self.best(_NONE, 1)  # what it reads of all items, before the first request

    @classmethod
    def build(
        cls,
        model: EmbeddingModel,
        *,
        recall: float = 0.99,
        neighbours: int = 100,
        tune_s: float = 60.0,
        histories: Sequence[NDArray[np.int64]] = (),
        users: UserFeatures | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Make the items that `model` places ready to be searched; `FaissIndex.build` says what the options mean.

        `histories` are the rows that some users took up, each (h,), oldest first: an index is tuned by these users'
        vectors. `users` (u, g) tell of the same ones, where the model reads it. Raises `InvalidVectors` where it places
        none.
        """
        placed, rows = _placed(model)
        squares = np.einsum("md,md->m", placed, placed, dtype=np.float64)
        if np.abs(squares - 1.0).max() > _UNIT:
            return cls(model, LengthOrderedScan.build(placed, rows))
        found = (
            user_vector(model, history, None if users is None else users.take(np.array(number)))
            for number, history in enumerate(histories)
        )
        interests = [vector for vector in found if vector is not None and vector.any()]
        index = FaissIndex.build(
            placed,
            rows,
            device="cpu",
            recall=recall,
            neighbours=neighbours,
            tune_s=tune_s,
            interests=np.stack(interests) if interests else None,
            progress=progress,
        )
        return cls(model, index)

    @classmethod
    def exact(cls, model: EmbeddingModel) -> Self:
        """Make the items that `model` places ready to be searched exactly, without an index that takes time to tune.

        It is for a space of a short life: a search looks at all items where they are of one length. Raises
        `InvalidVectors` where it places none.
        """
        return cls(model, LengthOrderedScan.build(*_placed(model)))

    @property
    def item_ids(self) -> NDArray[np.str_]:
        """(n,) the items, in the order of the rows."""
        return self.model.item_ids

    @property
    def known(self) -> int:
        """How many items the model places."""
        return len(self._search)

    @property
    def search_kind(self) -> str:
        """What searches the items: the kind of index, or `scan`."""
        return self._search.kind if isinstance(self._search, FaissIndex) else _SCAN

    def best(
        self,
        history: NDArray[np.int64],
        k: int,
        exclude: NDArray[np.int64] = _NONE,
        user: UserFeatures | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return up to `k` rows of greatest product with the vector of who took up `history` (h,), oldest first.

        With them come the products. Neither rows of the history nor of `exclude` (e,) are among them. A row of -1
        stands for an unknown item and is passed over, as one that the model cannot place; one that stands twice counts
        where it stands last. `user` (g,) is what else is known of them, where the model reads it. Nothing is found
        where that tells nothing, and no row of the history is left.
        """
        vector = user_vector(self.model, history, user)
        return _NOTHING if vector is None else self._greatest(vector, k, np.concatenate([history, exclude]))

    def like(
        self, row: int, k: int, exclude: NDArray[np.int64] = _NONE
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return up to `k` rows of greatest product with the vector of the item in `row`, and the products.

        They are in units of the item's product with itself, so that it would have 1; it is not among them, nor are
        those of `exclude` (e,). Nothing is found for a row of -1, and for an item that the model cannot place.
        """
        if row < 0 or not self.model.places[row]:
            return _NOTHING
        vector = self.model.item_vectors[row]
        return self._greatest(vector / np.dot(vector, vector), k, np.append(exclude, row))

    def _greatest(
        self, vector: NDArray[Any], k: int, exclude: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        length = float(np.linalg.norm(vector))
        if length == 0:
            return _NOTHING
        rows, products = self._search.search((vector / length).astype(np.float32), k, exclude)
        return rows, products * np.float32(length)

    def save(self, folder: str | Path) -> None:
        """Write the model and what searches it into `folder`, with a checksum for each file."""
        folder = Path(folder)
        name, manifest = (
            (_INDEX, INDEX_MANIFEST) if isinstance(self._search, FaissIndex) else (_SCAN, MANIFEST)
        )
        self.model.save(folder / _MODEL)
        self._search.save(folder / name)
        facts = {"format": _FORMAT, "model": self.model.name, "search": name}
        write_manifest(folder / SPACE_MANIFEST, facts, (f"{_MODEL}/{MANIFEST}", f"{name}/{manifest}"))

    @classmethod
    def load(cls, folder: str | Path, *, checksums: Checksums | None = None) -> Self:
        """Return what `save` wrote, memory-mapped: processes that load the same folder share it.

        `checksums`, where the files were read just before, spare reading them again. Raises `CorruptArtefact` naming
        the file that is not intact.
        """
        folder = Path(folder)
        facts = read_manifest(folder / SPACE_MANIFEST, _FORMAT, checksums)
        model = EMBEDDING_MODELS[facts["model"]].load(
            folder / _MODEL, mapped=True, checksums=checksums_within(_MODEL, checksums)
        )
        name = facts["search"]
        within = checksums_within(name, checksums)
        search: FaissIndex | LengthOrderedScan
        if name == _INDEX:
            search = FaissIndex.load(folder / name, "cpu", checksums=within)
        else:
            search = LengthOrderedScan.load(folder / name, checksums=within)
        return cls(model, search)


def _placed(model: EmbeddingModel) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the vectors (m, d) of the items that `model` places, and their rows (m,)."""
    vectors = model.item_vectors
    rows = np.flatnonzero(model.places)
    if not len(rows):
        raise InvalidVectors(
            f"The model places none of its {len(vectors):,} items, so nothing could be found. Fit it to interactions "
            "with these items."
        )
    return vectors if len(rows) == len(vectors) else vectors[rows], rows
