"""Writes through the backing store's own class, and tells other processes of it."""

from __future__ import annotations

from collections.abc import Mapping

from feast.infra.online_stores.online_store import OnlineStore
from feast.repo_config import RepoConfig

from explorank.retrieval.columnar_store.memory import Memory
from explorank.retrieval.columnar_store.sources.source import StoredView, ToldSource
from explorank.retrieval.columnar_store.writers.writer import TimedRow, WriteProgress


class TellingWriter:
    """Asks what is in store, writes, and tells: three steps, between which another process may write.

    Args:
        store: The backing store.
        config: Its configuration.
        source: What reads the store, and tells others.
        memory: Whose source it is; readers wait while that is used.

    """

    def __init__(self, store: OnlineStore, config: RepoConfig, source: ToldSource, memory: Memory) -> None:
        self._store = store
        self._config = config
        self._source = source
        self._memory = memory

    def write(self, view: StoredView, rows: Mapping[bytes, TimedRow], progress: WriteProgress | None) -> None:
        """Write what is no older than what is in store."""
        with self._memory.using_source():
            times = self._source.times(view, list(rows))
        chosen = {
            key: timed.row
            for (key, timed), time in zip(rows.items(), times, strict=True)
            if time is None or timed.time >= time
        }
        self._store.online_write_batch(self._config, view.view, list(chosen.values()), progress)
        with self._memory.using_source():
            self._source.wrote(view, list(chosen))

    def close(self) -> None:
        """Do nothing: the store and the source are closed by who made them."""
