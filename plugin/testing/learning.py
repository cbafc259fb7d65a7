"""What learning may do: return the next state, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from typing import Any

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration import Policy, build_slate
from explorank.hooks.types import RewardBatch
from explorank.testing.batches import columns_of
from explorank.testing.cases import PolicyCases
from explorank.testing.demands import demand, refused, skip_because, without_warnings


class LearningTests(PolicyCases):
    """The part of `PolicyTests` about states and `Policy.learn`."""

    def test_learning_leaves_the_old_state_alone(self) -> None:
        """`learn` is a pure function: state and rewards are as before, and asking twice gives one answer.

        Requests are reading the old state at this moment; a decision names the version it used.
        """
        policy = self.make_policy()
        state, rewards = self.make_state(policy), self.rewards(policy, 30)
        before = policy.dumps(state)
        given = {name: column.copy() for name, column in columns_of(rewards).items()}
        once = policy.dumps(policy.learn(state, rewards))
        demand(
            policy.dumps(state) == before,
            f"`learn` of {policy.name} changed the state it was given; requests that read it would see half "
            "an update. Copy the arrays before adding to them.",
        )
        demand(
            all(np.array_equal(given[name], column) for name, column in columns_of(rewards).items()),
            f"`learn` of {policy.name} wrote into the rewards; they belong to the learner. Copy them first.",
        )
        again = policy.dumps(policy.learn(state, rewards))
        demand(
            once == again,
            f"`learn` of {policy.name} gave two states for the same state and rewards; a rebuild from the "
            "log would not give the state that decisions name. Draw nothing in `learn`, or seed it from the "
            "state.",
        )

    def test_a_request_leaves_the_state_alone(self) -> None:
        """Ranking changes neither the state nor the batch, however many slates are drawn.

        Threads share both, and the log records the batch afterwards.
        """
        policy = self.make_policy()
        state, batch = self.make_state(policy), self.make_batch(policy, 6)
        before = policy.dumps(state)
        scores = batch.score_values.copy()
        features = None if batch.features is None else batch.features.copy()
        for seed in range(self.few_seeds):
            build_slate(policy, state, batch, 4, seed=seed)
        demand(
            policy.dumps(state) == before,
            f"{policy.name} changed its state while ranking; many threads share it, and replay would start "
            "from another one. Keep what a request computes in its contest.",
        )
        demand(
            np.array_equal(batch.score_values, scores) and _equal(batch.features, features),
            f"{policy.name} wrote into the batch; the log records it afterwards. Copy it first.",
        )

    def test_a_state_and_a_policy_are_frozen(self) -> None:
        """Assigning to the version of a state, or to an attribute of the policy, raises.

        What many threads read and decisions name by a version must not change under them.
        """
        policy = self.make_policy()
        for owner, name in ((policy.initial_state(), "version"), (self.make_state(policy), "version")):
            with refused(AttributeError, f"Make {type(owner).__name__} a frozen dataclass."):
                setattr(owner, name, 99)
        for field in fields(policy):
            with refused(AttributeError, f"Make {type(policy).__name__} a frozen dataclass."):
                setattr(policy, field.name, getattr(policy, field.name))

    def test_the_version_rises_by_one(self) -> None:
        """It counts the calls of `learn`, from 0, whether or not there was something to learn.

        Decisions name the state they used by it.
        """
        policy = self.make_policy()
        state = policy.initial_state()
        demand(state.version == 0, f"{policy.name} begins at version {state.version!r}; begin at 0.")
        for count, m in enumerate((5, 1, 0, 12), start=1):
            state = policy.learn(state, self.rewards(policy, m))
            demand(
                state.version == count,
                f"{policy.name} is at version {state.version!r} after {count} calls of `learn`, the last "
                f"with {m} rewards; each call adds 1.",
            )

    def test_no_rewards_teach_nothing(self) -> None:
        """An empty batch changes the version alone, without a warning.

        A learner may be called when nothing came in; what fades then would fade with the clock of the learner.
        """
        policy = self.make_policy()
        for state in (policy.initial_state(), self.make_state(policy)):
            with without_warnings(f"{policy.name} learnt from an empty batch"):
                after = policy.learn(state, self.rewards(policy, 0))
            self._demand_same_knowledge(policy, state, after, "An empty batch changed the state")

    def test_the_cut_into_batches_does_not_matter(self) -> None:
        """Rewards in one batch, in three, and one by one teach the same, to `batch_tolerance`.

        A learner that was restarted cuts the log elsewhere; it must arrive at the same numbers. The version
        is left out: it counts the batches.
        """
        skip_because(self.batches_matter_because)
        policy = self.make_policy()
        rewards = self.rewards(policy, 24)
        whole = policy.learn(policy.initial_state(), rewards)
        for cuts in ((0, 5, 6, 24), tuple(range(25))):
            state = policy.initial_state()
            for start, end in itertools.pairwise(cuts):
                part = {name: column[start:end] for name, column in columns_of(rewards).items()}
                state = policy.learn(state, RewardBatch(**part))
            self._demand_same_knowledge(
                policy,
                whole,
                state,
                f"Learning 24 rewards in {len(cuts) - 1} batches instead of one gave another state",
            )

    def test_rewards_without_a_needed_column_are_refused(self) -> None:
        """`learn` raises `InvalidBatch` where a column it needs is missing.

        Those are the features where `needs_features` is True, and what the policy `learns_from`. Guessing
        them would corrupt the state for good.
        """
        policy = self.make_policy()
        rewards = self.rewards(policy, 6)
        for column in (*(("features",) if policy.needs_features else ()), *policy.learns_from):
            rest = columns_of(rewards)
            demand(
                column in rest,
                f"`rewards` of the suite gives no `{column}`, which {policy.name} needs. Override it.",
            )
            del rest[column]
            with refused(InvalidBatch, f"`learn` of {policy.name} must say that it needs `{column}`."):
                policy.learn(policy.initial_state(), RewardBatch(**rest))
        if rewards.features is not None and policy.needs_features:
            wider = np.hstack((rewards.features, rewards.features[:, :1]))
            with refused(InvalidBatch, f"`learn` of {policy.name} must check the number of features."):
                policy.learn(policy.initial_state(), replace(rewards, features=wider))

    def _demand_same_knowledge(self, policy: Policy[Any], one: Any, other: Any, what: str) -> None:
        __tracebackhide__ = True
        (meta, packed), (other_meta, other_packed) = policy.pack(one), policy.pack(other)
        reason = (
            ". Decisions after a restart would use other numbers. Make `learn` a sum over rewards, or say "
            "why it cannot be one in `batches_matter_because`."
        )
        meta, other_meta = ({**of, "version": None} for of in (meta, other_meta))
        demand(meta == other_meta, f"{what} of {policy.name}: {meta} and {other_meta}{reason}")
        demand(
            packed.keys() == other_packed.keys(),
            f"{what} of {policy.name}: arrays {sorted(packed)} and {sorted(other_packed)}{reason}",
        )
        for name, array in packed.items():
            theirs = other_packed[name]
            same = array.shape == theirs.shape and (
                np.allclose(array, theirs, rtol=self.batch_tolerance, atol=self.batch_tolerance)
                if array.dtype.kind in "fc"
                else np.array_equal(array, theirs)
            )
            demand(same, f"{what} of {policy.name}: `{name}` is {array} and {theirs}{reason}")


def _equal(one: Any, other: Any) -> bool:
    return (one is None and other is None) or np.array_equal(one, other)
