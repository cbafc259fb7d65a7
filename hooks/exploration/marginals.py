"""Marginal position propensities: how probable it is that an item stands in a slot, whatever stands above it.

A slate's log has *conditional* propensities, given the slate above. The item-position estimator (IIPS: Li,
Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, *Offline Evaluation of Ranking Policies with Click
Models*, 2018) weighs each slot by P(item in slot) over the whole process instead: the sum, over all slates
above, of their probability times the conditional one.

Two such numbers exist, and the weight 1{item in slot} / P averages to 1 with either:

- *over the seeds*, which is what a target policy is meant by, and what IIPS needs of both. As a divisor of
  logged rewards it varies least: the mean of 1 / P given draws is at least 1 / (the mean of P);
- *given the draws of one seed*, where only the choice of each item is left to chance. It says what one
  request could have shown.

Where the conditional distributions are few, they are enumerated and the answer is exact. Where not, slates
are drawn, and the *distributions* of their slots averaged, not what was drawn from them (Rao-Blackwell), so
that an item which no sample shows still has its share; a standard error says how far off that may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration.examination import PositionBased
from explorank.hooks.exploration.policy import Contest, Policy
from explorank.hooks.exploration.process import SlotProcess
from explorank.hooks.exploration.slate import slot_process
from explorank.hooks.guards.guard import Guard, is_static
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RankingRequest

_MOST_SLATES: Final = 5_000
"""How many slates above a slot are followed up one by one; beyond that, samples cost less."""


@dataclass(frozen=True, slots=True)
class PositionPropensities:
    """P(item i stands in slot s), and how sure that is."""

    probabilities: FloatArray  # (k, n)
    """A slot sums to the probability that the slate reaches it, an item to that of being shown at all."""
    standard_errors: FloatArray  # (k, n)
    """Of the probabilities, over samples; zeros in the slots where they are exact."""
    samples: int
    """How many slates were drawn; 0 where the probabilities are exact."""

    @property
    def exact(self) -> bool:
        """Whether all slates were enumerated, so that only rounding is left."""
        return self.samples == 0

    def shown(self) -> FloatArray:
        """Return the probability that each item stands anywhere in the slate, (n,)."""
        shown: FloatArray = self.probabilities.sum(axis=0)
        return shown

    def exposure(self, model: PositionBased) -> FloatArray:
        """Return the probability that each item is looked at, (n,): Σ_s θ_s · P(i in s)."""
        examined: FloatArray = model.examination(np.arange(len(self.probabilities))) @ self.probabilities
        return examined


def position_propensities(
    policy: Policy[Any],
    state: Any,
    batch: RankingBatch,
    n_slots: int,
    explore_slots: Iterable[int] | None = None,
    guards: Sequence[Guard] = (),
    request: RankingRequest | None = None,
    *,
    explorable: BoolArray | None = None,
    given_draws_of: int | None = None,
    samples: int = 1_000,
    seed: int = 0,
) -> PositionPropensities:
    """Return the probability with which `build_slate`, given the same, puts each item into each slot.

    Over all seeds; with `given_draws_of`, given the draws of that seed: its posterior draws and how it breaks
    ties.

    Exact, by enumeration, down to the slot above which more than 5,000 different slates stand. Over the seeds,
    only where they change nothing: down to the first explored slot of a policy that draws (one without a closed
    form), and where no tie of scores decides a slot that does not explore. For the slots below, `samples`
    slates are drawn, a function of `seed`; four times as many halve the standard errors. What is divided by a
    sampled probability is biased by about its squared relative error.

    Raises `InvalidBatch` as `build_slate` does, and for fewer than 2 samples.
    """
    if samples < 2:
        raise InvalidBatch(
            f"`samples` is {samples}; from fewer than 2 slates no error can be told. Draw 1,000 or more."
        )
    explored = None if explore_slots is None else frozenset(explore_slots)
    watched = _Watched(policy)

    def process_of(process_seed: int) -> SlotProcess:
        return slot_process(
            cast("Policy[Any]", watched),
            state,
            batch,
            n_slots,
            explored,
            guards,
            request,
            process_seed,
            explorable=explorable,
        )

    shape = (max(0, min(n_slots, len(batch))), len(batch))
    by_score = explorable is not None or (explored is not None and not explored.issuperset(range(shape[0])))
    keys_matter = by_score and len(np.unique(batch.score_values)) < len(batch)
    order_matters = policy.sees_slate or not all(is_static(guard) for guard in guards)
    enumerated, sure = np.zeros(shape), 0
    if given_draws_of is not None or not keys_matter:
        process = process_of(given_draws_of or 0)
        enumerated, sure = _enumerated(
            process, shape, order_matters=order_matters, watched=watched, given=given_draws_of
        )
        if sure == shape[0]:
            return PositionPropensities(enumerated, np.zeros(shape), samples=0)
    rng = np.random.Generator(np.random.PCG64(seed))
    if given_draws_of is None:
        mean, errors = _sampled(lambda: process_of(int(rng.integers(2**63))), shape, samples, rng)
    else:
        process = process_of(given_draws_of)
        mean, errors = _sampled(lambda: process, shape, samples, rng)
    mean[:sure], errors[:sure] = enumerated[:sure], 0.0
    return PositionPropensities(mean, errors, samples)


def _enumerated(
    process: SlotProcess,
    shape: tuple[int, int],
    *,
    order_matters: bool,
    watched: _Watched,
    given: int | None,
) -> tuple[FloatArray, int]:
    """Return the probabilities, (k, n), and for how many slots they hold.

    Further down, slates are too many, or another seed's draws would change them.
    """
    probabilities = np.zeros(shape)
    above: dict[tuple[int, ...], float] = {(): 1.0}
    for slot in range(shape[0]):
        if len(above) > _MOST_SLATES:
            return probabilities, slot
        below: dict[tuple[int, ...], float] = {}
        for placed, probability in above.items():
            conditional = process.conditional(placed)
            if given is None and watched.drew:
                return probabilities, slot
            if conditional is None:
                continue
            joint = probability * conditional
            probabilities[slot] += joint
            if slot + 1 < shape[0] and len(below) <= _MOST_SLATES:  # beyond, nobody will follow them up
                for row in np.flatnonzero(joint).tolist():
                    longer = (*placed, row) if order_matters else tuple(sorted((*placed, row)))
                    below[longer] = below.get(longer, 0.0) + float(joint[row])
        above = below
    return probabilities, shape[0]


def _sampled(
    draw_process: Callable[[], SlotProcess], shape: tuple[int, int], samples: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the mean of the slots' distributions over `samples` slates, and its standard error, both (k, n)."""
    mean, squares = np.zeros(shape), np.zeros(shape)
    for sample in range(samples):
        process = draw_process()
        placed: list[int] = []
        distributions = np.zeros(shape)
        for slot, uniform in enumerate(rng.random(shape[0]).tolist()):
            conditional = process.conditional(placed)
            if conditional is None:
                break
            distributions[slot] = conditional
            rows = np.flatnonzero(conditional)
            cumulative = conditional[rows].cumsum()
            drawn = int(cumulative.searchsorted(uniform * cumulative[-1], side="right"))
            placed.append(int(rows[min(drawn, len(rows) - 1)]))  # the product may round up to the total
        # Welford's updates: the spread of what hardly varies must not drown in the square of its mean.
        off = distributions - mean
        mean += off / (sample + 1)
        squares += off * (distributions - mean)
    return mean, np.sqrt(squares / (samples - 1) / samples)


class _Watched:
    """A policy that is otherwise the one given, and tells whether its contests draw at random."""

    def __init__(self, policy: Policy[Any]) -> None:
        self._policy: Final = policy
        self._given: Final[list[tuple[np.random.Generator, str]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    @property
    def drew(self) -> bool:
        """Whether a contest has taken anything from its generator so far."""
        return any(repr(rng.bit_generator.state) != before for rng, before in self._given)

    def contest(
        self, state: Any, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> Contest:
        self._given[:] = [(rng, repr(rng.bit_generator.state))]
        return self._policy.contest(state, batch, eligible, rng)
