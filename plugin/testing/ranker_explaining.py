"""Whether attributions add up to the score that they explain."""

from __future__ import annotations

import numpy as np

from explorank.testing.demands import demand
from explorank.testing.ranker_cases import RankerCases


class RankerExplainingTests(RankerCases):
    """The part of `RankerTests` about `explain`."""

    def test_attributions_sum_to_the_score(self) -> None:
        """Base and attributions of a row sum to its score, through the link, within `explanation_tolerance`.

        An explanation that leaves something out, or adds something, explains another ranker. Where
        `explains_no_score_because` says why it must, the sums order rows as scores do.
        """
        ranker = self.fitted()
        rows = self.rows(ranker)
        scores, explained = ranker.score(rows), ranker.explain(rows)
        if self.explains_no_score_because is None:
            demand(
                np.allclose(
                    explained.scores, scores, rtol=self.explanation_tolerance, atol=self.explanation_tolerance
                ),
                f"Attributions of {ranker.manifest.name!r} sum to a score that is off by up to "
                f"{np.abs(explained.scores - scores).max():.3g}.",
            )
            return
        order = np.argsort(explained.raw_scores, kind="stable")
        demand(
            (np.diff(scores[order]) >= -self.explanation_tolerance).all(),
            f"Attributions of {ranker.manifest.name!r} sum to something that orders rows otherwise than the scores.",
        )

    def test_an_explanation_names_its_features(self) -> None:
        """There is one attribution for each row and feature of the manifest, all finite, and the method has a name.

        No rows have an explanation too.
        """
        ranker = self.fitted()
        names = ranker.manifest.feature_names
        for rows in (self.rows(ranker), self.rows(ranker)[:0], np.full_like(self.rows(ranker), np.nan)):
            explained = ranker.explain(rows)
            demand(
                explained.feature_names == names
                and explained.attributions.shape == (len(rows), len(names))
                and explained.base.shape == (len(rows),)
                and bool(explained.method),
                f"{ranker.manifest.name!r} explains {len(rows)} rows of {len(names)} features by "
                f"{explained.attributions.shape} attributions of {explained.feature_names}, a base of "
                f"{explained.base.shape}, by the method {explained.method!r}.",
            )
            demand(
                np.isfinite(explained.attributions).all() and np.isfinite(explained.base).all(),
                f"Some attributions of {ranker.manifest.name!r} are not finite.",
            )
