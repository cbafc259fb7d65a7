"""What each policy does, in plain numpy: the yardstick of the benchmarks.

Whoever needs one policy, once, would write this: float64 throughout, rows instead of item ids, sums updated
in place. It has the same distribution, draws the item from it, and knows its probability. It checks nothing,
breaks no ties, knows no guards, and keeps no record of who was eligible.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from explorank.hooks.types import BoolArray, FloatArray, IndexArray

Distribution: TypeAlias = Callable[[BoolArray], FloatArray]
"""From who is free (n,) to the probability of each, (n,)."""


def decide(
    distribution: Distribution,
    scores: FloatArray,
    free: BoolArray,
    slots: int,
    explored: Collection[int],
    rng: np.random.Generator,
) -> tuple[IndexArray, FloatArray]:
    """Return the rows of a slate and the probability of each choice, both (slots,); `free` is used up."""
    ranking = np.argsort(-scores)
    order, propensities = np.empty(slots, np.int64), np.ones(slots)
    for slot in range(slots):
        if slot in explored:
            probabilities = distribution(free)
            cumulative = probabilities.cumsum()
            row = int(cumulative.searchsorted(rng.random() * cumulative[-1], side="right"))
            propensities[slot] = probabilities[row] / cumulative[-1]
        else:
            row = ranking[free[ranking].argmax()]
        order[slot] = row
        free[row] = False
    return order, propensities


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a request ranks: candidate i is item i."""

    features: FloatArray  # (n, d)
    scores: FloatArray  # (n,)
    columns: Mapping[str, FloatArray]  # each (n,)


@dataclass(frozen=True, slots=True)
class Rewards:
    """What came back for items."""

    rows: IndexArray  # (m,) which item
    features: FloatArray  # (m, d)
    values: FloatArray  # (m,)
    propensities: FloatArray  # (m,)
    slots: IndexArray  # (m,)
    strategies: IndexArray  # (m,) which strategy


class Model(Protocol):
    """A policy with its state."""

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return one request's distribution."""

    def learn(self, rewards: Rewards) -> None:
        """Learn the rewards."""


def _winner(values: FloatArray, uniform: float) -> Distribution:
    def distribution(free: BoolArray) -> FloatArray:
        probabilities: FloatArray = free * (uniform / np.count_nonzero(free))
        probabilities[np.where(free, values, -np.inf).argmax()] += 1.0 - uniform
        return probabilities

    return distribution


def _softmax(values: FloatArray, temperature: float, uniform: float) -> Distribution:
    weights = np.exp((values - values.max()) / temperature)

    def distribution(free: BoolArray) -> FloatArray:
        shares: FloatArray = weights * free
        shares *= (1.0 - uniform) / shares.sum()
        return shares + free * (uniform / np.count_nonzero(free))

    return distribution


def _pooled(upper: FloatArray, pool: int) -> IndexArray:
    return np.argpartition(-upper, pool)[:pool] if pool < len(upper) else np.arange(len(upper))


def _shares(members: IndexArray, draws: FloatArray, floor: float, n: int) -> Distribution:
    """How often each of `members` (p,) wins the `draws` (M, p), mixed with the floor."""

    def distribution(free: BoolArray) -> FloatArray:
        present = free[members]
        wins = np.bincount(np.where(present, draws, -np.inf).argmax(axis=1), minlength=len(members))
        probabilities = np.zeros(n)
        probabilities[members] = wins * ((1.0 - floor) / len(draws)) + present * (
            floor / np.count_nonzero(present)
        )
        return probabilities

    return distribution


class _Stateless:
    def learn(self, rewards: Rewards) -> None:
        """Learn nothing."""


class BestScore(_Stateless):
    """Greedy, epsilon-greedy and uniform."""

    def __init__(self, uniform: float) -> None:
        self._uniform = uniform

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return the best score's share and an even one."""
        return _winner(candidates.scores, self._uniform)


class SoftScores(_Stateless):
    """Softmax and Plackett-Luce."""

    def __init__(self, temperature: float, uniform: float = 0.0) -> None:
        self._temperature, self._uniform = temperature, uniform

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return the softmax of the scores."""
        return _softmax(candidates.scores, self._temperature, self._uniform)


class InverseGaps(_Stateless):
    """SquareCB without a floor."""

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return the inverse gaps of the scores."""
        scores = candidates.scores

        def distribution(free: BoolArray) -> FloatArray:
            best = np.where(free, scores, -np.inf).argmax()
            gaps = self._gamma * (scores[best] - scores)
            probabilities: FloatArray = free / (np.count_nonzero(free) + np.maximum(gaps, 0.0))
            probabilities[best] = 0.0
            probabilities[best] = 1.0 - probabilities.sum()
            return probabilities

        return distribution


