"""Nearest neighbours by cosine: one small interface over FAISS's exact, quantised, graph and IVF indexes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval._faiss import GPU_MAX_K, GpuMirror, gpu_count, load_faiss, one_thread
from explorank.retrieval._files import read_manifest, write_manifest
from explorank.retrieval._locks import SharedLock
from explorank.retrieval._vectors import as_ids, refuse_duplicates, unit_rows
from explorank.retrieval.errors import CorruptArtefact, FaissUnavailable, InvalidOption, InvalidVectors

Ids: TypeAlias = NDArray[Any]
Labels: TypeAlias = NDArray[np.int64]
Similarities: TypeAlias = NDArray[np.float32]

Kind: TypeAlias = Literal["flat", "sq8", "hnsw", "ivf_sq8"]
"""`flat`: exact. `sq8`: 8 bits per dimension, scanned whole. `hnsw`: a graph, for items that rarely change.
`ivf_sq8`: 8 bits, and only the closest lists are scanned; for a million items."""
Device: TypeAlias = Literal["cpu", "gpu"]

_FORMAT: Final = "explorank.faiss_index/1"
INDEX_MANIFEST: Final = "index.json"
_INDEX_FILE: Final = "index.faiss"
_IDS_FILE: Final = "ids.npy"
_LIVE_FILE: Final = "live.npy"

_FLAT_UP_TO: Final = 10_000
_SQ8_UP_TO: Final = 100_000
_GPU_FLAT_UP_TO: Final = 1_000_000
_GPU_KINDS: Final = ("flat", "ivf_sq8")
_LEARNING_KINDS: Final = ("sq8", "ivf_sq8")
_LEAST_TO_LEARN_FROM: Final = 1_000
"""Fewer vectors do not span the value ranges that later ones take; those would be cut off."""
_HNSW_NEIGHBOURS: Final = 32
_HNSW_EF_CONSTRUCTION: Final = 200
_HNSW_EF_SEARCH: Final = 500
_POINTS_PER_LIST: Final = 39
"""Below this FAISS calls its k-means undersampled."""
_TUNED_RECALL: Final = 0.99


class FaissIndex:
    """Vectors by id, searched by cosine; safe for use from many threads.

    Searches run side by side; `add` and `remove` wait for them and run alone. Vectors and queries are
    normalised here, so similarities are cosines. On a GPU the index on the CPU stays the master and the GPU
    holds a copy, made anew at the first search after a change; one search at a time uses it.
    """

    def __init__(
        self, index: Any, *, kind: Kind, device: Device, nprobe: int | None, ids: Ids, live: NDArray[np.bool_]
    ) -> None:
        """Wrap a FAISS index whose label i is `ids[i]`, or nothing where `live[i]` is False.

        Use `build` or `load`.
        """
        self.kind: Final = kind
        self.device: Final = device
        self.dim: Final = int(index.d)
        self._index = index
        self._nprobe = nprobe
        self._ids = ids
        live_labels = np.flatnonzero(live)
        self._label_of: dict[Any, int] = dict(
            zip(ids[live_labels].tolist(), live_labels.tolist(), strict=True)
        )
        # A removed row's label is given to the next one added; the graph keeps its rows, so it cannot.
        self._free: list[int] = [] if kind == "hnsw" else np.flatnonzero(~live).tolist()
        self._hidden = len(ids) - len(live_labels) if kind == "hnsw" else 0
        self._live_bits = np.packbits(live, bitorder="little")
        self._lock = SharedLock()
        self._mirror: GpuMirror | None = None
        self._mirror_lock = Lock()

    @classmethod
    def build(
        cls,
        vectors: ArrayLike,
        ids: Iterable[Any],
        kind: Literal["auto"] | Kind = "auto",
        device: Literal["auto"] | Device = "auto",
    ) -> FaissIndex:
        """Return an index of `vectors` (n, d) by `ids` (n,), all strings or all integers.

        `kind="auto"` is exact up to 10,000 vectors, `sq8` up to 100,000 and `ivf_sq8` beyond; on a GPU exact
        up to a million. `ivf_sq8` tries out how many lists to scan, for a recall of 0.99 at 100.

        Raises `InvalidVectors` for NaN, infinity, a zero vector, an id that occurs twice; `InvalidOption`
        for a kind that cannot work here; `FaissUnavailable` where `device="gpu"` finds no GPU.
        """
        id_array = as_ids(ids)
        rows = unit_rows(vectors, id_array)
        refuse_duplicates(id_array)
        chosen_device = _choose_device(device, kind)
        chosen_kind = _choose_kind(kind, len(rows), chosen_device)
        index, nprobe = _make(chosen_kind, rows)
        return cls(
            index,
            kind=chosen_kind,
            device=chosen_device,
            nprobe=nprobe,
            ids=id_array,
            live=np.ones(len(rows), np.bool_),
        )

    def __len__(self) -> int:
        return len(self._label_of)

    def add(self, vectors: ArrayLike, ids: Iterable[Any]) -> None:
        """Add `vectors` (m, d) by `ids` (m,), all or none of them.

        Raises `InvalidVectors` as `build` does, and for an id that is in the index already.
        """
        id_array = as_ids(ids)
        rows = unit_rows(vectors, id_array)
        refuse_duplicates(id_array)
        if not len(rows):
            return
        self._check_dim(rows)
        with self._lock.writing():
            self._check_new(id_array)
            labels = self._take_labels(len(rows))
            if self.kind == "hnsw":
                self._index.add(rows)
            else:
                self._index.add_with_ids(rows, labels)
            self._store_ids(labels, id_array)
            self._label_of.update(zip(id_array.tolist(), labels.tolist(), strict=True))
            np.bitwise_or.at(self._live_bits, labels >> 3, _bit(labels))
            self._mirror = None

    def remove(self, ids: Iterable[Any]) -> int:
        """Remove `ids` and return how many were there; unknown ones are passed over.

        A graph (`hnsw`) cannot give rows back: they are never returned again, but keep their memory until
        the index is built anew.
        """
        wanted = dict.fromkeys(as_ids(ids).tolist())
        with self._lock.writing():
            found = [item for item in wanted if item in self._label_of]
            if not found:
                return 0
            labels = np.array([self._label_of.pop(item) for item in found], np.int64)
            np.bitwise_and.at(self._live_bits, labels >> 3, ~_bit(labels))
            if self.kind == "hnsw":
                self._hidden += len(labels)
            else:
                self._index.remove_ids(labels)
                self._free.extend(labels.tolist())
            self._mirror = None
            return len(labels)

    def search(self, queries: ArrayLike, k: int, exclude: Iterable[Any] = ()) -> tuple[Ids, Similarities]:
        """Return the ids and cosines of the `k` nearest items for each query, the nearest first.

        `queries` (q, d) give two arrays (q, m), a single query (d,) gives (m,), where m is `k` or as many
        items as there are, those in `exclude` not counted. Every answer is the id of an item in the index:
        there is no padding. Ids in `exclude` that are not in the index have no effect.

        Raises `InvalidVectors` for queries that are not finite, are zero or have another dimension.
        """
        if k < 0:
            raise InvalidOption(f"k={k} asks for fewer than no neighbours. Pass 0 or more.")
        query_array = np.asarray(queries)
        single = query_array.ndim == 1
        if single:
            query_array = query_array[None, :]
        rows = unit_rows(query_array, [f"query {row}" for row in range(len(query_array))])
        self._check_dim(rows)
        unwanted = as_ids(exclude)
        with self._lock.reading():
            excluded = self._labels_of(unwanted)
            count = min(k, len(self._label_of) - len(excluded))
            if count == 0 or len(rows) == 0:
                ids, similarities = np.empty((len(rows), 0), self._ids.dtype), np.empty((len(rows), 0), "f4")
            else:
                similarities, labels = self._nearest(rows, count, excluded)
                ids = self._ids[labels]
        return (ids[0], similarities[0]) if single else (ids, similarities)

    def save(self, path: str | Path) -> None:
        """Write the index into the folder `path`, with a checksum for each file."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock.reading():
            load_faiss().write_index(self._index, str(folder / _INDEX_FILE))
            live = np.zeros(len(self._ids), np.bool_)
            live[list(self._label_of.values())] = True
            np.save(folder / _IDS_FILE, self._ids, allow_pickle=False)
            np.save(folder / _LIVE_FILE, live, allow_pickle=False)
            facts = {
                "format": _FORMAT,
                "kind": self.kind,
                "metric": "cosine",
                "dim": self.dim,
                "count": len(self),
                "nprobe": self._nprobe,
            }
        write_manifest(folder / INDEX_MANIFEST, facts, (_INDEX_FILE, _IDS_FILE, _LIVE_FILE))

    @classmethod
    def load(cls, path: str | Path, device: Literal["auto"] | Device = "auto") -> FaissIndex:
        """Return the index that `save` wrote; raise `CorruptArtefact` naming the file that is not intact."""
        folder = Path(path)
        facts = read_manifest(folder / INDEX_MANIFEST, _FORMAT)
        kind: Kind = facts["kind"]
        index = load_faiss().read_index(str(folder / _INDEX_FILE))
        ids = np.load(folder / _IDS_FILE, allow_pickle=False)
        live = np.load(folder / _LIVE_FILE, allow_pickle=False)
        if index.d != facts["dim"] or index.ntotal != (len(ids) if kind == "hnsw" else facts["count"]):
            raise CorruptArtefact(
                f"{folder / _INDEX_FILE} holds {index.ntotal} vectors of {index.d} dimensions, "
                f"{INDEX_MANIFEST} says {facts['count']} of {facts['dim']}. Build the index again."
            )
        return cls(
            index,
            kind=kind,
            device=_choose_device(device, kind),
            nprobe=facts["nprobe"],
            ids=ids,
            live=live,
        )

    def _nearest(self, rows: NDArray[np.float32], k: int, excluded: Labels) -> tuple[Similarities, Labels]:
        """Return (q, k) similarities and labels; there are at least `k` items besides `excluded`."""
        if self.device == "gpu" and (found := self._nearest_on_gpu(rows, k, excluded)) is not None:
            return found
        selector = self._selector(excluded)
        with one_thread():
            similarities, labels = self._index.search(rows, k, params=self._parameters(selector, k))
            if (labels < 0).any():
                # The lists or the part of the graph that were looked at hold fewer: look everywhere.
                similarities, labels = self._search_everywhere(rows, k, selector)
        return similarities, labels

    def _nearest_on_gpu(
        self, rows: NDArray[np.float32], k: int, excluded: Labels
    ) -> tuple[Similarities, Labels] | None:
        """Return what the GPU's copy finds, or None where it cannot find `k` allowed items."""
        wanted = k + len(excluded)
        if wanted > GPU_MAX_K:
            return None
        with self._mirror_lock:
            if self._mirror is None:
                self._mirror = GpuMirror(self._index)
            similarities, labels = self._mirror.search(rows, wanted, self._nprobe)
        return drop_unwanted(similarities, labels, excluded, k)

    def _selector(self, excluded: Labels) -> Any | None:
        if not len(excluded) and not self._hidden:
            return None
        bits = self._live_bits
        if len(excluded):
            bits = bits.copy()
            np.bitwise_and.at(bits, excluded >> 3, ~_bit(excluded))
        return load_faiss().IDSelectorBitmap(bits)

    def _parameters(self, selector: Any | None, k: int) -> Any:
        faiss = load_faiss()
        if self.kind == "ivf_sq8":
            return faiss.SearchParametersIVF(sel=selector, nprobe=self._nprobe)
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=max(_HNSW_EF_SEARCH, 2 * k))
        return faiss.SearchParameters(sel=selector)

    def _search_everywhere(
        self, rows: NDArray[np.float32], k: int, selector: Any | None
    ) -> tuple[Similarities, Labels]:
        faiss = load_faiss()
        if self.kind == "hnsw":
            vectors = faiss.downcast_index(self._index.storage)
            found = vectors.search(rows, k, params=faiss.SearchParameters(sel=selector))
        else:
            everything = faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nlist)
            found = self._index.search(rows, k, params=everything)
        similarities, labels = found
        return similarities, labels

    def _take_labels(self, count: int) -> Labels:
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = range(len(self._ids), len(self._ids) + count - len(reused))
        return np.array([*reused, *fresh], np.int64)

    def _store_ids(self, labels: Labels, ids: Ids) -> None:
        stored = self._ids if self._label_of else np.zeros(len(self._ids), ids.dtype)
        grown = np.zeros(max(len(stored), int(labels.max()) + 1), np.promote_types(stored.dtype, ids.dtype))
        grown[: len(stored)] = stored
        grown[labels] = ids
        self._ids = grown
        missing = -(-len(grown) // 8) - len(self._live_bits)
        self._live_bits = np.concatenate([self._live_bits, np.zeros(missing, np.uint8)])

    def _labels_of(self, ids: Ids) -> Labels:
        self._check_type(ids)
        found = {self._label_of[item] for item in ids.tolist() if item in self._label_of}
        return np.fromiter(found, np.int64, count=len(found))

    def _check_type(self, ids: Ids) -> None:
        if self._label_of and len(ids) and ids.dtype.kind != self._ids.dtype.kind:
            raise InvalidVectors(
                f"The index knows its items by {_ID_NAMES[self._ids.dtype.kind]}, and {ids[0].item()!r} is "
                "of another type, so the two would never compare equal. Convert the ids."
            )

    def _check_new(self, ids: Ids) -> None:
        self._check_type(ids)
        known = next((item for item in ids.tolist() if item in self._label_of), None)
        if known is not None:
            raise InvalidVectors(
                f"Id {known!r} is in the index already; a second vector would make it appear twice. Remove "
                "it first to replace it. Nothing was added."
            )

    def _check_dim(self, rows: NDArray[np.float32]) -> None:
        if rows.shape[1] != self.dim:
            raise InvalidVectors(
                f"Vectors of {rows.shape[1]} dimensions for an index of {self.dim}; they come from different "
                "encoders and cannot be compared. Encode both with the same model."
            )


_ID_NAMES: Final = {"U": "strings", "i": "integers"}


def drop_unwanted(
    similarities: Similarities, labels: Labels, excluded: Labels, k: int
) -> tuple[Similarities, Labels] | None:
    """Return the first `k` allowed neighbours of each row, (q, k), or None where a row has fewer.

    Rows are in falling order of similarity; the label -1 stands for no neighbour.
    """
    allowed = (labels >= 0) & ~np.isin(labels, excluded)
    if (allowed.sum(axis=1) < k).any():
        return None
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(labels, order, 1)


def _bit(labels: Labels) -> NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (labels & 7).astype(np.uint8))


