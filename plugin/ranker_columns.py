"""The columns that a ranker scores, gathered from what is served and from what it reads of ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explorank.rankers import IdReadingRanker, Ranker, RankingData


def own_columns(ranker: Ranker) -> tuple[str, ...]:
    """Return the columns that the ranker makes of ids itself."""
    return ranker.id_columns if isinstance(ranker, IdReadingRanker) else ()


def ranker_columns(
    ranker: Ranker,
    names: Sequence[str],
    values: NDArray[np.float32],
    item_ids: Sequence[str],
    history: Sequence[str],
) -> NDArray[np.float32]:
    """Return what `ranker` scores for the candidates of one request, (n, d') in the order of its manifest.

    `values` (n, d) are the columns `names`; `history` is what the user liked, oldest first. Raises `FeatureMismatch`
    naming the columns that are missing.
    """
    own = own_columns(ranker)
    read = ranker.read_ids(item_ids, history) if isinstance(ranker, IdReadingRanker) else values[:, :0]
    there = {name: values[:, place] for place, name in enumerate(names)}
    there |= {name: read[:, place] for place, name in enumerate(own)}
    wanted = ranker.manifest.feature_names
    ranker.check([name for name in wanted if name in there])
    return np.column_stack([there[name] for name in wanted]).astype(np.float32, copy=False)


def score_requests(ranker: Ranker, data: RankingData) -> NDArray[np.float64]:
    """Return the scores (n,) of past requests' rows; raise `FeatureMismatch` where the data lacks a column.

    A ranker that reads ids needs `item_ids` and `histories`.
    """
    if not own_columns(ranker):
        return ranker.score(ranker_columns(ranker, data.feature_names, data.features, (), ()))
    ids = np.zeros(len(data), np.str_) if data.item_ids is None else data.item_ids
    histories = data.histories or ((),) * data.requests
    sizes = np.ones(len(data), np.int64) if data.groups is None else data.groups
    ends = np.cumsum(sizes)
    parts = [
        ranker_columns(
            ranker,
            data.feature_names,
            data.features[end - size : end],
            ids[end - size : end].tolist(),
            history,
        )
        for end, size, history in zip(ends.tolist(), sizes.tolist(), histories, strict=True)
    ]
    return ranker.score(np.concatenate(parts))
