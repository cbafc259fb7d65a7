"""Typed columns: the values of one feature, by slot.

A slot is written once and never again: a row that changes gets a new one. So a reader that knows a row's slot
reads it whole, however many writers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.online_response import _convert_uuids_for_arrow
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from feast.value_type import ValueType
from numpy.typing import NDArray

from explorank.retrieval.columnar_store import cells as cell_codec
from explorank.retrieval.columnar_store.cells import NO_TIME, NOT_FOUND, NUMBER_TYPES, PRESENT, Cell

Slots: TypeAlias = NDArray[np.int64]

COLD: Final = 0
"""The slot of rows that were never loaded."""
ABSENT: Final = 1
"""The slot of rows that the backing store is known not to have."""
NO_TEXT: Final = -1
"""The code of rows without a text."""
FIRST: Final = 2
"""The first slot of a real row."""

_BYTES_OBJECT: Final = 33  # what CPython adds to the content of a `bytes`
_TEXT_OBJECT: Final = 49
_MEMBERS: Final = {
    ValueType.INT32: "int32_val",
    ValueType.INT64: "int64_val",
    ValueType.DOUBLE: "double_val",
    ValueType.FLOAT: "float_val",
    ValueType.BOOL: "bool_val",
    ValueType.UNIX_TIMESTAMP: "unix_timestamp_val",
    ValueType.STRING: "string_val",
}
# Beyond these seconds pandas has no nanoseconds left and keeps objects.
_PANDAS_SECONDS: Final = (-9_223_372_036, 9_223_372_036)


class Column(Protocol):
    """The values of one feature; every method takes slots (n,) and answers in their order."""

    status: NDArray[np.uint8]  # (capacity,)

    @property
    def nbytes(self) -> int:
        """Bytes held, those of Python's objects included."""

    def reserve(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""

    def write(self, first: int, cells: Sequence[Cell]) -> None:
        """Fill the slots from `first` on; raises `OtherMember` if a cell has another type than the column."""

    def python(self, slots: Slots) -> list[Any]:
        """Return what Feast's `to_dict` has, whatever the status."""

    def frame(self, slots: Slots) -> Any:
        """Return what a data frame has, of slots that are all present."""

    def arrow(self, slots: Slots, missing: NDArray[np.bool_] | None) -> pa.Array:
        """Return an Arrow array, null where `missing`."""

    def messages(self, slots: Slots) -> list[Value]:
        """Return Feast's value messages, whatever the status."""

    def stored(self, slots: Slots) -> list[Cell]:
        """Return the cells again."""


def column_for(kind: ValueType, capacity: int) -> Column:
    """Return an empty column for a feature of the declared type."""
    member = _MEMBERS.get(kind)
    if member is None:
        return MessageColumn(kind, capacity)
    return TextColumn(capacity) if member == "string_val" else NumberColumn(member, capacity)


class NumberColumn:
    """Numbers, booleans and times in their own type."""

    def __init__(self, member: str, capacity: int) -> None:
        self.member = member
        self.is_time = member == "unix_timestamp_val"
        self.values = np.zeros(capacity, NUMBER_TYPES[member])
        self.status = np.full(capacity, NOT_FOUND, np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.values.nbytes + self.status.nbytes)

    def reserve(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        self.values = grown(self.values, capacity, 0)
        self.status = grown(self.status, capacity, NOT_FOUND)

    def write(self, first: int, cells: Sequence[Cell]) -> None:
        """Fill the slots from `first` on."""
        parts = cell_codec.split(cells)
        values = self.values[first : first + len(cells)]
        values[parts.positions] = cell_codec.numbers(self.member, parts.present)
        self.status[first : first + len(cells)] = parts.status

    def python(self, slots: Slots) -> list[Any]:
        """Return what `to_dict` has."""
        values: list[Any] = self.values[slots].tolist()
        if self.is_time:
            return [None if value == NO_TIME else datetime.fromtimestamp(value, UTC) for value in values]
        return values

    def frame(self, slots: Slots) -> Any:
        """Return what a data frame has."""
        values = self.values[slots]
        if not self.is_time:
            # Feast's data frames are made of Python's numbers, which have one width.
            wide = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}.get(values.dtype)
            return values if wide is None else values.astype(wide)
        missing = values == NO_TIME
        known = values[~missing]
        if not len(known) or known.min() < _PANDAS_SECONDS[0] or known.max() > _PANDAS_SECONDS[1]:
            return self.python(slots)
        times = values.astype("datetime64[s]")
        times[missing] = np.datetime64("NaT")
        return pd.DatetimeIndex(times.astype("datetime64[ns]"), tz="UTC")

    def arrow(self, slots: Slots, missing: NDArray[np.bool_] | None) -> pa.Array:
        """Return an Arrow array."""
        values = self.values[slots]
        if self.is_time:
            missing = (values == NO_TIME) | (False if missing is None else missing)
            if missing.all():
                return pa.nulls(len(values))
            times = pa.array(np.where(missing, 0, values), mask=missing)
            return times.cast(pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
        wide = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}.get(values.dtype)
        return pa.array(values if wide is None else values.astype(wide), mask=missing)

    def messages(self, slots: Slots) -> list[Value]:
        """Return Feast's messages."""
        member = self.member
        return [Value(**{member: value}) for value in self.values[slots].tolist()]

    def stored(self, slots: Slots) -> list[Cell]:
        """Return the cells again."""
        return _serialized(self.messages(slots), self.status[slots])


class TextColumn:
    """Texts as codes of the distinct ones: an append-only list, so that a code keeps its meaning."""

    def __init__(self, capacity: int) -> None:
        self.codes = np.full(capacity, NO_TEXT, np.int32)
        self.status = np.full(capacity, NOT_FOUND, np.uint8)
        self.texts: list[str] = []
        self._code_of: dict[str, int] = {}
        self._objects = np.empty(0, object)
        self._text_bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        # The list, the array and the dictionary each point at a text.
        return self.codes.nbytes + self.status.nbytes + self._text_bytes + 120 * len(self.texts)

    def reserve(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        self.codes = grown(self.codes, capacity, NO_TEXT)
        self.status = grown(self.status, capacity, NOT_FOUND)

    def write(self, first: int, cells: Sequence[Cell]) -> None:
        """Fill the slots from `first` on."""
        parts = cell_codec.split(cells)
        texts = cell_codec.texts(parts.present)
        code_of = self._code_of
        fresh = [text for text in dict.fromkeys(texts) if text not in code_of]
        if fresh:
            known = len(self.texts)
            objects = self._objects
            if known + len(fresh) > len(objects):
                objects = grown(objects, max(2 * len(objects), known + len(fresh)), None)
            objects[known : known + len(fresh)] = fresh
            self._objects = objects
            self.texts.extend(fresh)
            code_of.update(zip(fresh, range(known, known + len(fresh)), strict=True))
            self._text_bytes += sum(map(len, fresh)) + _TEXT_OBJECT * len(fresh)
        codes = self.codes[first : first + len(cells)]
        codes[parts.positions] = [code_of[text] for text in texts]
        self.status[first : first + len(cells)] = parts.status

    def python(self, slots: Slots) -> list[Any]:
        """Return what `to_dict` has."""
        if not self.texts:
            return [None] * len(slots)
        found: list[Any] = self._objects[self.codes[slots]].tolist()
        return found

    def frame(self, slots: Slots) -> Any:
        """Return what a data frame has."""
        return self._objects[self.codes[slots]] if self.texts else self.python(slots)

    def arrow(self, slots: Slots, missing: NDArray[np.bool_] | None) -> pa.Array:
        """Return an Arrow array."""
        return pa.array(self.python(slots), pa.string(), mask=missing)

    def messages(self, slots: Slots) -> list[Value]:
        """Return Feast's messages."""
        return [Value(string_val=text) for text in self.python(slots)]

    def stored(self, slots: Slots) -> list[Cell]:
        """Return the cells again."""
        return _serialized(self.messages(slots), self.status[slots])


class MessageColumn:
    """Everything else, as Feast's serialised messages: lists, bytes, sets, maps, and columns of mixed types."""

    def __init__(self, kind: ValueType, capacity: int) -> None:
        self.kind = kind
        self.cells = np.empty(capacity, object)
        self.status = np.full(capacity, NOT_FOUND, np.uint8)
        self._cell_bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.cells.nbytes + self.status.nbytes + self._cell_bytes

    def reserve(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        self.cells = grown(self.cells, capacity, None)
        self.status = grown(self.status, capacity, NOT_FOUND)

    def write(self, first: int, cells: Sequence[Cell]) -> None:
        """Fill the slots from `first` on."""
        parts = cell_codec.split(cells)
        for position, cell in enumerate(cells, first):
            self.cells[position] = cell
        self._cell_bytes += sum(map(len, parts.present)) + _BYTES_OBJECT * len(parts.present)
        self.status[first : first + len(cells)] = parts.status

    def python(self, slots: Slots) -> list[Any]:
        """Return what `to_dict` has."""
        kind = self.kind
        return [feast_value_type_to_python_type(message, kind) for message in self.messages(slots)]

    def frame(self, slots: Slots) -> Any:
        """Return what a data frame has."""
        return self.python(slots)

    def arrow(self, slots: Slots, missing: NDArray[np.bool_] | None) -> pa.Array:
        """Return an Arrow array."""
        values = self.python(slots)
        if missing is not None:
            values = [None if gone else value for gone, value in zip(missing.tolist(), values, strict=True)]
        return pa.array(_convert_uuids_for_arrow({"": values})[""])

    def messages(self, slots: Slots) -> list[Value]:
        """Return Feast's messages."""
        parse: Callable[[bytes], Value] = Value.FromString
        return [parse(cell or b"") for cell in self.cells[slots].tolist()]

    def stored(self, slots: Slots) -> list[Cell]:
        """Return the cells again."""
        cells: list[Cell] = self.cells[slots].tolist()
        return cells


def _serialized(messages: Sequence[Value], status: NDArray[np.uint8]) -> list[Cell]:
    return [
        message.SerializeToString() if state == PRESENT else None if state == NOT_FOUND else b""
        for message, state in zip(messages, status.tolist(), strict=True)
    ]


def grown(array: NDArray[Any], capacity: int, fill: Any) -> NDArray[Any]:
    """Return a copy of `array` with room for `capacity` entries along its first axis."""
    larger = np.full((capacity, *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger
