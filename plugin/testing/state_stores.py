"""The suite that a backend for the learner's state inherits."""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import numpy as np

from explorank.hooks.errors import LogUnavailable
from explorank.hooks.exploration import BetaThompson
from explorank.hooks.feedback import DecisionLog, Entry, Learner, Shelf, StateBackend, StateStore
from explorank.hooks.types import DecisionRecord, RankingRequest, Reward, Slate
from explorank.testing.demands import demand

_SHELF: Final = Shelf("suite")
_OTHER: Final = Shelf("suite_other")
_SHARED: Final = Shelf("suite_shared", shared=True)
_ONE, _TWO = "1" * 32, "2" * 32
_TAKE_OVER_S: Final = 5.0
_PATIENCE_S: Final = 30.0


class StateStoreTests:
    """Holds a backend to what `explorank.hooks.feedback.state_store` promises.

        class TestRedisStates(StateStoreTests):
            @pytest.fixture(autouse=True)
            def _server(self, redis_url):
                self.url = redis_url

            def make_backend(self):
                return RedisStateBackend(self.url)

    Only `make_backend` is needed. Some tests fork a process, which calls it anew: open nothing in fixtures that a
    forked process could not do without. Each test's docstring says what it demands and why.
    """

    def make_backend(self) -> StateBackend:
        """Return a backend; within a test each call returns another one of the same, at first empty, place."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say which backend to test. Give it `def make_backend(self)` that "
            "returns one."
        )

    # ---- entries --------------------------------------------------------------------------------------

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
        with self._opened() as store:
            with store.transaction():
                store.put(_SHELF, given)
            for key in keys:
                due = [entry for entry in given if entry.key == key]
                found = store.get(_SHELF, key)
                demand(found == due, f"Key {key!r} came back as {_brief(found)}, not as {_brief(due)}.")
            demand(store.get(_SHELF, "b") == [], "A key that was never put has entries.")
            demand(store.get(_OTHER, "a") == [], "An entry stands on a shelf on which nobody put it.")
            demand(store.count(_SHELF) == len(given), f"{store.count(_SHELF)} of {len(given)} are counted.")

    def test_entries_are_told_apart_by_key_and_part(self) -> None:
        """`put` replaces the entry of the same key and part, `drop` drops just that, and no value matters.

        Each slot of a decision closes once; one that is folded must not take another with it.
        """
        with self._opened() as store:
            with store.transaction():
                store.put(_SHELF, [Entry("a", b"old", 1.0, 0), Entry("a", b"kept", 1.0, 1), Entry("b", b"b")])
                store.put(_OTHER, [Entry("a", b"elsewhere", 1.0, 0)])
            with store.transaction():
                store.put(_SHELF, [Entry("a", b"new", 9.0, 0)])
                store.drop(_SHELF, [Entry("b"), Entry("unknown"), Entry("a", part=7)])
            self._demand(store, _SHELF, [Entry("a", b"kept", 1.0, 1), Entry("a", b"new", 9.0, 0)])
            self._demand(store, _OTHER, [Entry("a", b"elsewhere", 1.0, 0)])

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
        with self._opened() as store:
            with store.transaction():
                for entry in shuffled:
                    store.put(_SHELF, [entry])
            self._demand(store, _SHELF, ordered)
            for until, due in ((5.0, 10), (math.nextafter(5.0, 0.0), 3), (-2.5, 0), (6.25, 13)):
                found = store.first(_SHELF, until)
                demand(
                    found == ordered[:due],
                    f"Until {until}, {_brief(found)} came first, not {_brief(ordered[:due])}.",
                )
            for limit in (0, 1, 4, 99):
                found = store.first(_SHELF, 5.5, limit)
                demand(
                    found == ordered[:10][:limit],
                    f"With a limit of {limit}, {_brief(found)} came first.",
                )

    def test_fingerprints_are_apart(self) -> None:
        """Two fingerprints see nothing of each other but shared shelves, and `clear` clears one of them.

        Each policy, with each set of options, has a state of its own in the same place.
        """
        with self._opened() as one, self._opened(_TWO) as two:
            for store, value in ((one, b"1"), (two, b"2")):
                with store.transaction():
                    store.put(_SHELF, [Entry("a", value)])
                    store.put(_SHARED, [Entry(value.decode(), value)])
            self._demand(one, _SHELF, [Entry("a", b"1")])
            self._demand(two, _SHELF, [Entry("a", b"2")])
            shared = [Entry("1", b"1"), Entry("2", b"2")]
            for store in (one, two):
                self._demand(store, _SHARED, shared)
            with one.transaction():
                one.clear()
            self._demand(one, _SHELF, [])
            self._demand(two, _SHELF, [Entry("a", b"2")])
            with one.transaction():
                one.put(_SHELF, [Entry("b", b"1")])
                one.clear_others()
            self._demand(one, _SHELF, [Entry("b", b"1")])
            self._demand(two, _SHELF, [])
            for store in (one, two):
                self._demand(store, _SHARED, shared)

    def test_a_fingerprint_takes_the_place_of_another(self) -> None:
        """`adopt` replaces the named shelves by the other fingerprint's, which has them no more.

        A state that was rebuilt aside takes over so. The other shelves stay, which are an observer's.
        """
        with self._opened() as one, self._opened(_TWO) as two:
            for store, value in ((one, b"1"), (two, b"2")):
                with store.transaction():
                    for shelf in (_SHELF, _OTHER):
                        store.put(shelf, [Entry(f"only {value!r}", value), Entry("both", value, 1.5, 3)])
            with one.transaction():
                one.adopt(_TWO, [_SHELF])
                one.put(_SHELF, [Entry("both", b"put later", 1.5, 3)])
            self._demand(one, _SHELF, [Entry("only b'2'", b"2"), Entry("both", b"put later", 1.5, 3)])
            self._demand(one, _OTHER, [Entry("only b'1'", b"1"), Entry("both", b"1", 1.5, 3)])
            self._demand(two, _SHELF, [])
            self._demand(two, _OTHER, [Entry("only b'2'", b"2"), Entry("both", b"2", 1.5, 3)])

    # ---- transactions ---------------------------------------------------------------------------------

    def test_a_transaction_is_all_or_nothing(self) -> None:
        """Where the block raises, nothing of it is kept, and others see all of it or nothing.

        State and cursors change together; half a change would count rewards twice, or never.
        """
        before = [Entry("a", b"a"), Entry("b", b"b", 1.0)]
        with self._opened() as store, self._opened() as reader, self._opened(_TWO) as two:
            with store.transaction():
                store.put(_SHELF, before)
            with two.transaction():
                two.put(_SHELF, before)
            for give_up in (True, False):
                try:
                    with store.transaction():
                        store.put(_SHELF, [Entry("a", b"changed"), Entry("c", b"c")])
                        store.drop(_SHELF, [Entry("b")])
                        store.put(_OTHER, [Entry("d", b"d")])
                        store.put(_SHARED, [Entry("e", b"e")])
                        store.clear_others()
                        for shelf, due in ((_SHELF, before), (_OTHER, []), (_SHARED, [])):
                            self._demand(reader, shelf, due)
                        _end(give_up=give_up)
                except _GivenUp:
                    for shelf, due in ((_SHELF, before), (_OTHER, []), (_SHARED, [])):
                        self._demand(store, shelf, due)
                        self._demand(reader, shelf, due)
                    self._demand(two, _SHELF, before)
            for seen_by in (store, reader):
                self._demand(seen_by, _SHELF, [Entry("a", b"changed"), Entry("c", b"c")])
                self._demand(seen_by, _OTHER, [Entry("d", b"d")])
                self._demand(seen_by, _SHARED, [Entry("e", b"e")])
            self._demand(two, _SHELF, [])

    def test_what_a_transaction_read_stays_true(self) -> None:
        """Two writers that each read a number and put one more lose no count; whoever must wait may be refused.

        Before it writes, a learner looks whether the state is still the one that it goes on from.
        """
        rounds = 25

        def count() -> None:
            with self._opened() as store:
                for _ in range(rounds):
                    self._persist(lambda: _increment(store))

        threads = [threading.Thread(target=count) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._opened() as store:
            self._demand(store, _SHARED, [Entry("number", b"%d" % (2 * rounds))])

    def test_what_was_kept_is_there_when_it_is_opened_again(self) -> None:
        """Closing keeps what was committed; a store and a backend made later find it, and `close` may come twice."""
        kept = [Entry("a", b"a", 1.0, 2)]
        store = self.make_backend().open(_ONE)
        with store.transaction():
            store.put(_SHELF, kept)
            store.put(_SHARED, kept)
        store.close()
        store.close()
        with self._opened() as again:
            self._demand(again, _SHELF, kept)
            self._demand(again, _SHARED, kept)

    def test_another_process_sees_what_was_committed(self) -> None:
        """A store that is open already sees what another process commits, in the order of its transactions.

        Workers follow the learner that leads by looking whether its revision has risen.
        """

        def write(here: Connection) -> None:
            with self._opened() as store:
                for number in range(1, 4):
                    here.recv()
                    with store.transaction():
                        store.put(_SHELF, [Entry("number", b"%d" % number)])
                    here.send(None)

        with _elsewhere(write) as (there, process), self._opened() as store:
            for number in range(1, 4):
                there.send(None)
                _await(there, process)
                self._demand(store, _SHELF, [Entry("number", b"%d" % number)])

    def test_a_killed_process_keeps_what_it_committed(self) -> None:
        """SIGKILL in the middle of a transaction leaves all that was committed before, nothing of it, and no lock."""

        def write(here: Connection) -> None:
            with self._opened() as store:
                with store.transaction():
                    store.put(_SHELF, [Entry("a", b"kept")])
                with store.transaction():
                    store.put(_SHELF, [Entry("a", b"lost"), Entry("b", b"lost")])
                    here.send(None)
                    here.recv()

        with _elsewhere(write) as (there, process):
            _await(there, process)
            process.kill()
            process.join()
            with self._opened() as store:
                self._demand(store, _SHELF, [Entry("a", b"kept")])

                def put() -> None:
                    with store.transaction():
                        store.put(_SHELF, [Entry("a", b"later")])

                self._persist(put)
                self._demand(store, _SHELF, [Entry("a", b"later")])

    # ---- leases ---------------------------------------------------------------------------------------

    def test_one_at_a_time_has_the_lease(self) -> None:
        """A fingerprint's lease is held by one until it is released; other fingerprints have their own.

        Two who fold the same log into the same state would count every reward twice.
        """
        backend, beside = self.make_backend(), self.make_backend()
        lease = backend.lease(_ONE)
        if lease is None:
            raise AssertionError("Nobody holds the lease, and it is not to be had.")
        for other in (backend, beside):
            demand(other.lease(_ONE) is None, "A second learner was lent the lease that another holds.")
        second = beside.lease(_TWO)
        demand(second is not None, "The lease of another fingerprint is not to be had.")
        demand(lease.renew() and lease.renew(), "A lease that nobody else asked for could not be renewed.")
        lease.release()
        lease.release()
        demand(not lease.renew(), "A lease was renewed after its release.")
        third = beside.lease(_ONE)
        demand(third is not None, "A lease that was released is not to be had.")
        for held in (second, third):
            if held is not None:
                held.release()

    def test_a_killed_holder_frees_the_lease(self) -> None:
        """While another process holds the lease it is not to be had; within 5 s after SIGKILL it is.

        Rewards go on being learnt when the leading worker dies.
        """

        def hold(here: Connection) -> None:
            lease = self.make_backend().lease(_ONE)
            here.send(lease is not None)
            here.recv()

        with _elsewhere(hold) as (there, process):
            demand(_await(there, process), "Nobody holds the lease, and another process did not get it.")
            backend = self.make_backend()
            demand(backend.lease(_ONE) is None, "The lease was lent while another process holds it.")
            process.kill()
            process.join()
            died_at = time.monotonic()
            while (lease := backend.lease(_ONE)) is None:
                demand(
                    time.monotonic() - died_at < _TAKE_OVER_S,
                    f"{_TAKE_OVER_S:g} s after its holder was killed the lease is still not to be had.",
                )
                time.sleep(0.02)
            lease.release()

    # ---- damage and erasing ---------------------------------------------------------------------------

    def test_what_was_moved_aside_is_gone(self) -> None:
        """After `move_aside`, stores that are open say that they were `replaced`, and new ones are empty.

        The leader, whose lease it does not end, rebuilds from the log; followers open the new state.
        """
        backend = self.make_backend()
        lease = backend.lease(_ONE)
        with self._opened() as follower:
            with closing(backend.open(_ONE)) as store, store.transaction():
                store.put(_SHELF, [Entry("a", b"a")])
                store.put(_SHARED, [Entry("b", b"b")])
            demand(not follower.replaced, "An open store says it was `replaced`, and nobody did that.")
            backend.move_aside("the suite says so")
            demand(follower.replaced, "What an open store shows was moved aside, and it is not `replaced`.")
        with self._opened() as store:
            for shelf in (_SHELF, _SHARED):
                self._demand(store, shelf, [])
            demand(not store.replaced, "A store opened after `move_aside` says that it was `replaced`.")
        demand(lease is not None and lease.renew(), "Moving the state aside took the lease from its holder.")
        if lease is not None:
            lease.release()

    def test_what_was_dropped_can_be_overwritten(self) -> None:
        """`leave_no_trace` is done at once where nobody reads, and takes nothing that was not dropped."""
        with self._opened() as store:
            with store.transaction():
                store.put(_SHELF, [Entry("a", b"a"), Entry("b", b"b")])
            with store.transaction():
                store.drop(_SHELF, [Entry("a")])
            demand(store.leave_no_trace(), "Nobody reads, and what was dropped could not be overwritten.")
            self._demand(store, _SHELF, [Entry("b", b"b")])

    # ---- what it is for -------------------------------------------------------------------------------

    def test_a_learner_lives_on_it(self, tmp_path: Path) -> None:
        """A learner learns, is followed, taken over, rebuilt, and forgets a user, with its state kept here.

        Each reward counts once throughout, by the counts of a Beta posterior.
        """
        folder = tmp_path / "log"
        with DecisionLog(folder) as log:
            for number in range(6):
                log.append_decision(_decision(f"d{number}", f"user-{number % 2}"))
                log.append_rewards([_click(f"d{number}")])
            leader, follower = (self._learner(folder) for _ in range(2))
            try:
                leader.step(1_001.0)
                follower.step(1_001.0)
                demand(
                    (leader.stats.leads, follower.stats.leads) == (True, False),
                    "Of two learners, not just the first leads.",
                )
                self._demand_learnt(follower, 6.0)
                leader.close()
                log.append_decision(_decision("d6", "user-1"))
                log.append_rewards([_click("d6")])
                self._persist(lambda: follower.step(1_002.0), until=lambda: follower.stats.leads)
                self._demand_learnt(follower, 7.0)
                follower.rebuild(1_003.0)
                self._demand_learnt(follower, 7.0)
                follower.forget("user-1", 1_004.0)
                self._demand_learnt(follower, 3.0)
            finally:
                leader.close()
                follower.close()
            heir = self._learner(folder)
            self._demand_learnt(heir, 3.0)
            heir.close()

    # ---- how ------------------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, fingerprint: str = _ONE) -> Iterator[StateStore]:
        store = self.make_backend().open(fingerprint)
        try:
            yield store
        finally:
            store.close()

    def _demand(self, store: StateStore, shelf: Shelf, due: Sequence[Entry]) -> None:
        found = store.first(shelf, math.inf)
        listed = sorted(due, key=lambda entry: (entry.at, entry.key, entry.part))
        demand(found == listed, f"On {shelf.name!r} stand {_brief(found)}; {_brief(listed)} is due.")
        demand(store.count(shelf) == len(due), f"{store.count(shelf)} of {len(due)} entries are counted.")
        for key in {entry.key for entry in due}:
            of_key = [entry for entry in listed if entry.key == key]
            of_key.sort(key=lambda entry: entry.part)
            demand(
                store.get(shelf, key) == of_key,
                f"Key {key!r} of {shelf.name!r} has {_brief(store.get(shelf, key))}; {_brief(of_key)} is due.",
            )

    def _persist(self, do: Callable[[], object], until: Callable[[], bool] = lambda: True) -> None:
        """Try again what may be refused while another writes, or leads."""
        give_up_at = time.monotonic() + _PATIENCE_S
        while True:
            try:
                do()
                if until():
                    return
            except LogUnavailable:
                if time.monotonic() > give_up_at:
                    raise
            demand(time.monotonic() <= give_up_at, f"In {_PATIENCE_S:g} s nothing came of trying again.")
            time.sleep(0.01)

    def _learner(self, folder: Path) -> Learner:
        return Learner(
            folder,
            BetaThompson(),
            states=self.make_backend(),
            reward_weights={"click": 1.0},
            horizon_s=100.0,
        )

    def _demand_learnt(self, learner: Learner, clicks: float) -> None:
        found = learner.snapshot.successes.tolist()
        demand(
            found == [clicks] and learner.stats.folded == clicks,
            f"{clicks:g} clicks for one item were logged; the learner knows {found} and counts "
            f"{learner.stats.folded}.",
        )


class _GivenUp(Exception):
    """Ends a transaction before its time."""


def _end(*, give_up: bool) -> None:
    if give_up:
        raise _GivenUp


def _increment(store: StateStore) -> None:
    with store.transaction():
        found = store.get(_SHARED, "number")
        number = int(found[0].value) if found else 0
        store.put(_SHARED, [Entry("number", b"%d" % (number + 1))])


@contextmanager
def _elsewhere(do: Callable[[Connection], None]) -> Iterator[tuple[Connection, BaseProcess]]:
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


def _await(there: Connection, process: BaseProcess) -> object:
    """Return what the other process says next."""
    demand(there.poll(_PATIENCE_S), f"The other process said nothing (exit code {process.exitcode}).")
    try:
        return there.recv()
    except EOFError as error:
        raise AssertionError("The other process ended; its own error stands above.") from error


def _brief(entries: Sequence[Entry]) -> str:
    listed = [f"{e.key[:20]!r}/{e.part} at {e.at!r}: {e.value[:20]!r}" for e in entries]
    return f"[{', '.join(listed)}]"


def _decision(decision_id: str, user_id: str) -> DecisionRecord:
    alone = np.ones((1, 1), np.bool_)
    return DecisionRecord(
        request=RankingRequest(decision_id=decision_id, slots=1, user_id=user_id, time=1_000.0),
        mode="live",
        arm="explore",
        item_ids=np.array(["item"]),
        scores=np.zeros(1),
        baseline_order=np.zeros(1, np.int64),
        slate=Slate(
            order=np.zeros(1, np.int64),
            propensities=np.ones(1),
            method=("explore",),
            policy=BetaThompson.name,
            policy_version=0,
            eligible=alone,
            support=alone,
        ),
    )


def _click(decision_id: str) -> Reward:
    return Reward(
        decision_id=decision_id,
        slot=0,
        item_id="item",
        kind="click",
        value=1.0,
        reward_id=f"click-{decision_id}",
        time=1_000.5,
    )
