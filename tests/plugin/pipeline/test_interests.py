"""Which interests tune an index: those that follow from users' histories, by hand and from a feature repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.pipeline.interests import sampled_interests
from explorank.settings import Settings, load_settings

ITEMS = np.array(["sea", "shore", "crime"])
VECTORS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], np.float32)
DAY = pd.Timestamp("2026-01-01", tz="UTC")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "feature_repo" / "data").mkdir(parents=True)
    path = tmp_path / "explorank.yaml"
    path.write_text(
        "version: 1\nfeatures: {repository: feature_repo, positive_from: 4}\nretrieval: {decay: 0.5}\n"
    )
    return load_settings(path)


def write(settings: Settings, histories: list[tuple[list[str], list[float]]]) -> None:
    table = pd.DataFrame(histories, columns=["history_items", "history_values"])
    table["user_id"] = [f"user-{row}" for row in range(len(table))]
    table["event_timestamp"] = DAY + pd.to_timedelta(np.arange(len(table)), "D")
    table.to_parquet(feature_access(settings).repository / "data" / "user_history.parquet")


def test_what_was_liked_counts_and_the_newest_most(settings: Settings) -> None:
    write(settings, [(["sea", "crime", "shore", "gone"], [5.0, 1.0, 4.0, 5.0])])
    found = sampled_interests(settings, ITEMS, VECTORS)
    assert found is not None
    assert found.tolist() == [[0.5, 1.0]]


def test_nobody_is_asked_who_liked_nothing_known_or_came_later(settings: Settings) -> None:
    write(settings, [(["sea"], [1.0]), (["gone"], [5.0]), (["sea", "sea"], [5.0, 5.0]), (["shore"], [5.0])])
    found = sampled_interests(settings, ITEMS, VECTORS, until=(DAY + pd.Timedelta(2, "D")).to_pydatetime())
    assert found is not None
    assert found.tolist() == [[1.5, 0.0]]
    assert sampled_interests(settings, ITEMS[2:], VECTORS[2:]) is None


def test_a_sample_is_taken_of_many_users(settings: Settings) -> None:
    write(settings, [(["sea"], [5.0])] * 5_000)
    found = sampled_interests(settings, ITEMS, VECTORS)
    assert found is not None
    assert 128 <= len(found) <= 500


def test_without_histories_there_are_no_interests(settings: Settings, tmp_path: Path) -> None:
    assert sampled_interests(settings, ITEMS, VECTORS) is None
    (tmp_path / "bare.yaml").write_text("version: 1\n")
    assert sampled_interests(load_settings(tmp_path / "bare.yaml"), ITEMS, VECTORS) is None
    file = tmp_path / "feature_repo" / "data" / "user_history.parquet"
    pd.DataFrame({"user_id": ["user-1"]}).to_parquet(file)
    assert sampled_interests(settings, ITEMS, VECTORS) is None
    file.write_bytes(b"no table")
    with pytest.raises(DataError, match=r"user_history\.parquet cannot be read as users' histories"):
        sampled_interests(settings, ITEMS, VECTORS)
