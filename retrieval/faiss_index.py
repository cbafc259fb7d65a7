"""Nearest neighbours by cosine: one small interface over FAISS's exact, quantised, graph and IVF indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval._faiss import load_faiss, one_thread
from explorank.retrieval._files import Checksums
from explorank.retrieval._full_vectors import FullVectors
from explorank.retrieval._gpu import GpuOptions, GpuSearcher, most_neighbours
from explorank.retrieval._huge_pages import move_lists
from explorank.retrieval._ids import Ids, Labels, as_ids, refuse_duplicates
from explorank.retrieval._index_files import LIVE, Memory, StoredIndex, load_index, save_index
from explorank.retrieval._index_kinds import (
    IVF_KINDS,
    KINDS_THAT_KEEP_ROWS,
    Device,
    Effort,
    Kind,
    add,
    candidate_kinds,
    choose_device,
    make,
)
from explorank.retrieval._index_search import IndexSearch
from explorank.retrieval._labels import NOTHING, LabelBook
from explorank.retrieval._locks import SharedLock
from explorank.retrieval._vectors import unit_query, unit_rows
from explorank.retrieval.errors import InvalidOption, InvalidVectors
from explorank.retrieval.index_tuning import Progress, tune_index

Similarities: TypeAlias = NDArray[np.float32]

_ROWS_PER_TURN: Final = 256
"""So many rows are added before searches have their turn again: some 10 ms for a million items."""
_LEAST_SURPLUS: Final = 24
_ROWS_PER_SURPLUS: Final = {"flat": 200, "sq8": 200, "ivf_pq": 200, "ivf_sq8": 32, "ivf_flat": 32}
"""One neighbour more costs some 0.3 µs, about as much as asking a selector about so many rows. Lists hold their rows
in no order, so there the selector's bits are looked up here and there; `ivf_pq` asks about few rows."""
_PURGE_AT: Final = 0.1
"""The share of removed rows that is carried along; FAISS looks at every row to remove some."""
_REBUILD_AT: Final = 0.3


