"""What was known at past times: Feast's point-in-time joins, row for row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from explorank.retrieval.errors import FeatureRepositoryError, InvalidTable
from explorank.retrieval.features.served import ServedFeatures, numbers_from_column
from explorank.retrieval.features.statistics import first_at_or_after
from explorank.retrieval.features.tables import MICROSECONDS

if TYPE_CHECKING:
    from feast import FeatureStore

    from explorank.retrieval.features.vocabulary import Vocabularies

_ROWS_PER_JOIN: Final = 10_000  # Feast's join holds all earlier rows of every asked entity at once
_ROW: Final = "explorank_row"
_ARRAYS_OF_NUMBERS: Final = {f"Array({number})" for number in ("Float32", "Float64", "Int32", "Int64")}
"""As Feast writes the types."""


def historical_numbers(
    store: FeatureStore,
    served: ServedFeatures,
    ids: NDArray[Any],
    times: NDArray[np.int64],
    vocabularies: Vocabularies,
    *,
    extend: bool,
) -> dict[str, NDArray[np.float32]]:
    """Return the service's numbers as known of each of `ids` (n,) at its time (n,) in µs, by feature name."""
    asked = pd.DataFrame({served.join_key: ids, "event_timestamp": times})
    # Equal rows are asked once, and in order of time, so that a part joins few later rows.
    distinct = asked.drop_duplicates().sort_values(["event_timestamp", served.join_key], ignore_index=True)
    distinct[_ROW] = np.arange(len(distinct))
    answer = pd.concat(
        [
            _join(store, served, distinct.iloc[first : first + _ROWS_PER_JOIN])
            for first in range(0, len(distinct), _ROWS_PER_JOIN)
        ],
        ignore_index=True,
    )
    rows = asked.merge(distinct, how="left", on=[served.join_key, "event_timestamp"])[_ROW].to_numpy()
    moments = distinct["event_timestamp"].to_numpy()
    numbers = {}
    for view in served.views:
        for feature in view.features:
            if feature.kind == "other":
                continue
            column = answer[f"{view.name}__{feature.name}"]
            if extend and feature.kind == "text":
                vocabularies.extend(feature.name, (text for text in column.dropna().unique() if text))
            numbers[feature.name] = numbers_from_column(feature, column, moments, vocabularies)[rows]
    return numbers


def _join(store: FeatureStore, served: ServedFeatures, part: pd.DataFrame) -> pd.DataFrame:
    entities = part.assign(event_timestamp=_moments(part["event_timestamp"].to_numpy()))
    if served.integer_keys:
        entities[served.join_key] = _integers(part[served.join_key], served.join_key)
    answer: pd.DataFrame = store.get_historical_features(
        entity_df=entities, features=served.service, full_feature_names=True
    ).to_df()
    answer = answer.sort_values(_ROW, ignore_index=True)
    if not np.array_equal(answer[_ROW], part[_ROW]):
        raise FeatureRepositoryError(
            f"Feast returned {len(answer)} rows for {len(part)} asked of the service "
            f"{served.service.name!r}, or others than those; a training frame made of them would miss or "
            "mix up rows. The `dask` offline store does that: set `offline_store: {type: duckdb}` in "
            "feature_store.yaml."
        )
    return answer


def _integers(ids: pd.Series[Any], join_key: str) -> pd.Series[Any]:
    numbers = pd.to_numeric(ids, errors="coerce")
    if numbers.isna().any():
        raise InvalidTable(
            f"The feature repository keys {join_key!r} by whole numbers, and the entities name "
            f"{ids[numbers.isna()].iloc[0]!r}, which is none; nothing is known of it. Drop such rows."
        )
    return numbers.astype(np.int64)


def _moments(times: NDArray[np.int64]) -> pd.DatetimeIndex:
    return pd.to_datetime(times, unit="us", utc=True).as_unit("us")


