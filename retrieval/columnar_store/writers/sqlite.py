"""Writes to Feast's SQLite store: its tables and its statements, each batch with all that belongs to it at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_f32
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.type_map import feast_value_type_to_python_type
from feast.types import FEAST_VECTOR_TYPES
from feast.utils import _get_feature_view_vector_field_metadata, to_naive_utc

from explorank.retrieval.columnar_store.sources.source import StoredView
from explorank.retrieval.columnar_store.sources.sqlite_file import SqliteFile, written_at_once
from explorank.retrieval.columnar_store.sources.sqlite_schema import (
    TIMES,
    is_set_up,
    note,
    pragma,
    quoted,
    set_up,
    unwatched,
    use_wal,
)
from explorank.retrieval.columnar_store.writers.writer import TimedRow, WriteProgress

_KEYS_PER_QUERY: Final = 500
_CACHE_KIB: Final = 65_536
_MANY_ROWS: Final = 200
"""From so many on, to take the triggers out and put them back costs less than to have them fire for every cell."""
_VECTOR_LENGTH: Final = 512  # what Feast's store takes where a view has no vector field


class SqliteWriter:
    """Writes on a connection of its own.

    What is in store is compared, and rows, their exact times and the notice of them are written, in one transaction:
    no other writer can come between, and a process that is killed leaves all of a batch or nothing.
    """

    def __init__(self, config: RepoConfig) -> None:
        self._file = SqliteFile(config)
        self._with_vectors = bool(config.online_store.vector_enabled)
        self._with_numbers = bool(config.online_store.enable_openai_compatible_store)
        self._schema_version = -1
        self._ready: dict[str, bool] = {}
        """Views that are set up under this version of the schema: whether they keep numbers beside texts."""

    def write(self, view: StoredView, rows: Mapping[bytes, TimedRow], progress: WriteProgress | None) -> None:
        """Write what is no older than what is in store; raise `sqlite3.OperationalError` where there is no table."""
        connection = self._open()
        try:
            with written_at_once(connection):
                self._write(connection, view, rows, progress)
        except BaseException:
            self._ready.clear()  # what was set up is gone again
            raise

    def _write(
        self,
        connection: sqlite3.Connection,
        view: StoredView,
        rows: Mapping[bytes, TimedRow],
        progress: WriteProgress | None,
    ) -> None:
        with_numbers = self._set_up(connection, view.name)
        times = _exact_times(connection, view.name, list(rows))
        # In the order of the keys: neighbours in the indexes are then written together.
        chosen = {key: rows[key] for key in sorted(rows) if key not in times or rows[key].time >= times[key]}
        columns = _Columns(view.view, with_numbers=with_numbers, with_vectors=self._with_vectors)
        if len(chosen) < _MANY_ROWS:
            connection.executemany(columns.upsert(view.name), columns.cells(chosen, progress))
        else:
            with unwatched(connection, view.name):
                connection.executemany(columns.upsert(view.name), columns.cells(chosen, progress))
                note(connection, chosen)
            self._schema_version = pragma(connection, "schema_version")
        connection.executemany(
            f"INSERT OR REPLACE INTO {TIMES} (view_name, entity_key, event_us, event_ts) "  # noqa: S608 - a constant
            "VALUES (?, ?, ?, ?)",
            [(view.name, key, timed.time, _as_stored(timed.row[2])) for key, timed in chosen.items()],
        )

    def close(self) -> None:
        """Close the connection."""
        self._file.close()

    def _open(self) -> sqlite3.Connection:
        if not self._file.is_current:
            self._file.close()
            connection = self._file.connection()
            use_wal(connection)
            # A write is one transaction of a row for each cell. Once it outgrows the cache of 2 MB that SQLite
            # begins with, pages go to the log and come back for every cell and its triggers.
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._schema_version = -1
        return self._file.connection()

    def _set_up(self, connection: sqlite3.Connection, view: str) -> bool:
        if pragma(connection, "schema_version") != self._schema_version:
            self._ready.clear()
        if view not in self._ready:
            if not is_set_up(connection, view):
                set_up(connection, view)
            columns = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({quoted(view)})")}
            self._ready[view] = self._with_numbers and "value_num" in columns
            self._schema_version = pragma(connection, "schema_version")
        return self._ready[view]


class _Columns:
    """The columns that Feast's store writes of each cell, under its settings."""

    def __init__(self, view: FeatureView, *, with_numbers: bool, with_vectors: bool) -> None:
        self._view = view
        self._with_numbers = with_numbers
        self._with_vectors = with_vectors
        self._vectors = {field.name for field in view.features if field.dtype in FEAST_VECTOR_TYPES}
        self._plain = not (with_numbers or with_vectors)

    def upsert(self, table: str) -> str:
        """Return the statement that `cells` fills."""
        names = [
            *("entity_key", "feature_name", "value", "value_text"),
            *(["value_num"] if self._with_numbers else []),
            *(["vector_value"] if self._with_vectors else []),
            *("event_ts", "created_ts"),
        ]
        changed = ", ".join(f"{name} = excluded.{name}" for name in names[2:])
        return (
            f"INSERT INTO {quoted(table)} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - quoted
            f"ON CONFLICT (entity_key, feature_name) DO UPDATE SET {changed} "
            "WHERE (excluded.event_ts < event_ts) IS NOT TRUE"  # as the trigger has it that binds plain writers
        )

    def cells(
        self, rows: Mapping[bytes, TimedRow], progress: WriteProgress | None
    ) -> Iterator[Sequence[Any]]:
        """Yield the parameters of each cell of all rows."""
        for key, timed in rows.items():
            _, values, event, created = timed.row
            event_ts = _as_stored(event)
            created_ts = None if created is None else _as_stored(created)
            for name, value in values.items():
                text, number = extract_text_and_num(value, self._with_numbers)
                if self._plain:
                    yield key, name, value.SerializeToString(), text, event_ts, created_ts
                else:
                    extra = [number] if self._with_numbers else []
                    if self._with_vectors:
                        extra.append(self._vector(name, value))
                    yield key, name, value.SerializeToString(), text, *extra, event_ts, created_ts
            if progress is not None:
                progress(1)

    def _vector(self, name: str, value: Value) -> Any:
        if name not in self._vectors:
            return feast_value_type_to_python_type(value)
        field = _get_feature_view_vector_field_metadata(self._view)
        return serialize_f32(value.float_list_val.val, getattr(field, "vector_length", _VECTOR_LENGTH))


def _exact_times(connection: sqlite3.Connection, view: str, keys: Sequence[bytes]) -> dict[bytes, int]:
    """Return the microseconds that the store has cut off; the statements themselves compare whole seconds."""
    exact: dict[bytes, int] = {}
    for first in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[first : first + _KEYS_PER_QUERY]
        # What is noted counts for as long as the row of that second is there.
        exact |= connection.execute(
            f"SELECT entity_key, event_us FROM {TIMES} AS noted "  # noqa: S608 - quoted
            f"WHERE view_name = ? AND entity_key IN ({','.join('?' * len(part))}) AND EXISTS (SELECT 1 FROM "
            f"{quoted(view)} AS cell WHERE cell.entity_key = noted.entity_key "
            "AND cell.event_ts = noted.event_ts)",
            (view, *part),
        ).fetchall()
    return exact


def _as_stored(moment: datetime) -> int:
    """Return a time as Feast stores it: UTC's wall clock, taken for local time, in whole seconds."""
    return int(to_naive_utc(moment).timestamp())
