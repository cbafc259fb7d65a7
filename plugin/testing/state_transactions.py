"""Whether changes are kept whole, whoever else writes and whoever is killed."""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Connection
from typing import Final

from explorank.hooks.feedback import Entry, StateStore
from explorank.testing.state_cases import ONE, OTHER, SHARED, SHELF, TWO, StateStoreCases, elsewhere, hear

_LEAVING_ROOM_S: Final = 0.01


class StateTransactionTests(StateStoreCases):
    """The part of `StateStoreTests` about `transaction`, seen from here and from other processes."""

    def test_a_transaction_is_all_or_nothing(self) -> None:
        """Where the block raises, nothing of it is kept, and others see all of it or nothing.

        State and cursors change together; half a change would count rewards twice, or never.
        """
        before = [Entry("a", b"a"), Entry("b", b"b", 1.0)]
        with self.opened() as store, self.opened() as reader, self.opened(TWO) as two:
            with store.transaction():
                store.put(SHELF, before)
            with two.transaction():
                two.put(SHELF, before)
            for give_up in (True, False):
                try:
                    with store.transaction():
                        store.put(SHELF, [Entry("a", b"changed"), Entry("c", b"c")])
                        store.drop(SHELF, [Entry("b")])
                        store.put(OTHER, [Entry("d", b"d")])
                        store.put(SHARED, [Entry("e", b"e")])
                        store.clear_others()
                        for shelf, due in ((SHELF, before), (OTHER, []), (SHARED, [])):
                            self.demand_entries(reader, shelf, due)
                        _end(give_up=give_up)
                except _GivenUp:
                    for shelf, due in ((SHELF, before), (OTHER, []), (SHARED, [])):
                        self.demand_entries(store, shelf, due)
                        self.demand_entries(reader, shelf, due)
                    self.demand_entries(two, SHELF, before)
            for seen_by in (store, reader):
                self.demand_entries(seen_by, SHELF, [Entry("a", b"changed"), Entry("c", b"c")])
                self.demand_entries(seen_by, OTHER, [Entry("d", b"d")])
                self.demand_entries(seen_by, SHARED, [Entry("e", b"e")])
            self.demand_entries(two, SHELF, [])

    def test_what_a_transaction_read_stays_true(self) -> None:
        """Two writers that each read a number and put one more lose no count; whoever must wait may be refused.

        Before it writes, a learner looks whether the state is still the one that it goes on from.
        """
        rounds = 25
        counted, left = [0, 0], [rounds, rounds]

        def count(writer: int) -> None:
            try:
                with self.opened() as store:
                    # Until both are done: one that is held up would else come when nobody writes beside it.
                    while max(left) > 0:
                        self.persist(lambda: _increment(store))
                        counted[writer] += 1
                        left[writer] -= 1
                        if left[writer] <= 0:
                            time.sleep(_LEAVING_ROOM_S)
            finally:
                left[writer] = 0

        threads = [threading.Thread(target=count, args=(writer,)) for writer in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self.opened() as store:
            self.demand_entries(store, SHARED, [Entry("number", b"%d" % sum(counted))])

    def test_what_was_kept_is_there_when_it_is_opened_again(self) -> None:
        """Closing keeps what was committed; a store and a backend made later find it, and `close` may come twice."""
        kept = [Entry("a", b"a", 1.0, 2)]
        store = self.make_backend().open(ONE)
        with store.transaction():
            store.put(SHELF, kept)
            store.put(SHARED, kept)
        store.close()
        store.close()
        with self.opened() as again:
            self.demand_entries(again, SHELF, kept)
            self.demand_entries(again, SHARED, kept)

    def test_another_process_sees_what_was_committed(self) -> None:
        """A store that is open already sees what another process commits, in the order of its transactions.

        Workers follow the learner that leads by looking whether its revision has risen.
        """

        def write(here: Connection) -> None:
            with self.opened() as store:
                for number in range(1, 4):
                    here.recv()
                    with store.transaction():
                        store.put(SHELF, [Entry("number", b"%d" % number)])
                    here.send(None)

        with elsewhere(write) as (there, process), self.opened() as store:
            for number in range(1, 4):
                there.send(None)
                hear(there, process)
                self.demand_entries(store, SHELF, [Entry("number", b"%d" % number)])

    def test_a_killed_process_keeps_what_it_committed(self) -> None:
        """SIGKILL in the middle of a transaction leaves all that was committed before, nothing of it, and no lock."""

        def write(here: Connection) -> None:
            with self.opened() as store:
                with store.transaction():
                    store.put(SHELF, [Entry("a", b"kept")])
                with store.transaction():
                    store.put(SHELF, [Entry("a", b"lost"), Entry("b", b"lost")])
                    here.send(None)
                    here.recv()

        with elsewhere(write) as (there, process):
            hear(there, process)
            process.kill()
            process.join()
            with self.opened() as store:
                self.demand_entries(store, SHELF, [Entry("a", b"kept")])

                def put() -> None:
                    with store.transaction():
                        store.put(SHELF, [Entry("a", b"later")])

                self.persist(put)
                self.demand_entries(store, SHELF, [Entry("a", b"later")])


class _GivenUp(Exception):
    """Ends a transaction before its time."""


def _end(*, give_up: bool) -> None:
    if give_up:
        raise _GivenUp


def _increment(store: StateStore) -> None:
    with store.transaction():
        found = store.get(SHARED, "number")
        number = int(found[0].value) if found else 0
        store.put(SHARED, [Entry("number", b"%d" % (number + 1))])
