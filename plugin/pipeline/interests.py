"""What users search by, for tuning an index: the interests that follow from a sample of their histories."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.retrieval import interest_vector
from explorank.settings import Settings

_USERS: Final = 256
_COLUMNS: Final = ("event_timestamp", "history_items", "history_values")


def sampled_interests(
    settings: Settings,
    item_ids: NDArray[np.str_],
    vectors: NDArray[np.float32],
    *,
    until: datetime | None = None,
) -> NDArray[np.float32] | None:
    """Return the interest vectors (u, d) of some users, by `vectors` (n, d) of `item_ids` (n,).

    They come from the feature repository's histories, of one group of rows of that file, not later than `until`. None
    where it has no histories, or nothing in them is known to be liked.
    """
    histories = _some_histories(settings, until)
    if histories is None:
        return None
    assert settings.features is not None  # noqa: S101 - histories come from there, for the type checker
    known, rows_of_known = np.unique(
        item_ids, return_index=True
    )  # an id may occur twice, and is refused later
    places = pd.Index(known)
    found = []
    for items, values in zip(histories["history_items"], histories["history_values"], strict=True):
        liked = np.asarray(items)[np.asarray(values, float) >= settings.features.positive_from]
        found_at = places.get_indexer(pd.Index(liked))
        rows = rows_of_known[found_at[found_at >= 0]]
        vector = interest_vector(vectors[rows], settings.retrieval.decay)
        if vector.any():
            found.append(vector)
    return np.stack(found) if found else None


def _some_histories(settings: Settings, until: datetime | None) -> pd.DataFrame | None:
    import pyarrow as pa  # noqa: PLC0415 - not before it is needed
    import pyarrow.parquet as pq  # noqa: PLC0415

    if settings.features is None:
        return None
    path = feature_access(settings).repository / "data" / "user_history.parquet"
    if not path.exists():
        return None
    rng = np.random.default_rng(0)
    try:
        with pq.ParquetFile(path) as file:
            if not file.num_row_groups or not set(_COLUMNS) <= set(file.schema_arrow.names):
                return None
            group = file.read_row_group(int(rng.integers(file.num_row_groups)), columns=list(_COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as users' histories: {error}") from error
    histories: pd.DataFrame = group.to_pandas()
    if until is not None:
        histories = histories[histories["event_timestamp"] <= until]
    return histories.sample(min(_USERS, len(histories)), random_state=rng)
