"""Negatives from retrieval: what would have been found then, and nothing that only today tells."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorank.artefacts import ArtefactStore
from explorank.assembly import CATALOGUE
from explorank.errors import DataError
from explorank.pipeline.features import feature_access
from explorank.pipeline.past_data import past_data
from explorank.pipeline.past_retrieval import past_candidates
from explorank.pipeline.past_use import PastUse
from explorank.pipeline.queries import QueryOptions, interest_vectors, labelled_rows, ranking_queries
from explorank.pipeline.tables import past_interactions
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import RankingData
from explorank.retrieval import (
    Catalogue,
    LearnedEmbeddings,
    NewItems,
    Popular,
    RetrievalQuery,
    Retriever,
    SimilarByUse,
    SimilarToHistory,
    Trending,
)
from explorank.retrieval.collaborative import (
    EmbeddingModel,
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    NeighbourTable,
)
from explorank.retrieval.retrievers import Found
from explorank.settings import ByUseSettings, LearnedEmbeddingsSettings, RetrievalSettings, load_settings

BEGIN = pd.Timestamp("2026-03-01", tz="UTC")
IDS = [f"i{number}" for number in range(12)]


def day(number: int) -> pd.Timestamp:
    return BEGIN + pd.Timedelta(days=number)


def catalogue(**first_seen: int) -> Catalogue:
    """Twelve items i0 to i11, each a direction of its own; `first_seen` are days, the others' are unknown."""
    times = [day(first_seen[item]).timestamp() if item in first_seen else np.nan for item in IDS]
    return Catalogue.build(IDS, np.eye(12, dtype=np.float32), first_seen=times)


def events(**days: Sequence[int]) -> pd.DataFrame:
    """Each item was taken up on those days."""
    rows = [("u", item, day(at), 1.0) for item, when in days.items() for at in when]
    return past_interactions(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "value"]))


def asked(*days: int, liked: tuple[str, ...] = (), seen: tuple[str, ...] = ()) -> pd.DataFrame:
    times = pd.DatetimeIndex([day(at) for at in days])
    return pd.DataFrame({"event_timestamp": times, "liked": [liked] * len(days), "seen": [seen] * len(days)})


def found(
    retrievers: Sequence[tuple[Retriever, int]],
    happened: pd.DataFrame,
    items: Catalogue,
    queries: pd.DataFrame,
    *,
    starts: Sequence[int] = (0,),
    tables: Sequence[NeighbourTable | None] | None = None,
    models: Sequence[EmbeddingModel | None] | None = None,
    limit: int = 100,
    recent_days: int | None = None,
) -> list[list[str]]:
    rows = past_candidates(
        retrievers,
        happened,
        items,
        queries,
        interest_vectors(queries, items, 0.9),
        PastUse(
            RetrievalSettings(),
            np.array(starts),
            (None,) * len(starts) if tables is None else tuple(tables),
            (None,) * len(starts) if models is None else tuple(models),
        ),
        limit=limit,
        recent_days=recent_days,
    )
    return [items.item_ids[each].tolist() for each in rows]


# ---- as of then -----------------------------------------------------------------------------------------


def test_popular_is_what_was_popular_before_the_block() -> None:
    happened = events(i5=[0, 1], i6=[1], i7=[3, 4, 5])
    queries = asked(2, 3, 6, 7)

    answered = found([(Popular(), 2)], happened, catalogue(), queries, starts=(0, 2))

    # The query of day 3 is told of day 2, when its block began; an event of that very instant comes too late.
    assert answered == [["i5", "i6"], ["i5", "i6"], ["i7", "i5"], ["i7", "i5"]]


def test_trending_is_what_was_popular_in_the_days_before_the_block(caplog: pytest.LogCaptureFixture) -> None:
    happened = events(i5=[0, 1, 2], i6=[3], i7=[5, 6])
    queries = asked(5, 6)

    # The two days before day 5 begin with its third; what happens on it, or later in the block, is not known.
    assert found([(Trending(), 3)], happened, catalogue(), queries, recent_days=2) == [["i6"], ["i6"]]
    assert found([(Trending(), 3)], happened, catalogue(), queries, starts=(0, 1), recent_days=2) == [
        ["i6"],
        ["i7"],
    ]
    assert found([(Trending(), 3)], happened, catalogue(), queries) == [[], []]
    assert not told_in(caplog)


