"""What the suite for state stores asks with: a backend, its stores, and other processes."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from explorank.hooks.errors import LogUnavailable
from explorank.hooks.feedback import Entry, Shelf, StateBackend, StateStore
from explorank.testing.demands import demand

SHELF: Final = Shelf("suite")
OTHER: Final = Shelf("suite_other")
SHARED: Final = Shelf("suite_shared", shared=True)
ONE: Final = "1" * 32
TWO: Final = "2" * 32
PATIENCE_S: Final = 30.0
"""How long a test waits for what must come at last."""


class StateStoreCases:
    """The base of the suite's parts, and what a subclass gives."""

    def make_backend(self) -> StateBackend:
        """Return a backend; within a test each call returns another one of the same, at first empty, place."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say which backend to test. Give it `def make_backend(self)` that "
            "returns one."
        )

    @contextmanager
    def opened(self, fingerprint: str = ONE) -> Iterator[StateStore]:
        """Open a fingerprint's store for the block."""
        store = self.make_backend().open(fingerprint)
        try:
            yield store
        finally:
            store.close()

    def demand_entries(self, store: StateStore, shelf: Shelf, due: Sequence[Entry]) -> None:
        """Demand that just the entries `due` stand on a shelf, however it is asked."""
        found = store.first(shelf, math.inf)
        listed = sorted(due, key=lambda entry: (entry.at, entry.key, entry.part))
        demand(found == listed, f"On {shelf.name!r} stand {brief(found)}; {brief(listed)} is due.")
        demand(store.count(shelf) == len(due), f"{store.count(shelf)} of {len(due)} entries are counted.")
        for key in {entry.key for entry in due}:
            of_key = [entry for entry in listed if entry.key == key]
            of_key.sort(key=lambda entry: entry.part)
            demand(
                store.get(shelf, key) == of_key,
                f"Key {key!r} of {shelf.name!r} has {brief(store.get(shelf, key))}; {brief(of_key)} is due.",
            )

    def persist(self, do: Callable[[], object], until: Callable[[], bool] = lambda: True) -> None:
        """Try again what may be refused while another writes, or leads."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                do()
                if until():
                    return
            except LogUnavailable:
                if time.monotonic() > give_up_at:
                    raise
            demand(time.monotonic() <= give_up_at, f"In {PATIENCE_S:g} s nothing came of trying again.")
            time.sleep(0.01)


@contextmanager
def elsewhere(do: Callable[[Connection], None]) -> Iterator[tuple[Connection, BaseProcess]]:
    """Run `do` in a forked process, with one end of a pipe, and yield the other end.

    It forks before anything is opened here: a store must not be carried over into another process.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=do, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        yield here, process
    finally:
        process.kill()
        process.join()
        here.close()


def hear(there: Connection, process: BaseProcess) -> object:
    """Return what the other process says next."""
    demand(there.poll(PATIENCE_S), f"The other process said nothing (exit code {process.exitcode}).")
    try:
        return there.recv()
    except EOFError as error:
        raise AssertionError("The other process ended; its own error stands above.") from error


def brief(entries: Sequence[Entry]) -> str:
    """Return entries for a message."""
    listed = [f"{e.key[:20]!r}/{e.part} at {e.at!r}: {e.value[:20]!r}" for e in entries]
    return f"[{', '.join(listed)}]"
