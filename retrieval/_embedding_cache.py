"""Embeddings on disk by the hash of what was encoded and by what, in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.errors import CorruptArtefact

_KEYS_PER_QUERY: Final = 500


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

    def put(self, vectors: dict[bytes, NDArray[np.float32]]) -> None:
        """Store vectors (d,) by key; one that is known already stays."""
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
                    "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
                )
                yield connection
        except sqlite3.OperationalError:
            raise  # locked, full or read-only: the file itself is not to blame
        except sqlite3.DatabaseError as error:
            raise CorruptArtefact(
                f"{self._path} is not an intact SQLite file ({error}), so no cached embedding can be read. "
                "Delete it: the texts are encoded again."
            ) from error
