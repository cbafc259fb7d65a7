"""Divides the users of past requests, and the items they liked, to see for whom a ranker does well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.model_card import Segment
from explorank.pipeline.evidence import accuracy
from explorank.pipeline.metrics import bootstrap
from explorank.pipeline.results import estimate
from explorank.rankers import RankingData
from explorank.retrieval.features import FeatureAccess

_MOST_TEXTS: Final = 24
"""A column of more texts than these names people, or places, rather than groups."""
_AGE_BOUNDS: Final = np.array([18.0, 25.0, 35.0, 50.0])
_AGE_BANDS: Final = ("under 18", "18 to 24", "25 to 34", "35 to 49", "50 and over")
_UNKNOWN: Final = "unknown"
_USER_THIRDS: Final = ("least active third", "middle third", "most active third")
_ITEM_THIRDS: Final = ("least popular third", "middle third", "most popular third")


def user_groups(
    access: FeatureAccess, columns: Mapping[str, NDArray[np.float32]], activity: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return which group each request's user belongs to, (g,) text, by what divides them.

    `columns` are the users' features, (g,) each: of texts (gender, occupation) each value is a group, ages become
    bands; other numbers divide nobody. `activity` (g,) is how many events the user had before, cut into thirds.
    """
    groups: dict[str, NDArray[Any]] = {}
    for name, codes in columns.items():
        texts = np.array([*access.texts(name), _UNKNOWN], object)
        if len(texts) > 1 and len(np.unique(codes[np.isfinite(codes)])) <= _MOST_TEXTS:
            groups[name] = texts[np.where(np.isfinite(codes), codes, len(texts) - 1).astype(np.int64)]
        elif name == "age" or name.endswith("_age"):
            bands = np.array([*_AGE_BANDS, _UNKNOWN], object)
            groups[name] = bands[
                np.where(
                    np.isfinite(codes), np.searchsorted(_AGE_BOUNDS, codes, side="right"), len(_AGE_BANDS)
                )
            ]
    groups["activity"] = np.array(_USER_THIRDS, object)[_thirds(activity, activity)]
    return groups


def by_segment(
    groups: Mapping[str, NDArray[Any]], ndcg: NDArray[np.float64], users: NDArray[Any], *, seed: int
) -> Iterator[Segment]:
    """Yield how well requests (g,) of each group were answered, groups in alphabetical order within what divides."""
    for by, values in groups.items():
        for value in np.unique(values.astype(str)):
            those = values.astype(str) == value
            yield Segment(
                by=by,
                value=str(value),
                requests=int(those.sum()),
                users=len(np.unique(users[those])),
                ndcg_at_10=estimate(bootstrap(ndcg[those], seed=seed, users=users[those])),
            )


def by_popularity(
    later: RankingData,
    scores: NDArray[np.float64],
    popularity: NDArray[np.int64],
    users: NDArray[Any],
    *,
    seed: int,
) -> Iterator[Segment]:
    """Yield how well the liked items of each third by `popularity` (n,) were placed among those that nobody liked.

    A request counts in each third that it has a liked item of; liked items of other thirds are left out of it, so that
    the place of one third costs no other. `scores` (n,) are those of the rows of `later`, `users` (g,) whose its
    requests are.
    """
    liked = later.labels > 0
    third_of = _thirds(popularity, popularity[liked])
    for third, name in enumerate(_ITEM_THIRDS):
        wanted = liked & (third_of == third)
        if not wanted.any():
            continue
        requests = np.unique(later.request_of[wanted])
        rows = np.flatnonzero((wanted | ~liked) & np.isin(later.request_of, requests))
        part = RankingData(
            features=np.empty((len(rows), 0), np.float32),
            feature_names=(),
            labels=later.labels[rows],
            groups=np.unique(later.request_of[rows], return_counts=True)[1],
        )
        whose = users[requests]
        yield Segment(
            by="item popularity",
            value=name,
            requests=len(requests),
            users=len(np.unique(whose)),
            ndcg_at_10=estimate(bootstrap(accuracy(scores[rows], part)["ndcg@10"], seed=seed, users=whose)),
        )


def _thirds(values: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1 or 2 for each of `values`, by the thirds of `of`; equal values are in the same third."""
    low, high = np.quantile(of, [1 / 3, 2 / 3])
    thirds: NDArray[np.int64] = (values > low).astype(np.int64) + (values > high)
    return thirds