class _Sums:
    """How many rewards each item earned, and their total."""

    def __init__(self, n: int) -> None:
        self._counts, self._totals = np.zeros(n), np.zeros(n)

    def learn(self, rewards: Rewards) -> None:
        """Add the rewards up."""
        np.add.at(self._counts, rewards.rows, 1.0)
        np.add.at(self._totals, rewards.rows, rewards.values)


class MeanBounds(_Sums):
    """UCB1."""

    def __init__(self, n: int, alpha: float, floor: float) -> None:
        super().__init__(n)
        self._alpha, self._floor = alpha, floor

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return the highest bound's share and the floor."""
        width = self._alpha * np.sqrt(2.0 * np.log(self._counts.sum()) / self._counts)
        return _winner(self._totals / self._counts + width, self._floor)


class BetaArms(_Sums):
    """BetaThompson with a uniform prior."""

    def __init__(self, n: int, pool: int, draws: int, floor: float) -> None:
        super().__init__(n)
        self._pool, self._draws, self._floor = pool, draws, floor

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return how often each wins a draw."""
        alpha, beta = self._totals + 1.0, self._counts - self._totals + 1.0
        total = alpha + beta
        mean = alpha / total
        members = _pooled(mean + 2.0 * np.sqrt(mean * (1.0 - mean) / (total + 1.0)), self._pool)
        draws = rng.beta(alpha[members], beta[members], (self._draws, len(members)))
        return _shares(members, draws, self._floor, len(mean))


class GaussianArms(_Sums):
    """GaussianThompson with a standard normal prior and noise 1."""

    def __init__(self, n: int, pool: int, draws: int, floor: float) -> None:
        super().__init__(n)
        self._pool, self._draws, self._floor = pool, draws, floor

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return how often each wins a draw."""
        deviation = 1.0 / np.sqrt(1.0 + self._counts)
        mean = self._totals / (1.0 + self._counts)
        members = _pooled(mean + 2.0 * deviation, self._pool)
        standard = rng.standard_normal((self._draws, len(members)))
        return _shares(members, mean[members] + deviation[members] * standard, self._floor, len(mean))


class ExponentialGains:
    """EXP3."""

    def __init__(self, n: int, gamma: float, eta: float) -> None:
        self._gains = np.zeros(n)
        self._gamma, self._eta = gamma, eta

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return the exponential weights of the gains."""
        return _softmax(self._gains, 1.0 / self._eta, self._gamma)

    def learn(self, rewards: Rewards) -> None:
        """Add the weighted rewards up."""
        np.add.at(self._gains, rewards.rows, rewards.values / rewards.propensities)


class Ridge:
    """One linear model for all candidates: LinUCB where `draws` is 0, else LinearThompson."""

    def __init__(self, dim: int, pool: int, draws: int, floor: float) -> None:
        self._precision, self._information = np.eye(dim), np.zeros(dim)
        self._pool, self._draws, self._floor = pool, draws, floor
        self._solve()

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return how often each wins a joint draw, or the highest bound's share."""
        features = candidates.features
        mean, spread = features @ self._mean, features @ self._factor
        upper = mean + (2.0 if self._draws else 1.0) * np.sqrt(np.vecdot(spread, spread))
        members = _pooled(upper, self._pool)
        if self._draws:
            standard = rng.standard_normal((self._draws, features.shape[1]))
            draws = mean[members] + standard @ spread[members].T
        else:
            draws = upper[members][None]
        return _shares(members, draws, self._floor, len(features))

    def learn(self, rewards: Rewards) -> None:
        """Add to the normal equations and solve them."""
        self._precision += rewards.features.T @ rewards.features
        self._information += rewards.features.T @ rewards.values
        self._solve()

    def _solve(self) -> None:
        self._factor = np.linalg.inv(np.linalg.cholesky(self._precision)).T
        self._mean = self._factor @ (self._factor.T @ self._information)


class LogisticRidge(Ridge):
    """LogisticThompson: five Newton steps for 128 rewards at a time."""

    def learn(self, rewards: Rewards) -> None:
        """Move mean and precision from chunk to chunk of this call, then factorise the precision once."""
        prior, mean = self._precision, self._mean
        for start in range(0, len(rewards.values), 128):
            x, values = rewards.features[start : start + 128], rewards.values[start : start + 128]
            theta = mean
            for _ in range(5):
                share = 1.0 / (1.0 + np.exp(-(x @ theta)))
                curvature = prior + (x.T * (share * (1.0 - share))) @ x
                theta = theta - np.linalg.solve(curvature, prior @ (theta - mean) + (share - values) @ x)
            share = 1.0 / (1.0 + np.exp(-(x @ theta)))
            prior, mean = prior + (x.T * (share * (1.0 - share))) @ x, theta
        self._precision[:] = prior
        self._information[:] = prior @ mean
        self._solve()


