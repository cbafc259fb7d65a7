"""Feast's Redis store: what this class writes is noted in a stream, what others write is found by a sweep."""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from feast.infra.online_stores.helpers import _mmh3, _redis_key_prefix, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp
from redis.cluster import RedisCluster
from redis.exceptions import ResponseError

from explorank.retrieval.columnar_store.cells import Cell
from explorank.retrieval.columnar_store.sources.source import Changes, PageTimes, StoredRows, StoredView

_log = logging.getLogger(__name__)

_KEYS_PER_ENTRY: Final = 1_000
_ENTRIES: Final = 100_000  # a reader that is further behind reads everything anew
_ENTRIES_PER_READ: Final = 10_000
_KEYS_PER_PAGE: Final = 200
_KEYS_PER_LOOK: Final = 500  # about a millisecond, for which Redis answers nobody else
_DAY_S: Final = 86_400
_BEGINNING: Final = b"0-0"
# Written once for the many keys of a page: a command of its own for each takes the client 5 us, this some 0.05 us.
_TIMES_OF_PAGE: Final = """\
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local times = {}
for place, key in ipairs(page[2]) do times[place] = redis.call('HGET', key, ARGV[4]) or '' end
local mark = redis.sha1hex(cmsgpack.pack({page[2], times}))
if mark == ARGV[5] then return {page[1], mark} end
return {page[1], mark, page[2], times}
"""


