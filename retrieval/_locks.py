"""A lock that many readers share and one writer takes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class SharedLock:
    """Readers run side by side; a writer waits for them, and new readers wait for a waiting writer.

    Readers that waited for a writer have their turn before the next one, so neither side can shut the other out.
    """

    def __init__(self) -> None:
        self._changed = Condition(Lock())
        self._readers = 0
        self._readers_waiting = 0
        self._admitted = 0
        self._writers_waiting = 0
        self._writing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock beside other readers. Must not be nested."""
        with self._changed:
            if self._writing or self._writers_waiting:
                self._wait_to_read()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    def _wait_to_read(self) -> None:
        self._readers_waiting += 1
        try:
            while self._writing or (self._writers_waiting and not self._admitted):
                self._changed.wait()
        finally:
            self._readers_waiting -= 1
            self._admitted = max(self._admitted - 1, 0)
            if not self._admitted:
                self._changed.notify_all()  # for a writer, where an interrupted reader gave its turn up

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._writers_waiting += 1
            try:
                while self._writing or self._readers or self._admitted:
                    self._changed.wait()
            finally:
                self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._admitted = self._readers_waiting
                self._changed.notify_all()
