"""The accuracy protocol, in worlds where the right ranking is known."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest

from explorank.demo.accuracy import Accuracy, held_out_queries, measure_accuracy
from explorank.demo.data import DemoData
from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.pipeline.past_data import feature_matrix
from explorank.pipeline.queries import interest_vectors
from explorank.rankers import LightGBMRanker
from explorank.retrieval import Catalogue
from explorank.retrieval.features import FeatureAccess
from explorank.settings import load_settings

BEGIN = pd.Timestamp("2026-01-01", tz="UTC")
ASKED = pd.Timestamp("2026-02-20", tz="UTC")
SEEN = ("sea-1", "sea-2", "crime-3")

# ---- who is asked about, and when -----------------------------------------------------------------------


def world(events: list[tuple[str, int, float]], split: int) -> DemoData:
    """Return interactions of (user, hour, value), each with an item named after its hour."""
    frame = pd.DataFrame(events, columns=["user_id", "hour", "value"])
    frame["item_id"] = [f"i{hour}" for hour in frame["hour"]]
    frame["timestamp"] = (BEGIN + pd.to_timedelta(frame["hour"], unit="h")).astype("datetime64[us, UTC]")
    return DemoData(
        name="hours",
        interactions=frame.sort_values("timestamp", ignore_index=True),
        items=pd.DataFrame(),
        users=None,
        positive_from=4.0,
        split=(BEGIN + pd.Timedelta(hours=split)).to_pydatetime(),
    )


def hours(*numbers: int) -> tuple[str, ...]:
    return tuple(f"i{number}" for number in numbers)


def test_a_user_with_a_long_past_is_asked_about_at_the_split() -> None:
    data = world([("u", hour, 5.0 if hour % 2 else 1.0) for hour in range(16)], split=12)

    [query] = held_out_queries(data).itertuples()

    assert query.event_timestamp == data.split
    assert query.seen == hours(*range(12))
    assert query.liked == hours(1, 3, 5, 7, 9, 11)
    assert query.positives == hours(13, 15)


def test_a_user_with_a_short_past_is_asked_about_after_their_tenth_event() -> None:
    data = world([("u", hour, 5.0) for hour in range(14)], split=4)

    [query] = held_out_queries(data).itertuples()

    assert query.event_timestamp == BEGIN + pd.Timedelta(hours=10)
    assert query.seen == hours(*range(10))
    assert query.positives == hours(10, 11, 12, 13)


def test_whoever_liked_nothing_later_or_has_too_few_events_is_not_asked_about() -> None:
    good = [("good", hour, 5.0) for hour in range(14)]
    sour = [("sour", hour, 5.0 if hour < 12 else 1.0) for hour in range(14)]
    brief = [("brief", hour, 5.0) for hour in range(4, 14)]

    assert held_out_queries(world(good + sour + brief, split=12))["user_id"].tolist() == ["good"]
    with pytest.raises(DataError, match="No user of hours has"):
        held_out_queries(world(sour + brief, split=12))


# ---- what is measured -----------------------------------------------------------------------------------

Positives: TypeAlias = Callable[[Catalogue, np.ndarray], tuple[str, ...]]


@pytest.fixture(scope="module")
def parts(installation_folder: Path) -> tuple[FeatureAccess, Catalogue, LightGBMRanker]:
    artefacts = installation_folder / ".explorank" / "artefacts"
    [catalogue] = artefacts.glob("catalogue/*/catalogue.json")
    [ranker] = artefacts.glob("ranker/*/manifest.json")
    settings = load_settings(installation_folder / "explorank.yaml")
    return feature_access(settings), Catalogue.load(catalogue.parent), LightGBMRanker.load(ranker.parent)


def query_with(positives: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": ["reader-1"],
            "event_timestamp": pd.DatetimeIndex([ASKED]).as_unit("us"),
            "liked": [SEEN[:2]],
            "seen": [SEEN],
            "positives": [positives],
        }
    )


def unseen(order: np.ndarray, catalogue: Catalogue) -> list[str]:
    return [item for item in catalogue.item_ids[order].tolist() if item not in SEEN]


def measured(parts, positives: tuple[str, ...]) -> dict[str, Accuracy]:
    access, catalogue, ranker = parts
    results = measure_accuracy(query_with(positives), access, catalogue, ranker, decay=0.9, seed=0)
    return {result.name: result for result in results}


def test_popularity_is_perfect_where_the_popular_items_were_liked(parts) -> None:
    _, catalogue, _ = parts
    positives = tuple(unseen(catalogue.by_popularity, catalogue)[:10])

    results = measured(parts, positives)

    assert (results["popular"].ndcg.mean, results["popular"].recall.mean) == (1.0, 1.0)
    assert results["popular"].ndcg_gain.mean == 0.0
    assert results["retrieval alone"].ndcg.mean < 1.0
    assert results["retrieval alone"].ndcg_gain.mean == results["retrieval alone"].ndcg.mean - 1.0


def test_retrieval_is_perfect_where_similar_items_were_liked(parts) -> None:
    _, catalogue, _ = parts
    [vector] = interest_vectors(query_with(()), catalogue, 0.9)
    positives = tuple(unseen(np.argsort(-(catalogue.vectors @ vector), kind="stable"), catalogue)[:5])

    result = measured(parts, positives)["retrieval alone"]

    assert (result.ndcg.mean, result.recall.mean) == (1.0, 1.0)


def test_the_ranker_is_perfect_where_its_best_were_liked(parts) -> None:
    access, catalogue, ranker = parts
    items = unseen(np.arange(len(catalogue)), catalogue)
    query = query_with(())
    rows = pd.DataFrame({"query": 0, "user_id": "reader-1", "item_id": items, "event_timestamp": ASKED})
    _, matrix = feature_matrix(access, catalogue, rows, interest_vectors(query, catalogue, 0.9))
    scores = ranker.score(matrix)
    tenth = np.sort(scores)[-10]
    best = tuple(np.array(items)[scores >= tenth])  # with those equal to the tenth

    result = measured(parts, best)["retrieval + LightGBM"]

    assert result.ndcg.mean == pytest.approx(1.0)
    assert result.recall.mean == pytest.approx(10 / len(best))


def test_what_a_user_already_met_neither_ranks_nor_counts(parts) -> None:
    _, catalogue, _ = parts
    first, second = unseen(catalogue.by_popularity, catalogue)[:2]

    result = measured(parts, (*SEEN, second))["popular"]

    assert first not in SEEN
    assert result.ndcg.mean == pytest.approx(1 / np.log2(3))  # the one relevant item stands at rank 2
    assert result.recall.mean == 1.0