class RedisSource:
    """Reads the hashes of a `RedisOnlineStore`."""

    sweeps = True

    def __init__(self, config: RepoConfig) -> None:
        self._config = config
        self._project = config.project.encode()
        self._versioned = config.registry.enable_online_feature_view_versioning
        self._stream = f"explorank:{config.project}:changes"
        self._store = RedisOnlineStore()
        self._last_id: bytes | None = None
        self._scripts = True

    def prepare(self, views: Iterable[StoredView]) -> None:
        """Do nothing: the stream begins with the first write."""

    def follow(self, view: StoredView) -> None:
        """Do nothing but take the present as known, where nothing was read so far."""
        if self._last_id is None:
            self._last_id = self._newest_entry()

    def read(self, view: StoredView, keys: Sequence[bytes]) -> StoredRows:
        """Return the rows that exist."""
        name = compute_versioned_name(view.view, self._versioned)
        fields: list[Any] = [*(_mmh3(f"{name}:{feature}") for feature in view.features), f"_ts:{name}"]
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hmget(key + self._project, fields)
            answers = pipeline.execute()
        found = [(key, answer) for key, answer in zip(keys, answers, strict=True) if answer[-1] is not None]
        cells: dict[str, list[Cell]] = {
            feature: [answer[place] for _, answer in found] for place, feature in enumerate(view.features)
        }
        times = np.array([_microseconds(answer[-1]) for _, answer in found], np.int64)
        return StoredRows([key for key, _ in found], times, cells)

    def pages(self) -> bool:
        """Return whether `page` can walk through a view: not where its keys are spread over a cluster."""
        return not isinstance(self._client, RedisCluster)

    def page(self, view: StoredView, after: Any) -> tuple[StoredRows, Any] | None:
        """Return the next rows and where to go on."""
        if after == 0:  # what Redis answers after the last page; one begins with it too, here with None
            return None
        cursor, found = self._client.scan(after or 0, match=self._pattern(view), count=_KEYS_PER_PAGE)
        keys = [key.removesuffix(self._project) for key in dict.fromkeys(found)]
        return self.read(view, keys), cursor

    def page_times(self, view: StoredView, after: Any, mark: bytes) -> PageTimes | None:
        """Return the times of the next page, unless it has this mark, and where to go on."""
        if after == 0:
            return None
        field = self._time_field(view)
        scanned = [after or 0, self._pattern(view), _KEYS_PER_LOOK]
        if self._scripts:
            try:
                cursor, found, *listed = self._client.eval(_TIMES_OF_PAGE, 0, *scanned, field, mark)
            except ResponseError as error:
                _log.info("Redis runs no scripts for this user, so that sweeps take longer: %s", error)
                self._scripts = False
                return self.page_times(view, after, mark)
        else:
            cursor, keys = self._client.scan(scanned[0], match=scanned[1], count=scanned[2])
            listed = [keys, self._fields(keys, field)]
            found = blake2b(repr(listed).encode(), digest_size=20).hexdigest().encode()
        if found == mark or not listed:
            return PageTimes(int(cursor), found, None, np.zeros(0, np.int64))
        rows = {key.removesuffix(self._project): time for key, time in zip(*listed, strict=True) if time}
        times = np.array([_microseconds(time) for time in rows.values()], np.int64)
        return PageTimes(int(cursor), found, list(rows), times)

    def changes(self) -> Changes:
        """Return what changed."""
        if self._last_id is None:
            self._last_id = self._newest_entry()
            return Changes()
        entries = self._client.xrange(self._stream, min=b"(" + self._last_id, count=_ENTRIES_PER_READ)
        if not entries:
            return Changes()
        [(oldest, _)] = self._client.xrange(self._stream, count=1)
        trimmed = self._last_id != _BEGINNING and _order(oldest) > _order(self._last_id)
        self._last_id = entries[-1][0]
        if trimmed:
            return Changes(everything=True)
        keys = [key for _, entry in entries for key in _unpacked(entry.get(b"keys", b""))]
        views = frozenset(entry[b"dropped"].decode() for _, entry in entries if b"dropped" in entry)
        return Changes(list(dict.fromkeys(keys)), views)

    def times(self, view: StoredView, keys: Sequence[bytes]) -> Sequence[int | None]:
        """Return the event times in store."""
        stored = self._fields([key + self._project for key in keys], self._time_field(view))
        return [None if time is None else _microseconds(time) for time in stored]

    def wrote(self, view: StoredView, keys: Sequence[bytes]) -> None:
        """Tell others of written rows."""
        with self._client.pipeline(transaction=False) as pipeline:
            for first in range(0, len(keys), _KEYS_PER_ENTRY):
                part = _packed(keys[first : first + _KEYS_PER_ENTRY])
                pipeline.xadd(self._stream, {b"keys": part}, maxlen=_ENTRIES, approximate=True)
            pipeline.persist(self._stream)
            pipeline.execute()

    def dropped(self, views: Iterable[str]) -> None:
        """Tell others of deleted views."""
        with self._client.pipeline(transaction=False) as pipeline:
            for view in views:
                pipeline.xadd(self._stream, {b"dropped": view}, maxlen=_ENTRIES, approximate=True)
            # If nothing is ever written again, the stream goes too.
            pipeline.expire(self._stream, _DAY_S)
            pipeline.execute()

    def close(self) -> None:
        """Close the connection."""
        if self._store._client is not None:
            with contextlib.suppress(OSError):
                self._store._client.close()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the connection."""
        self._store = RedisOnlineStore()

    def _time_field(self, view: StoredView) -> str:
        return f"_ts:{compute_versioned_name(view.view, self._versioned)}"

    def _pattern(self, view: StoredView) -> bytes:
        """Return what the names of the hashes look like that hold this view's rows."""
        return _escaped(_redis_key_prefix(list(view.keys.join_keys))) + b"*" + _escaped(self._project)

    def _fields(self, hashes: Sequence[bytes], field: str) -> list[bytes | None]:
        """Return one field of each hash, `None` where it has none."""
        with self._client.pipeline(transaction=False) as pipeline:
            for name in hashes:
                pipeline.hget(name, field)
            answers: list[bytes | None] = pipeline.execute()
        return answers

    @property
    def _client(self) -> Any:
        return self._store._get_client(self._config.online_store)

    def _newest_entry(self) -> bytes:
        newest = self._client.xrevrange(self._stream, count=1)
        return newest[0][0] if newest else _BEGINNING


def _microseconds(stored: bytes) -> int:
    moment = Timestamp.FromString(stored)
    microseconds: int = moment.seconds * 1_000_000 + moment.nanos // 1_000
    return microseconds


def _order(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)


def _packed(keys: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(key)) + key for key in keys)


def _unpacked(packed: bytes) -> list[bytes]:
    keys, place = [], 0
    while place < len(packed):
        (length,) = struct.unpack_from("<I", packed, place)
        keys.append(packed[place + 4 : place + 4 + length])
        place += 4 + length
    return keys


def _escaped(literal: bytes) -> bytes:
    """Escape what Redis's patterns give a meaning."""
    return b"".join(b"\\" + byte if byte in b"*?[]\\^-" else byte for byte in (bytes([b]) for b in literal))
