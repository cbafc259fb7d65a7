"""A real catalogue: 100,000 ratings of 1,682 films, read from the package that carries them."""

import importlib.util
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from explorank.retrieval.features import BuildReport, FeatureAccess, build_features, copy_repository

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("recbole") is None, reason="MovieLens-100K comes with the package recbole"
    ),
]


def table(name: str) -> pd.DataFrame:
    spec = importlib.util.find_spec("recbole")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "dataset_example" / "ml-100k"
    return pd.read_csv(folder / f"ml-100k.{name}", sep="\t").rename(columns=lambda name: name.split(":")[0])


@pytest.fixture(scope="module")
def ratings() -> pd.DataFrame:
    return table("inter").rename(columns={"rating": "value"})


@pytest.fixture(scope="module")
def built(ratings: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    items = table("item").rename(columns={"movie_title": "title"})
    items["genres"] = items.pop("class").str.split()
    folder = copy_repository(tmp_path_factory.mktemp("movielens") / "repository")
    return folder, build_features(ratings, items, table("user"), folder, positive_from=4.0)


def test_what_is_odd_in_the_data_is_reported(built: tuple[Path, BuildReport]) -> None:
    report = built[1]
    assert (report.interactions, report.users, report.items) == (100_000, 943, 1_682)
    assert report.bad_numbers == {"items.release_year": 2}  # "unkonwn" and "V"
    assert list(report.left_out) == ["users.zip_code"]
    assert (report.unknown_items, report.unprofiled_users) == (0, 0)


def test_online_rows_and_a_training_frame_agree_with_the_ratings(
    built: tuple[Path, BuildReport], ratings: pd.DataFrame
) -> None:
    end = int(ratings["timestamp"].max()) + 1
    access = FeatureAccess(built[0], as_of=float(end))
    access.apply()
    access.materialize(datetime.fromtimestamp(end, UTC))

    counts = ratings.groupby("item_id").size()
    online = access.items([str(item) for item in counts.index])
    np.testing.assert_array_equal(online.values[:, online.names.index("item_events")], counts)

    sample = ratings.sample(500, random_state=7).rename(columns={"timestamp": "event_timestamp"})
    frame = access.training_frame(sample)
    before = [
        ratings[ratings["timestamp"] < row.event_timestamp].eval(f"user_id == {row.user_id}").sum()
        for row in sample.itertuples()
    ]
    np.testing.assert_array_equal(frame["user_events"].fillna(0.0), before)
    assert frame["history"].map(len).tolist() == [min(count, 200) for count in before]