def test_what_appeared_later_and_what_was_met_is_not_found() -> None:
    happened = events(i5=[0, 1], i6=[1], i7=[1])
    items = catalogue(i5=0, i6=1, i7=1, i8=9)

    assert found([(Popular(), 3)], happened, items, asked(2, seen=("i6", "gone"))) == [["i5", "i7", "i0"]]
    assert found([(NewItems(), 3)], happened, items, asked(0, 2, 9)) == [
        ["i5"],
        ["i7", "i6", "i5"],
        ["i8", "i7", "i6"],
    ]
    # i8 is an item like all others, but for that it was not there yet.
    everything = [(Popular(), 12)]
    assert "i8" not in found(everything, happened, items, asked(8))[0]
    assert "i8" in found(everything, happened, items, asked(9))[0]


def test_each_block_asks_its_own_table_of_use_and_one_without_a_past_asks_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def leads_to(item: int) -> NeighbourTable:
        weights = np.zeros((12, 12), np.float32)
        weights[1, item] = 1.0
        return NeighbourTable.of(np.array(IDS), weights, 3)

    answered = found(
        [(SimilarByUse(), 5)],
        events(i1=[0]),
        catalogue(),
        asked(1, 2, 3, liked=("i1",)),
        starts=(0, 1, 2),
        tables=[None, leads_to(4), leads_to(9)],
    )

    assert answered == [[], ["i4"], ["i9"]]
    assert not told_in(caplog)