class NeuralRidge(Ridge):
    """NeuralLinear: the noise has a posterior too."""

    def __init__(
        self, dim: int, pool: int, draws: int, floor: float, prior_precision: float, noise_shape: float
    ) -> None:
        super().__init__(dim, pool, draws, floor)
        self._precision *= prior_precision
        self._solve()
        self._shape, self._prior_rate, self._squares = noise_shape, noise_shape - 1.0, 0.0
        self._rate = self._prior_rate

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return how often each wins a joint draw of noise and coefficients."""
        features = candidates.features
        mean, spread = features @ self._mean, features @ self._factor
        noise = np.sqrt(self._rate / (self._shape - 1.0))
        members = _pooled(mean + 2.0 * noise * np.sqrt(np.vecdot(spread, spread)), self._pool)
        deviations = np.sqrt(self._rate / rng.standard_gamma(self._shape, (self._draws, 1)))
        standard = rng.standard_normal((self._draws, features.shape[1])) * deviations
        return _shares(members, mean[members] + standard @ spread[members].T, self._floor, len(features))

    def learn(self, rewards: Rewards) -> None:
        """Solve the normal equations, and add up what they leave unexplained."""
        super().learn(rewards)
        self._shape += len(rewards.values) / 2.0
        self._squares += float(rewards.values @ rewards.values)
        self._rate = self._prior_rate + (self._squares - float(self._mean @ self._information)) / 2.0


class BootstrapRidge:
    """BootstrappedThompson: a ridge regression per replicate."""

    def __init__(self, dim: int, pool: int, replicates: int, floor: float) -> None:
        self._rng = np.random.default_rng(0)
        self._precision = np.tile(np.eye(dim), (replicates, 1, 1))
        self._information = self._rng.standard_normal((replicates, dim))
        self._coefficients = self._information.copy()
        self._pool, self._floor = pool, floor

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return the share of the replicates that prefer each."""
        features = candidates.features
        votes = self._coefficients @ features.T
        members = _pooled(votes.mean(axis=0) + 2.0 * votes.std(axis=0), self._pool)
        return _shares(members, votes[:, members], self._floor, len(features))

    def learn(self, rewards: Rewards) -> None:
        """Add to each replicate's normal equations what it resampled, and solve them."""
        features = rewards.features
        counted = 2.0 * self._rng.integers(2, size=(len(self._precision), len(rewards.values)))
        for replicate, times in enumerate(counted):
            self._precision[replicate] += (features.T * times) @ features
        self._information += (counted * rewards.values) @ features
        self._coefficients[:] = np.linalg.solve(self._precision, self._information[..., None])[..., 0]


class Arms:
    """One linear model per arm: LinUCB where `draws` is 0, else Thompson sampling.

    The inverses are kept twice: whole, for the Sherman-Morrison formula, and packed, so that the widths of all
    arms in one context are one product of a matrix and a vector.
    """

    def __init__(self, n: int, dim: int, pool: int, draws: int, floor: float) -> None:
        self._lower = np.tril_indices(dim)
        self._twice = np.where(self._lower[0] == self._lower[1], 1.0, 2.0)
        self._inverse = np.tile(np.eye(dim), (n, 1, 1))
        self._packed = self._inverse[:, *self._lower].copy()
        self._information, self._mean = np.zeros((n, dim)), np.zeros((n, dim))
        self._pool, self._draws, self._floor = pool, draws, floor

    def act(self, context: FloatArray) -> int:
        """Return the arm with the highest bound in `context` (d,)."""
        squares = context[self._lower[0]] * context[self._lower[1]] * self._twice
        return int((self._mean @ context + np.sqrt(self._packed @ squares)).argmax())

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return how often each wins a draw, or the highest bound's share; candidate i is arm i."""
        features = candidates.features
        mean = np.vecdot(self._mean, features)
        deviation = np.sqrt(np.vecdot((self._inverse @ features[..., None])[..., 0], features))
        upper = mean + (2.0 if self._draws else 1.0) * deviation
        members = _pooled(upper, self._pool)
        if self._draws:
            standard = rng.standard_normal((self._draws, len(members)))
            draws = mean[members] + deviation[members] * standard
        else:
            draws = upper[members][None]
        return _shares(members, draws, self._floor, len(features))

    def learn_one(self, arm: int, context: FloatArray, value: float) -> None:
        """Learn one reward by the Sherman-Morrison formula."""
        inverse = self._inverse[arm]
        direction = inverse @ context
        inverse -= np.outer(direction, direction) / (1.0 + context @ direction)
        self._packed[arm] = inverse[self._lower]
        self._information[arm] += value * context
        self._mean[arm] = inverse @ self._information[arm]

    def learn(self, rewards: Rewards) -> None:
        """Learn the rewards one by one."""
        rows, values = rewards.rows.tolist(), rewards.values.tolist()
        for arm, context, value in zip(rows, rewards.features, values, strict=True):
            self.learn_one(arm, context, value)


