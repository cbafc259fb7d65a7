"""The numerical care of drawing: distributions checked, one item drawn, ties broken without a bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.types import BoolArray, FloatArray, IndexArray

_SUM_TOLERANCE: Final = 1e-9


class SlotDistribution(Protocol):
    """A distribution over the candidates of one slot, in whatever form is cheapest to draw from."""

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks; of all of them, each row's share picks it."""

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,), all False so far, where the probability is above 0."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A policy's answer for one slot, one number per candidate, checked and ready to draw from."""

    probabilities: FloatArray  # (n,)
    cumulative: FloatArray  # (n,)
    support: BoolArray  # (n,) where the probability is above 0

    @classmethod
    def of(cls, probabilities: FloatArray, eligible: BoolArray, policy: str) -> Distribution:
        """Return the distribution over `eligible` (n,) that the policy of that name gave.

        Raises `InvalidPolicy` where an entry is negative or not a number, an ineligible item has a share,
        or the sum is not 1 within 1e-9.
        """
        if probabilities.shape != eligible.shape:
            raise InvalidPolicy(
                f"Policy {policy!r} returned a distribution of shape {probabilities.shape} for "
                f"{len(eligible)} candidates; it must be ({len(eligible)},). Return one probability each."
            )
        cumulative = probabilities.cumsum()
        total = float(cumulative[-1])
        # Written so that a NaN fails it too.
        if not abs(total - 1.0) <= _SUM_TOLERANCE or probabilities.min() < 0.0:
            raise InvalidPolicy(
                f"Policy {policy!r} returned a distribution with sum {total!r} and "
                f"{np.count_nonzero(probabilities < 0.0)} negative entries; it must sum to 1 and have none, or "
                "the logged propensities are not those of the draw. Divide by the sum."
            )
        support = probabilities > 0.0
        # Counting is numpy's fastest way to ask whether any entry is true, and this runs for every slot.
        if np.count_nonzero(support > eligible):
            raise InvalidPolicy(
                f"Policy {policy!r} gave a probability to a candidate that the guards removed; a blocked "
                "item must never be shown. Set the entries outside `eligible` to 0."
            )
        return cls(probabilities, cumulative, support)

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks, by inversion of the cumulative sums.

        A row of probability 0 has the cumulative sum of the row before it, hence is never picked.
        """
        return _inverted(self.cumulative, uniform)

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""
        return float(self.probabilities[row] / self.cumulative[-1])

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,) where the probability is above 0."""
        support[:] = self.support


class Shares:
    """A distribution over few of the candidates: the others have probability 0, and cost nothing."""

    __slots__ = ("_cumulative", "_probabilities", "_rows")

    def __init__(self, rows: IndexArray, probabilities: FloatArray) -> None:
        """Take distinct `rows` (p,) and the probability of each, (p,), which sum to 1 but for rounding."""
        self._rows = rows
        self._probabilities = probabilities
        self._cumulative = probabilities.cumsum()

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks, by inversion of the cumulative sums."""
        return int(self._rows[_inverted(self._cumulative, uniform)])

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""
        # At most one entry is not 0.
        return float(self._probabilities[self._rows == row].sum() / self._cumulative[-1])

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,) where the probability is above 0."""
        support[self._rows[self._probabilities > 0.0]] = True

    def dense(self, n: int) -> FloatArray:
        """Return one number per candidate, (n,) float64."""
        probabilities = np.zeros(n)
        probabilities[self._rows] = self._probabilities
        return probabilities


class Winners:
    """A distribution in which the best share 1 - `uniform` evenly, and all eligible share `uniform`."""

    __slots__ = ("_count", "_eligible", "_uniform", "_winners")

    def __init__(self, winners: IndexArray, eligible: BoolArray, uniform: float) -> None:
        """Take the rows of the best (w,), all of them eligible, and who is eligible, (n,)."""
        self._winners: list[int] = winners.tolist()
        self._eligible = eligible
        self._uniform = uniform
        self._count = int(np.count_nonzero(eligible))

    def draw(self, uniform: float) -> int:
        """Return the row that `uniform` in [0, 1) picks: the best first, then all eligible."""
        best = 1.0 - self._uniform
        if uniform < best:
            return self._winners[step_of(uniform / best, len(self._winners))]
        return int(self._eligible.nonzero()[0][step_of((uniform - best) / self._uniform, self._count)])

    def propensity(self, row: int) -> float:
        """Return the probability with which `draw` picks `row`."""
        share = (1.0 - self._uniform) / len(self._winners) if row in self._winners else 0.0
        return share + self._uniform / self._count if self._eligible[row] else 0.0

    def mark(self, support: BoolArray) -> None:
        """Set True in `support` (n,) where the probability is above 0."""
        if self._uniform > 0.0:
            support |= self._eligible
        else:
            support[self._winners] = True


def step_of(uniform: float, count: int) -> int:
    """Return which of `count` equal parts of [0, 1) `uniform` is in; rounding may have left the last one."""
    return min(int(uniform * count), count - 1)


def _inverted(cumulative: FloatArray, uniform: float) -> int:
    total = cumulative[-1]
    at = int(cumulative.searchsorted(uniform * total, side="right"))
    # The product may round up to the total; the last entry that raised the sum is meant then.
    return at if at < len(cumulative) else int(cumulative.searchsorted(total))


