"""Ids from outside made a typed array, and the table that knows the label of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval import _id_kernels as kernels
from explorank.retrieval.errors import InvalidVectors

Ids: TypeAlias = NDArray[Any]
"""(n,) text or int64."""
Labels: TypeAlias = NDArray[np.int64]

_LEAST_SLOTS: Final = 16


def as_ids(ids: Iterable[Any]) -> Ids:
    """Return ids as an array (n,) of text or of int64; refuse mixtures, which NumPy would turn into text."""
    if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind == "U":
        return ids
    if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype == np.int64:
        return ids
    if isinstance(ids, str):
        raise InvalidVectors(f"{ids!r} is one id, not several; its letters would become ids. Pass [{ids!r}].")
    listed = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if not listed:
        return np.zeros(0, "<U1")
    if all(isinstance(item, str) for item in listed):
        if any(item.endswith("\0") for item in listed):
            raise InvalidVectors(
                "An id ends in a NUL character, which NumPy drops, so that it would equal another id. "
                "Strip it."
            )
        return np.array(listed)
    if any(isinstance(item, bool) or not isinstance(item, int | np.integer) for item in listed):
        odd = next(
            item for item in listed if isinstance(item, bool) or not isinstance(item, int | np.integer)
        )
        raise InvalidVectors(
            f"Ids are all strings or all integers, and {odd!r} ({type(odd).__name__}) is among them; ids of "
            "several types do not compare. Convert them all to strings."
        )
    try:
        return np.array(listed, np.int64)
    except OverflowError as error:
        raise InvalidVectors("An integer id does not fit into 64 bits. Pass it as a string.") from error


def refuse_duplicates(ids: Ids) -> None:
    """Raise `InvalidVectors` naming an id that occurs twice."""
    slots = np.full(_slots_for(len(ids)), kernels.EMPTY, np.int32)
    codes = _codes(ids)
    twice = kernels.put(codes, slots, np.arange(len(ids)))
    if not twice:
        return
    newest = np.empty(len(ids), np.int64)
    kernels.find_rows(codes, slots, codes, newest)
    first = int(np.flatnonzero(newest != np.arange(len(ids)))[0])
    raise InvalidVectors(
        f"Id {ids[first].item()!r} occurs more than once ({twice} rows too many); one of its vectors would hide the "
        "other. Keep one row per id."
    )


class IdTable:
    """Finds the label of an id; label i belongs to `ids[i]`.

    Beside the ids, which may be mapped from a file that several processes share, it holds 8 to 16 bytes for each.
    Reading is safe from many threads, changing it beside readers is not.
    """

    def __init__(self, ids: Ids, labels: Labels | None = None) -> None:
        """Know the labels of `ids` (n,), which differ; only those at `labels` (m,) where some are given."""
        kernels.warm_up()
        self._ids = np.asarray(ids)  # a plain array where it is mapped: its class would slow every use
        self._count = len(ids)
        self._codes = _codes(self._ids)
        self._enter_anew(np.arange(len(ids)) if labels is None else labels)

    @property
    def ids(self) -> Ids:
        """(n,) the id of each label."""
        return self._ids[: self._count]

    @property
    def holds_texts(self) -> bool:
        """Whether the ids are texts and not integers."""
        return self._ids.dtype.kind == "U"

    def find(self, ids: Iterable[Any]) -> Labels:
        """Return the label of each id, (m,), and -1 for what is not in here or no id at all."""
        if isinstance(ids, np.ndarray):
            wanted = as_ids(ids)
            labels = np.full(len(wanted), kernels.EMPTY)
            if wanted.dtype.kind == self._ids.dtype.kind:
                kernels.find_rows(self._codes, self._slots, _codes(wanted), labels)
            return labels
        listed = list(ids)
        if self.holds_texts and (found := self.find_texts(listed)) is not None:
            return found
        try:
            return self.find(as_ids(listed))
        except InvalidVectors:
            return np.array([self._find_anything(item) for item in listed], np.int64)

    def find_texts(self, texts: list[Any]) -> Labels | None:
        """Return the labels of plain texts, (m,), or None where something else is among them.

        NumPy's way, an array of texts made first, takes five times as long.
        """
        try:
            joined = "\0".join(texts)
        except TypeError:
            return None
        if joined.count("\0") != max(len(texts) - 1, 0):
            return None
        labels = np.empty(len(texts), np.int64)
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        kernels.find_texts(self._codes, self._slots, codes, labels)
        return labels

    def make_room(self, count: int, dtype: np.dtype[Any]) -> None:
        """Have labels for `count` ids of `dtype`; those that are new belong to no id yet."""
        wanted = np.promote_types(self._ids.dtype, dtype)
        if count > len(self._ids) or wanted != self._ids.dtype:
            grown = np.zeros(max(count, self._count + self._count // 2), wanted)
            grown[: self._count] = self.ids
            self._ids = grown
            self._codes = _codes(grown)
        self._count = max(self._count, count)

    def put(self, ids: Ids, labels: Labels, held: Callable[[], Labels]) -> None:
        """Give `labels` (m,) to `ids` (m,); an id that had another label has this one from now on.

        `held` returns all labels that count; it is asked where the table is full and has to be made anew.
        """
        self.make_room(int(labels.max(initial=-1)) + 1, ids.dtype)
        self._ids[labels] = ids
        self._entered += len(labels)
        if self._entered > len(self._slots) // 2:
            self._enter_anew(np.union1d(held(), labels))
        else:
            kernels.put(self._codes, self._slots, labels)

    def _find_anything(self, item: Any) -> int:
        try:
            return int(self.find(as_ids([item]))[0])
        except InvalidVectors:
            return kernels.EMPTY

    def _enter_anew(self, labels: Labels) -> None:
        self._slots = np.full(_slots_for(len(labels)), kernels.EMPTY, np.int32)
        self._entered = len(labels)
        kernels.put(self._codes, self._slots, labels)


def _slots_for(count: int) -> int:
    """Return a power of two of which `count` fills at most half, and leaves room for a third more."""
    return max(_LEAST_SLOTS, 1 << (count * 8 // 3).bit_length())


def _codes(ids: Ids) -> NDArray[np.uint32]:
    """Return ids (n,) as rows (n, width) of code units, without a copy where they can be written to."""
    native = np.ascontiguousarray(ids, ids.dtype.newbyteorder("="))
    # Numba compiles a function anew for arrays that are read-only.
    writeable = native if native.flags.writeable else native.copy()
    return writeable.view(np.uint32).reshape(len(ids), ids.dtype.itemsize // 4)
