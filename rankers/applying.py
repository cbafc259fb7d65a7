"""A ranker applied to training data: the columns it wants, and the scores it gives request by request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.errors import FeatureMismatch
from explorank.rankers.ranker import IdReadingRanker, Ranker, TextReadingRanker

RankerT = TypeVar("RankerT", bound=Ranker)


def id_columns_of(ranker: Ranker) -> tuple[str, ...]:
    """Return the columns that `ranker` computes from ids, none for most."""
    return ranker.id_columns if isinstance(ranker, IdReadingRanker) else ()


def reads_texts(ranker: Ranker) -> bool:
    """Return whether `ranker` reads what items are called."""
    return isinstance(ranker, TextReadingRanker) and ranker.reads_texts


def knowing_texts(ranker: RankerT, texts: Mapping[str, str]) -> RankerT:
    """Return `ranker` knowing what items are called, where it reads that and there is anything to know."""
    if not texts or not isinstance(ranker, TextReadingRanker) or not ranker.reads_texts:
        return ranker
    return ranker.with_item_texts(texts)


def is_listwise(ranker: Ranker) -> bool:
    """Return whether a row's score depends on the rows beside it; a ranker says so by a true `listwise`."""
    return bool(getattr(ranker, "listwise", False))


def is_prompt(ranker: Ranker) -> bool:
    """Return whether scoring is arithmetic on the rows alone, which waits for no disk, network or other process.

    A ranker says so by a true `prompt`. It is called in the request's own thread: nothing could hold it up for which a
    deadline on another thread would help.
    """
    return bool(getattr(ranker, "prompt", False))


def places_of(wanted: Sequence[str], names: Sequence[str]) -> NDArray[np.int64] | slice:
    """Return where `wanted` stand in `names`: a slice where together and in order, so that nothing is copied."""
    at = {name: place for place, name in enumerate(names)}
    places = [at[name] for name in wanted]
    run = range(min(places, default=0), min(places, default=0) + len(places))
    return slice(run.start, run.stop) if places == list(run) else np.array(places, np.int64)


def features_for(ranker: Ranker, data: RankingData) -> NDArray[np.float32]:
    """Return the columns of `data` that `ranker` takes, in its order, (n, d), those of ids computed per request.

    Raises `FeatureMismatch` for columns that `data` lacks, and where ids are read and `data` has none.
    """
    ids = id_columns_of(ranker)
    wanted = ranker.manifest.feature_names
    if not ids:
        ranker.check([name for name in wanted if name in data.feature_names])
        return data.features[:, places_of(wanted, data.feature_names)]
    ranker.check([name for name in wanted if name in data.feature_names or name in ids])
    names = [name for name in data.feature_names if name not in ids]
    columns = np.hstack([data.features[:, places_of(names, data.feature_names)], _read_ids(ranker, data)])
    return columns[:, places_of(wanted, (*names, *ids))]


def score_data(ranker: Ranker, data: RankingData) -> NDArray[np.float64]:
    """Return a score for each row of `data`, (n,); a listwise ranker scores each request by itself.

    A ranker that reads texts knows those of `data` too.
    """
    ranker = knowing_texts(ranker, data.item_texts)
    features = features_for(ranker, data)
    if not is_listwise(ranker) or data.groups is None:
        return ranker.score(features)
    requests = np.split(features, np.cumsum(data.groups)[:-1])
    return np.concatenate([ranker.score(rows) for rows in requests])


def _read_ids(ranker: Ranker, data: RankingData) -> NDArray[np.float32]:
    if data.item_ids is None or not isinstance(ranker, IdReadingRanker):
        raise FeatureMismatch(
            f"Ranker {ranker.manifest.name!r} reads ids, and the {data.called} data has no item_ids; it would score "
            "all items alike. Pass them, with the histories where it reads those."
        )
    sizes = np.ones(len(data), np.int64) if data.groups is None else data.groups
    histories = data.histories or ((),) * data.requests
    listed = data.item_ids.tolist()
    ends = np.cumsum(sizes).tolist()
    parts = [
        ranker.read_ids(listed[end - size : end], history)
        for end, size, history in zip(ends, sizes.tolist(), histories, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(ranker.id_columns)), np.float32)