def historical_lists(
    store: FeatureStore, served: ServedFeatures, feature: str, ids: NDArray[Any], times: NDArray[np.int64]
) -> list[list[str]]:
    """Return the list `feature` as known of each of `ids` (n,) at its time (n,) in µs; empty where none was.

    The rows are pulled through Feast's offline store and looked up here, by the rule of Feast's own join:
    the newest row at or before the time, of equal ones the one created last, if its ttl has not passed.
    The join itself would copy the list of every earlier row for every asked row.
    """
    view = next((view for view in served.views if feature in {f.name for f in view.features}), None)
    if view is None:
        raise FeatureRepositoryError(
            f"The feature service {served.service.name!r} serves no {feature!r}; without it nothing says "
            "which items a user met. Add that list to the service, or name no history service."
        )
    rows = _pull(store, view.registered_name, feature, times)
    if not len(rows):
        return [[] for _ in ids]
    # One numbering for asked and stored ids; their order does not matter.
    codes, _ = pd.factorize(np.concatenate((rows["key"].to_numpy(), ids.astype(object))))
    stored, asked = codes[: len(rows["key"])], codes[len(rows["key"]) :]
    order = np.lexsort((rows["created"].to_numpy(), rows["time"].to_numpy(), stored))
    stored, row_times = stored[order], rows["time"].to_numpy()[order]
    last = first_at_or_after(stored, row_times, asked, times + 1) - 1
    known = last >= np.searchsorted(stored, asked)
    known[known] &= (times - row_times[last])[known] <= view.ttl_s * MICROSECONDS
    lists = rows["lists"].combine_chunks()
    texts = lists.values.dictionary_encode()
    names = np.array(texts.dictionary.to_pylist(), object)  # every list shares these few texts
    offsets, positions = lists.offsets.to_numpy(), texts.indices.to_numpy()
    found = order[last]
    return [
        names[positions[offsets[row] : offsets[row + 1]]].tolist() if is_known else []
        for row, is_known in zip(found.tolist(), known.tolist(), strict=True)
    ]


def newest_arrays(
    store: FeatureStore, join_key: str, reference: str, time: int
) -> tuple[NDArray[Any], pa.ChunkedArray]:
    """Return who has a row of the array feature `VIEW:FEATURE` at `time` (µs), (m,) text, and each one's lists (m,).

    Which row that is follows the rule of `historical_lists`; a list may be null. Raises `FeatureRepositoryError`,
    naming those there are, where no view with that join key has such an array of numbers.
    """
    views = {view.name: view for view in store.list_feature_views() if view.join_keys == [join_key]}
    known = sorted(
        f"{view.name}:{field.name}"
        for view in views.values()
        for field in view.features
        if str(field.dtype) in _ARRAYS_OF_NUMBERS
    )
    if reference not in known:
        raise FeatureRepositoryError(
            f"The repository {store.repo_path} has no array of numbers {reference!r} by {join_key!r}, so there are no "
            f"vectors to read. Registered are: {', '.join(known) or 'none'}. Name one of those, as VIEW:FEATURE, or "
            "define it and apply the repository."
        )
    view_name, _, feature = reference.partition(":")
    rows = _pull(store, view_name, feature, np.array([time]))
    keys, times = rows["key"].to_numpy(), rows["time"].to_numpy()
    codes, _ = pd.factorize(keys)
    order = np.lexsort((rows["created"].to_numpy(), times, codes))
    newest = order[np.append(codes[order][1:] != codes[order][:-1], True)[: len(order)]]
    ttl = views[view_name].ttl
    if ttl:
        newest = newest[time - times[newest] <= ttl.total_seconds() * MICROSECONDS]
    return keys[newest], rows["lists"].take(pa.array(newest))


def _pull(store: FeatureStore, view_name: str, feature: str, times: NDArray[np.int64]) -> pa.Table:
    view = store.get_feature_view(view_name)
    [join_key] = view.join_keys
    source = view.batch_source
    created = source.created_timestamp_column
    moment = timedelta(microseconds=int(times.max()))
    table = (
        store._get_provider()
        .offline_store.pull_all_from_table_or_query(
            config=store.config,
            data_source=source,
            join_key_columns=[join_key],
            feature_name_columns=[feature],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=created,
            start_date=datetime(1900, 1, 1, tzinfo=UTC),
            end_date=datetime(1970, 1, 1, tzinfo=UTC) + moment,
        )
        .to_arrow()
    )
    times_of = {
        name: table[column].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        for name, column in (("time", source.timestamp_field), ("created", created or source.timestamp_field))
    }
    return pa.table({"key": table[join_key].cast(pa.string()), "lists": table[feature], **times_of})
