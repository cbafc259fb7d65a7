"""Feast's serialised values, many at a time: what a backing store holds of one feature of many rows.

A cell is the serialised `Value` message of one feature of one row, `None` where the store has none. Parsing a
message at a time costs half a microsecond each; the few members that make up most features have encodings
simple enough to be read as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Cell: TypeAlias = bytes | None

# `FieldStatus` of Feast's serving protocol.
PRESENT: Final = 1
NULL_VALUE: Final = 2
NOT_FOUND: Final = 3
OUTSIDE_MAX_AGE: Final = 4

NO_TIME: Final = np.iinfo(np.int64).min
"""How Feast stores a missing time."""

NUMBER_TYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "int32_val": np.dtype(np.int32),
    "int64_val": np.dtype(np.int64),
    "double_val": np.dtype(np.float64),
    "float_val": np.dtype(np.float32),
    "bool_val": np.dtype(np.bool_),
    "unix_timestamp_val": np.dtype(np.int64),
}
"""Members of Feast's value message that are numbers, and the type of their column."""

# The first byte of a serialised value: field number << 3 | wire type.
_TAGS: Final = {
    "string_val": 0x12,
    "int32_val": 0x18,
    "int64_val": 0x20,
    "double_val": 0x29,
    "float_val": 0x35,
    "bool_val": 0x38,
    "unix_timestamp_val": 0x40,
}
_FIXED: Final = {"double_val": "<f8", "float_val": "<f4"}
_NULL_PREFIX: Final = b"\x98\x01"  # `null_val`, an explicit null
_LONGEST_VARINT: Final = 10


class OtherMember(ValueError):
    """A cell holds another member of the value message than its column was made for."""


@dataclass(frozen=True, slots=True)
class Split:
    """Cells by what they are."""

    status: NDArray[np.uint8]  # (n,) PRESENT, NULL_VALUE or NOT_FOUND
    positions: NDArray[np.int64] | slice
    """Where the present ones are."""
    present: Sequence[bytes]


def split(cells: Sequence[Cell]) -> Split:
    """Tell present cells from nulls and from what is not there."""
    if all(cells) and not any(cell[:2] == _NULL_PREFIX for cell in cells if cell is not None):
        return Split(np.full(len(cells), PRESENT, np.uint8), slice(None), cells)  # type: ignore[arg-type]  # none is None
    status = np.fromiter(
        (
            NOT_FOUND if cell is None else NULL_VALUE if not cell or cell[:2] == _NULL_PREFIX else PRESENT
            for cell in cells
        ),
        np.uint8,
        len(cells),
    )
    present = [cell for cell, state in zip(cells, status.tolist(), strict=True) if cell and state == PRESENT]
    return Split(status, np.flatnonzero(status == PRESENT), present)


def numbers(member: str, cells: Sequence[bytes]) -> NDArray[Any]:
    """Return the numbers of present cells, (n,) in the type of `NUMBER_TYPES`; raise `OtherMember`."""
    dtype = NUMBER_TYPES[member]
    if not cells:
        return np.zeros(0, dtype)
    if member in _FIXED:
        width = 1 + dtype.itemsize
        if set(map(len, cells)) != {width}:
            raise OtherMember(member)
        rows = np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), width)
        if (rows[:, 0] != _TAGS[member]).any():
            raise OtherMember(member)
        return np.ascontiguousarray(rows[:, 1:]).view(_FIXED[member]).ravel().astype(dtype, copy=False)
    return _varints(member, cells).astype(dtype)


def _varints(member: str, cells: Sequence[bytes]) -> NDArray[np.int64]:
    lengths = np.fromiter(map(len, cells), np.int64, len(cells))
    longest = int(lengths.max())
    buffer = np.frombuffer(b"".join(cells), np.uint8)
    starts = np.concatenate(([0], np.cumsum(lengths[:-1])))
    if lengths.min() < 2 or longest > 1 + _LONGEST_VARINT or (buffer[starts] != _TAGS[member]).any():
        raise OtherMember(member)
    found = np.zeros(len(cells), np.uint64)
    for place in range(1, longest):
        rows = np.flatnonzero(lengths > place)
        byte = buffer[starts[rows] + place]
        if ((byte & 0x80 != 0) != (lengths[rows] > place + 1)).any():
            raise OtherMember(member)
        found[rows] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * (place - 1))
    return found.view(np.int64)


def texts(cells: Sequence[bytes]) -> list[str]:
    """Return the texts of present cells; raise `OtherMember` where one holds something else."""
    tag = _TAGS["string_val"]
    if any(cell[0] != tag for cell in cells):
        raise OtherMember("string_val")
    # The length of a text takes a byte for each 7 bits of it.
    return [cell[2 if cell[1] < 0x80 else _after_length(cell) :].decode() for cell in cells]


def _after_length(cell: bytes) -> int:
    place = 1
    while cell[place] & 0x80:
        place += 1
    return place + 1
