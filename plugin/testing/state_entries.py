"""Whether entries come back as they were put, and only where they were put."""

from __future__ import annotations

import math

import numpy as np

from explorank.hooks.feedback import Entry
from explorank.testing.demands import demand
from explorank.testing.state_cases import OTHER, SHARED, SHELF, TWO, StateStoreCases, brief


class StateEntryTests(StateStoreCases):
    """The part of `StateStoreTests` about `get`, `first`, `count`, `put`, `drop`, `clear` and `adopt`."""

    def test_entries_come_back_as_they_were(self) -> None:
        """Any text is a key and any bytes are a value, and moments keep every bit of a float.

        Item and decision ids are the host's; a state is megabytes of arrays.
        """
        keys = ["a", "", " ", "ünknown", "'; --", "a:b*c?", "two\nlines", "x" * 300]
        values = [b"", b"\x00", bytes(range(256)), b"\n", b"\xff" * 2_000_000]
        moments = [0.0, -1.5, 1e-300, 1_700_000_000.123456, 1e300]
        given = [
            Entry(key, values[number % len(values)], moments[number % len(moments)], part)
            for number, (key, part) in enumerate((key, part) for key in keys for part in (0, 1, 2**31 - 1))
        ]
        with self.opened() as store:
            with store.transaction():
                store.put(SHELF, given)
            for key in keys:
                due = [entry for entry in given if entry.key == key]
                found = store.get(SHELF, key)
                demand(found == due, f"Key {key!r} came back as {brief(found)}, not as {brief(due)}.")
            demand(store.get(SHELF, "b") == [], "A key that was never put has entries.")
            demand(store.get(OTHER, "a") == [], "An entry stands on a shelf on which nobody put it.")
            demand(store.count(SHELF) == len(given), f"{store.count(SHELF)} of {len(given)} are counted.")

    def test_entries_are_told_apart_by_key_and_part(self) -> None:
        """`put` replaces the entry of the same key and part, `drop` drops just that, and no value matters.

        Each slot of a decision closes once; one that is folded must not take another with it.
        """
        with self.opened() as store:
            with store.transaction():
                store.put(SHELF, [Entry("a", b"old", 1.0, 0), Entry("a", b"kept", 1.0, 1), Entry("b", b"b")])
                store.put(OTHER, [Entry("a", b"elsewhere", 1.0, 0)])
            with store.transaction():
                store.put(SHELF, [Entry("a", b"new", 9.0, 0)])
                store.drop(SHELF, [Entry("b"), Entry("unknown"), Entry("a", part=7)])
            self.demand_entries(store, SHELF, [Entry("a", b"kept", 1.0, 1), Entry("a", b"new", 9.0, 0)])
            self.demand_entries(store, OTHER, [Entry("a", b"elsewhere", 1.0, 0)])

    def test_the_first_are_the_earliest(self) -> None:
        """`first` is ordered by moment, then key by code point, then part; `until` counts, and `limit` cuts.

        The learner folds in this order, so that a state that depends on it is the same after a rebuild.
        """
        ordered = [
            *(Entry("z", at=-2.0, part=part) for part in (0, 1, 10)),
            *(Entry(key, at=5.0) for key in ("", "A", "B", "a", "aa", "é", "\U0001f600")),
            *(Entry(f"{number}", at=6.0 + number / 8) for number in range(9)),
        ]
        shuffled = [ordered[row] for row in np.random.default_rng(5).permutation(len(ordered))]
        with self.opened() as store:
            with store.transaction():
                for entry in shuffled:
                    store.put(SHELF, [entry])
            self.demand_entries(store, SHELF, ordered)
            for until, due in ((5.0, 10), (math.nextafter(5.0, 0.0), 3), (-2.5, 0), (6.25, 13)):
                found = store.first(SHELF, until)
                demand(
                    found == ordered[:due],
                    f"Until {until}, {brief(found)} came first, not {brief(ordered[:due])}.",
                )
            for limit in (0, 1, 4, 99):
                found = store.first(SHELF, 5.5, limit)
                demand(
                    found == ordered[:10][:limit],
                    f"With a limit of {limit}, {brief(found)} came first.",
                )

    def test_fingerprints_are_apart(self) -> None:
        """Two fingerprints see nothing of each other but shared shelves, and `clear` clears one of them.

        Each policy, with each set of options, has a state of its own in the same place.
        """
        with self.opened() as one, self.opened(TWO) as two:
            for store, value in ((one, b"1"), (two, b"2")):
                with store.transaction():
                    store.put(SHELF, [Entry("a", value)])
                    store.put(SHARED, [Entry(value.decode(), value)])
            self.demand_entries(one, SHELF, [Entry("a", b"1")])
            self.demand_entries(two, SHELF, [Entry("a", b"2")])
            shared = [Entry("1", b"1"), Entry("2", b"2")]
            for store in (one, two):
                self.demand_entries(store, SHARED, shared)
            with one.transaction():
                one.clear()
            self.demand_entries(one, SHELF, [])
            self.demand_entries(two, SHELF, [Entry("a", b"2")])
            with one.transaction():
                one.put(SHELF, [Entry("b", b"1")])
                one.clear_others()
            self.demand_entries(one, SHELF, [Entry("b", b"1")])
            self.demand_entries(two, SHELF, [])
            for store in (one, two):
                self.demand_entries(store, SHARED, shared)

    def test_a_fingerprint_takes_the_place_of_another(self) -> None:
        """`adopt` replaces the named shelves by the other fingerprint's, which has them no more.

        A state that was rebuilt aside takes over so. The other shelves stay, which are an observer's.
        """
        with self.opened() as one, self.opened(TWO) as two:
            for store, value in ((one, b"1"), (two, b"2")):
                with store.transaction():
                    for shelf in (SHELF, OTHER):
                        store.put(shelf, [Entry(f"only {value!r}", value), Entry("both", value, 1.5, 3)])
            with one.transaction():
                one.adopt(TWO, [SHELF])
                one.put(SHELF, [Entry("both", b"put later", 1.5, 3)])
            self.demand_entries(one, SHELF, [Entry("only b'2'", b"2"), Entry("both", b"put later", 1.5, 3)])
            self.demand_entries(one, OTHER, [Entry("only b'1'", b"1"), Entry("both", b"1", 1.5, 3)])
            self.demand_entries(two, SHELF, [])
            self.demand_entries(two, OTHER, [Entry("only b'2'", b"2"), Entry("both", b"2", 1.5, 3)])

    def test_what_was_dropped_can_be_overwritten(self) -> None:
        """`leave_no_trace` is done at once where nobody reads, and takes nothing that was not dropped."""
        with self.opened() as store:
            with store.transaction():
                store.put(SHELF, [Entry("a", b"a"), Entry("b", b"b")])
            with store.transaction():
                store.drop(SHELF, [Entry("a")])
            demand(store.leave_no_trace(), "Nobody reads, and what was dropped could not be overwritten.")
            self.demand_entries(store, SHELF, [Entry("b", b"b")])
