"""Whether what a policy says of itself holds: that its state is a sum, and rewards can be added and taken out."""

from __future__ import annotations

from typing import Any

import numpy as np

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import Policy
from explorank.hooks.types import RewardBatch
from explorank.testing.batches import columns_of
from explorank.testing.cases import PolicyCases, contest_of, shares
from explorank.testing.demands import demand, refused


class AddingTests(PolicyCases):
    """The part of `PolicyTests` about `additive`, `merge` and `unlearn`."""

    def test_what_was_learnt_apart_can_be_merged(self) -> None:
        """Where `additive`, two states that learnt disjoint rewards merge into what one would have learnt.

        To `additive_tolerance` in every probability, whichever comes first, and the old states stay as they
        were. Two learners with a log each rest on it. Elsewhere `merge` raises `InvalidPolicy`.
        """
        policy = self.make_policy()
        rewards = self.rewards(policy, 40)
        one, other, whole = (
            self._learnt(policy, rewards, rows) for rows in (slice(25), slice(25, 40), slice(40))
        )
        if not policy.additive:
            with refused(InvalidPolicy, f"{policy.name} is not `additive`; leave `merge` as it is."):
                policy.merge(one, other)
            return
        before = policy.dumps(one), policy.dumps(other)
        merged = policy.merge(one, other)
        demand(
            (policy.dumps(one), policy.dumps(other)) == before,
            f"`merge` of {policy.name} changed a state it was given; requests are reading it. Copy first.",
        )
        demand(
            merged.version == one.version + other.version,
            f"{policy.name} merged versions {one.version} and {other.version} into {merged.version}; as many calls "
            "of `learn` have led to it as to both.",
        )
        self._demand_alike(policy, whole, merged, "Merging what was learnt apart")
        self._demand_alike(policy, whole, policy.merge(other, one), "Merging in the other order")
        self._demand_alike(
            policy, one, policy.merge(one, policy.initial_state()), "Merging the initial state"
        )

    def test_what_was_learnt_can_be_unlearnt(self) -> None:
        """Where `additive`, a state without some of its rewards is what the others would have taught.

        To `additive_tolerance` in every probability, down to the initial state, and the old state stays as it
        was. Erasing a user rests on it. Elsewhere `unlearn` raises `InvalidPolicy`.
        """
        policy = self.make_policy()
        rewards = self.rewards(policy, 40)
        parts = [_part(rewards, rows) for rows in (slice(25), slice(25, 40))]
        whole = self._learnt(policy, rewards, slice(40))
        if not policy.additive:
            with refused(InvalidPolicy, f"{policy.name} is not `additive`; leave `unlearn` as it is."):
                policy.unlearn(whole, parts[1])
            return
        before = policy.dumps(whole)
        for gone, left in ((1, 0), (0, 1)):
            after = policy.unlearn(whole, parts[gone])
            directly = policy.learn(policy.initial_state(), parts[left])
            self._demand_alike(policy, directly, after, "Unlearning a part of what was learnt")
            demand(
                after.version == whole.version + 1,
                f"`unlearn` of {policy.name} made version {after.version} of {whole.version}; it adds 1.",
            )
            nothing = policy.unlearn(after, parts[left])
            self._demand_alike(policy, policy.initial_state(), nothing, "Unlearning all that was learnt")
        demand(
            policy.dumps(whole) == before,
            f"`unlearn` of {policy.name} changed the state it was given; requests are reading it. Copy first.",
        )

    def test_an_unchanged_state_may_be_given_another_version(self) -> None:
        """`at_version` changes the version alone, by way of `pack` and `unpack`.

        A state that was rebuilt from the log takes the place of one that decisions already name.
        """
        policy = self.make_policy()
        state = self.make_state(policy)
        renamed = policy.at_version(state, 1_000)
        demand(renamed.version == 1_000, f"{policy.name} is at {renamed.version!r} where 1000 is due.")
        demand(
            policy.dumps(policy.at_version(renamed, state.version)) == policy.dumps(state),
            f"{policy.name} loses something on the way through `pack` and `unpack`.",
        )

    def _learnt(self, policy: Policy[Any], rewards: RewardBatch, rows: slice) -> Any:
        return policy.learn(policy.initial_state(), _part(rewards, rows))

    def _demand_alike(self, policy: Policy[Any], one: Any, other: Any, what: str) -> None:
        __tracebackhide__ = True
        batch = self.make_batch(policy, 6)
        everybody = np.ones(len(batch), np.bool_)
        for seed in range(self.few_seeds):
            due, found = (contest_of(policy, of, batch, seed).distribution(everybody) for of in (one, other))
            demand(
                np.allclose(due, found, rtol=0.0, atol=self.additive_tolerance),
                f"{what} of {policy.name} leads to {shares(found)} where {shares(due)} is due (seed {seed}). Add "
                "and subtract the sums that `learn` adds to, the prior counted once, or do not say `additive`.",
            )


def _part(rewards: RewardBatch, rows: slice) -> RewardBatch:
    return RewardBatch(**{name: column[rows] for name, column in columns_of(rewards).items()})
