"""A row at time t holds what the events strictly before t say: no more and no less, event by event."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from explorank.retrieval.features import FeatureAccess
from explorank.retrieval.features.feast_session import quiet

DAY = 86_400 * 1_000_000
WINDOWS = {"_7d": 7 * DAY, "_30d": 30 * DAY, "": None}


@pytest.fixture(scope="module")
def events(random_events: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": random_events["user_id"].astype(str),
            "item_id": random_events["item_id"],
            "time": np.rint(random_events["timestamp"] * 1e6).astype(np.int64),
            "value": random_events["value"],
        }
    )


@pytest.fixture(scope="module")
def moments(events: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Each event's time, the instants around it and around its end in each window, and times in between."""
    ends = np.array([0, 7 * DAY, 30 * DAY])
    around = (events["time"].to_numpy()[:, None, None] + ends[:, None] + np.array([-1, 0, 1, 2])).ravel()
    between = np.random.default_rng(5).integers(events["time"].min(), events["time"].max(), size=300)
    moments = np.unique(np.concatenate((around, between)))
    return moments[moments <= events["time"].max() + 1]


def directly(events: pd.DataFrame, entity: str, key: str, moment: int) -> dict[str, Any]:
    before = events[(events[f"{entity}_id"] == key) & (events["time"] < moment)]
    expected: dict[str, Any] = {}
    for suffix, window in WINDOWS.items():
        inside = before if window is None else before[before["time"] >= moment - window]
        expected[f"{entity}_events{suffix}"] = len(inside)
        expected[f"{entity}_mean_value{suffix}"] = inside["value"].mean()
        expected[f"{entity}_positive_rate{suffix}"] = (inside["value"] >= 3.0).mean()
    expected[f"{entity}_first_event"] = before["time"].min()
    expected[f"{entity}_last_event"] = before["time"].max()
    return expected


def rows_of(repository: Path, view: str) -> pd.DataFrame:
    rows = pq.read_table(repository / "data" / f"{view}.parquet").to_pandas()
    for column in rows.select_dtypes("datetimetz"):
        rows[column] = rows[column].dt.as_unit("us").astype(np.int64)
    return rows


@pytest.mark.parametrize("entity", ["item", "user"])
def test_the_latest_row_equals_a_direct_computation(
    random_repository: Path, events: pd.DataFrame, moments: np.ndarray[Any, Any], entity: str
) -> None:
    rows = rows_of(random_repository, f"{entity}_statistics")
    checked = 0
    # Every moment with one entity in turn, and every event's own moment with its own entity.
    keys = sorted(events[f"{entity}_id"].unique())
    asked = [(keys[number % len(keys)], moment) for number, moment in enumerate(moments.tolist())]
    asked += [
        (key, moment + step)
        for key, moment in zip(events[f"{entity}_id"], events["time"].tolist(), strict=True)
        for step in (0, 1)
    ]
    for key, moment in asked:
        expected = directly(events, entity, key, moment)
        own = rows[(rows[f"{entity}_id"] == key) & (rows["event_timestamp"] <= moment)]
        if expected[f"{entity}_events"] == 0:
            assert own.empty
            continue
        latest = own.iloc[own["event_timestamp"].argmax()]
        assert dict(latest[list(expected)]) == pytest.approx(expected, nan_ok=True, rel=1e-12), (key, moment)
        checked += 1
    assert checked > 500


def test_no_two_rows_of_an_entity_share_an_instant(random_repository: Path) -> None:
    for view, key in (
        ("item_statistics", "item_id"),
        ("user_statistics", "user_id"),
        ("user_history", "user_id"),
    ):
        assert not rows_of(random_repository, view).duplicated([key, "event_timestamp"]).any()


def test_no_row_lies_after_the_end_of_the_data(random_repository: Path, events: pd.DataFrame) -> None:
    for view in ("item_statistics", "user_statistics", "user_history"):
        assert rows_of(random_repository, view)["event_timestamp"].max() <= events["time"].max() + 1


def test_histories_list_the_last_items_in_given_order(random_repository: Path, events: pd.DataFrame) -> None:
    rows = rows_of(random_repository, "user_history")
    assert len(rows) == len(events.drop_duplicates(["user_id", "time"]))
    for row in rows.itertuples():
        before = events[(events["user_id"] == row.user_id) & (events["time"] < row.event_timestamp)].tail(5)
        assert list(row.history_items) == before["item_id"].tolist()
        assert list(row.history_values) == before["value"].tolist()
        assert list(row.history_times) == pytest.approx((before["time"] / 1e6).tolist(), abs=1e-6)


def test_training_frames_equal_a_direct_computation(
    random_repository: Path, events: pd.DataFrame, moments: np.ndarray[Any, Any]
) -> None:
    """Event by event through Feast: at its own time an event is not known, 1 µs later it is."""
    access = FeatureAccess(random_repository)
    asked = pd.concat(
        [
            events.assign(event_timestamp=pd.to_datetime(events["time"] + step, unit="us", utc=True))
            for step in (0, 1)
        ]
    ).sample(frac=1.0, random_state=3)
    frame = access.training_frame(asked[["user_id", "item_id", "event_timestamp"]])
    assert frame.index.equals(asked.index)
    for row, numbers in zip(asked.itertuples(), frame.to_dict("records"), strict=True):
        moment = row.event_timestamp.value // 1000
        for entity, key in (("user", row.user_id), ("item", row.item_id)):
            expected = directly(events, entity, key, moment)
            if expected[f"{entity}_events"] == 0:
                assert np.isnan(numbers[f"{entity}_events"])
                continue
            for name in ("first_event", "last_event"):
                whole_seconds = expected.pop(f"{entity}_{name}") // 1_000_000
                age = (moment / 1e6 - whole_seconds) / 86_400
                assert numbers[f"{entity}_{name}"] == pytest.approx(age, rel=1e-6)
            assert {name: numbers[name] for name in expected} == pytest.approx(
                expected, nan_ok=True, rel=1e-6
            )
        before = events[(events["user_id"] == row.user_id) & (events["time"] < moment)].tail(5)
        assert numbers["history"] == before["item_id"].tolist()


def test_histories_equal_feasts_own_join(random_repository: Path, events: pd.DataFrame) -> None:
    access = FeatureAccess(random_repository)
    asked = pd.DataFrame(
        {
            "user_id": events["user_id"],
            "item_id": events["item_id"],
            "event_timestamp": pd.to_datetime(events["time"], unit="us", utc=True),
        }
    )
    asked.loc[0, "user_id"] = "stranger"
    with quiet("joining", random_repository):
        joined = access.store.get_historical_features(
            asked[["user_id", "event_timestamp"]].assign(row=range(len(asked))),
            ["user_history:history_items"],
        ).to_df()
    theirs = [[] if items is None else list(items) for items in joined.sort_values("row")["history_items"]]
    assert access.training_frame(asked)["history"].tolist() == theirs
