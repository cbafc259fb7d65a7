"""The items that could be shown, as arrays: ids, vectors, popularity, first appearance, and how to find like ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval._files import (
    Checksums,
    checksums_within,
    read_manifest,
    replace_file,
    write_manifest,
)
from explorank.retrieval._gpu import GpuOptions
from explorank.retrieval._huge_pages import create_rows
from explorank.retrieval._ids import IdTable, as_ids, refuse_duplicates
from explorank.retrieval._index_files import INDEX_MANIFEST
from explorank.retrieval._index_kinds import Device, Kind
from explorank.retrieval._mapped_pages import map_pages
from explorank.retrieval._products import products
from explorank.retrieval._vectors import unit_query, unit_rows
from explorank.retrieval.collaborative._arrays import MANIFEST
from explorank.retrieval.collaborative.embedding_model import products_with_user
from explorank.retrieval.collaborative.embedding_space import SPACE_MANIFEST, EmbeddingSpace
from explorank.retrieval.collaborative.neighbours import NeighbourTable
from explorank.retrieval.errors import InvalidVectors
from explorank.retrieval.faiss_index import FaissIndex
from explorank.retrieval.index_tuning import Progress
from explorank.retrieval.provenance import Provenance
from explorank.retrieval.user_features import UserFeatures

_FORMAT: Final = "explorank.catalogue/1"
_MANIFEST: Final = "catalogue.json"
_INDEX: Final = "index"
_BY_USE: Final = "by_use"
_EMBEDDINGS: Final = "learned_embeddings"
VECTORS_FILE: Final = "vectors.npy"
_ARRAYS: Final = ("vectors", "item_ids", "popularity", "first_seen")
_RECENT: Final = "recent_popularity"


class Catalogue:
    """A frozen set of `n` items; a changed catalogue is built anew and gets another version."""

    item_ids: NDArray[Any]
    """(n,) text, unique."""
    vectors: NDArray[np.float32]
    """(n, d) rows of length 1; read from disk as they are used where the catalogue was loaded."""
    popularity: NDArray[np.float64]
    """(n,) finite, at least 0; any scale."""
    recent_popularity: NDArray[np.float64] | None
    """(n,) the same of the last days alone; None where nobody counted it."""
    first_seen: NDArray[np.float64]
    """(n,) seconds since the Unix epoch, NaN where unknown."""
    index: FaissIndex
    """Nearest items by vector."""
    by_use: NeighbourTable | None
    """The items that have the same users as each, by rows of the catalogue; None where it was built without."""
    embeddings: EmbeddingSpace | None
    """The space learnt from interactions, in rows of the catalogue; None where it was built without."""
    encoder_name: str
    """The model the vectors come from."""
    encoder_fingerprint: str
    """What identifies that model exactly; a query's vector must come from the same."""
    version: str
    """A hash of all of the above."""
    made: Provenance
    """What it was made of, and what had to be left out."""
    by_popularity: NDArray[np.int64]
    """(n,) rows, the most popular first; equally popular ones by row."""
    by_recent_popularity: NDArray[np.int64]
    """Rows of the items that are popular lately, above 0, the most first; equally popular ones by row."""
    by_first_seen: NDArray[np.int64]
    """Rows of the items whose first appearance is known, the oldest first."""
    known_first_seen: NDArray[np.float64]
    """`first_seen` of those rows, rising."""

    def __init__(
        self,
        arrays: dict[str, NDArray[Any]],
        index: FaissIndex,
        encoder: tuple[str, str],
        version: str,
        by_use: NeighbourTable | None = None,
        embeddings: EmbeddingSpace | None = None,
        made: Provenance | None = None,
    ) -> None:
        """Take checked arrays; use `build` or `load`."""
        self.vectors = arrays["vectors"]
        # Plain arrays where they are mapped: the class of a memory map slows every use.
        self.item_ids, self.popularity, self.first_seen = (np.asarray(arrays[name]) for name in _ARRAYS[1:])
        self.index = index
        self.by_use = by_use
        self.embeddings = embeddings
        self.encoder_name, self.encoder_fingerprint = encoder
        self.version = version
        self.made = made or Provenance()
        self.by_popularity = np.argsort(-self.popularity, kind="stable")
        recent = self.recent_popularity = arrays.get(_RECENT)
        self.by_recent_popularity = np.empty(0, np.int64)
        if recent is not None:
            self.by_recent_popularity = np.argsort(-recent, kind="stable")[: np.count_nonzero(recent)]
        known = np.flatnonzero(np.isfinite(self.first_seen))
        self.by_first_seen = known[np.argsort(self.first_seen[known], kind="stable")]
        self.known_first_seen = self.first_seen[self.by_first_seen]
        self._table = IdTable(self.item_ids)
        self._rows = np.asarray(self.vectors)
        self.cosines(np.zeros(self._rows.shape[1], np.float32), ())  # compiled before the first request

    @classmethod
    def build(
        cls,
        item_ids: Iterable[str],
        vectors: ArrayLike,
        *,
        popularity: ArrayLike | None = None,
        recent_popularity: ArrayLike | None = None,
        first_seen: ArrayLike | None = None,
        by_use: NeighbourTable | None = None,
        embeddings: EmbeddingSpace | None = None,
        encoder_name: str = "",
        encoder_fingerprint: str = "",
        made: Provenance | None = None,
        kind: Literal["auto"] | Kind = "auto",
        device: Literal["auto"] | Device = "auto",
        recall: float = 0.99,
        neighbours: int = 100,
        tune_s: float = 60.0,
        interests: ArrayLike | None = None,
        gpu: GpuOptions | None = None,
        progress: Progress | None = None,
    ) -> Catalogue:
        """Return the catalogue of `item_ids` (n,) with `vectors` (n, d), and index it.

        `popularity` (n,) defaults to 0 for all, `recent_popularity` (n,) and `first_seen` (n,) to unknown. Of `by_use`
        the items that are in the catalogue are kept; `embeddings` are in its rows. `vectors` that are unit rows in
        float32 are kept and not copied: a memory map stays one, and an array must not change afterwards. Raises
        `InvalidVectors` for ids that are not text or occur twice, for columns that do not fit, and for embeddings of
        other items; `FaissIndex.build` says what the other options mean.
        """
        ids = as_ids(item_ids)
        if ids.dtype.kind != "U":
            raise InvalidVectors(
                f"Item id {ids[0].item()!r} is an integer; the stage knows items by strings, and they would "
                "never meet. Pass `map(str, item_ids)`."
            )
        refuse_duplicates(ids)
        _check_rows(embeddings, ids)
        arrays = {
            "item_ids": ids,
            "vectors": unit_rows(vectors, ids),
            "popularity": _column("popularity", popularity, ids, 0.0),
            "first_seen": _column("first_seen", first_seen, ids, np.nan),
            **_recent_array(recent_popularity, ids),
        }
        index = FaissIndex.build(
            arrays["vectors"],
            ids,
            kind,
            device,
            recall=recall,
            neighbours=neighbours,
            tune_s=tune_s,
            interests=interests,
            gpu=gpu,
            progress=progress,
        )
        encoder = (encoder_name, encoder_fingerprint)
        placed = None if by_use is None else by_use.in_rows_of(ids)
        told = arrays | _use_arrays(placed) | _space_arrays(embeddings)
        version = _digest(f"{index.kind} {index.effort}\0{encoder_name}\0{encoder_fingerprint}", told)
        return cls(arrays, index, encoder, version, placed, embeddings, made)

    def with_facts(
        self,
        *,
        popularity: ArrayLike,
        by_use: NeighbourTable | None,
        embeddings: EmbeddingSpace | None = None,
        recent_popularity: ArrayLike | None = None,
    ) -> Catalogue:
        """Return the same items, vectors and index with other popularities (n,), table by use and learnt space.

        Without another one there is none: its own knows more than what is told here. Nothing is copied or indexed anew.
        Raises `InvalidVectors` for a popularity that does not fit, and for embeddings of other items.
        """
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        arrays["popularity"] = _column("popularity", popularity, self.item_ids, 0.0)
        placed = None if by_use is None else by_use.in_rows_of(self.item_ids)
        _check_rows(embeddings, self.item_ids)
        recent = _recent_array(recent_popularity, self.item_ids)
        arrays |= recent
        told = {"popularity": arrays["popularity"]} | recent | _use_arrays(placed) | _space_arrays(embeddings)
        version = _digest(f"{self.version} with", told)
        encoder = (self.encoder_name, self.encoder_fingerprint)
        return Catalogue(arrays, self.index, encoder, version, placed, embeddings, self.made)

    def __len__(self) -> int:
        return len(self.item_ids)

    def rows(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the row of each id, (m,), and -1 for ids that are not in the catalogue."""
        return self._table.find(item_ids)

    def vectors_at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of the items in `rows` (m,), (m, d), as an array of their own."""
        return self._rows[rows]  # not of `vectors`, which may be a memory map: its class slows every use

    def cosines(self, vector: NDArray[np.float32], item_ids: Iterable[str]) -> NDArray[np.float32]:
        """Return the cosine of each item's vector with `vector` (d,), as (m,), NaN for ids that are not here.

        It is 0 for a vector of zeros.
        """
        return self.cosines_at(vector, self.rows(item_ids))

    def cosines_at(self, vector: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Do what `cosines` does for the items in `rows` (m,); NaN for -1."""
        found = np.empty(len(rows), np.float32)
        # As the index does it, so that both give the same bits.
        unit = unit_query(vector)[0] if vector.any() else np.zeros(len(vector), np.float32)
        products(self._rows, rows, unit, found)
        return found

    def means_by_use(self, history: Iterable[str], item_ids: Iterable[str]) -> NDArray[np.float32]:
        """Return how much each item has the same users as those of `history`, (m,): the mean weight over them.

        NaN for ids that are not here, and throughout where nothing of the history is, or nothing is known of use.
        """
        return self.means_by_use_at(history, self.rows(item_ids))

    def means_by_use_at(self, history: Iterable[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Do what `means_by_use` does for the items in `rows` (m,); NaN for -1."""
        if self.by_use is None:
            return np.full(len(rows), np.nan, np.float32)
        return self.by_use.means(self.rows(history), rows)

    def learned_products_at(
        self, history: Iterable[str], rows: NDArray[np.int64], user: UserFeatures | None = None
    ) -> NDArray[np.float32]:
        """Return the product of the user who took up `history` with the items in `rows` (m,), in the learnt space.

        `user` (g,) is what else is known of them, where the space reads it. NaN for -1 and for items without a place,
        and throughout where the user has no vector: no item of the history has one, and nothing else tells of them.
        """
        if self.embeddings is None:
            return np.full(len(rows), np.nan, np.float32)
        return products_with_user(self.embeddings.model, self.rows(history), rows, user)

    def item_known(self, item_ids: Iterable[str]) -> NDArray[np.bool_]:
        """Return which ids are in the catalogue, (m,)."""
        return self.rows(item_ids) >= 0

    def save(self, folder: str | Path) -> None:
        """Write the catalogue and its index into `folder`, with a checksum for each file.

        Vectors that `vectors_to_fill` returned for this folder stay as they are.
        """
        folder = Path(folder)
        self.index.save(folder / _INDEX, with_vectors=False)
        names = [*_ARRAYS, *([] if self.recent_popularity is None else [_RECENT])]
        for name in names:
            array, file = getattr(self, name), folder / f"{name}.npy"
            if isinstance(array, np.memmap) and file.exists() and file.samefile(str(array.filename)):
                array.flush()
                continue
            with replace_file(file) as path, path.open("wb") as draft:
                np.save(draft, array, allow_pickle=False)
        files = [*(f"{name}.npy" for name in names), f"{_INDEX}/{INDEX_MANIFEST}"]
        if self.by_use is not None:
            self.by_use.save(folder / _BY_USE)
            files.append(f"{_BY_USE}/{MANIFEST}")
        if self.embeddings is not None:
            self.embeddings.save(folder / _EMBEDDINGS)
            files.append(f"{_EMBEDDINGS}/{SPACE_MANIFEST}")
        facts = {
            "format": _FORMAT,
            "version": self.version,
            "count": len(self),
            "encoder_name": self.encoder_name,
            "encoder_fingerprint": self.encoder_fingerprint,
            "recent_popularity": self.recent_popularity is not None,
            "by_use": self.by_use is not None,
            "learned_embeddings": self.embeddings is not None,
            "made": asdict(self.made),
        }
        write_manifest(folder / _MANIFEST, facts, files)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: Literal["auto"] | Device = "auto",
        *,
        checksums: Checksums | None = None,
        gpu: GpuOptions | None = None,
    ) -> Catalogue:
        """Return the catalogue that `save` wrote; its vectors and its index are memory-mapped.

        Processes that load the same folder share what they map, and where memory has the room, the first request
        finds it there. `checksums`, where the files were read just before, spare reading them again. Raises
        `CorruptArtefact`, naming the file, where one is damaged, missing or of another format.
        """
        folder = Path(folder)
        facts = read_manifest(folder / _MANIFEST, _FORMAT, checksums)
        # Mapped privately: what is written to it reaches nobody else. An empty file cannot be mapped.
        mode: Any = "c" if facts["count"] else None
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False) for name in _ARRAYS
        }
        if facts.get("recent_popularity", False):
            arrays[_RECENT] = np.load(folder / f"{_RECENT}.npy", allow_pickle=False)
        by_use = None
        if facts.get("by_use", False):
            by_use = NeighbourTable.load(folder / _BY_USE, checksums=checksums_within(_BY_USE, checksums))
        embeddings = None
        if facts.get("learned_embeddings", False):
            within = checksums_within(_EMBEDDINGS, checksums)
            embeddings = EmbeddingSpace.load(folder / _EMBEDDINGS, checksums=within)
        catalogue = cls(
            arrays,
            FaissIndex.load(
                folder / _INDEX,
                device,
                vectors=arrays["vectors"],
                checksums=checksums_within(_INDEX, checksums),
                gpu=gpu,
            ),
            (facts["encoder_name"], facts["encoder_fingerprint"]),
            facts["version"],
            by_use,
            embeddings,
            Provenance(**facts.get("made", {})),
        )
        map_pages(folder)
        return catalogue


