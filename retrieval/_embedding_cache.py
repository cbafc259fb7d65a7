"""Embeddings on disk by the hash of what was encoded and by what, in one SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.errors import CorruptArtefact

_KEYS_PER_QUERY: Final = 500
_SECONDS_BETWEEN_COMMITS: Final = 1.0


class CacheWriter:
    """Gathers vectors, which a thread stores once a second.

    A commit waits for the disk, some 20 ms, and a row takes 30 µs; a GPU takes less for a batch and not much more for
    a text.
    """

    def __init__(self, store: Callable[[dict[bytes, NDArray[np.float32]]], None], thread: Executor) -> None:
        self._store = store
        self._thread = thread
        self._gathered: dict[bytes, NDArray[np.float32]] = {}
        self._stored_at = time.monotonic()
        self._storing: Future[None] | None = None

    def put(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Take vectors (m, d) by their keys (m,); one that is known already stays."""
        self._gathered.update(zip(keys, vectors, strict=True))
        if time.monotonic() - self._stored_at >= _SECONDS_BETWEEN_COMMITS:
            self._wait()
            self._storing = self._thread.submit(self._store, self._gathered)
            self._gathered = {}
            self._stored_at = time.monotonic()

    def finish(self) -> None:
        """Store what was gathered, and raise what went wrong in storing."""
        self._wait()
        if self._gathered:
            self._store(self._gathered)

    def _wait(self) -> None:
        if self._storing is not None:
            self._storing.result()


class EmbeddingCache:
    """One file that any number of processes may share; keys already hold everything the vector depends on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, keys: Sequence[bytes]) -> Iterator[tuple[list[bytes], NDArray[np.float32]]]:
        """Yield those keys that are known, and their vectors (m, d), in parts."""
        with self._connection() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                chunk = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(chunk))
                rows = connection.execute(
                    f"SELECT key, vector FROM embeddings WHERE key IN ({marks})",  # noqa: S608 - only question marks
                    chunk,
                )
                if found := rows.fetchall():
                    vectors = np.frombuffer(b"".join(vector for _, vector in found), "<f4")
                    yield [key for key, _ in found], vectors.reshape(len(found), -1)

    @contextmanager
    def writing(self) -> Iterator[CacheWriter]:
        """Return what takes vectors, and has stored all of them by the end of the block, however that comes."""
        with ThreadPoolExecutor(1, thread_name_prefix="explorank-cache") as thread:
            writer = CacheWriter(self._store, thread)
            try:
                yield writer
            finally:
                writer.finish()

    def _store(self, vectors: dict[bytes, NDArray[np.float32]]) -> None:
        with self._connection() as connection, connection:
            connection.executemany(
                "INSERT OR IGNORE INTO embeddings VALUES (?, ?)",
                [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()],
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self._path, timeout=60)) as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB)"
                )
                yield connection
        except sqlite3.OperationalError:
            raise  # locked, full or read-only: the file itself is not to blame
        except sqlite3.DatabaseError as error:
            raise CorruptArtefact(
                f"{self._path} is not an intact SQLite file ({error}), so no cached embedding can be read. "
                "Delete it: the texts are encoded again."
            ) from error