def told_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the module under test told; threads that other tests left behind may tell of something else."""
    return [
        record.getMessage() for record in caplog.records if record.name == "explorank.pipeline.past_retrieval"
    ]


def leaning_to(item: int) -> ImplicitALS:
    """Return a space where i1 and another item lie in one direction, and the rest each in its own."""
    factors = np.eye(12)
    factors[item, 1] = 2.0
    return ImplicitALS(np.array(IDS), factors, ImplicitALSOptions(factors=12))


def test_each_block_asks_a_space_of_its_own_past_and_not_the_one_that_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    serving = EmbeddingSpace.build(leaning_to(7))
    items = Catalogue.build(IDS, np.eye(12), embeddings=serving)

    answered = found(
        [(LearnedEmbeddings(), 1), (Popular(), 1)],
        events(i1=[0]),
        items,
        asked(1, 2, 3, liked=("i1",)),
        starts=(0, 1, 2),
        models=[None, leaning_to(4), leaning_to(9)],
    )

    assert answered == [["i1"], ["i4", "i1"], ["i9", "i1"]]
    assert not told_in(caplog)


def test_answers_are_united_in_order_and_cut_as_the_stage_does() -> None:
    near = np.eye(12, dtype=np.float32)
    near[3, 1], near[4, 1] = 2.0, 1.0  # i3 is nearest to i1, then i4
    items = Catalogue.build(IDS, near)
    retrievers = [(SimilarToHistory(), 2), (Popular(), 2)]
    happened = events(i4=[0], i7=[0, 0], i1=[0])
    queries = asked(1, liked=("i1",), seen=("i1",))

    assert found(retrievers, happened, items, queries) == [["i3", "i4", "i7"]]
    assert found(retrievers, happened, items, queries, limit=2) == [["i3", "i4"]]


class Broken:
    name: ClassVar[str] = "broken"

    def retrieve(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> Found:
        raise ConnectionError("nobody answers")


def test_a_retriever_that_fails_costs_the_others_nothing_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        answered = found([(Broken(), 3), (Popular(), 1)], events(i5=[0]), catalogue(), asked(1, 2))

    assert answered == [["i5"], ["i5"]]
    [message] = told_in(caplog)
    assert "'broken' failed at past requests" in message
    assert "nobody answers" in message


# ---- what is drawn --------------------------------------------------------------------------------------


def labelled(
    candidates: list[NDArray[np.int64]], share: float, *, negatives: int = 4, seed: int = 0
) -> pd.DataFrame:
    queries = asked(*range(len(candidates)), seen=("i0",)).assign(
        user_id="u", positives=[("i1",)] * len(candidates)
    )
    return labelled_rows(
        queries, catalogue(), negatives=negatives, seed=seed, candidates=candidates, retrieved_share=share
    )


def negatives_of(rows: pd.DataFrame) -> list[set[str]]:
    return [set(each["item_id"][each["label"] == 0]) for _, each in rows.groupby("query")]


def test_the_share_comes_from_retrieval_as_far_as_that_reaches() -> None:
    likely = np.arange(6)  # of i0 to i5 the first is known and the second liked

    halves = negatives_of(labelled([likely] * 50, 0.5))
    assert all(len(each & {"i2", "i3", "i4", "i5"}) >= 2 for each in halves)
    assert all(len(each) <= 4 for each in halves)
    assert all(each == {"i2", "i3", "i4", "i5"} for each in negatives_of(labelled([likely] * 5, 1.0)))
    # Two are all that retrieval has; the others are drawn evenly.
    filled = negatives_of(labelled([np.arange(4)] * 50, 1.0))
    assert all({"i2", "i3"} <= each for each in filled)
    assert set.union(*filled) == {*IDS} - {"i0", "i1"}
    pd.testing.assert_frame_equal(labelled([likely] * 9, 0.5), labelled([likely] * 9, 0.5))
    assert not labelled([likely] * 9, 0.5).equals(labelled([likely] * 9, 0.5, seed=1))


def test_without_a_share_the_draw_is_even_whatever_retrieval_finds() -> None:
    queries = asked(*range(30), seen=("i0",)).assign(user_id="u", positives=[("i1",)] * 30)
    evenly = labelled_rows(queries, catalogue(), negatives=4, seed=0)

    pd.testing.assert_frame_equal(labelled([np.arange(6)] * 30, 0.0), evenly)
    pd.testing.assert_frame_equal(labelled([np.empty(0, np.int64)] * 30, 1.0), evenly)


def test_rows_without_a_label_are_what_is_left_of_retrieval_and_change_no_other() -> None:
    queries = asked(*range(20), seen=("i0",)).assign(user_id="u", positives=[("i1",)] * 20)
    wanted = np.where(np.arange(20) < 15, 3, 0)

    def rows(unlabelled: NDArray[np.int64] | None) -> pd.DataFrame:
        return labelled_rows(
            queries, catalogue(), negatives=4, seed=0, candidates=[np.arange(8)] * 20, retrieved_share=0.5,
            unlabelled=unlabelled,
        )  # fmt: skip

    with_more = rows(wanted)
    more = with_more[with_more["unlabelled"]]
    pd.testing.assert_frame_equal(
        with_more[~with_more["unlabelled"]].reset_index(drop=True), rows(None), check_dtype=True
    )
    assert set(more["query"]) <= set(range(15))
    assert more.groupby("query").size().max() <= 3
    assert set(more["item_id"]) == {f"i{number}" for number in range(2, 8)}
    assert not more["label"].any()
    assert not with_more.duplicated(["query", "item_id"]).any()
    assert with_more["query"].is_monotonic_increasing


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), block=st.integers(0, 2), share=st.sampled_from([0.5, 1.0]))
def test_no_negative_was_liked_or_met_and_nothing_later_changes_what_is_found(
    seed: int, block: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "user_id": random.choice(["a", "b", "c", "d"], 80),
            "item_id": random.choice(IDS, 80),
            "timestamp": [day(int(at)) for at in random.integers(0, 60, 80)],
            "value": random.choice([1.0, 5.0], 80),
        }
    )
    happened = past_interactions(table)
    appeared = {item: int(at) for item, at in zip(IDS, random.integers(0, 60, 12), strict=True)}
    items = catalogue(**appeared)
    queries = ranking_queries(
        happened, QueryOptions(positive_from=4.0, warmup=2, stride=2, horizon=3), seed=0
    )
    starts = np.arange(3) * len(queries) // 3
    retrievers = [
        (LearnedEmbeddings(), 3), (SimilarByUse(), 3), (SimilarToHistory(), 3), (Popular(), 3), (NewItems(), 3)
    ]  # fmt: skip

    def candidates(known: pd.DataFrame) -> list[NDArray[np.int64]]:
        liked = known[known["value"] >= 4.0]
        wanted = RetrievalSettings(
            by_use=ByUseSettings(model="item_knn"),
            learned_embeddings=LearnedEmbeddingsSettings(als=ImplicitALSOptions(factors=2, l2=1.0)),
        )
        use = PastUse.of(wanted, lambda _: liked, items, queries, starts, with_models=True)
        vectors = interest_vectors(queries, items, 0.9)
        return past_candidates(retrievers, known, items, queries, vectors, use, limit=9)

    likely = candidates(happened)
    rows = labelled_rows(queries, items, negatives=6, seed=seed % 7, candidates=likely, retrieved_share=share)

    for number, query in enumerate(queries.itertuples()):
        own = rows[rows["query"] == number]
        negatives = set(own["item_id"][own["label"] == 0])
        assert not negatives & {*query.positives, *query.seen}
        assert own["item_id"].is_unique
        there = {item for item in IDS if day(appeared[item]) <= query.event_timestamp}
        assert set(items.item_ids[likely[number]]) <= there - {*query.seen}
    later = (happened["timestamp"] >= queries["event_timestamp"].iloc[starts[block]]).to_numpy()
    changed = happened.copy()
    changed.loc[later, "item_id"] = random.choice(IDS, int(later.sum()))
    end = starts[block + 1] if block < 2 else len(queries)
    for before, after in zip(likely[:end], candidates(changed)[:end], strict=True):
        np.testing.assert_array_equal(before, after)


# ---- in training ----------------------------------------------------------------------------------------


class Shelf:
    """Finds the same two books for everybody, and one that is not in the catalogue."""

    name: ClassVar[str] = "shelf"

    def retrieve(self, catalogue: Catalogue, query: RetrievalQuery, k: int) -> Found:
        return np.array(["chess-1", "gone", "sea-1"]), np.ones(3, np.float32)


def test_a_ranker_learns_from_what_its_retrievers_find(installation: Path) -> None:
    written = load_settings(installation / "explorank.yaml")
    happened = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    current = ArtefactStore(written.folder_path / "artefacts").current(CATALOGUE)
    assert current is not None
    options = TrainOptions(
        queries=QueryOptions(positive_from=4.0), max_queries=40, negatives=2, retrieved_share=1.0
    )

    items = Catalogue.load(current[1])

    past = past_data(written, happened, items, feature_access(written), options, [(Shelf(), 5)])

    queries = ranking_queries(happened, options.queries, seed=options.seed).tail(40)
    negatives = [
        set(items[labels == 0])
        for part in (past.training, past.later)
        for items, labels in zip(
            _by_request(part, part.item_ids), _by_request(part, part.labels), strict=True
        )
    ]
    assert len(negatives) == len(queries)
    shelf = ["chess-1", "sea-1"]
    appeared = dict(zip(shelf, items.first_seen[items.rows(shelf)].tolist(), strict=True))
    possible = [
        {item for item in shelf if appeared[item] <= query.event_timestamp.timestamp()}
        - {*query.seen, *query.positives}
        for query in queries.itertuples()
    ]
    assert sum(len(each) == 2 for each in possible) > 5
    for drawn, expected in zip(negatives, possible, strict=True):
        assert expected <= drawn
        assert len(drawn) <= 2
    for part, users in ((past.training, past.training_users), (past.later, past.later_users)):
        assert part.user_ids is not None
        assert part.user_ids.tolist() == users.tolist()
    sampling = past.sampling
    assert (sampling.negatives, sampling.retrieved_share, sampling.retrievers) == (2, 1.0, ("shelf",))
    assert sampling.drawn_from_retrieval == sum(map(len, possible))
    assert sampling.drawn_from_retrieval + sampling.drawn_evenly == sum(map(len, negatives))


def test_what_a_learnt_space_would_have_found_is_among_the_negatives(installation: Path) -> None:
    written = load_settings(installation / "explorank.yaml")
    learned = LearnedEmbeddingsSettings(als=ImplicitALSOptions(factors=2, l2=1.0))
    retrieval = written.retrieval.model_copy(update={"learned_embeddings": learned})
    wanted = written.model_copy(update={"retrieval": retrieval})
    happened = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    current = ArtefactStore(written.folder_path / "artefacts").current(CATALOGUE)
    assert current is not None
    options = TrainOptions(
        queries=QueryOptions(positive_from=4.0), max_queries=20, negatives=2, blocks=2, retrieved_share=1.0
    )

    past = past_data(
        wanted,
        happened,
        Catalogue.load(current[1]),
        feature_access(written),
        options,
        [(LearnedEmbeddings(), 9)],
    )

    assert past.sampling.retrievers == ("learned_embeddings",)
    assert past.sampling.drawn_from_retrieval > 20
    assert "similarity_learned" not in past.training.feature_names


def _by_request(data: RankingData, values: NDArray[Any] | None) -> list[NDArray[Any]]:
    assert data.groups is not None
    assert values is not None
    return np.split(values, np.cumsum(data.groups)[:-1])


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="is no share of the negatives"):
        TrainOptions(retrieved_share=share)
