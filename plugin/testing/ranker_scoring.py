"""Whether scores are numbers to rank by, whoever asks and with whatever rows beside."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.rankers import (
    FeatureMismatch,
    HurriedRanker,
    IdReadingRanker,
    RepresentingRanker,
    UncertainRanker,
    is_listwise,
)
from explorank.testing.demands import demand, refused, without_warnings
from explorank.testing.ranker_cases import RankerCases

_THREADS = 4
_CALLS = 24


class RankerScoringTests(RankerCases):
    """The part of `RankerTests` about `score`, `check` and what protocols beyond `Ranker` add."""

    def test_each_row_has_a_finite_score(self) -> None:
        """`score` returns (n,) float64, finite, for all rows, missing values and values far off included.

        A request with one odd candidate must be answered, and NaN has no place in an order.
        """
        ranker = self.fitted()
        rows = self.rows(ranker)
        self._score(ranker, rows, "usual rows")
        for column in range(rows.shape[1]):
            missing = rows.copy()
            missing[:, column] = np.nan
            self._score(ranker, missing, f"{ranker.manifest.feature_names[column]} missing")
        self._score(ranker, np.full_like(rows, np.nan), "all values missing")
        self._score(ranker, np.full_like(rows, 1e30), "values of 1e30")

    def test_no_rows_have_no_scores(self) -> None:
        """Without candidates there are no scores: (0,) float64, and no error, from every method that scores."""
        ranker = self.fitted()
        nothing = self.rows(ranker)[:0]
        self._score(ranker, nothing, "no rows")
        if isinstance(ranker, UncertainRanker):
            for part in ranker.score_with_uncertainty(nothing):
                demand(
                    part.shape == (0,),
                    f"{_named(ranker)} gives uncertainty of shape {part.shape} for no rows.",
                )

    def test_a_row_is_scored_by_itself(self) -> None:
        """A row's score is the same alone, in another order, and beside other rows, up to `row_tolerance`.

        Candidates come in any number, and what is logged must be computable again. A `listwise` ranker's scores may
        depend on which rows there are, but not on their order.
        """
        ranker = self.fitted()
        rows = self.rows(ranker)
        scores = self._score(ranker, rows, "usual rows")
        order = np.random.default_rng(3).permutation(len(rows))
        self._demand_alike(scores[order], ranker.score(rows[order]), "in another order", ranker)
        if not is_listwise(ranker):
            alone = np.concatenate([ranker.score(row[None]) for row in rows])
            self._demand_alike(scores, alone, "each row alone", ranker)
            beside = np.concatenate([rows, rows, rows])[: 2 * len(rows) + 1]
            self._demand_alike(scores, ranker.score(beside)[: len(rows)], "with more rows beside it", ranker)

    def test_memory_does_not_matter(self) -> None:
        """Rows laid out by columns, cut out of a wider matrix, or read-only get the same scores, and stay as they are.

        The stage passes slices of the matrix that all plugins read.
        """
        ranker = self.fitted()
        rows = self.rows(ranker)
        kept = rows.copy()
        scores = self._score(ranker, rows, "usual rows")
        demand(
            np.array_equal(rows, kept, equal_nan=True),
            f"{_named(ranker)} wrote into the features; others read them. Copy what you change.",
        )
        wide = np.hstack(
            [np.full((len(rows), 2), 7.0, np.float32), rows, np.full((len(rows), 1), 7.0, np.float32)]
        )
        frozen = rows.copy()
        frozen.setflags(write=False)
        for what, given in (
            ("by columns", np.asfortranarray(rows)),
            ("cut out of a wider matrix", wide[:, 2:-1]),
            ("every second row", np.repeat(rows, 2, axis=0)[::2]),
            ("read-only", frozen),
        ):
            self._demand_alike(scores, ranker.score(given), f"laid out {what}", ranker)

    def test_threads_do_not_disturb_each_other(self) -> None:
        """Many threads that score at once get what one gets: requests are answered in parallel by one ranker."""
        ranker = self.fitted()
        rows = self.rows(ranker)
        parts = [rows, rows[::-1].copy(), rows[:7]]
        due = [ranker.score(part) for part in parts]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda call: ranker.score(parts[call % 3]), range(_CALLS)))
        for call, scores in enumerate(found):
            demand(
                np.array_equal(scores, due[call % 3]),
                f"{_named(ranker)} gives other scores while other threads score. Keep nothing between calls.",
            )

    def test_other_features_are_refused(self) -> None:
        """`check` raises `FeatureMismatch` for names that lack one, have one more, or stand in another order.

        `score` and `explain` do for another number of columns. Mixed-up columns give scores that mean nothing.
        """
        ranker = self.fitted()
        names = list(ranker.manifest.feature_names)
        ranker.check(names)
        ranker.check(tuple(names))
        for wrong in (names[1:], [*names, "one_more"], names[::-1] if len(names) > 1 else ["other"], []):
            with refused(FeatureMismatch, f"{_named(ranker)} accepts {wrong} where it knows {names}."):
                ranker.check(wrong)
        rows = self.rows(ranker)
        for other in (rows[:, :-1], np.hstack([rows, rows[:, :1]]), rows[0]):
            for use in (ranker.score, ranker.explain):
                with refused(FeatureMismatch, f"{_named(ranker)} takes features of shape {other.shape}."):
                    use(other)

    def test_an_uncertainty_is_a_standard_deviation(self) -> None:
        """`score_with_uncertainty`, where there is one, gives the scores of `score`, and deviations of 0 or more.

        Exploration reads it; a ranker that is equally sure of everything, or scores otherwise with it, would mislead.
        """
        ranker = self.fitted()
        if not isinstance(ranker, UncertainRanker):
            return
        rows = self.rows(ranker)
        scores, deviations = ranker.score_with_uncertainty(rows)
        self._demand_alike(ranker.score(rows), scores, "beside their uncertainty", ranker)
        demand(
            deviations.shape == (len(rows),) and deviations.dtype == np.float64,
            f"{_named(ranker)} gives uncertainty {deviations.shape} {deviations.dtype} for {len(rows)} rows; due is "
            "one float64 for each.",
        )
        demand(
            np.isfinite(deviations).all() and (deviations >= 0).all() and np.ptp(deviations) > 0,
            f"The uncertainty of {_named(ranker)} is not finite, below 0, or the same for all rows: {deviations}.",
        )

    def test_a_representation_comes_with_the_score(self) -> None:
        """`score_with_representation`, where there is one, gives what `score` and `representation` give.

        The representation is (n, h) float32, finite, a row's own, and `representation_scale` has (h,) means and
        deviations above 0. A policy learns over these columns, on that scale.
        """
        ranker = self.fitted()
        if not isinstance(ranker, RepresentingRanker):
            return
        rows = self.rows(ranker)
        scores, hidden = ranker.score_with_representation(rows)
        self._demand_alike(ranker.score(rows), scores, "beside their representation", ranker)
        demand(
            hidden.ndim == 2 and len(hidden) == len(rows) and hidden.dtype == np.float32,
            f"{_named(ranker)} represents {len(rows)} rows by {hidden.shape} {hidden.dtype}; due is (n, h) float32.",
        )
        demand(np.isfinite(hidden).all(), f"{_named(ranker)} represents rows by numbers that are not finite.")
        for what, found in (
            ("by themselves", ranker.representation(rows)),
            ("in another order", ranker.representation(rows[::-1].copy())[::-1]),
        ):
            demand(
                np.allclose(found, hidden, rtol=self.row_tolerance, atol=self.row_tolerance),
                f"{_named(ranker)} represents rows {what} otherwise than beside their scores.",
            )
        mean, deviation = ranker.representation_scale
        demand(
            np.shape(mean) == np.shape(deviation) == hidden.shape[1:]
            and bool((np.asarray(deviation) > 0).all()),
            f"The representation of {_named(ranker)} has {hidden.shape[1]} columns, and its scale is {mean} and "
            f"{deviation}; each has a mean, and a deviation above 0.",
        )

    def test_a_cheaper_way_scores_too(self) -> None:
        """`score_cheaply`, where there is such a way, gives finite scores (n,) float64 that rise with those of `score`.

        It answers when more is asked than can be scored; another order altogether would be worse than none.
        """
        ranker = self.fitted()
        if not isinstance(ranker, HurriedRanker) or not ranker.cheaper_way:
            return
        rows = self.rows(ranker)
        scores, cheap = ranker.score(rows), ranker.score_cheaply(rows)
        demand(
            np.shape(cheap) == (len(rows),) and cheap.dtype == np.float64 and np.isfinite(cheap).all(),
            f"{_named(ranker)} scores cheaply with {np.shape(cheap)} {cheap.dtype}, or not with finite "
            f"numbers: {cheap}.",
        )
        alike = float(np.corrcoef(_ranks(scores), _ranks(cheap))[0, 1])
        demand(
            alike > 0,
            f"{_named(ranker)} orders rows by {ranker.cheaper_way!r} otherwise than by all it knows: the rank "
            f"correlation is {alike:.2f}.",
        )
        demand(
            ranker.score_cheaply(rows[:0]).shape == (0,),
            f"{_named(ranker)} scores no rows cheaply with something.",
        )

    def test_ids_are_read_per_request(self) -> None:
        """A ranker that reads ids returns (n, c) float32, for known and unknown items, with and without a history.

        Its `id_columns` stand in its manifest. New items and new visitors come every day.
        """
        ranker = self.fitted()
        if not isinstance(ranker, IdReadingRanker):
            return
        columns = ranker.id_columns
        demand(
            set(columns) <= set(ranker.manifest.feature_names),
            f"{_named(ranker)} computes {columns}, and its manifest does not list them all.",
        )
        known = [] if (ids := self.unseen().item_ids) is None else ids[:3].tolist()
        for items in (known, ["never-seen", "ünknown", ""], []):
            for history in ((), known, ("never-seen",)):
                with without_warnings(f"reading the ids {items} with the history {history}"):
                    read = ranker.read_ids(items, history)
                demand(
                    read.shape == (len(items), len(columns)) and read.dtype == np.float32,
                    f"{_named(ranker)} reads {len(items)} ids into {read.shape} {read.dtype}; due is "
                    f"({len(items)}, {len(columns)}) float32.",
                )

    def _score(self, ranker: Any, rows: NDArray[np.float32], what: str) -> NDArray[np.float64]:
        __tracebackhide__ = True
        with without_warnings(f"scoring {what}"):
            scores: NDArray[np.float64] = ranker.score(rows)
        kind = getattr(scores, "dtype", type(scores))
        demand(
            np.shape(scores) == (len(rows),) and kind == np.float64,
            f"{_named(ranker)} scores {what} with {np.shape(scores)} of {kind}; due "
            f"is ({len(rows)},) float64.",
        )
        demand(
            np.isfinite(scores).all(), f"{_named(ranker)} scores {what} with {scores}; scores must be finite."
        )
        return scores

    def _demand_alike(
        self, due: NDArray[np.float64], found: NDArray[np.float64], what: str, ranker: Any
    ) -> None:
        __tracebackhide__ = True
        demand(
            np.allclose(due, found, rtol=self.row_tolerance, atol=self.row_tolerance),
            f"{_named(ranker)} scores rows {what} otherwise, by up to {_furthest(due, found):.3g}. A row's score "
            "follows from its values; a ranker that compares rows says `listwise = True`.",
        )


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    return scores.argsort(kind="stable").argsort()


def _furthest(due: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    return float(np.abs(due - found).max(initial=0.0))


def _named(ranker: Any) -> str:
    return f"Ranker {ranker.manifest.name!r}"
