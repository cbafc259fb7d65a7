"""An index in a folder: FAISS's own file, the id and state of each label, and a sealed manifest."""

from __future__ import annotations

import os
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._faiss import load_faiss
from explorank.retrieval._files import Checksums, read_manifest, replace_file, write_manifest
from explorank.retrieval._full_vectors import FullVectors
from explorank.retrieval._ids import Ids
from explorank.retrieval._index_kinds import Effort, Kind, Vectors
from explorank.retrieval.errors import CorruptArtefact
from explorank.retrieval.index_tuning import Tuning

Memory: TypeAlias = Literal["mapped", "copied"]
"""`mapped`: read from the file as it is used, and shared by all processes that map it. `copied`: held by this one."""

INDEX_MANIFEST: Final = "index.json"
_FORMAT: Final = "explorank.faiss_index/2"
_INDEX_FILE: Final = "index.faiss"
_IDS_FILE: Final = "ids.npy"
_STATES_FILE: Final = "states.npy"
_VECTORS_FILE: Final = "vectors.npy"

FREE: Final = 0
"""The label is nobody's; the next item added may have it."""
LIVE: Final = 1
REMOVED: Final = 2
"""The item was removed, and its row still lies in the FAISS index."""


class MappedFile:
    """A file of a FAISS index, open as long as this lives; so it can be read again when its name is gone."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self.index: Final = load_faiss().read_index(str(path), load_faiss().IO_FLAG_MMAP_IFC)
        """Searchable from any thread. FAISS ends the process when it is changed: change a `copied` one."""

    def copied(self) -> Any:
        """Return the index anew, in memory of its own."""
        faiss = load_faiss()
        offset = 0

        def read(size: int) -> bytes:
            # Never by the handle's own position, which forked processes share.
            nonlocal offset
            part = os.pread(self._handle, size, offset)
            offset += len(part)
            return part

        return faiss.read_index(faiss.PyCallbackIOReader(read, 1 << 24))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIndex:
    """What an index is made of."""

    index: Any
    """A FAISS index of `dim` dimensions, whose labels are the positions in `ids`."""
    kind: Kind
    effort: Effort
    ids: Ids
    """(labels,) the item of each label; of a free or removed one, the last it had."""
    states: NDArray[np.uint8]
    """(labels,) `FREE`, `LIVE` or `REMOVED`."""
    trained_on: int
    """How many vectors the lists, value ranges and effort were learnt from."""
    changed: int = 0
    """How many rows were added or removed since."""
    tuning: Tuning | None = None
    mapped: MappedFile | None = None
    """The file that `index` is mapped from; None where it is in memory."""
    full: FullVectors | None = None
    """The vectors of `ivf_pq`; None for other kinds, which need nothing beside `index`."""


def save_index(folder: Path, stored: StoredIndex, *, with_vectors: bool) -> None:
    """Write `stored` into `folder`, its full vectors where it has such and `with_vectors` says so.

    What another process maps of the files before stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / _INDEX_FILE) as path:
        load_faiss().write_index(stored.index, str(path))
    for name, array in ((_IDS_FILE, stored.ids), (_STATES_FILE, stored.states)):
        with replace_file(folder / name) as path, path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    files = [_INDEX_FILE, _IDS_FILE, _STATES_FILE]
    if stored.full is not None and with_vectors:
        with replace_file(folder / _VECTORS_FILE) as path:
            stored.full.save(path, len(stored.ids))
        files.append(_VECTORS_FILE)
    else:
        (folder / _VECTORS_FILE).unlink(missing_ok=True)
    facts = {
        "format": _FORMAT,
        "kind": stored.kind,
        "effort": asdict(stored.effort),
        "metric": "cosine",
        "dim": int(stored.index.d),
        "count": int((stored.states == LIVE).sum()),
        "trained_on": stored.trained_on,
        "changed": stored.changed,
        "tuning": None if stored.tuning is None else stored.tuning.to_dict(),
        "with_vectors": _VECTORS_FILE in files,
    }
    write_manifest(folder / INDEX_MANIFEST, facts, files)


def load_index(
    folder: Path, memory: Memory, vectors: Vectors | None = None, checksums: Checksums | None = None
) -> StoredIndex:
    """Return what `save_index` wrote, with `vectors` (n, d) where it left out the full ones.

    Raises `CorruptArtefact` naming the file that is not intact.
    """
    facts = read_manifest(folder / INDEX_MANIFEST, _FORMAT, checksums)
    kind: Kind = facts["kind"]
    mapped = MappedFile(folder / _INDEX_FILE) if memory == "mapped" else None
    index = load_faiss().read_index(str(folder / _INDEX_FILE)) if mapped is None else mapped.index
    # Mapped privately: what is changed here is nobody else's.
    mode: Any = "c" if mapped is not None and facts["count"] else None
    ids = np.load(folder / _IDS_FILE, mmap_mode=mode, allow_pickle=False)
    states = np.load(folder / _STATES_FILE, allow_pickle=False)
    rows = int((states != FREE).sum())
    if index.d != facts["dim"] or index.ntotal != rows or len(ids) != len(states):
        raise CorruptArtefact(
            f"{folder / _INDEX_FILE} holds {index.ntotal} vectors of {index.d} dimensions, {INDEX_MANIFEST} and "
            f"{_STATES_FILE} say {rows} of {facts['dim']}. Build the index again."
        )
    return StoredIndex(
        index=index,
        kind=kind,
        effort=Effort(**facts["effort"]),
        ids=ids,
        states=states,
        trained_on=facts["trained_on"],
        changed=facts["changed"],
        tuning=None if facts["tuning"] is None else Tuning.of(facts["tuning"]),
        mapped=mapped,
        full=None if kind != "ivf_pq" else _full_vectors(folder, facts, mode, vectors, (len(ids), index.d)),
    )


def _full_vectors(
    folder: Path, facts: dict[str, Any], mode: Any, given: Vectors | None, shape: tuple[int, int]
) -> FullVectors:
    if facts["with_vectors"]:
        given = np.load(folder / _VECTORS_FILE, mmap_mode=mode, allow_pickle=False)
    if given is None:
        raise CorruptArtefact(
            f"{folder} holds an index of codes, saved without the vectors that it compares the closest by; it "
            "cannot answer without them. Pass them as `vectors`, or save it with them."
        )
    if given.shape != shape:
        raise CorruptArtefact(
            f"The vectors for the index in {folder} have the shape {given.shape}, and it has the shape {shape}; "
            "they belong to another. Pass those it was built from, or build it again."
        )
    return FullVectors(given)