class SlotBandits:
    """SlotStrategies with a standard normal prior and noise 1; what is not free has been placed."""

    def __init__(self, strategies: tuple[str, ...], slots: int, draws: int, floor: float) -> None:
        self._strategies, self._floor, self._draws = strategies, floor, draws
        self._counts, self._totals = np.zeros((slots, len(strategies))), np.zeros((slots, len(strategies)))

    def contest(self, candidates: Candidates, rng: np.random.Generator) -> Distribution:
        """Return what the strategies would place, each with its share of the draws."""
        standard = rng.standard_normal((self._draws, len(self._strategies)))
        columns, features = candidates.columns, candidates.features
        values = np.array([columns[strategy] for strategy in self._strategies])
        random, diverse = self._strategies.index("random"), self._strategies.index("diverse")

        def distribution(free: BoolArray) -> FloatArray:
            placed = np.flatnonzero(~free)
            weight = 1.0 + self._counts[len(placed)]
            draws = self._totals[len(placed)] / weight + standard / np.sqrt(weight)
            shares = np.bincount(draws.argmax(axis=1), minlength=len(weight)) / len(draws)
            if len(placed):
                squares = np.vecdot(features, features)
                distances = squares[:, None] + squares[placed] - 2.0 * features @ features[placed].T
                values[diverse] = distances.min(axis=1)
            best = np.where(free, values, -np.inf).argmax(axis=1)
            even = free / np.count_nonzero(free)
            spread = shares[random]
            shares[random] = 0.0
            chosen = np.bincount(best, shares, len(free)) + spread * even
            probabilities: FloatArray = (1.0 - self._floor) * chosen + self._floor * even
            return probabilities

        return distribution

    def learn(self, rewards: Rewards) -> None:
        """Add the rewards up by slot and strategy."""
        np.add.at(self._counts, (rewards.slots, rewards.strategies), 1.0)
        np.add.at(self._totals, (rewards.slots, rewards.strategies), rewards.values)


MODELS: Final[Mapping[str, Callable[[Any, int], Model]]] = {
    "greedy": lambda _policy, _n: BestScore(0.0),
    "uniform": lambda _policy, _n: BestScore(1.0),
    "epsilon_greedy": lambda policy, _: BestScore(policy.epsilon),
    "softmax": lambda policy, _: SoftScores(policy.temperature, policy.floor),
    "plackett_luce": lambda policy, _: SoftScores(policy.temperature),
    "square_cb": lambda policy, _: InverseGaps(policy.gamma),
    "ucb1": lambda policy, n: MeanBounds(n, policy.alpha, policy.floor),
    "exp3": lambda policy, n: ExponentialGains(n, policy.gamma, policy.eta),
    "beta_thompson": lambda policy, n: BetaArms(n, policy.pool, policy.draws, policy.floor),
    "gaussian_thompson": lambda policy, n: GaussianArms(n, policy.pool, policy.draws, policy.floor),
    "lin_ucb": lambda policy, _: Ridge(policy.dim, policy.pool, 0, policy.floor),
    "linear_thompson": lambda policy, _: Ridge(policy.dim, policy.pool, policy.draws, policy.floor),
    "logistic_thompson": lambda policy, _: LogisticRidge(policy.dim, policy.pool, policy.draws, policy.floor),
    "neural_linear": lambda policy, _: NeuralRidge(
        policy.dim, policy.pool, policy.draws, policy.floor, policy.prior_precision, policy.noise_shape
    ),
    "bootstrapped_thompson": lambda policy, _: BootstrapRidge(
        policy.dim, policy.pool, policy.replicates, policy.floor
    ),
    "slot_strategies": lambda policy, _: SlotBandits(policy.strategies, 10, policy.draws, policy.floor),
    "disjoint_lin_ucb": lambda policy, n: Arms(n, policy.dim, policy.pool, 0, policy.floor),
    "disjoint_linear_thompson": lambda policy, n: Arms(
        n, policy.dim, policy.pool, policy.draws, policy.floor
    ),
}
"""The reference of each policy, by its name in YAML: made from its options and a number of items."""