def vectors_to_fill(folder: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the vectors (n, d) of a catalogue that will be saved in `folder`, n ≥ 1, mapped from there to be filled.

    So they never have to stand in memory.
    """
    return create_rows(folder / VECTORS_FILE, shape)


def _column(name: str, values: ArrayLike | None, ids: NDArray[Any], default: float) -> NDArray[np.float64]:
    if values is None:
        return np.full(len(ids), default)
    column = np.asarray(values, np.float64)
    if column.shape != ids.shape:
        raise InvalidVectors(
            f"{name} has shape {column.shape} for {len(ids)} items; values would belong to the wrong items. "
            "Pass one value per item, in the order of the ids."
        )
    bad = np.isinf(column) if np.isnan(default) else ~(np.isfinite(column) & (column >= 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InvalidVectors(
            f"{name} of item {ids[row].item()!r} is {column[row]}, so its place in the order is undefined. "
            + ("Use NaN for unknown." if np.isnan(default) else "Use a finite number of at least 0.")
        )
    return column


def _recent_array(values: ArrayLike | None, ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {} if values is None else {_RECENT: _column("recent_popularity", values, ids, 0.0)}


def _check_rows(embeddings: EmbeddingSpace | None, ids: NDArray[Any]) -> None:
    if embeddings is not None and not np.array_equal(embeddings.item_ids, ids):
        raise InvalidVectors(
            f"The embeddings are of {len(embeddings.item_ids)} items in an order of their own, and the catalogue "
            f"has {len(ids)}, so each row would be taken for another item. Bring the model into the rows of the "
            "catalogue with `in_rows_of(item_ids)`."
        )


def _space_arrays(embeddings: EmbeddingSpace | None) -> dict[str, NDArray[Any]]:
    return {} if embeddings is None else embeddings.model.arrays


def _use_arrays(by_use: NeighbourTable | None) -> dict[str, NDArray[Any]]:
    if by_use is None:
        return {}
    return {"starts": by_use.starts, "neighbours": by_use.neighbours, "weights": by_use.weights}


def _digest(facts: str, told: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(facts.encode())
    for array_name, column in told.items():
        array = np.ascontiguousarray(column)
        digest.update(f"\0{array_name} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()[:16]
