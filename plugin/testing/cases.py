"""What every part of `PolicyTests` works on: a policy, a state, candidates and rewards; a subclass may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from explorank.hooks.exploration.policy import Contest, Policy
from explorank.hooks.exploration.randomness import generator
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch

_ITEMS = 12
"""How many of the candidates have earned rewards."""


class PolicyCases:
    """Gives the suite its policy and its data; only `make_policy` must be overridden."""

    seeds: ClassVar[int] = 4_000
    """Seeds of each statistical test. Fewer make a slow policy's tests quicker, and find only grosser errors."""
    few_seeds: ClassVar[int] = 20
    """Seeds of each test that compares exactly."""
    false_alarm: ClassVar[float] = 1e-4
    """How likely a correct policy fails a statistical test, at most, all its comparisons together. Seeds are
    fixed: a test that passes once passes always."""
    batch_tolerance: ClassVar[float] = 1e-9
    """How far a state may depend on how the log was cut into batches: relative, and absolute near zero."""
    additive_tolerance: ClassVar[float] = 1e-6
    """How far what is merged, or left after unlearning, may be from learning directly: in any probability."""
    batches_matter_because: ClassVar[str | None] = None
    """Why a state depends on how the log was cut into batches, where it must; the test is skipped with it."""
    shifts_matter_because: ClassVar[str | None] = None
    """Why a constant added to all scores changes the distribution, where it must; the test is skipped with it."""
    invalid_options: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Options that must be refused, each replacing those of `make_policy()`: `[{"temperature": 0.0}]`."""
    operations_per_candidate: ClassVar[float] = 3.0
    """Bytecode instructions that one more candidate may cost; the shortest loop needs 5."""

    def make_policy(self) -> Policy[Any]:
        """Return the policy under test. Options that explore much let the statistical tests see more."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say which policy to test. Give it `def make_policy(self)` that "
            "returns one."
        )

    def make_state(self, policy: Policy[Any]) -> Any:
        """Return the state to test with: by default, what `policy` learns from 40 rewards."""
        return policy.learn(policy.initial_state(), self.rewards(policy, 40))

    def make_batch(self, policy: Policy[Any], n: int) -> RankingBatch:
        """Return `n` candidates; the first twelve are those that `rewards` knows.

        Scores are halves, with ties, and features as many as the policy's `dim`. Override it for a policy
        that reads other columns.
        """
        rng = np.random.default_rng(7)
        return RankingBatch(
            item_ids=np.array([f"item-{row}" for row in range(n)], np.str_),
            features=self._features(policy, n),
            scores=rng.integers(-2, 3, size=n) / 2.0,
        )

    def rewards(self, policy: Policy[Any], m: int) -> RewardBatch:
        """Return `m` rewards of 0 and 1, in the order of their times, with what a log knows of each.

        Override it for a policy that needs more columns, or rewards on another scale.
        """
        rng = np.random.default_rng(11)
        rows = rng.integers(_ITEMS, size=m)
        features = self._features(policy, _ITEMS)
        return RewardBatch(
            item_ids=np.array([f"item-{row}" for row in rows], np.str_),
            values=rng.integers(2, size=m).astype(np.float64),
            features=None if features is None else features[rows],
            decision_ids=np.array([f"decision-{row // 2}" for row in range(m)], np.str_),
            slots=np.arange(m) % 2,
            propensities=rng.uniform(0.1, 1.0, size=m),
            times=1_700_000_000.0 + np.arange(m, dtype=np.float64),
        )

    def case(self, n: int) -> tuple[Policy[Any], Any, RankingBatch]:
        """Return a policy, its state, and `n` candidates, as the methods above make them."""
        policy = self.make_policy()
        return policy, self.make_state(policy), self.make_batch(policy, n)

    def _features(self, policy: Policy[Any], n: int) -> Any:
        if not policy.needs_features:
            return None
        return np.random.default_rng(13).standard_normal((n, getattr(policy, "dim", 3)))


def contest_of(
    policy: Policy[Any], state: Any, batch: RankingBatch, seed: int, eligible: BoolArray | None = None
) -> Contest:
    """Return the contest of one request, all candidates eligible at its first slot unless said otherwise."""
    first = np.ones(len(batch), np.bool_) if eligible is None else eligible
    return policy.contest(state, batch, first, generator(seed))


def shares(distribution: FloatArray) -> str:
    """Return a distribution for a message."""
    return np.array2string(distribution, precision=6, threshold=12)