_GOLDEN: Final = 0x9E3779B97F4A7C15
_MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD: Final = (1 << 64) - 1
_STREAM: Final = 0xD1B54A32D192ED03  # keeps the slots' numbers apart from all else that a seed gives


def mixed(number: int) -> int:
    """Return 64 bits that look random and follow from `number`, a bijection of 64-bit numbers.

    The output function of SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number
    Generators*, 2014).
    """
    number = (number + _GOLDEN) & _WORD
    number = ((number ^ (number >> 30)) * _MULTIPLIERS[0]) & _WORD
    number = ((number ^ (number >> 27)) * _MULTIPLIERS[1]) & _WORD
    return number ^ (number >> 31)


def folded(seed: int) -> int:
    """Return 64 bits that follow from a seed of any width."""
    while seed > _WORD:
        seed = mixed(seed & _WORD) ^ (seed >> 64)
    return mixed(seed)


class Uniforms:
    """A stream of uniform numbers that follows from a seed: few of them, at the least cost."""

    __slots__ = ("_next",)

    def __init__(self, seed: int) -> None:
        self._next = folded(seed ^ _STREAM)

    def next(self) -> float:
        """Return the next number in [0, 1)."""
        self._next = (self._next + _GOLDEN) & _WORD
        # 53 bits fill a float64's significand exactly, so the result is below 1.
        return (mixed(self._next) >> 11) * 2.0**-53


class _Words(ISeedSequence):
    """The state of a bit generator, taken from a seed in a tenth of the time of numpy's own hashing."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        words = [mixed(self._seed + word) for word in range(1, n_words + 1)]
        return np.array(words, np.uint64).astype(dtype, copy=False)


def generator(seed: int) -> np.random.Generator:
    """Return the generator of one request; equal seeds give equal numbers."""
    # Named, because the default bit generator may change with numpy, and replay must not.
    words: Any = _Words(folded(seed))  # numpy's types know no other seed sequence than its own
    return np.random.Generator(np.random.SFC64(words))


class TieKeys:
    """A random order of the candidates, made for those rows only that someone asks about."""

    __slots__ = ("_seed",)

    def __init__(self, seed: int) -> None:
        self._seed = np.uint64(folded(seed))

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> TieKeys:
        """Return an order that `rng` draws."""
        return cls(int(rng.bit_generator.random_raw()))

    def of(self, rows: IndexArray) -> NDArray[np.uint64]:
        """Return a key for each of `rows`, (len(rows),), distinct; a row has the same key whoever else asks."""
        # Wraps around, as 64-bit arithmetic does; a bijection leaves distinct what is distinct.
        keys: NDArray[np.uint64] = rows.astype(np.uint64) * np.uint64(_GOLDEN) + self._seed
        keys ^= keys >> np.uint64(30)
        keys *= np.uint64(_MULTIPLIERS[0])
        keys ^= keys >> np.uint64(27)
        keys *= np.uint64(_MULTIPLIERS[1])
        keys ^= keys >> np.uint64(31)
        return keys


def ranked(scores: FloatArray, keys: TieKeys, rows: IndexArray) -> IndexArray:
    """Return `rows` from the highest of their `scores` (n,) to the lowest; the smaller key wins a tie."""
    falling = -scores[rows]
    order: IndexArray = np.argsort(falling)
    in_order = falling[order]
    if np.count_nonzero(in_order[1:] == in_order[:-1]):
        order = np.lexsort((keys.of(rows), falling))  # several times slower, and only needed where scores tie
    return np.asarray(rows[order], np.int64)


def top(
    values: NDArray[np.floating[Any]], keys: TieKeys, count: int, rows: IndexArray | None = None
) -> IndexArray:
    """Return the positions, ascending, of the `count` largest of `values` (m,); the smaller key wins a tie.

    Keys are those of the positions, or of `rows` (m,) where the values are of those.
    """
    if len(values) <= count:
        return np.arange(len(values))
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    chosen: IndexArray = (values >= threshold).nonzero()[0]
    if len(chosen) > count:
        sure = values[chosen] > threshold
        tied = chosen[~sure]
        missing = count - (len(chosen) - len(tied))
        tied = tied[keys.of(tied if rows is None else rows[tied]).argsort()[:missing]]
        chosen = np.sort(np.concatenate((chosen[sure], tied)))
    return chosen


class BestByScore:
    """Who of those free has the highest score, asked slot by slot.

    Most slates need the head of the ranking alone, so only that is sorted; a slot for which nobody of it is
    left ranks all.
    """

    __slots__ = ("_head", "_keys", "_possible", "_scores")

    def __init__(self, scores: FloatArray, keys: TieKeys, possible: BoolArray, depth: int) -> None:
        """Rank by `scores` (n,) those who are `possible` (n,), the best `depth` of them for now."""
        self._scores = scores
        self._keys = keys
        self._possible: BoolArray | None = possible
        rows = possible.nonzero()[0]
        everyone = len(rows) == len(scores)
        head = top(scores if everyone else scores[rows], keys, depth, rows)
        self._head = ranked(scores, keys, head if everyone else rows[head])

    def among(self, free: BoolArray) -> int:
        """Return the best of `free` (n,), all of them possible; the smaller key wins a tie.

        Where nobody is free, the row that is returned is not.
        """
        head = self._head
        if not len(head):
            return 0
        row = int(head[free.take(head).argmax()])
        if not free[row] and self._possible is not None:
            self._head = ranked(self._scores, self._keys, self._possible.nonzero()[0])
            self._possible = None
            row = self.among(free)
        return row
