"""Past requests: what each knew, what came of it, and what it is told from."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.errors import DataError
from explorank.pipeline.queries import QueryOptions, interest_vectors, labelled_rows, ranking_queries
from explorank.retrieval import Catalogue

BEGIN = pd.Timestamp("2026-03-01", tz="UTC")
LIKED, DISLIKED = 5.0, 1.0


def minute(number: int) -> pd.Timestamp:
    return BEGIN + pd.Timedelta(minutes=number)


def history(events: Iterable[tuple[str, str, int, float]]) -> pd.DataFrame:
    """Return interactions of (user, item, minute, value)."""
    frame = pd.DataFrame(events, columns=["user_id", "item_id", "timestamp", "value"])
    return frame.assign(timestamp=pd.DatetimeIndex([minute(at) for at in frame["timestamp"]]).as_unit("us"))


def one_a_minute(length: int, user: str = "u") -> list[tuple[str, str, int, float]]:
    """Return liked events: i0 at minute 0, i1 at minute 1, and so on."""
    return [(user, f"i{number}", number, LIKED) for number in range(length)]


def options(**changes: float) -> QueryOptions:
    return QueryOptions(**{"positive_from": 4.0, "warmup": 5, "stride": 10, "horizon": 20, **changes})


def items(first: int, end: int) -> tuple[str, ...]:
    return tuple(f"i{number}" for number in range(first, end))


# ---- queries --------------------------------------------------------------------------------------------


def test_a_query_stands_at_every_strideth_event_after_the_warmup() -> None:
    queries = ranking_queries(history(one_a_minute(30)), options(), seed=0)

    assert queries["event_timestamp"].tolist() == [minute(5), minute(15), minute(25)]
    assert queries["seen"].tolist() == [items(0, 5), items(0, 15), items(0, 25)]
    assert queries["liked"].tolist() == queries["seen"].tolist()
    assert queries["positives"].tolist() == [items(5, 25), items(15, 30), items(25, 30)]


def test_queries_after_a_moment_know_what_came_before_it() -> None:
    queries = ranking_queries(history(one_a_minute(30)), options(), seed=0, since=minute(5).timestamp())

    assert queries["event_timestamp"].tolist() == [minute(15), minute(25)]
    assert queries["seen"].tolist() == [items(0, 15), items(0, 25)]
    with pytest.raises(DataError, match=r"requests after 2026-03-01T00:25:00\+00:00\).*begin earlier"):
        ranking_queries(history(one_a_minute(30)), options(), seed=0, since=minute(25).timestamp())


def test_only_liked_events_within_the_horizon_are_positives() -> None:
    values = [LIKED, DISLIKED, LIKED, DISLIKED, LIKED, LIKED, LIKED]
    events = [("u", f"i{number}", number, value) for number, value in enumerate(values)]

    queries = ranking_queries(history(events), options(warmup=3, horizon=3), seed=0)

    [(liked, seen, positives)] = queries[["liked", "seen", "positives"]].itertuples(index=False)
    assert liked == ("i0", "i2")
    assert seen == ("i0", "i1", "i2")
    assert positives == ("i4", "i5")  # of i3, i4 and i5; i6 lies beyond


def test_events_of_the_same_instant_are_not_known() -> None:
    events = [("u", f"i{number}", at, LIKED) for number, at in enumerate([0, 1, 2, 3, 4, 4, 4, 5])]

    queries = ranking_queries(history(events), options(warmup=4, stride=1), seed=0)

    # The three events of minute 4 are one query: none of them knows the others.
    assert queries["event_timestamp"].tolist() == [minute(4), minute(5)]
    assert queries["seen"].tolist() == [items(0, 4), items(0, 7)]
    assert queries["positives"].tolist() == [items(4, 8), items(7, 8)]


def test_the_warmup_counts_what_is_known() -> None:
    events = [("u", f"i{number}", at, LIKED) for number, at in enumerate([0, 1, 1, 1, 2, 3])]

    queries = ranking_queries(history(events), options(warmup=3, stride=1), seed=0)

    assert queries["seen"].tolist() == [items(0, 4), items(0, 5)]


def test_a_repeated_item_is_one_positive() -> None:
    events = [*one_a_minute(5), ("u", "i7", 5, LIKED), ("u", "i7", 6, LIKED)]

    queries = ranking_queries(history(events), options(), seed=0)

    assert queries["positives"].tolist() == [("i7",)]


def test_a_user_is_capped_at_random_but_the_same_for_a_seed() -> None:
    events = history([*one_a_minute(60, "long"), *one_a_minute(7, "short")])
    capped = options(stride=1, per_user=3)

    def times(seed: int) -> list[pd.Timestamp]:
        queries = ranking_queries(events, capped, seed=seed)
        assert queries["user_id"].value_counts().to_dict() == {"long": 3, "short": 2}
        return queries["event_timestamp"].tolist()

    assert times(1) == times(1)
    assert len({tuple(times(seed)) for seed in range(5)}) == 5


def test_queries_are_in_order_of_time_whatever_the_order_of_the_table() -> None:
    events = history([*one_a_minute(12, "b"), *one_a_minute(8, "a")])
    shuffled = events.sample(frac=1, random_state=3)

    queries = ranking_queries(shuffled, options(stride=2), seed=0)

    assert queries["event_timestamp"].is_monotonic_increasing
    pd.testing.assert_frame_equal(queries, ranking_queries(events, options(stride=2), seed=0))


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(one_a_minute(5), id="no event after the warm-up"),
        pytest.param([("u", f"i{n}", n, DISLIKED) for n in range(50)], id="nothing liked"),
        pytest.param([("u", f"i{n}", 0, LIKED) for n in range(50)], id="one instant"),
        pytest.param([(f"u{n}", "i1", n, LIKED) for n in range(50)], id="one event each"),
    ],
)
def test_a_history_without_a_query_is_refused(events) -> None:
    with pytest.raises(DataError, match="No user has 5 interactions and a liked one after them"):
        ranking_queries(history(events), options(), seed=0)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 9).map("i{}".format),
        st.integers(0, 12),
        st.sampled_from([LIKED, DISLIKED]),
    ),
    min_size=1,
    max_size=60,
)


@given(EVENTS, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 3))
def test_no_query_knows_an_event_at_or_after_its_time(events, warmup, stride, horizon, seed) -> None:
    table = history(events)
    chosen = options(warmup=warmup, stride=stride, horizon=horizon, per_user=5)
    try:
        queries = ranking_queries(table, chosen, seed=seed)
    except DataError:
        return
    for query in queries.itertuples():
        own = table[table["user_id"] == query.user_id].sort_values("timestamp", kind="stable")
        before = own[own["timestamp"] < query.event_timestamp]
        after = own[own["timestamp"] >= query.event_timestamp].head(horizon)
        assert query.seen == tuple(before["item_id"])
        assert query.liked == tuple(before["item_id"][before["value"] >= 4.0])
        assert set(query.positives) == set(after["item_id"][after["value"] >= 4.0])
        assert len(query.seen) >= warmup
    assert not queries.duplicated(["user_id", "event_timestamp"]).any()
    assert queries["user_id"].value_counts().max() <= 5


# ---- interests ------------------------------------------------------------------------------------------


def test_an_interest_weighs_what_was_liked_last_most(catalogue: Catalogue) -> None:
    queries = pd.DataFrame({"liked": [("i0", "i1", "i2"), ("gone", "i3"), ("gone",), ()]})

    vectors = interest_vectors(queries, catalogue, decay=0.5)

    expected = np.zeros((4, 12), np.float32)
    expected[0, :3] = 0.25, 0.5, 1.0
    expected[1, 3] = 1.0
    np.testing.assert_array_equal(vectors, expected)


# ---- rows to learn from ---------------------------------------------------------------------------------


def some_queries(count: int, *, seen: tuple[str, ...], positives: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in range(count)],
            "event_timestamp": pd.DatetimeIndex([minute(number) for number in range(count)]),
            "seen": [seen] * count,
            "positives": [positives] * count,
        }
    )


def test_negatives_are_neither_known_nor_positive(catalogue: Catalogue) -> None:
    queries = some_queries(20, seen=("i0", "i1", "gone"), positives=("i2", "i3", "never-indexed"))

    rows = labelled_rows(queries, catalogue, negatives=500, seed=0)

    for number, of_query in rows.groupby("query"):
        assert set(of_query["item_id"][of_query["label"] == 1]) == {"i2", "i3"}
        assert set(of_query["item_id"][of_query["label"] == 0]) == {f"i{n}" for n in range(4, 12)}
        assert of_query["item_id"].is_unique
        assert set(of_query["user_id"]) == {f"u{number}"}
        assert set(of_query["event_timestamp"]) == {minute(number)}
    assert rows["query"].is_monotonic_increasing


def test_at_most_the_asked_negatives_are_drawn_and_a_seed_repeats_them(catalogue: Catalogue) -> None:
    queries = some_queries(50, seen=(), positives=("i2",))

    rows = labelled_rows(queries, catalogue, negatives=4, seed=7)

    assert rows[rows["label"] == 0].groupby("query").size().max() <= 4
    pd.testing.assert_frame_equal(rows, labelled_rows(queries, catalogue, negatives=4, seed=7))
    assert not rows.equals(labelled_rows(queries, catalogue, negatives=4, seed=8))


def test_positives_stand_anywhere_among_the_rows(catalogue: Catalogue) -> None:
    count = 600
    rows = labelled_rows(some_queries(count, seen=(), positives=("i2",)), catalogue, negatives=500, seed=1)

    place = rows.groupby("query").cumcount()[rows["label"] == 1].to_numpy()

    # Uniform on 0..11: mean 5.5, standard deviation 3.45; five standard errors (error rate below 1e-6).
    assert abs(place.mean() - 5.5) < 5 * 3.45 / np.sqrt(count)
    assert set(place) == set(range(12))


def test_negatives_are_drawn_evenly(catalogue: Catalogue) -> None:
    rows = labelled_rows(some_queries(2_000, seen=("i0",), positives=("i1",)), catalogue, negatives=3, seed=2)

    drawn = rows["item_id"][rows["label"] == 0].value_counts()

    # Each of the ten others is among a query's three draws with p = 1 - (11/12)³ = 0.2297; five deviations.
    expected = 2_000 * (1 - (11 / 12) ** 3)
    assert set(drawn.index) == {f"i{n}" for n in range(2, 12)}
    assert np.abs(drawn.to_numpy() - expected).max() < 5 * np.sqrt(expected * (11 / 12) ** 3)
