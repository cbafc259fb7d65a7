"""The demo's tables: MovieLens where it is installed, and anyone's own."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from explorank.demo.data import DemoData, movielens, own_data
from explorank.errors import DataError, RetrievalError


@pytest.mark.skipif(
    find_spec("recbole") is None, reason="the package recbole, which carries MovieLens, is absent"
)
def test_movielens_is_read_whole() -> None:
    data = movielens()

    events = data.interactions
    assert len(events) == 100_000
    assert events["user_id"].nunique() == 943
    assert events["item_id"].nunique() == len(data.items) == 1_682
    assert set(events["value"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert (events["timestamp"].min().year, events["timestamp"].max().year) == (1997, 1998)
    assert data.users is not None
    assert set(data.users["user_id"]) == set(events["user_id"])
    assert len(data.item_texts) == 1_682
    assert data.item_texts["1"].startswith("Toy Story")
    assert data.positive_from == 4.0
    assert not set(events.columns) & {"rating"}
    assert "zip_code" not in data.users


@pytest.mark.skipif(
    find_spec("recbole") is None, reason="the package recbole, which carries MovieLens, is absent"
)
def test_movielens_is_split_in_time() -> None:
    data = movielens()

    assert 0.79 < len(data.past) / 100_000 <= 0.8
    assert len(data.past) + len(data.future) == 100_000
    assert data.past["timestamp"].max() < data.split <= data.future["timestamp"].min()


def own(folder: Path, values: list[float] | None, **columns: list[object]) -> DemoData:
    count = 10 if values is None else len(values)
    table = {"user_id": ["u"] * count, "item_id": ["a"] * count, "timestamp": list(range(count)), **columns}
    pd.DataFrame(table if values is None else {**table, "value": values}).to_parquet(folder / "buys.parquet")
    pd.DataFrame({"item_id": ["a"], "text": ["A"]}).to_csv(folder / "goods.csv", index=False)
    return own_data(folder / "buys.parquet", folder / "goods.csv", None, None)


def test_own_tables_are_named_after_their_file_and_split_at_four_fifths(tmp_path: Path) -> None:
    data = own(tmp_path, None)

    assert data.name == "buys"
    assert data.users is None
    assert data.split == pd.Timestamp(8, unit="s", tz="UTC").to_pydatetime()
    assert (len(data.past), len(data.future)) == (8, 2)
    assert data.item_texts == {"a": "A"}


@pytest.mark.parametrize(
    ("values", "liked_from"), [(None, 1.0), ([1, 2, 3, 4, 5], 3.0), ([2, 2, 2], 2.0), ([0, 1, 0, 0], 0.0)]
)
def test_the_median_is_liked_unless_told_otherwise(
    tmp_path: Path, values: list[float] | None, liked_from: float
) -> None:
    assert own(tmp_path, values).positive_from == liked_from
    told = own_data(tmp_path / "buys.parquet", tmp_path / "goods.csv", None, 7.5)
    assert told.positive_from == 7.5


def test_events_of_one_instant_have_no_past(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no past to learn from"):
        own(tmp_path, None, timestamp=[5] * 10)


@pytest.mark.parametrize("values", [[1.0, float("nan"), 3.0], ["good", "bad"], [float("inf"), 1.0]])
def test_a_value_that_is_no_number_is_refused_with_its_row(tmp_path: Path, values: list[float]) -> None:
    with pytest.raises(RetrievalError, match=r"Column 'value' of interactions, row \d"):
        own(tmp_path, values)