def _choose_device(device: str, kind: str) -> Device:
    if device not in ("auto", *get_args(Device)):
        raise InvalidOption(f"device={device!r} is none of auto, cpu and gpu. Name one of them.")
    runs_on_gpu = kind == "auto" or kind in _GPU_KINDS
    if device == "gpu":
        if not runs_on_gpu:
            raise InvalidOption(
                f"kind={kind!r} has no GPU form in FAISS. Use {' or '.join(_GPU_KINDS)}, or device='cpu'."
            )
        if gpu_count() == 0:
            raise FaissUnavailable(
                "device='gpu' was asked for, and FAISS sees no GPU: this is a CPU build, or there is no GPU "
                "or driver. Install `explorank[gpu]` on a machine with one, or use device='auto'."
            )
        return "gpu"
    return "gpu" if device == "auto" and runs_on_gpu and gpu_count() > 0 else "cpu"


def _choose_kind(kind: str, count: int, device: Device) -> Kind:
    if kind == "auto":
        if count <= (_FLAT_UP_TO if device == "cpu" else _GPU_FLAT_UP_TO):
            return "flat"
        return "sq8" if device == "cpu" and count <= _SQ8_UP_TO else "ivf_sq8"
    for known in get_args(Kind):
        if kind == known:
            if known in _LEARNING_KINDS and count < _LEAST_TO_LEARN_FROM:
                raise InvalidOption(
                    f"kind={kind!r} learns value ranges from its vectors, and {count} are too few: vectors "
                    f"added later would be cut off. Use 'auto' or 'flat' below {_LEAST_TO_LEARN_FROM}."
                )
            chosen: Kind = known
            return chosen
    raise InvalidOption(f"kind={kind!r} is none of auto, {', '.join(get_args(Kind))}. Name one of them.")


