"""What a policy's answer must be for a single slot, whatever the candidates and their scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration import Policy, build_slate
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch
from explorank.testing.batches import taken
from explorank.testing.bounds import empirical_bernstein
from explorank.testing.cases import PolicyCases, contest_of, shares
from explorank.testing.demands import demand, refused, skip_because, without_warnings
from explorank.testing.operations import operations

_SUM_TOLERANCE: Final = 1e-9
_FEW: Final = 5
_GRID: Final = 400
_EXTREMES: Final = {
    "equal": [0.0, 0.0, 0.0, 0.0, 0.0],
    "huge": [1e300, -1e300, 1e300, 0.0, 1.0],
    "the largest there are": [1.7e308, -1.7e308, 0.0, 1.7e308, -1.7e308],
    "tiny": [1e-300, -1e-300, 0.0, 5e-324, 1e-300],
    "of all sizes": [1e-300, 1e300, 1.0, -1e-300, -1e300],
    "far from zero and close together": [1e15, 1e15 + 1.0, 1e15 + 2.0, 1e15, 1e15],
}


class DistributionTests(PolicyCases):
    """The part of `PolicyTests` about `Contest.distribution`."""

    def test_a_distribution_is_over_the_eligible_candidates(self) -> None:
        """Probabilities (n,) sum to 1, none is negative, and a candidate that is not eligible has 0.

        Every mask of five candidates is asked, also those that let in somebody who was not eligible when
        the contest was made: a guard may allow in slot 2 whom it barred from slot 0.
        """
        policy, state, batch = self.case(_FEW)
        for seed, first in ((0, _all(_FEW)), (1, np.array([True, True, False, False, False]))):
            contest = contest_of(policy, state, batch, seed, first)
            for eligible in _masks(_FEW):
                answer = contest.distribution(eligible.copy())
                _demand_distribution(answer, eligible, f"{policy.name}, seed {seed}, eligible {eligible}")

    def test_what_is_drawn_from_has_the_probabilities_of_the_distribution(self) -> None:
        """Where a contest has a `drawable`, it says and does what `distribution` says, for every mask.

        The process draws from it and logs its numbers, while everybody else reads `distribution`.
        """
        policy, state, batch = self.case(_FEW)
        grid = (np.arange(_GRID) + 0.5) / _GRID
        for seed, eligible in itertools.product(range(3), _masks(_FEW)):
            contest = contest_of(policy, state, batch, seed)
            drawable = getattr(contest, "drawable", None)
            if drawable is None:
                return
            answer, drawn = contest.distribution(eligible), drawable(eligible)
            said = np.array([drawn.propensity(row) for row in range(_FEW)])
            support = np.zeros(_FEW, np.bool_)
            drawn.mark(support)
            demand(
                np.allclose(said, answer, rtol=1e-12, atol=0.0) and np.array_equal(support, answer > 0.0),
                f"{policy.name}, seed {seed}, eligible {eligible}: its distribution is {shares(answer)}, and what "
                f"it draws from says {shares(said)} with the support {support}. Derive one from the other.",
            )
            # Each item has at most two intervals of the numbers in [0, 1), whose ends the grid may miss.
            shown = np.bincount([drawn.draw(uniform) for uniform in grid.tolist()], minlength=_FEW) / _GRID
            demand(
                np.abs(shown - answer).max() <= 2.0 / _GRID,
                f"{policy.name}, seed {seed}, eligible {eligible}: evenly spaced numbers draw {shares(shown)}, and "
                f"its distribution is {shares(answer)}. What is logged must be what is drawn from.",
            )

    def test_a_distribution_is_a_function_of_the_mask(self) -> None:
        """The same mask gives the same answer, to the last bit, however often and after whatever others.

        Whatever is random is drawn when the contest is made. A draw inside `distribution` would make the
        logged number one of several, and a mask or an answer that is changed later would change the next.
        """
        policy, state, batch = self.case(_FEW)
        for seed in range(3):
            contest = contest_of(policy, state, batch, seed)
            masks = list(_masks(_FEW))
            given = [mask.copy() for mask in masks]
            answers = [contest.distribution(mask) for mask in given]
            kept = [answer.copy() for answer in answers]
            for mask, own in zip(masks, given, strict=True):
                demand(
                    np.array_equal(mask, own),
                    f"{policy.name} wrote into `eligible` ({mask} became {own}); it belongs to the process, "
                    "and others read it. Copy it first.",
                )
            for answer in answers:
                if answer.flags.writeable:
                    answer[:] = -1.0
            for mask, before in reversed(list(zip(masks, kept, strict=True))):
                after = contest.distribution(mask)
                demand(
                    np.array_equal(before, after),
                    f"{policy.name}, seed {seed}, gave {shares(before)} and then {shares(after)} for the "
                    f"same eligible {mask}; `distribution` must be a function, or the logged propensity is "
                    "not that of the draw. Draw in `contest`, and return an array of its own each time.",
                )

    def test_a_seed_gives_the_same_contest_again(self) -> None:
        """Two contests from equal generators agree to the last bit.

        Nothing but `rng` may be random: neither a global generator, nor a clock, nor the order of a set.
        Replay from the log finds the same draws only then.
        """
        policy, state, batch = self.case(_FEW)
        for seed in range(self.few_seeds):
            once, again = (contest_of(policy, state, batch, seed).distribution(_all(_FEW)) for _ in range(2))
            demand(
                np.array_equal(once, again),
                f"{policy.name} gave {shares(once)} and {shares(again)} for the same seed {seed}; nobody "
                "could replay the decision. Draw from `rng` alone.",
            )

    def test_the_floor_is_kept(self) -> None:
        """`exploration_floor` is a share, and everything possible has at least floor / #{possible}.

        Evaluation bounds its weights by it; a floor that is only claimed bounds nothing.
        """
        policy, state, batch = self.case(_FEW)
        floor = policy.exploration_floor
        demand(
            0.0 <= floor <= 1.0, f"`exploration_floor` of {policy.name} is {floor!r}; it must be in [0, 1]."
        )
        for seed, eligible in itertools.product(range(self.few_seeds), _masks(_FEW)):
            answer = contest_of(policy, state, batch, seed, eligible).distribution(eligible)
            possible = answer[answer > 0.0]
            demand(
                possible.min() >= floor / len(possible) * (1.0 - 1e-9),
                f"{policy.name} claims a floor of {floor!r} and gives {shares(answer)}, where the smallest "
                f"share above 0 should be at least {floor / len(possible)!r}. Mix the floor in after "
                "everything else, over what it makes possible.",
            )

    def test_a_constant_added_to_all_scores_changes_nothing(self) -> None:
        """Scores say who is better, and by how much; where their zero lies is the ranker's own business.

        The shifts are exact in float64, so that equality holds to rounding of the policy's own arithmetic.
        """
        skip_because(self.shifts_matter_because)
        policy, state, batch = self.case(_FEW)
        for shift in (1024.0, -(2.0**30)):
            shifted = replace(batch, scores=batch.score_values + shift)
            for seed in range(3):
                here = contest_of(policy, state, batch, seed).distribution(_all(_FEW))
                there = contest_of(policy, state, shifted, seed).distribution(_all(_FEW))
                demand(
                    np.allclose(here, there, rtol=1e-9, atol=1e-12),
                    f"{policy.name} gives {shares(here)}, and {shares(there)} once {shift} is added to all "
                    "scores; a ranker retrained with another intercept would change exploration. Subtract "
                    "the best score first, or say why not in `shifts_matter_because`.",
                )

    def test_every_finite_score_has_an_answer(self) -> None:
        """Ties, 1e300 and 1e-300 beside each other: a distribution, without a warning.

        A ranker's scores have no bounds, and an overflow would turn into NaN, hence into no slate at all.
        """
        policy, state, batch = self.case(_FEW)
        for name, scores in _EXTREMES.items():
            extreme = replace(batch, scores=np.array(scores))
            with without_warnings(f"{policy.name} was given scores that are {name}: {scores}"):
                contest = contest_of(policy, state, extreme, 0)
                for eligible in _masks(_FEW):
                    answer = contest.distribution(eligible)
                    _demand_distribution(answer, eligible, f"{policy.name}, scores {scores}, {eligible}")

    def test_every_finite_feature_has_an_answer(self) -> None:
        """Features from 1e-30 to 1e37, as float32 holds them: a distribution, without a warning.

        One column that nobody standardised must not take the page down.
        """
        policy, state, batch = self.case(_FEW)
        if not policy.needs_features or batch.features is None:
            return
        for scale in (1e-30, 1e10, 1e20, 1e37):
            features = (batch.features.astype(np.float64) * scale).astype(np.float32)
            for of in (state, policy.initial_state()):
                with without_warnings(f"{policy.name} was given features of about {scale}"):
                    contest = contest_of(policy, of, replace(batch, features=features), 0)
                    answer = contest.distribution(_all(_FEW))
                _demand_distribution(answer, _all(_FEW), f"{policy.name}, features of about {scale}")

    def test_a_sole_candidate_has_probability_one(self) -> None:
        """One candidate, or all blocked but one: it is shown, and its propensity is 1.

        Nothing is left to chance then; a spread among one is 0, and must not be divided by.
        """
        policy, state, batch = self.case(_FEW)
        alone = taken(batch, np.array([2]))
        answer = contest_of(policy, state, alone, 0).distribution(_all(1))
        demand(
            answer.shape == (1,) and abs(answer[0] - 1.0) <= _SUM_TOLERANCE,
            f"{policy.name} gave {shares(answer)} for a single candidate; it must be [1.].",
        )
        for row in range(_FEW):
            eligible = np.arange(_FEW) == row
            for first in (eligible, _all(_FEW)):
                answer = contest_of(policy, state, batch, row, first).distribution(eligible)
                demand(
                    np.allclose(answer, eligible, rtol=0.0, atol=_SUM_TOLERANCE),
                    f"{policy.name} gave {shares(answer)} where only row {row} is eligible; that row must "
                    "have 1.",
                )

    def test_the_order_of_candidates_does_not_matter(self) -> None:
        """Over seeds, each item has the same mean probability wherever it stands in the batch.

        Retrieval returns candidates in an order of its own; a tie that goes to the first row would show the
        nearest neighbours, and not what the policy says. Fails by chance at most `false_alarm` of the times.
        """
        policy, state, batch = self.case(_FEW)
        turned = np.array([3, 1, 4, 0, 2])
        permuted = taken(batch, turned)
        for eligible in (_all(_FEW), np.array([True, False, True, True, True])):
            here = self._over_seeds(policy, state, batch, eligible)
            there = np.empty_like(here)
            # Seeds of its own, so that both means have independent errors.
            there[:, turned] = self._over_seeds(policy, state, permuted, eligible[turned], start=self.seeds)
            allowed = sum(
                empirical_bernstein(samples, 1.0, self.false_alarm / (4 * _FEW)) for samples in (here, there)
            )
            gap = np.abs(here.mean(axis=0) - there.mean(axis=0))
            demand(
                (gap <= allowed).all(),
                f"{policy.name} gives mean probabilities {shares(here.mean(axis=0))}, and "
                f"{shares(there.mean(axis=0))} to the same items in another order, further apart than "
                f"chance allows ({shares(np.asarray(allowed))}). Break ties by random keys from `rng`, or "
                "share the probability among those that tie.",
            )

    def test_the_seed_breaks_ties(self) -> None:
        """Candidates that nothing tells apart have the same mean probability over seeds.

        A tie that always goes to one of them, by its position or the alphabet, would hide the others for
        good. Fails by chance at most `false_alarm` of the times.
        """
        policy = self.make_policy()
        batch = self.make_batch(policy, _FEW)
        twins = replace(
            batch,
            scores=np.zeros(_FEW),
            features=None if batch.features is None else np.repeat(batch.features[:1], _FEW, axis=0),
            uncertainty=None if batch.uncertainty is None else np.repeat(batch.uncertainty[:1], _FEW),
            columns={name: np.repeat(column[:1], _FEW) for name, column in batch.columns.items()},
        )
        samples = self._over_seeds(policy, policy.initial_state(), twins, _all(_FEW))
        off = np.abs(samples.mean(axis=0) - 1.0 / _FEW)
        allowed = empirical_bernstein(samples, 1.0, self.false_alarm / _FEW)
        demand(
            (off <= allowed).all(),
            f"{policy.name} gives {_FEW} candidates without any difference the mean probabilities "
            f"{shares(samples.mean(axis=0))}; each should have {1 / _FEW}. Break ties by random keys from "
            "`rng`, or share the probability among those that tie.",
        )

    def test_missing_features_are_refused(self) -> None:
        """A policy that needs features refuses a batch without them, or with another number of columns.

        Guessing would multiply each coefficient with the wrong column; nobody would notice.
        """
        policy, state, batch = self.case(_FEW)
        if not policy.needs_features:
            return
        features = batch.features
        demand(features is not None, "`make_batch` returned no features, but `needs_features` is True.")
        assert features is not None  # noqa: S101 - the demand says so in words, this tells the type checker
        for wrong in (None, np.hstack((features, features[:, :1])), features[:, :0]):
            with refused(InvalidBatch, f"`contest` of {policy.name} must check the feature columns first."):
                contest_of(policy, state, replace(batch, features=wrong), 0).distribution(_all(_FEW))

    def test_a_request_does_not_loop_over_candidates(self) -> None:
        """Nine hundred more candidates cost hardly more bytecode: the work is done on whole arrays.

        Instructions are counted, not milliseconds, so that the answer is the same on any machine.
        """
        policy = self.make_policy()
        state, counted = self.make_state(policy), {}
        for n in (100, 1_000):
            batch = self.make_batch(policy, n)
            ask = partial(build_slate, policy, state, batch, 3)
            ask()  # what is computed once per state is not a request's cost
            counted[n] = operations(ask)
        each = (counted[1_000] - counted[100]) / 900
        demand(
            each <= self.operations_per_candidate,
            f"{policy.name} executes {each:.1f} more bytecode instructions for each further candidate "
            f"({counted[100]} for 100, {counted[1_000]} for 1,000); it loops over them in Python, and a "
            "request with thousands would be slow. Work on whole arrays.",
        )

    def _over_seeds(
        self, policy: Policy[Any], state: Any, batch: RankingBatch, eligible: BoolArray, start: int = 0
    ) -> FloatArray:
        return np.array(
            [
                contest_of(policy, state, batch, start + seed, eligible).distribution(eligible)
                for seed in range(self.seeds)
            ]
        )


def _all(n: int) -> BoolArray:
    return np.ones(n, np.bool_)


def _masks(n: int) -> Iterator[BoolArray]:
    """Yield every mask that leaves somebody."""
    for bits in range(1, 2**n):
        yield (bits >> np.arange(n)) & 1 == 1


def _demand_distribution(answer: Any, eligible: BoolArray, case: str) -> None:
    __tracebackhide__ = True
    demand(
        isinstance(answer, np.ndarray) and answer.shape == eligible.shape and answer.dtype == np.float64,
        f"{case}: `distribution` returned {answer!r}; it must be a float64 array ({len(eligible)},).",
    )
    demand(
        abs(float(answer.sum()) - 1.0) <= _SUM_TOLERANCE and (answer >= 0.0).all(),
        f"{case}: {shares(answer)} sums to {float(answer.sum())!r}; a distribution has no negative entry and "
        "sums to 1, or the logged propensities are not those of the draw. Divide by the sum.",
    )
    demand(
        not answer[~eligible].any(),
        f"{case}: {shares(answer)} gives a probability to a candidate that the guards removed; it could be "
        "shown. Set the entries outside `eligible` to 0.",
    )
