"""Answers made of columns: each of Feast's forms straight from them, its messages only if they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.cells import NOT_FOUND, OUTSIDE_MAX_AGE, PRESENT
from explorank.retrieval.columnar_store.columns import ABSENT, FIRST, Column, NumberColumn, Slots
from explorank.retrieval.columnar_store.requests import FOREVER
from explorank.retrieval.columnar_store.table import Table

_SECOND: Final = 1_000_000


@dataclass(frozen=True)
class Answer:
    """The rows that one view has for a request, as they stood when it was made."""

    table: Table
    slots: Slots  # (n,)
    features: tuple[str, ...]
    names: tuple[str, ...]
    expired: NDArray[np.bool_] | None
    """Which rows are older than the view allows, (n,); `None` if none is."""

    @cached_property
    def usable(self) -> Slots:
        """The slots, expired rows taken for absent."""
        return self.slots if self.expired is None else np.where(self.expired, ABSENT, self.slots)

    @cached_property
    def whole(self) -> bool:
        """Whether every cell of every row is present and may be used."""
        return self.expired is None and bool(self.table.whole[self.slots].all())

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The column of each feature."""
        return tuple(self.table.columns[feature] for feature in self.features)

    @cached_property
    def seconds(self) -> list[int]:
        """The event time of each row in whole seconds, 0 where there is none."""
        times = np.where(self.slots >= FIRST, self.table.times[self.slots], 0)
        seconds: list[int] = (times // _SECOND).tolist()
        return seconds

    def statuses(self, column: Column) -> NDArray[np.uint8]:
        """Return Feast's status of each row, (n,)."""
        status: NDArray[np.uint8] = column.status[self.slots]
        if self.expired is not None:
            status = np.where(self.expired & (status != NOT_FOUND), np.uint8(OUTSIDE_MAX_AGE), status)
        return status

    def missing(self, column: Column) -> NDArray[np.bool_] | None:
        """Return where a feature has no value, (n,); `None` if it has one everywhere."""
        if self.whole:
            return None
        missing = column.status[self.usable] != PRESENT
        return missing if missing.any() else None

    def python(self, column: Column) -> list[Any]:
        """Return a feature's values as `to_dict` has them."""
        missing = self.missing(column)
        if missing is None:
            return column.python(self.usable)
        values = np.full(len(missing), None, object)
        present = np.flatnonzero(~missing)
        if len(present):
            values[present] = _objects(column.python(self.usable[present]))
        listed: list[Any] = values.tolist()
        return listed

    def frame(self, column: Column) -> Any:
        """Return a feature's values as a data frame has them."""
        missing = self.missing(column)
        if missing is None:
            return column.frame(self.usable)
        if isinstance(column, NumberColumn) and not column.is_time and column.member != "bool_val":
            if missing.all():
                return [None] * len(missing)
            values = column.values[self.usable].astype(np.float64)
            values[missing] = np.nan
            return values
        return self.python(column)

    def arrow(self, column: Column) -> pa.Array:
        """Return a feature's values as an Arrow table has them."""
        missing = self.missing(column)
        if missing is not None and missing.all():
            return pa.nulls(len(missing))
        return column.arrow(self.usable, missing)

    def add_to(self, response: GetOnlineFeaturesResponse) -> None:
        """Append the features to Feast's message."""
        times = []
        for slot, microseconds in zip(
            self.slots.tolist(), self.table.times[self.slots].tolist(), strict=True
        ):
            if slot < FIRST:
                times.append(Timestamp())
            else:
                seconds, rest = divmod(microseconds, _SECOND)
                times.append(Timestamp(seconds=seconds, nanos=rest * 1_000))
        empty = Value()
        response.metadata.feature_names.val.extend(self.names)
        for column in self.columns:
            statuses = self.statuses(column).tolist()
            response.results.append(
                GetOnlineFeaturesResponse.FeatureVector(
                    values=[
                        message if status == PRESENT else empty
                        for message, status in zip(column.messages(self.usable), statuses, strict=True)
                    ],
                    statuses=statuses,
                    event_timestamps=times,
                )
            )


def answer(
    table: Table, slots: Slots, features: Sequence[str], names: Sequence[str], ttl: int, now: int
) -> Answer:
    """Return a view's rows; those whose event lies more than `ttl` before `now` (both in µs) are expired."""
    expired = None
    if ttl != FOREVER:
        old = (table.times[slots] < now - ttl) & (slots >= FIRST)
        if old.any():
            expired = old
    return Answer(table, slots, tuple(features), tuple(names), expired)


class ColumnarResponse(OnlineResponse):  # type: ignore[misc]  # Feast has no types
    """Feast's answer, from columns.

    Equal to what Feast makes of its messages, value by value and type by type. Two things differ: an expired
    row has no values, and a null has the status NULL_VALUE.
    """

    def __init__(
        self, entities: Mapping[str, list[Any]], key_types: Mapping[str, ValueType], answers: Sequence[Answer]
    ) -> None:
        # The parent's constructor would want the messages.
        self._entities = entities
        self._key_types = key_types
        self._answers = answers

    @cached_property
    def proto(self) -> GetOnlineFeaturesResponse:
        """Feast's message."""
        response = GetOnlineFeaturesResponse(results=[])
        nothing = Timestamp()
        for name, values in self._entities.items():
            response.metadata.feature_names.val.append(name)
            response.results.append(
                GetOnlineFeaturesResponse.FeatureVector(
                    values=self._messages(name, values),
                    statuses=[FieldStatus.PRESENT] * len(values),
                    event_timestamps=[nothing] * len(values),
                )
            )
        for part in self._answers:
            part.add_to(response)
        return response

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Feast's signature
        """Return lists of Python values by name."""
        values: dict[str, Any] = {}
        for name, column in self._entities.items():
            values[name] = self._entity(name, column)
            if include_event_timestamps:
                values[name + TIMESTAMP_POSTFIX] = [0] * len(column)
        for part in self._answers:
            for name, feature in zip(part.names, part.columns, strict=True):
                values[name] = part.python(feature)
                if include_event_timestamps:
                    values[name + TIMESTAMP_POSTFIX] = list(part.seconds)
        return values

    def to_df(self, include_event_timestamps: bool = False) -> pd.DataFrame:  # noqa: FBT001, FBT002 - Feast's signature
        """Return a data frame."""
        values: dict[str, Any] = {}
        for name, column in self._entities.items():
            values[name] = self._entity(name, column)
            if include_event_timestamps:
                values[name + TIMESTAMP_POSTFIX] = np.zeros(len(column), np.int64)
        for part in self._answers:
            for name, feature in zip(part.names, part.columns, strict=True):
                values[name] = part.frame(feature)
                if include_event_timestamps:
                    values[name + TIMESTAMP_POSTFIX] = part.seconds
        return pd.DataFrame(values)

    def to_arrow(self, include_event_timestamps: bool = False) -> pa.Table:  # noqa: FBT001, FBT002 - Feast's signature
        """Return an Arrow table."""
        values: dict[str, Any] = {}
        for name, column in self._entities.items():
            values[name] = pa.array(self._entity(name, column))
            if include_event_timestamps:
                values[name + TIMESTAMP_POSTFIX] = pa.array(np.zeros(len(column), np.int64))
        for part in self._answers:
            for name, feature in zip(part.names, part.columns, strict=True):
                values[name] = part.arrow(feature)
                if include_event_timestamps:
                    values[name + TIMESTAMP_POSTFIX] = pa.array(part.seconds)
        return pa.table(values)

    def _messages(self, name: str, values: list[Any]) -> list[Value]:
        messages: list[Value] = python_values_to_proto_values(
            values, self._key_types.get(name, ValueType.UNKNOWN)
        )
        return messages

    def _entity(self, name: str, values: list[Any]) -> list[Any]:
        kind = self._key_types.get(name)
        if kind == ValueType.UNIX_TIMESTAMP:
            return [None if value is None else datetime.fromtimestamp(value, UTC) for value in values]
        if kind in {ValueType.STRING, ValueType.INT64, ValueType.INT32, ValueType.BYTES}:
            return list(values)
        return [feast_value_type_to_python_type(message) for message in self._messages(name, values)]


def _objects(values: list[Any]) -> NDArray[Any]:
    """Return a one-dimensional array of objects, lists among them."""
    array = np.empty(len(values), object)
    for position, value in enumerate(values):
        array[position] = value
    return array