def _make(kind: Kind, rows: NDArray[np.float32]) -> tuple[Any, int | None]:
    """Return a FAISS index that holds `rows` under the labels 0 to n - 1, and for IVF the lists to scan."""
    faiss = load_faiss()
    dim = rows.shape[1]
    inner_product = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, _HNSW_NEIGHBOURS, inner_product)
        graph.hnsw.efConstruction = _HNSW_EF_CONSTRUCTION
        graph.add(rows)
        return graph, None
    labels = np.arange(len(rows))
    if kind == "ivf_sq8":
        lists = min(2 ** round(math.log2(4 * math.sqrt(len(rows)))), len(rows) // _POINTS_PER_LIST)
        ivf = faiss.index_factory(dim, f"IVF{lists},SQ8", inner_product)
        ivf.cp.max_points_per_centroid = 64
        ivf.train(rows)
        ivf.add_with_ids(rows, labels)
        return ivf, _tuned_nprobe(ivf, rows)
    flat = faiss.index_factory(dim, "IDMap2,Flat" if kind == "flat" else "IDMap2,SQ8", inner_product)
    if kind == "sq8":
        flat.train(rows)
    flat.add_with_ids(rows, labels)
    return flat, None


def _tuned_nprobe(index: Any, rows: NDArray[np.float32]) -> int:
    """Return the smallest power of two of lists whose scan finds 99 % of the true 100 nearest.

    Tried on items, and on means of five similar items, which is what users' interests look like.
    """
    faiss = load_faiss()
    rng = np.random.default_rng(0)
    items = rows[rng.choice(len(rows), 64, replace=False)]
    _, similar = faiss.knn(items, rows, 100, metric=faiss.METRIC_INNER_PRODUCT)
    interests = rows[similar[:, rng.choice(100, 5, replace=False)]].mean(axis=1)
    queries = np.concatenate([items, interests])
    _, truth = faiss.knn(queries, rows, 100, metric=faiss.METRIC_INNER_PRODUCT)
    nprobe = 1
    while nprobe < index.nlist:
        _, found = index.search(queries, 100, params=faiss.SearchParametersIVF(nprobe=nprobe))
        if np.mean([np.isin(truth[row], found[row]).mean() for row in range(len(queries))]) >= _TUNED_RECALL:
            break
        nprobe *= 2
    return min(nprobe, int(index.nlist))
