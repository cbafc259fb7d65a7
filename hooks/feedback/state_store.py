"""Where a learner keeps what it knows: what a store must promise, whatever it is made of.

A store is a set of shelves of entries, changed by whole transactions only. What stands on the shelves is the
business of whoever puts it there (`Checkpoint` for the learner, observers for themselves); the store sees bytes.
SQLite is the default (`SqliteStateBackend`); another store is two small classes that pass
`explorank.testing.StateStoreTests`.

Whatever goes wrong in a store is said by two errors of ours. `CorruptState`: what is kept cannot be trusted; the
learner moves it aside and rebuilds it from the log. `LogUnavailable`: it did not work, nothing was changed, and the
same may work later.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Shelf:
    """A named set of entries, one for each learner's fingerprint unless it is `shared`."""

    name: str
    """Distinct among all that use the store: an observer's shelves begin with its own name."""
    shared: bool = False
    """Whether all fingerprints see the same entries."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands on a shelf under `key` and `part`, once."""

    key: str
    value: bytes = b""
    at: float = 0.0
    """What entries are ordered and found by: a moment, in seconds since the Unix epoch."""
    part: int = 0
    """Tells entries of one key apart, such as the slots of a decision."""


class StateStore(Protocol):
    """One learner's view of what is kept, for its fingerprint; used by one thread at a time.

    Only whoever holds the fingerprint's lease writes to its shelves; anybody writes to shared ones. Every method
    raises `CorruptState` or `LogUnavailable`, and nothing else on purpose.
    """

    @property
    def replaced(self) -> bool:
        """Whether something else stands where this store was opened: it is then to be closed and opened anew."""

    def transaction(self) -> AbstractContextManager[None]:
        """Make the block's writes one, with what it reads: all are kept, or none where it raises or is killed.

        What it read stays true until it ends, so that whoever checks a revision within may rely on it. Writes count
        in the order in which they were made; whether reads see what the block itself wrote is left to the store.
        Every write stands in a transaction, and transactions do not nest. What returned is seen by every store
        that reads from then on, and survives the process.
        """

    def get(self, shelf: Shelf, key: str) -> list[Entry]:
        """Return the entries of a key, by part, all of one moment; none where there are none."""

    def first(self, shelf: Shelf, until: float, limit: int | None = None) -> list[Entry]:
        """Return the first entries that are `at` `until` or before, ordered by `at`, key (by code point) and part.

        At most `limit` of them; all where it is `None`.
        """

    def count(self, shelf: Shelf) -> int:
        """Return how many entries stand on a shelf."""

    def put(self, shelf: Shelf, entries: Iterable[Entry]) -> None:
        """Put entries on a shelf, each in the place of the one with its key and part, if there is one."""

    def drop(self, shelf: Shelf, entries: Iterable[Entry]) -> None:
        """Drop the entries with these keys and parts, whatever their values; unknown ones are ignored."""

    def clear(self) -> None:
        """Drop all entries of this fingerprint; shared ones stay."""

    def clear_others(self) -> None:
        """Drop all entries of all other fingerprints; shared ones stay."""

    def adopt(self, fingerprint: str, shelves: Iterable[Shelf]) -> None:
        """Move another fingerprint's entries on these shelves here, in the place of all that stand on them."""

    def leave_no_trace(self) -> bool:
        """Overwrite what was dropped, wherever it still stands; return whether that was done.

        Called outside of transactions. It waits some seconds for those who read, then gives up.
        """

    def close(self) -> None:
        """Let go of files and connections. It raises nothing, and may be called again."""


class Lease(Protocol):
    """The right to write to a fingerprint's shelves, which one learner has at a time."""

    def renew(self) -> bool:
        """Return whether it is still held; called at every step, and so the moment to prolong it.

        A lease that runs out by time must end sooner than 5 s after its holder died, and the store must refuse
        the transactions of a holder that lost it.
        """

    def release(self) -> None:
        """Let another learner have it at once."""


class StateBackend(Protocol):
    """What opens stores and lends the leases to write to them; several processes may have the same one open."""

    @property
    def name(self) -> str:
        """What messages call it, such as the path of a file."""

    def open(self, fingerprint: str) -> StateStore:
        """Open a fingerprint's store, creating what is missing.

        Raises `LogUnavailable` also where another version of Explorank wrote what is there, which stays as it is.
        """

    def lease(self, fingerprint: str) -> Lease | None:
        """Return the lease of a fingerprint, or `None` where another holds it, in whatever process.

        It ends with the process that holds it, however that ends.
        """

    def move_aside(self, why: str) -> None:
        """Take all that is kept out of the way, for a person to look at, and report it; stores opened next are empty.

        Called by the leading learner, which met `CorruptState` and has closed its own store; others are `replaced`.
        """
