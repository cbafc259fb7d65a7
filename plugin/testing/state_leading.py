"""Whether one learner at a time leads, another takes over, and damage is put out of the way."""

from __future__ import annotations

import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from explorank.hooks.exploration import BetaThompson
from explorank.hooks.feedback import DecisionLog, Entry, Learner
from explorank.hooks.types import DecisionRecord, RankingRequest, Reward, Slate
from explorank.testing.demands import demand
from explorank.testing.state_cases import ONE, SHARED, SHELF, TWO, StateStoreCases, elsewhere, hear

_TAKE_OVER_S: Final = 5.0
_RENEWED_EVERY_S: Final = 0.2


class StateLeadingTests(StateStoreCases):
    """The part of `StateStoreTests` about `lease`, `move_aside`, and a learner that lives on them."""

    def test_one_at_a_time_has_the_lease(self) -> None:
        """A fingerprint's lease is held by one until it is released; other fingerprints have their own.

        Two who fold the same log into the same state would count every reward twice.
        """
        backend, beside = self.make_backend(), self.make_backend()
        lease = backend.lease(ONE)
        if lease is None:
            raise AssertionError("Nobody holds the lease, and it is not to be had.")
        for other in (backend, beside):
            lease.renew()  # one that runs out may have, on a busy machine
            demand(other.lease(ONE) is None, "A second learner was lent the lease that another holds.")
        second = beside.lease(TWO)
        demand(second is not None, "The lease of another fingerprint is not to be had.")
        demand(lease.renew() and lease.renew(), "A lease that nobody else asked for could not be renewed.")
        lease.release()
        lease.release()
        demand(not lease.renew(), "A lease was renewed after its release.")
        third = beside.lease(ONE)
        demand(third is not None, "A lease that was released is not to be had.")
        for held in (second, third):
            if held is not None:
                held.release()

    def test_a_killed_holder_frees_the_lease(self) -> None:
        """While another process holds the lease it is not to be had; within 5 s after SIGKILL it is.

        Rewards go on being learnt when the leading worker dies.
        """

        def hold(here: Connection) -> None:
            lease = self.make_backend().lease(ONE)
            here.send(lease is not None)
            while lease is not None and not here.poll(_RENEWED_EVERY_S):
                lease.renew()

        with elsewhere(hold) as (there, process):
            demand(hear(there, process), "Nobody holds the lease, and another process did not get it.")
            backend = self.make_backend()
            demand(backend.lease(ONE) is None, "The lease was lent while another process holds it.")
            process.kill()
            process.join()
            died_at = asked_at = time.monotonic()
            while (lease := backend.lease(ONE)) is None:
                # By when it was asked for: the answer may have been held up on its way.
                demand(
                    asked_at - died_at < _TAKE_OVER_S,
                    f"{_TAKE_OVER_S:g} s after its holder was killed the lease is still not to be had.",
                )
                time.sleep(0.02)
                asked_at = time.monotonic()
            lease.release()

    def test_what_was_moved_aside_is_gone(self) -> None:
        """After `move_aside`, stores that are open say that they were `replaced`, and new ones are empty.

        The leader, whose lease it does not end, rebuilds from the log; followers open the new state.
        """
        backend = self.make_backend()
        lease = backend.lease(ONE)
        with self.opened() as follower:
            with closing(backend.open(ONE)) as store, store.transaction():
                store.put(SHELF, [Entry("a", b"a")])
                store.put(SHARED, [Entry("b", b"b")])
            demand(not follower.replaced, "An open store says it was `replaced`, and nobody did that.")
            backend.move_aside("the suite says so")
            demand(follower.replaced, "What an open store shows was moved aside, and it is not `replaced`.")
        with self.opened() as store:
            for shelf in (SHELF, SHARED):
                self.demand_entries(store, shelf, [])
            demand(not store.replaced, "A store opened after `move_aside` says that it was `replaced`.")
        demand(lease is not None and lease.renew(), "Moving the state aside took the lease from its holder.")
        if lease is not None:
            lease.release()

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
                self.persist(lambda: follower.step(1_002.0), until=lambda: follower.stats.leads)
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

    def _learner(self, folder: Path) -> Learner[Any]:
        return Learner(
            folder,
            BetaThompson(),
            states=self.make_backend(),
            reward_weights={"click": 1.0},
            horizon_s=100.0,
        )

    def _demand_learnt(self, learner: Learner[Any], clicks: float) -> None:
        found = learner.snapshot.successes.tolist()
        demand(
            found == [clicks] and learner.stats.folded == clicks,
            f"{clicks:g} clicks for one item were logged; the learner knows {found} and counts "
            f"{learner.stats.folded}.",
        )


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
