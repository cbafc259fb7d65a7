"""Whether the log alone is enough to find a decision again."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import numpy as np

from explorank.baseline import Baseline
from explorank.explorer import Explored
from explorank.hooks.evaluation import replay, target_propensities
from explorank.hooks.exploration import Greedy, build_slate
from explorank.hooks.feedback.record import decode, encode
from explorank.hooks.types import RankingRequest
from explorank.recorder import record_of
from explorank.testing.cases import PolicyCases
from explorank.testing.demands import demand
from explorank.testing.restrictions import guards_for

_CANDIDATES: Final = 60
_SLOTS: Final = 5


class ReplayTests(PolicyCases):
    """The part of `PolicyTests` about replay from a decision's record."""

    def test_a_decision_is_replayed_from_its_record(self) -> None:
        """Written as the stage writes it and read back, a record gives the slate and its propensities again.

        To the last bit, over sixty candidates, with guards, where all slots explore and where some do. The
        record holds features only of what could have been shown, so that replay chooses among those: the
        policy's answer must not depend on candidates to which it gives no probability. Off-policy
        evaluation of this policy as a target, and every audit, rest on it.
        """
        policy, state, batch = self.case(_CANDIDATES)
        for seed in range(self.few_seeds):
            explored_slots = None if seed % 2 else (0, 2, 3)
            request = RankingRequest(decision_id=f"decision-{seed}", slots=_SLOTS)
            slate, baseline = (
                build_slate(
                    by, of, batch, _SLOTS, explored_slots, guards_for(batch), request=request, seed=seed
                )
                for by, of in ((policy, state), (Greedy(), Greedy().initial_state()))
            )
            decided = Explored(Baseline.of(baseline), "live", "explore", slate)
            record = decode(encode(record_of(request, batch, decided, (), {})))
            again = replay(record, policy, state)
            for field in fields(slate):
                logged, replayed = getattr(slate, field.name), getattr(again, field.name)
                demand(
                    np.array_equal(logged, replayed),
                    f"{policy.name}, seed {seed}: the record says `{field.name}` {logged}, its replay "
                    f"{replayed}. The contest must draw alike among those that could have been shown: draw "
                    "for the policy's coefficients, or for the possible candidates in the order of their "
                    "keys, never for all rows.",
                )
            target = target_propensities(record, policy, state)
            demand(
                target.tolist() == slate.propensities.tolist(),
                f"{policy.name}, seed {seed}: {slate.propensities} was logged, and as a target of evaluation "
                f"the policy gives {target} to the same slate; weights would be wrong.",
            )
