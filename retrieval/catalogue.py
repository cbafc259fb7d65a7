"""The items that could be shown, as arrays: ids, vectors, popularity, first appearance, and their index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval._files import read_manifest, write_manifest
from explorank.retrieval._vectors import as_ids, refuse_duplicates, unit_rows
from explorank.retrieval.errors import InvalidVectors
from explorank.retrieval.faiss_index import INDEX_MANIFEST, Device, FaissIndex, Kind

_FORMAT: Final = "explorank.catalogue/1"
_MANIFEST: Final = "catalogue.json"
_INDEX: Final = "index"
_ARRAYS: Final = ("vectors", "item_ids", "popularity", "first_seen")


class Catalogue:
    """A frozen set of `n` items; a changed catalogue is built anew and gets another version."""

    item_ids: NDArray[Any]
    """(n,) text, unique."""
    vectors: NDArray[np.float32]
    """(n, d) rows of length 1; read from disk as they are used where the catalogue was loaded."""
    popularity: NDArray[np.float64]
    """(n,) finite, at least 0; any scale."""
    first_seen: NDArray[np.float64]
    """(n,) seconds since the Unix epoch, NaN where unknown."""
    index: FaissIndex
    """Nearest items by vector."""
    encoder_name: str
    """The model the vectors come from."""
    encoder_fingerprint: str
    """What identifies that model exactly; a query's vector must come from the same."""
    version: str
    """A hash of all of the above."""
    by_popularity: NDArray[np.int64]
    """(n,) rows, the most popular first; equally popular ones by row."""
    by_first_seen: NDArray[np.int64]
    """Rows of the items whose first appearance is known, the oldest first."""
    known_first_seen: NDArray[np.float64]
    """`first_seen` of those rows, rising."""

    def __init__(
        self, arrays: dict[str, NDArray[Any]], index: FaissIndex, encoder: tuple[str, str], version: str
    ) -> None:
        """Take checked arrays; use `build` or `load`."""
        self.item_ids = arrays["item_ids"]
        self.vectors = arrays["vectors"]
        self.popularity = arrays["popularity"]
        self.first_seen = arrays["first_seen"]
        self.index = index
        self.encoder_name, self.encoder_fingerprint = encoder
        self.version = version
        self.by_popularity = np.argsort(-self.popularity, kind="stable")
        known = np.flatnonzero(np.isfinite(self.first_seen))
        self.by_first_seen = known[np.argsort(self.first_seen[known], kind="stable")]
        self.known_first_seen = self.first_seen[self.by_first_seen]
        self._row_of = dict(zip(self.item_ids.tolist(), range(len(self.item_ids)), strict=True))

    @classmethod
    def build(
        cls,
        item_ids: Iterable[str],
        vectors: ArrayLike,
        *,
        popularity: ArrayLike | None = None,
        first_seen: ArrayLike | None = None,
        encoder_name: str = "",
        encoder_fingerprint: str = "",
        kind: Literal["auto"] | Kind = "auto",
        device: Literal["auto"] | Device = "auto",
    ) -> Catalogue:
        """Return the catalogue of `item_ids` (n,) with `vectors` (n, d), and index it.

        `popularity` (n,) defaults to 0 for all, `first_seen` (n,) to unknown. Raises `InvalidVectors` for
        ids that are not text or occur twice and for columns that do not fit; `FaissIndex.build` says what
        `kind` and `device` mean.
        """
        ids = as_ids(item_ids)
        if ids.dtype.kind != "U":
            raise InvalidVectors(
                f"Item id {ids[0].item()!r} is an integer; the stage knows items by strings, and they would "
                "never meet. Pass `map(str, item_ids)`."
            )
        refuse_duplicates(ids)
        arrays = {
            "item_ids": ids,
            "vectors": unit_rows(vectors, ids),
            "popularity": _column("popularity", popularity, ids, 0.0),
            "first_seen": _column("first_seen", first_seen, ids, np.nan),
        }
        index = FaissIndex.build(arrays["vectors"], ids, kind, device)
        encoder = (encoder_name, encoder_fingerprint)
        return cls(arrays, index, encoder, _version(arrays, index.kind, *encoder))

    def __len__(self) -> int:
        return len(self.item_ids)

    def rows(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the row of each id, (m,), and -1 for ids that are not in the catalogue."""
        listed = item_ids.tolist() if isinstance(item_ids, np.ndarray) else list(item_ids)
        return np.fromiter(map(self._row_of.get, listed, repeat(-1)), np.int64, count=len(listed))

    def item_known(self, item_ids: Iterable[str]) -> NDArray[np.bool_]:
        """Return which ids are in the catalogue, (m,)."""
        return self.rows(item_ids) >= 0

    def save(self, folder: str | Path) -> None:
        """Write the catalogue and its index into `folder`, with a checksum for each file."""
        folder = Path(folder)
        self.index.save(folder / _INDEX)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        facts = {
            "format": _FORMAT,
            "version": self.version,
            "count": len(self),
            "encoder_name": self.encoder_name,
            "encoder_fingerprint": self.encoder_fingerprint,
        }
        files = [*(f"{name}.npy" for name in _ARRAYS), f"{_INDEX}/{INDEX_MANIFEST}"]
        write_manifest(folder / _MANIFEST, facts, files)

    @classmethod
    def load(cls, folder: str | Path, device: Literal["auto"] | Device = "auto") -> Catalogue:
        """Return the catalogue that `save` wrote; its vectors are memory-mapped.

        Raises `CorruptArtefact`, naming the file, where one is damaged, missing or of another format.
        """
        folder = Path(folder)
        facts = read_manifest(folder / _MANIFEST, _FORMAT)
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS[1:]}
        vectors = folder / f"{_ARRAYS[0]}.npy"
        # An empty file cannot be mapped.
        arrays[_ARRAYS[0]] = np.load(vectors, mmap_mode="r" if facts["count"] else None, allow_pickle=False)
        return cls(
            arrays,
            FaissIndex.load(folder / _INDEX, device),
            (facts["encoder_name"], facts["encoder_fingerprint"]),
            facts["version"],
        )


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


def _version(arrays: dict[str, NDArray[Any]], kind: str, name: str, fingerprint: str) -> str:
    digest = hashlib.sha256(f"{kind}\0{name}\0{fingerprint}".encode())
    for array_name in _ARRAYS:
        array = np.ascontiguousarray(arrays[array_name])
        digest.update(f"\0{array_name} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()[:16]
