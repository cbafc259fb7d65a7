"""What `build_features` reads, refuses, counts and writes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explorank.retrieval.errors import FeatureRepositoryError, InvalidOption, InvalidTable
from explorank.retrieval.features import build_features, copy_repository
from explorank.retrieval.features.sample import sample_tables

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "repository")


def interactions(**columns: Any) -> pd.DataFrame:
    given = {
        "user_id": ["u", "u", "v"],
        "item_id": ["a", "b", "a"],
        "timestamp": [START, START + timedelta(hours=1), START + timedelta(days=8)],
    }
    return pd.DataFrame(given | columns)


def items(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"item_id": ["a", "b"], "text": ["one", "two"]} | columns)


def rows(repository: Path, view: str) -> pd.DataFrame:
    return pq.read_table(repository / "data" / f"{view}.parquet").to_pandas()


def test_the_rows_of_an_item_by_hand(repository: Path) -> None:
    events = interactions(value=[4.0, 1.0, 2.0])
    build_features(events, items(), None, repository, windows_days=[7], positive_from=3.0)
    of_a = rows(repository, "item_statistics").query("item_id == 'a'").set_index("event_timestamp")
    tick, week = timedelta(microseconds=1), timedelta(days=7)
    assert of_a.index.tolist() == [START + tick, START + week + tick, START + timedelta(days=8) + tick]
    assert of_a["item_events_7d"].tolist() == [1, 0, 1]
    assert of_a["item_events"].tolist() == [1, 1, 2]
    np.testing.assert_array_equal(of_a["item_mean_value_7d"], [4.0, np.nan, 2.0])
    np.testing.assert_array_equal(of_a["item_positive_rate"], [1.0, 1.0, 0.5])
    assert of_a["item_first_event"].tolist() == [START] * 3


def test_every_time_is_stored_in_microseconds_with_a_zone(repository: Path) -> None:
    build_features(*sample_tables(), repository)
    for file in (repository / "data").glob("*.parquet"):
        schema = pq.read_schema(file)
        for name in ("event_timestamp", "created_timestamp"):
            assert schema.field(name).type == pa.timestamp("us", "UTC")


def test_content_is_known_before_the_first_event_or_from_where_it_says(repository: Path) -> None:
    later = START + timedelta(days=3)
    build_features(interactions(), items(available_from=[later, None]), None, repository)
    content = rows(repository, "item_content")
    assert content["event_timestamp"].tolist() == [later, START - timedelta(seconds=1)]
    assert "item_available_from" not in content


@pytest.mark.parametrize(
    "times",
    [
        [START, START + timedelta(hours=1), START + timedelta(days=8)],
        [START.replace(tzinfo=None), datetime(2026, 1, 1, 1), datetime(2026, 1, 9)],  # noqa: DTZ001 - naive is UTC
        [1767225600, 1767229200, 1767916800],
        [1767225600.0, 1767229200.0, 1767916800.0],
        ["2026-01-01", "2026-01-01T01:00:00Z", "2026-01-09T02:00:00+02:00"],
        pd.to_datetime(["2026-01-01 00:00", "2026-01-01 01:00", "2026-01-09 00:00"])
        .as_unit("ns")
        .tz_localize("UTC"),
    ],
    ids=["aware", "naive", "seconds", "float seconds", "text", "nanoseconds"],
)
def test_times_are_read_in_every_stated_form(repository: Path, times: Any) -> None:
    report = build_features(interactions(timestamp=times), items(), None, repository)
    assert report.first_event == START
    assert report.last_event == START + timedelta(days=8)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([12, 13, 12], ["12", "13"]),
        ([12.0, 13.0, 12.0], ["12", "13"]),
        (pd.array([12, 13, 12], "Int64"), ["12", "13"]),
        (pd.Categorical(["x", "y", "x"]), ["x", "y"]),
        (["é ü", "0012", "é ü"], ["0012", "é ü"]),
        ([12, "b", 12.0], ["12", "b"]),
    ],
    ids=["int", "float", "nullable", "category", "text", "mixed"],
)
def test_ids_become_text(repository: Path, given: Any, kept: list[str]) -> None:
    build_features(interactions(user_id=given), items(), None, repository)
    assert sorted(rows(repository, "user_statistics")["user_id"].unique()) == kept


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (interactions().drop(columns="item_id"), "interactions has no column 'item_id'"),
        (interactions().iloc[:0], "interactions has no rows"),
        (interactions(user_id=["u", None, "v"]), "'user_id' of interactions, row 1: None"),
        (interactions(user_id=["u", "", "v"]), "'user_id' of interactions, row 1: ''"),
        (interactions(user_id=[1.0, 2.5, 3.0]), "'user_id' of interactions, row 1: .*2.5"),
        (interactions(timestamp=["2026-01-01", "yesterday", "2026-01-02"]), "row 1: 'yesterday'.*ISO 8601"),
        (interactions(timestamp=[1767225600000, 1, 2]), "row 0: .*1767225600000.*milliseconds"),
        (interactions(timestamp=[1.0, np.nan, 2.0]), "'timestamp' of interactions, row 1"),
        (interactions(value=[1.0, np.inf, 2.0]), "'value' of interactions, row 1: .*inf"),
        (interactions(value=["5", "good", "1"]), "'value' of interactions, row 1: 'good'"),
        (
            pd.concat([interactions(), interactions()["user_id"]], axis=1),
            "interactions has more than one column named 'user_id'",
        ),
    ],
)
def test_interactions_out_of_shape_are_refused_by_column_and_row(
    repository: Path, table: pd.DataFrame, message: str
) -> None:
    with pytest.raises(InvalidTable, match=message):
        build_features(table, items(), None, repository)


@pytest.mark.parametrize(
    ("catalogue", "message"),
    [
        (items(item_id=["a", "a"]), "'item_id' of items, row 1: 'a'.*once"),
        (items(item_id=[12, "12"]), "'item_id' of items, row 1: '12'.*once"),
        (items().iloc[:0], "items has no rows"),
        (items().drop(columns="text"), "neither a column 'text' nor 'title'"),
        (items(events=[1, 2]), "'item_events', which is a statistic"),
        (
            pd.concat([items(Year=[1, 2]), pd.DataFrame({"year": [3, 4]})], axis=1),
            "Two columns become the feature 'item_year'",
        ),
    ],
)
def test_a_catalogue_out_of_shape_is_refused(repository: Path, catalogue: pd.DataFrame, message: str) -> None:
    with pytest.raises(InvalidTable, match=message):
        build_features(interactions(), catalogue, None, repository)


def test_refusing_leaves_the_earlier_rows_as_they_were(repository: Path) -> None:
    before = {file.name: file.read_bytes() for file in (repository / "data").iterdir()}
    with pytest.raises(InvalidTable):
        build_features(interactions(), items(item_id=["a", "a"]), None, repository)
    assert {file.name: file.read_bytes() for file in (repository / "data").iterdir()} == before


def test_what_could_not_be_used_is_counted(repository: Path) -> None:
    events = interactions(item_id=["a", "gone", "gone"])
    events = pd.concat([events, events.iloc[:1]])
    users = pd.DataFrame({"user_id": ["u", "w"], "zip": [f"0{number}" for number in (1, 2)]})
    report = build_features(events, items(year=["1999", "unkonwn"], text=["one", " "]), users, repository)
    assert (report.interactions, report.users, report.items) == (4, 3, 2)
    assert (report.unknown_item_interactions, report.unknown_items) == (2, 1)
    assert report.unprofiled_users == 1
    assert report.repeated_interactions == 1
    assert report.items_without_text == 1
    assert report.rows["user_profile"] == 2
    # An item that the catalogue lacks still counts for the user, and in their history.
    assert rows(repository, "user_history")["history_items"].map(list).tolist()[1] == ["a", "a", "gone"]


def test_all_rows_know_when_they_were_made(repository: Path) -> None:
    created = datetime(2026, 3, 1, tzinfo=UTC)
    build_features(*sample_tables(), repository, created=created)
    for file in (repository / "data").glob("*.parquet"):
        assert set(pq.read_table(file).to_pandas()["created_timestamp"]) == {created}


def test_no_row_lies_after_until(repository: Path) -> None:
    until = START + timedelta(hours=2)
    build_features(interactions(), items(), None, repository, until=until)
    assert rows(repository, "item_statistics")["event_timestamp"].max() <= until
    assert set(rows(repository, "user_history")["user_id"]) == {"u"}


@pytest.mark.parametrize(
    "options", [{"windows_days": [0]}, {"windows_days": [1.5]}, {"history_length": 0}, {"until": START}]
)
def test_options_out_of_range_are_refused(repository: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=r"windows_days|history_length|until"):
        build_features(interactions(), items(), None, repository, **options)


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureRepositoryError, match=r"no feature_store\.yaml"):
        build_features(interactions(), items(), None, tmp_path)


def test_codes_stay_when_values_are_added(repository: Path) -> None:
    from explorank.retrieval.features.vocabulary import Vocabularies

    path = repository / "data" / "vocabularies.json"
    build_features(interactions(), items(colour=["red", "green"]), None, repository)
    before = Vocabularies(path).codes("item_colour", ["green", "red", "blue"])
    build_features(interactions(), items(colour=["blue", "red"]), None, repository)
    after = Vocabularies(path).codes("item_colour", ["green", "red", "blue", None, "pink"])
    np.testing.assert_array_equal(before, np.float32([0, 1, np.nan]))
    np.testing.assert_array_equal(after, np.float32([0, 1, 2, np.nan, np.nan]))


def test_a_damaged_vocabulary_is_named(repository: Path) -> None:
    (repository / "data" / "vocabularies.json").write_text('{"item_colour": [1]}')
    with pytest.raises(FeatureRepositoryError, match=r"vocabularies\.json is no vocabulary"):
        build_features(interactions(), items(), None, repository)