class FaissIndex:
    """Vectors by id, searched by cosine; safe for use from many threads.

    Searches run side by side. `add`, `update` and `remove` run one at a time, between searches: each search sees all
    of a change or nothing of it. Vectors and queries are normalised here, so similarities are cosines. What another
    process loaded from the same files is not changed; publish a new index for that.

    On a GPU the index on the CPU stays the master and the GPU holds a copy. The copy is made anew in the background
    after additions, and the CPU answers until it is there.
    """

    def __init__(self, stored: StoredIndex, device: Device = "cpu", gpu: GpuSearcher | None = None) -> None:
        """Take what an index is made of; use `build` or `load`."""
        self.kind: Final = stored.kind
        self.device: Final = device
        self.dim: Final = int(stored.index.d)
        self.effort: Final = stored.effort
        self.tuning: Final = stored.tuning
        """What was tried when the index was built; None for an empty one."""
        self._trained_on = stored.trained_on
        self._changed = stored.changed
        self._index = self._ready(stored.index)
        self._mapped = stored.mapped
        self._book = LabelBook(stored.ids, stored.states)
        self._full = stored.full
        self._asking = IndexSearch(self.kind, self.effort, stored.full)
        self._as_built = stored.changed == 0
        self._generation = 0
        self._gpu = gpu
        self._most_on_gpu = most_neighbours(self.kind, self.dim)
        self._lock = SharedLock()
        self._changing = Lock()

    @classmethod
    def build(
        cls,
        vectors: ArrayLike,
        ids: Iterable[Any],
        kind: Literal["auto"] | Kind = "auto",
        device: Literal["auto"] | Device = "auto",
        *,
        recall: float = 0.99,
        neighbours: int = 100,
        tune_s: float = 60.0,
        interests: ArrayLike | None = None,
        gpu: GpuOptions | None = None,
        progress: Progress | None = None,
    ) -> FaissIndex:
        """Return an index of `vectors` (n, d) by `ids` (n,), all strings or all integers.

        `kind="auto"` is exact up to 10,000 vectors (on a GPU up to 100,000). Beyond, it takes the fastest kind
        that finds the share `recall` of the true `neighbours` nearest, tried out on these vectors for up to
        `tune_s` seconds; `tuning` tells what came of it. `interests` (u, d) are vectors that users will search by,
        a hundred or more of them drawn at random; without, means of a few items stand in for them. Unit rows in
        float32 are read where they are, so that `vectors` may be a memory map. `progress` is told what begins.

        Raises `InvalidVectors` for NaN, infinity, a zero vector, an id that occurs twice; `InvalidOption`
        for a kind that cannot work here; `FaissUnavailable` where `device="gpu"` finds no GPU.
        """
        id_array = as_ids(ids)
        rows = unit_rows(vectors, id_array)
        refuse_duplicates(id_array)
        sought = None if interests is None else unit_rows(interests, np.arange(len(np.asarray(interests))))
        chosen_device = choose_device(device, kind)
        kinds = candidate_kinds(kind, len(rows), rows.shape[1], chosen_device)
        if len(rows):
            tuned = tune_index(
                rows,
                kinds,
                recall=recall,
                neighbours=neighbours,
                budget_s=tune_s,
                interests=sought,
                progress=progress,
            )
            chosen_kind, effort, index, tuning = tuned.kind, tuned.effort, tuned.index, tuned.tuning
        else:
            chosen_kind, effort, index, tuning = kinds[0], Effort(), make(kinds[0], rows), None
        stored = StoredIndex(
            index=index,
            kind=chosen_kind,
            effort=effort,
            ids=id_array.copy(),
            states=np.full(len(rows), LIVE, np.uint8),
            trained_on=len(rows),
            tuning=tuning,
            full=FullVectors(rows) if chosen_kind == "ivf_pq" else None,
        )
        return cls(stored, chosen_device, _searcher(chosen_device, gpu))

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: Literal["auto"] | Device = "auto",
        *,
        memory: Memory = "mapped",
        vectors: ArrayLike | None = None,
        checksums: Checksums | None = None,
        gpu: GpuOptions | None = None,
    ) -> FaissIndex:
        """Return the index that `save` wrote; raise `CorruptArtefact` naming the file that is not intact.

        `memory="mapped"` reads the file as it is used, and several processes share it. Removing from such an index
        costs nothing; the first `add` or `update` makes a copy of it in this process's own memory. Of `ivf_pq`
        the codes are copied in any case, a byte for every four dimensions.
        `vectors` (n, d) are the unit rows in float32 that the index was built from, where `save` left them out.
        `checksums`, where the files were read just before, spare reading them again.
        """
        given = None if vectors is None else np.asarray(vectors, np.float32)
        stored = load_index(Path(path), memory, given, checksums)
        chosen_device = choose_device(device, stored.kind)
        return cls(stored, chosen_device, _searcher(chosen_device, gpu))

    def __len__(self) -> int:
        return self._book.count

    @property
    def is_mapped(self) -> bool:
        """Whether the vectors are read from the file they were loaded from, which processes share."""
        return self._mapped is not None

    @property
    def compares_again(self) -> bool:
        """Whether the similarities that `search` tells are to the last bit those of `Catalogue.cosines`."""
        return self._full is not None

    @property
    def changed_share(self) -> float:
        """How many rows were added or removed since the index was built, relative to how many it was built from."""
        return self._changed / max(1, self._trained_on)

    @property
    def rebuild_advised(self) -> bool:
        """Whether so much changed that another index would serve better.

        Lists, value ranges and the effort were learnt from the vectors at the time, and a graph keeps what was
        removed. An exact index learns nothing, and never needs to be built anew.
        """
        return self.kind != "flat" and self.changed_share > _REBUILD_AT

    @property
    def gpu_error(self) -> Exception | None:
        """Why the GPU does not answer, where it does not; the CPU does then."""
        return None if self._gpu is None else self._gpu.error

    def add(self, vectors: ArrayLike, ids: Iterable[Any]) -> None:
        """Add `vectors` (m, d) by `ids` (m,), all or none of them.

        Raises `InvalidVectors` as `build` does, and for an id that is in the index already.
        """
        self._put(vectors, ids, self._refuse_known)

    def update(self, vectors: ArrayLike, ids: Iterable[Any]) -> int:
        """Replace the vectors of `ids` (m,) by `vectors` (m, d) and return how many there were to replace.

        Ids that are not in the index are added. A search sees all old vectors or all new ones, never both of an
        item, never neither. Raises `InvalidVectors` as `build` does.
        """
        return self._put(vectors, ids, lambda _: None)

    def remove(self, ids: Iterable[Any]) -> int:
        """Remove `ids` and return how many were there; unknown ones are passed over.

        The next search does not find them. Their rows give their memory back once they are a tenth of all; `hnsw` and
        `ivf_pq` keep them until they are built anew, and a mapped index until it is copied.
        """
        wanted = as_ids(ids)
        with self._changing:
            labels = self._book.find(wanted)
            if not len(labels):
                return 0
            with self._lock.writing():
                self._book.hide(labels)
            self._changed += len(labels)
            self._purge()
            return len(labels)

    def search(self, queries: ArrayLike, k: int, exclude: Iterable[Any] = ()) -> tuple[Ids, Similarities]:
        """Return the ids and cosines of the `k` nearest items for each query, the nearest first.

        `queries` (q, d) give two arrays (q, m), a single query (d,) gives (m,), where m is `k` or as many
        items as there are, those in `exclude` not counted. Every answer is the id of an item in the index:
        there is no padding. Ids in `exclude` that are not in the index have no effect.

        Raises `InvalidVectors` for queries that are not finite, are zero or have another dimension.
        """
        return self._search(queries, k, exclude, lambda labels: self._book.ids[labels])

    def search_rows(
        self, queries: ArrayLike, k: int, exclude: Iterable[Any] = ()
    ) -> tuple[NDArray[np.int64], Similarities] | None:
        """Do what `search` does, and say of each item its row among those that the index was built from.

        Returns `None` once anything was added or updated: what is found may have no such row then.
        """
        return self._search(queries, k, exclude, lambda labels: labels) if self._as_built else None

    def _search(
        self,
        queries: ArrayLike,
        k: int,
        exclude: Iterable[Any],
        named: Callable[[Labels], NDArray[Any]],
    ) -> tuple[NDArray[Any], Similarities]:
        if k < 0:
            raise InvalidOption(f"k={k} asks for fewer than no neighbours. Pass 0 or more.")
        query_array = np.asarray(queries)
        single = query_array.ndim == 1
        rows = (
            unit_query(query_array)
            if single and query_array.size
            else unit_rows(query_array, [f"query {row}" for row in range(len(query_array))])
        )
        self._check_dim(rows)
        unwanted = exclude if isinstance(exclude, np.ndarray) else list(exclude)
        with self._lock.reading():
            excluded = self._book.find(unwanted) if len(unwanted) else NOTHING
            count = min(k, self._book.count - len(excluded))
            if count == 0 or len(rows) == 0:
                labels, similarities = np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), "f4")
            else:
                similarities, labels = self._nearest(rows, count, excluded)
            found = named(labels)
        return (found[0], similarities[0]) if single else (found, similarities)

    def save(self, path: str | Path, *, with_vectors: bool = True) -> None:
        """Write the index into the folder `path`, with a checksum for each file.

        `with_vectors=False` leaves out the vectors that `ivf_pq` compares again, for who keeps them and passes them
        to `load`. They are written all the same once anything was added or updated.

        Over an older index there, each file takes the place of its predecessor when it is complete, the manifest
        last; who reads in between is told that the files do not belong together. `ArtefactStore` publishes whole
        folders at once.
        """
        with self._changing:  # searches go on
            stored = StoredIndex(
                index=self._index,
                kind=self.kind,
                effort=self.effort,
                ids=self._book.ids,
                states=self._book.states(),
                trained_on=self._trained_on,
                changed=self._changed,
                tuning=self.tuning,
                full=self._full,
            )
            save_index(Path(path), stored, with_vectors=with_vectors or not self._as_built)

    def _nearest(
        self, rows: NDArray[np.float32], k: int, excluded: Labels
    ) -> tuple[Similarities, NDArray[np.int64]]:
        """Return (q, k) similarities and labels; there are at least `k` items besides `excluded`."""
        surplus = len(excluded) + self._book.expected_hidden(k)
        if self._gpu is not None and (found := self._nearest_on_gpu(rows, k, excluded, surplus)) is not None:
            return found
        with one_thread():
            if surplus <= self._most_surplus():
                similarities, labels = self._asking.nearest(self._index, rows, k + surplus)
                if not surplus and _full(labels):
                    return similarities, labels
                if surplus and (found := self._book.allowed(similarities, labels, excluded, k)) is not None:
                    return found
            bits = self._book.bits(excluded)
            selector = None if bits is None else load_faiss().IDSelectorBitmap(bits)
            similarities, labels = self._asking.nearest(self._index, rows, k, selector)
            if not _full(labels):
                # The lists or the part of the graph that were looked at hold fewer: look everywhere.
                similarities, labels = self._asking.nearest_of_all(self._index, rows, k, selector)
        return similarities, labels

    def _nearest_on_gpu(
        self, rows: NDArray[np.float32], k: int, excluded: Labels, surplus: int
    ) -> tuple[Similarities, NDArray[np.int64]] | None:
        """Return what the GPU's copy finds, or None where it is not of now or cannot find `k` allowed items."""
        gpu = self._gpu
        assert gpu is not None  # noqa: S101 - asked before, for the type checker
        if k + surplus > self._most_on_gpu:
            return None
        if gpu.generation != self._generation:
            gpu.copy(self._generation, self._read)
            return None
        found = gpu.search(rows, k + surplus)
        return None if found is None else self._book.allowed(*found, excluded, k)

    def _read(self, use: Callable[[Any], None]) -> int:
        with self._lock.reading():
            use(self._index)
            return self._generation

    def _most_surplus(self) -> int:
        """Return up to how many neighbours too many are asked for, to be dropped here, rather than filtered in FAISS.

        A selector is asked for every row that is scanned; what is asked for too much costs the same however many
        are. A graph looks at twice as many nodes for each.
        """
        if self.kind == "hnsw":
            return _LEAST_SURPLUS
        rows = self._book.count + self._book.hidden
        if self.effort.lists is not None:
            rows = rows * self.effort.lists // int(self._index.nlist)
        return max(_LEAST_SURPLUS, rows // _ROWS_PER_SURPLUS[self.kind])

    def _put(self, vectors: ArrayLike, ids: Iterable[Any], check: Callable[[Ids], None]) -> int:
        id_array = as_ids(ids)
        rows = unit_rows(vectors, id_array)
        refuse_duplicates(id_array)
        if not len(rows):
            return 0
        self._check_dim(rows)
        with self._changing:
            self._book.check_type(id_array)
            check(id_array)
            self._own()
            self._as_built = False
            with self._lock.writing():
                labels = self._book.reserve(id_array)
            self._append(rows, labels)
            with self._lock.writing():
                # All at once: until here the new rows were hidden and the old ones were found.
                replaced = self._book.show(id_array, labels)
            self._changed += len(labels) + replaced
            self._purge()
            return replaced

    def _append(self, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Put rows into the FAISS index, hidden; searches have their turns in between."""
        done = 0
        try:
            while done < len(rows):
                part = slice(done, done + _ROWS_PER_TURN)
                with self._lock.writing():
                    if self._full is not None:
                        self._full.put(labels[part], rows[part])
                    add(self._index, self.kind, rows[part], labels[part])
                    self._book.hidden += len(rows[part])
                    self._generation += 1
                done += len(rows[part])
        except BaseException:
            self._book.give_up(labels[:done], labels[done:])
            raise

    def _ready(self, index: Any) -> Any:
        """Return `index` as it is to be searched from here on."""
        if self.kind in IVF_KINDS:
            index.nprobe = self.effort.lists  # a copy on a GPU takes it over from here
        if self.kind == "ivf_pq":
            move_lists(index)
        return index

    def _own(self) -> None:
        """Make the index this process's own, while searches go on in the file."""
        if self._mapped is None:
            return
        index = self._ready(self._mapped.copied())
        with self._lock.writing():
            self._index = index
            self._mapped = None
        self._purge()

    def _purge(self) -> None:
        """Give the removed rows' memory back where they are many."""
        removed = self._book.removed
        few = len(removed) <= _PURGE_AT * (self._book.count + len(removed))
        if few or self.kind in KINDS_THAT_KEEP_ROWS or self._mapped is not None:
            return
        with self._lock.writing():
            self._index.remove_ids(np.fromiter(removed, np.int64, len(removed)))
            self._book.purged()
            self._generation += 1

    def _refuse_known(self, ids: Ids) -> None:
        known = self._book.find(ids)
        if len(known):
            raise InvalidVectors(
                f"Id {self._book.ids[known[0]].item()!r} is in the index already; a second vector would make it "
                "appear twice. Use `update` to replace it. Nothing was added."
            )

    def _check_dim(self, rows: NDArray[np.float32]) -> None:
        if rows.shape[1] != self.dim:
            raise InvalidVectors(
                f"Vectors of {rows.shape[1]} dimensions for an index of {self.dim}; they come from different "
                "encoders and cannot be compared. Encode both with the same model."
            )


def _full(labels: NDArray[np.int64]) -> bool:
    """Return whether every row (q, k) has k neighbours; where there are fewer, the last label is -1."""
    return labels.item(-1) >= 0 if len(labels) == 1 else bool((labels[:, -1] >= 0).all())


def _searcher(device: Device, options: GpuOptions | None) -> GpuSearcher | None:
    return GpuSearcher(options or GpuOptions()) if device == "gpu" else None
