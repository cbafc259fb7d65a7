"""Thompson sampling with one Beta posterior per item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.policy import Policy, unpacked_version
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.exploration.thompson import ThompsonContest, check_options
from explorank.hooks.types import BoolArray, FloatArray, Ids, IndexArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class BetaState:
    """The sums of what came back, per item that ever earned a reward (A of them); additive."""

    version: int = 0
    item_ids: Ids = field(default_factory=lambda: np.zeros(0, dtype="<U1"))  # (A,), by first appearance
    successes: FloatArray = field(default_factory=lambda: np.zeros(0))  # (A,)
    failures: FloatArray = field(default_factory=lambda: np.zeros(0))  # (A,)
    row_of: Mapping[Any, int] = field(init=False, repr=False, compare=False)
    """Where each item stands in the arrays."""

    def __post_init__(self) -> None:
        """Index the items once, for all requests that read this state."""
        rows = {item: row for row, item in enumerate(self.item_ids.tolist())}
        object.__setattr__(self, "row_of", MappingProxyType(rows))


@dataclass(frozen=True)
class BetaThompson(Policy[BetaState]):
    """Draw each item's success rate from its Beta posterior and show the highest draw.

        θ_i ~ Beta(prior_alpha + Σ w·r, prior_beta + Σ w·(1 - r))    over the rewards r in [0, 1] of item i

    Propensity: exact given the seed's draws, conditional on the slate above the slot (see `thompson`); an
    importance weight is at most pool / floor.

    Source: Thompson (1933); Chapelle and Li, *An Empirical Evaluation of Thompson Sampling* (2011). It
    departs from them in that the item is drawn from the winning shares of M draws instead of being the
    winner of one, that a floor is mixed in, and that a reward between 0 and 1 counts as that share of a
    success, instead of being rounded by a coin (Agrawal and Goyal, 2012): the mean is the same, and learning
    stays a function of the log.
    """

    name: ClassVar[str] = "beta_thompson"

    prior_alpha: float = 1.0
    """Successes that an item is credited with before its first reward; above 0."""
    prior_beta: float = 1.0
    """Failures that an item is charged with before its first reward; above 0."""
    floor: float = 0.01
    """The share of an explored slot that is spread evenly over the pool; above 0, at most 1."""
    pool: int = 50
    """How many candidates contend: the best by mean + 2 standard deviations. Others cannot be shown."""
    draws: int = 256
    """Posterior draws per request; more make propensities finer and requests slower."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, self.pool, self.draws)
        for option, value in (("prior_alpha", self.prior_alpha), ("prior_beta", self.prior_beta)):
            if not 0.0 < value < np.inf:
                raise InvalidPolicy(
                    f"`{option}` of {self.name} is {value!r}; it must be positive and finite, or an unseen "
                    "item has no distribution. Try 1."
                )

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    def initial_state(self) -> BetaState:
        """Return a state without arms: every item has the prior until its first reward."""
        return BetaState()

    def contest(
        self, state: BetaState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> ThompsonContest:
        """Return the contest of one request."""
        known = np.fromiter(
            map(state.row_of.get, batch.item_ids.tolist(), repeat(-1)), np.int64, count=len(batch)
        )
        # An item without an arm has row -1: the zero that is appended here.
        alpha = np.append(state.successes, 0.0)[known] + self.prior_alpha
        beta = np.append(state.failures, 0.0)[known] + self.prior_beta
        keys = rng.random(len(batch))
        posterior = _BetaPosterior(alpha, beta, self.draws, seed=int(rng.integers(2**63)))
        return ThompsonContest(posterior, keys, eligible, self.pool, self.floor)

    def learn(self, state: BetaState, rewards: RewardBatch) -> BetaState:
        """Return the state with each reward added to its item's sums.

        Raises `InvalidBatch` for a reward outside [0, 1], for offsets, and for ids of another type than
        the state's.
        """
        values = rewards.values
        outside = (values < 0.0) | (values > 1.0)
        if outside.any():
            row = int(np.argmax(outside))
            raise InvalidBatch(
                f"The reward of item {rewards.item_ids.tolist()[row]!r} is {float(values[row])!r}; "
                f"{self.name} counts successes and failures and has no meaning outside [0, 1]. Scale the "
                "reward, or use linear_thompson."
            )
        if rewards.offsets is not None and rewards.offsets.any():
            raise InvalidBatch(
                f"{self.name} was given rewards with offsets; a residual is not a share of a success. Learn "
                "residuals with linear_thompson, or leave the offsets out."
            )
        weights = row_weights(rewards)
        if not len(rewards):
            return BetaState(state.version + 1, state.item_ids, state.successes, state.failures)
        ids = rewards.item_ids
        if ids.dtype.kind not in "Uiu":
            ids = np.asarray(ids.tolist())  # text held as objects becomes plain text, which can be saved
        if len(state.item_ids) and state.item_ids.dtype.kind != ids.dtype.kind:
            raise InvalidBatch(
                f"Rewards name items by {ids.dtype}, the state of {self.name} by {state.item_ids.dtype}; "
                "the same item would get two arms. Use one type of id throughout."
            )
        unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        known = np.fromiter(map(state.row_of.get, unique.tolist(), repeat(-1)), np.int64, count=len(unique))
        new = np.flatnonzero(known < 0)
        new = new[np.argsort(first[new])]
        arms = len(state.item_ids)
        known[new] = arms + np.arange(len(new))
        rows = known[inverse]
        size = arms + len(new)
        successes, failures = np.zeros(size), np.zeros(size)
        successes[:arms], failures[:arms] = state.successes, state.failures
        np.add.at(successes, rows, weights * values)
        np.add.at(failures, rows, weights * (1.0 - values))
        item_ids = np.concatenate((state.item_ids, unique[new])) if arms else unique[new]
        return BetaState(state.version + 1, item_ids, successes, failures)

    def posterior(self, state: BetaState) -> tuple[FloatArray, FloatArray]:
        """Return alpha and beta of each item in `state.item_ids`, both (A,)."""
        return state.successes + self.prior_alpha, state.failures + self.prior_beta

    def pack(self, state: BetaState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the sums; the prior is an option of the policy, not part of the state."""
        return (
            {"version": state.version},
            {"item_ids": state.item_ids, "successes": state.successes, "failures": state.failures},
        )

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> BetaState:
        """Return the state; raise `CorruptState` where the arrays are not sums of distinct items."""
        version = unpacked_version(self.name, meta, packed, names=("item_ids", "successes", "failures"))
        state = BetaState(version, packed["item_ids"], packed["successes"], packed["failures"])
        shape = (len(state.row_of),)
        sums = (state.successes, state.failures)
        if state.item_ids.shape != shape or any(
            array.shape != shape or not (np.isfinite(array) & (array >= 0.0)).all() for array in sums
        ):
            raise CorruptState(
                f"A saved state of {self.name} has {len(state.row_of)} distinct items, and sums of shapes "
                f"{[array.shape for array in sums]}; it needs one finite, non-negative sum of each kind per "
                "item. Restore an older copy, or rebuild it from the log."
            )
        return state


@dataclass(frozen=True, slots=True)
class _BetaPosterior:
    alpha: FloatArray  # (n,)
    beta: FloatArray  # (n,)
    count: int
    seed: int

    def optimistic(self, rows: IndexArray) -> FloatArray:
        alpha, beta = self.alpha[rows], self.beta[rows]
        total = alpha + beta
        mean = alpha / total
        upper: FloatArray = mean + 2.0 * np.sqrt(mean * (beta / total) / (total + 1.0))
        return upper

    def draws(self, rows: IndexArray) -> FloatArray:
        rng = np.random.Generator(np.random.PCG64(self.seed))
        return rng.beta(self.alpha[rows], self.beta[rows], size=(self.count, len(rows)))
