"""What every part of `RankerTests` works on: a class, options, past requests; a subclass may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.rankers import RankingData, TrainableRanker, features_for

_REQUESTS = 80
_ROWS = 10
"""Rows of each request."""
_TAKEN = 3
"""Rows of each request that are taken up."""
_ITEMS = 40


class RankerCases:
    """Gives the suite its ranker and its data; only `ranker_class` must be set."""

    ranker_class: ClassVar[type[TrainableRanker] | None] = None
    """The class under test."""
    options: ClassVar[Any] = None
    """Options to train with, an instance of `ranker_class.Options`; small ones make the tests quick. `None` is the
    ranker's own defaults."""
    invalid_options: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Options that must be refused, each replacing those of `options`: `[{"rounds": 0}]`."""
    row_tolerance: ClassVar[float] = 0.0
    """How far a row's score may depend on how many rows are scored with it: matrix products may round otherwise."""
    explanation_tolerance: ClassVar[float] = 1e-6
    """How far the sum of attributions may be from the score, relative and absolute."""
    explains_no_score_because: ClassVar[str | None] = None
    """Why attributions sum to something else than the score, where they must; it then has to order rows alike."""
    least_skill: ClassVar[float] = 0.6
    """How much of the way from chance to a perfect order a trained ranker goes at least, in NDCG on new requests."""
    resumes: ClassVar[bool] = False
    """Whether a run that was cut off goes on from its checkpoint; where it does not, it may start anew."""

    def make_data(self, seed: int) -> RankingData:
        """Return past requests, others for another seed; what is learnt from one must hold for the next.

        By default 80 requests of 10 rows, three of each taken up: those where `first` plus half of `second` is
        greatest, up to noise, and `third` says nothing. Some values are missing. There are item ids, histories,
        positions and a window for rankers that read them. Override it for a ranker that needs more, or other labels.
        """
        rng = np.random.default_rng([19, seed])
        rows = _REQUESTS * _ROWS
        features = rng.standard_normal((rows, 3)).astype(np.float32)
        relevance = features[:, 0] + 0.5 * features[:, 1] + 0.3 * rng.standard_normal(rows)
        ranks = relevance.reshape(_REQUESTS, _ROWS).argsort(axis=1).argsort(axis=1)
        features[rng.random(rows) < 0.05, 2] = np.nan
        items = np.array([f"item-{number}" for number in range(_ITEMS)], np.str_)
        return RankingData(
            features=features,
            feature_names=("first", "second", "third"),
            labels=(ranks >= _ROWS - _TAKEN).ravel().astype(np.float64),
            groups=np.full(_REQUESTS, _ROWS),
            positions=np.tile(np.arange(_ROWS), _REQUESTS),
            item_ids=rng.choice(items, rows),
            histories=tuple(tuple(rng.choice(items, rng.integers(4)).tolist()) for _ in range(_REQUESTS)),
            window=(1_700_000_000.0, 1_700_086_400.0),
        )

    def fit(self, data: RankingData | None = None, **arguments: Any) -> Any:
        """Return a ranker trained on `make_data(0)`, or on `data`, with `options` and seed 0 unless told otherwise."""
        given = {"options": self.options, "seed": 0} | arguments
        return self._class().fit(self.make_data(0) if data is None else data, **given)

    def fitted(self) -> Any:
        """Return the ranker that `fit()` gives: trained once for all tests of a suite, since it never changes."""
        suite = type(self)
        if "_fitted" not in vars(suite):
            suite._fitted = self.fit()  # type: ignore[attr-defined]  # each suite has its own
        return vars(suite)["_fitted"]

    def rows(self, ranker: Any, requests: int = 6) -> NDArray[np.float32]:
        """Return the columns that `ranker` takes, of requests it has not seen, (n, d)."""
        return np.ascontiguousarray(features_for(ranker, self.unseen().take(range(requests))))

    def unseen(self) -> RankingData:
        """Return requests that `fit()` has not seen."""
        return replace(self.make_data(1), called="new")

    def _class(self) -> type[TrainableRanker]:
        if self.ranker_class is None:
            raise NotImplementedError(
                f"{type(self).__name__} does not say which ranker to test. Give it `ranker_class = ...`."
            )
        return self.ranker_class
