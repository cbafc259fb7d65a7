"""The built-in plugins behind their hooks, in a running stage on the prepared installation."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explorank import Stage
from explorank.artefacts import ArtefactStore, Watched
from explorank.assembly import CATALOGUE
from explorank.builtin.rankers import RankersPlugin
from explorank.builtin.retrieval import RetrievalPlugin, history_of, united
from explorank.effort import Effort
from explorank.hooks import hookimpl
from explorank.hooks.types import Candidates, Features, RankingRequest, Scores
from explorank.rankers import (
    Bagging,
    BaggingOptions,
    LightGBMOptions,
    LightGBMRanker,
    RankerManifest,
    RankingData,
)
from explorank.retrieval import Catalogue, Popular, RetrievalQuery, SimilarToHistory
from explorank.settings import parse_settings

OpenStage = Callable[..., Stage]


@pytest.fixture
def stage(open_books: OpenStage, spy: Any) -> Stage:
    return open_books({"features": {"as_of": "2026-03-02T00:00:00Z"}}, plugins=[spy])


def test_the_history_and_what_was_liked_of_it_travel_in_the_context(
    stage: Stage, spy: Any, installation_folder
) -> None:
    events = pd.read_parquet(installation_folder / "interactions.parquet").sort_values("timestamp")
    own = events[events["user_id"] == "reader-4"]

    stage.rank(user_id="reader-4", slots=3)

    assert spy.last.request.context["history"] == tuple(own["item_id"])
    assert spy.last.request.context["liked"] == tuple(own["item_id"][own["value"] >= 4.0])


def test_features_are_as_old_as_they_were_when_the_request_was_made(open_books: OpenStage) -> None:
    stage = open_books({"features": {"as_of": "2026-03-02T00:00:00Z"}})
    now, days = stage.installation.clock(), 10.0
    found = Candidates.of(["sea-3", "chess-8"], "test")

    def ages(time: float) -> Any:
        request = RankingRequest(decision_id="d", slots=2, user_id="reader-9", time=time)
        request = stage.installation.engine.enrich_request(request, [])
        features = stage.installation.engine.enrich(request, found, [])
        return np.column_stack([features.column("item_first_event"), features.column("user_first_event")])

    assert np.isfinite(ages(now)).all()
    np.testing.assert_allclose(ages(now) - ages(now - days * 86_400.0), days, rtol=1e-5)
    np.testing.assert_array_equal(ages(0.0), ages(now))  # a host that does not say when


def test_an_unknown_user_has_item_columns_and_missing_user_columns(stage: Stage, spy: Any) -> None:
    stage.rank(user_id="nobody", slots=3)

    user = [name for name in spy.last.features.names if name.startswith("user_")]
    assert user
    for name in user:
        assert np.isnan(spy.last.features.column(name)).all()
    assert np.isnan(spy.last.features.column("similarity")).all()
    assert not np.isnan(spy.last.features.column("item_pages")).any()


def test_similar_to_is_answered_and_measured_against_that_item(stage: Stage, spy: Any) -> None:
    stage.rank(similar_to="sea-3", slots=3)

    catalogue = stage.installation.catalogue.get()
    assert catalogue is not None
    ids = spy.last.candidates.item_ids.tolist()
    anchor = catalogue.vectors[catalogue.rows(["sea-3"])[0]]
    cosines = catalogue.vectors[catalogue.rows(ids)] @ anchor
    np.testing.assert_allclose(spy.last.features.column("similarity"), cosines, rtol=1e-5)
    assert "sea-3" not in ids


def test_an_item_that_nobody_knows_is_named_where_others_like_it_are_asked_for(stage: Stage) -> None:
    known = stage.rank(similar_to="sea-3", slots=3)
    unknown = stage.rank(similar_to="an item of tomorrow", slots=3)

    assert known.fallbacks == ()
    assert unknown.items
    (fallback,) = unknown.fallbacks
    assert (fallback.step, fallback.action) == ("retrieve", "items found without it")
    assert "no item 'an item of tomorrow'" in fallback.reason
    assert stage.decision(unknown.decision_id).fallbacks == unknown.fallbacks


def test_the_interest_follows_a_reward_at_once(stage: Stage, spy: Any) -> None:
    decision = stage.rank(user_id="reader-9", slots=3)
    before = spy.last.similarities
    taken = decision.items[0]

    stage.reward(decision.decision_id, item_id=taken)
    stage.rank(user_id="reader-9", slots=3)

    after = spy.last.similarities
    assert after[taken] > before[taken]


def test_the_interest_follows_a_reward_that_another_process_took(open_books: OpenStage, spy: Any) -> None:
    changes = {"features": {"as_of": "2026-03-02T00:00:00Z"}}
    here, elsewhere = open_books(changes, plugins=[spy]), open_books(changes)
    decision = here.rank(user_id="reader-9", slots=3)
    before, history = spy.last.similarities, history_of(spy.last.request)
    taken = decision.items[2]

    elsewhere.reward(decision.decision_id, item_id=taken)
    here.installation.refresh()  # or a quarter of a second

    here.rank(user_id="reader-9", slots=3)
    assert history_of(spy.last.request) == (*(item for item in history if item != taken), taken)
    assert spy.last.similarities[taken] > before[taken]


def test_what_was_rewarded_just_now_counts_as_seen(open_books: OpenStage) -> None:
    stage = open_books({"features": {"as_of": "2026-03-02T00:00:00Z"}, "guards": [{"use": "already_seen"}]})
    decision = stage.rank(user_id="reader-9", slots=3)

    stage.reward(decision.decision_id, item_id=decision.items[0])

    assert decision.items[0] not in stage.rank(user_id="reader-9", slots=60).items


def test_what_was_disliked_just_now_is_seen_and_not_liked(open_books: OpenStage, spy: Any) -> None:
    stage = open_books(
        {
            "features": {"as_of": "2026-03-02T00:00:00Z"},
            "guards": [{"use": "already_seen"}],
            "feedback": {"rewards": {"click": 1.0, "regret": -1.0, "dismiss": 0.0}},
            "exploration": {"stability": {"rejections": ["dismiss"]}},
        },
        plugins=[spy],
    )
    decision = stage.rank(user_id="reader-9", slots=4)
    before = history_of(spy.last.request)
    regretted, dismissed, dismissed_at_once, liked = decision.items

    stage.reward(decision.decision_id, item_id=regretted)
    stage.reward(decision.decision_id, item_id=regretted, kind="regret")
    stage.reward(decision.decision_id, item_id=dismissed)
    stage.reward(decision.decision_id, item_id=dismissed, kind="dismiss")
    stage.reward(decision.decision_id, item_id=dismissed_at_once, kind="dismiss")
    stage.reward(decision.decision_id, item_id=liked)
    shown = stage.rank(user_id="reader-9", slots=60).items

    assert history_of(spy.last.request) == (*before, liked)
    assert set(decision.items).isdisjoint(shown)


def test_blocked_items_never_reach_scoring(stage: Stage, spy: Any) -> None:
    stage.rank(similar_to="chess-8", slots=5)

    assert "chess-9" not in spy.last.candidates.item_ids.tolist()


# ---- the ranker's columns -------------------------------------------------------------------------------


class Watching:
    """What `Services.ranker` is to the plugin: something that gives the newest ranker."""

    def __init__(self, ranker: Any) -> None:
        self.ranker = ranker

    def get(self) -> Any:
        return self.ranker


def trained(names: list[str], seed: int) -> LightGBMRanker:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(200, len(names))).astype(np.float32)
    data = RankingData(features=matrix, labels=matrix[:, 0] > 0, feature_names=names)
    return LightGBMRanker.fit(data, options=LightGBMOptions(objective="binary", rounds=5))


def score(plugin: RankersPlugin, features: Features, **request: Any) -> Scores | None:
    asked = RankingRequest(decision_id="1", slots=3, **request)
    ids = [f"item-{row}" for row in range(len(features.values))]
    return plugin.ranking_score(asked, Candidates.of(ids, "test"), features)


def plugin_with(ranker: Any, columns: Sequence[str] = ()) -> tuple[RankersPlugin, Watching]:
    plugin, watching = RankersPlugin(), Watching(ranker)
    services: Any = type("Services", (), {"ranker": watching})()
    plugin.ranking_startup(
        parse_settings({"version": 1, "exploration": {"features": list(columns)}}), services
    )
    return plugin, watching


def test_columns_are_found_by_name_whatever_their_order() -> None:
    ranker = trained(["a", "b"], seed=1)
    plugin, _ = plugin_with(ranker)
    values = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)

    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        names = tuple(np.array(["a", "b", "other"])[order].tolist())
        scores = score(plugin, Features(names, values[:, order]))
        assert scores is not None
        np.testing.assert_array_equal(scores.values, ranker.score(values[:, :2]))
        assert scores.version == ranker.manifest.version


def test_a_new_ranker_with_other_columns_is_taken_up() -> None:
    plugin, watching = plugin_with(trained(["a", "b"], seed=1))
    features = Features(("a", "b", "c"), np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32))
    score(plugin, features)
    watching.ranker = newer = trained(["c", "a"], seed=2)

    scores = score(plugin, features)

    assert scores is not None
    np.testing.assert_array_equal(scores.values, newer.score(features.values[:, [2, 0]]))


def test_without_a_ranker_there_are_no_scores() -> None:
    features = Features(("a",), np.zeros((2, 1), np.float32))

    assert score(plugin_with(None)[0], features) is None
    assert score(RankersPlugin(), features) is None


def test_a_missing_column_is_named() -> None:
    plugin, _ = plugin_with(trained(["a", "b"], seed=1))

    with pytest.raises(Exception, match="missing b"):
        score(plugin, Features(("a",), np.zeros((2, 1), np.float32)))


def test_the_uncertainty_travels_with_the_scores() -> None:
    random = np.random.default_rng(5)
    matrix = random.normal(size=(300, 2)).astype(np.float32)
    data = RankingData(features=matrix, labels=matrix[:, 0] > 0, feature_names=["a", "b"])
    member = {"use": "lightgbm", "objective": "binary", "rounds": 5}
    bagging = Bagging.fit(data, options=BaggingOptions(member=member, bags=3))
    plugin, watching = plugin_with(bagging)
    features = Features(("b", "a"), matrix[:6, ::-1])

    scores = score(plugin, features)

    means, deviations = bagging.score_with_uncertainty(matrix[:6])
    assert scores is not None
    assert scores.uncertainty is not None
    np.testing.assert_array_equal(scores.values, means)
    np.testing.assert_array_equal(scores.uncertainty, deviations)
    assert scores.version == bagging.manifest.version
    watching.ranker = trained(["a", "b"], seed=1)
    assert score(plugin, features).uncertainty is None  # type: ignore[union-attr]


class Hidden:
    """A ranker whose last layer is its columns, times 2 and 3, and which counts how often it is passed."""

    representation_scale = (np.array([2.0, 0.0], np.float32), np.array([4.0, 1.0], np.float32))

    def __init__(self) -> None:
        self.manifest = RankerManifest.of(b"", name="hidden", objective="none", feature_names=("a", "b"))
        self.passes = 0

    def check(self, names: Any) -> None:
        self.manifest.check(names)

    def score(self, features: Any) -> Any:
        self.passes += 1
        return features.sum(axis=1).astype(np.float64)

    def representation(self, features: Any) -> Any:
        self.passes += 1
        return features * np.array([2.0, 3.0], np.float32)

    def score_with_representation(self, features: Any) -> Any:
        self.passes += 1
        return features.sum(axis=1).astype(np.float64), features * np.array([2.0, 3.0], np.float32)


def test_the_last_layer_comes_standardised_with_the_scores_where_somebody_reads_it() -> None:
    features = Features(("b", "a"), np.array([[1, 3], [0, 1]], np.float32))
    ranker = Hidden()
    scores = score(plugin_with(ranker, ["score", "representation"])[0], features)
    assert scores is not None
    assert scores.values.tolist() == [4.0, 1.0]
    assert np.asarray(scores.representation).tolist() == [[(6 - 2) / 4, 3.0], [0.0, 0.0]]
    assert (scores.version, ranker.passes) == (ranker.manifest.version, 1)
    plain = score(plugin_with(ranker, ["score"])[0], features)
    assert plain is not None
    assert plain.representation is None


class TakesUpTheSame:
    """Scores by `a`, and by how often the visitor took up the same item before."""

    id_columns = ("times", "last")

    def __init__(self) -> None:
        self.manifest = RankerManifest.of(
            b"", name="same", objective="none", feature_names=("times", "a", "last")
        )
        self.seen: list[Any] = []

    def check(self, names: Any) -> None:
        self.manifest.check(names)

    def read_ids(self, item_ids: Any, history: Any) -> Any:
        self.seen.append((tuple(item_ids), tuple(history)))
        last = history[-1] if history else None
        return np.array([[history.count(one), one == last] for one in item_ids], np.float32).reshape(-1, 2)

    def score(self, features: Any) -> Any:
        self.seen.append(features)
        return (features @ np.array([1.0, 0.0, 10.0])).astype(np.float64)


def test_columns_are_read_from_ids_and_the_history_of_the_request() -> None:
    ranker = TakesUpTheSame()
    plugin, _ = plugin_with(ranker)
    features = Features(("b", "a"), np.arange(6, dtype=np.float32).reshape(3, 2))
    context = {
        "liked": ("item-1", "item-4", "item-0"),
        "recent": ("item-0", "item-1", "item-2"),
        "history": ("else",),
    }

    scores = score(plugin, features, context=context)

    assert scores is not None
    # What came in since is appended; what is stored of it already stands where it was last taken up.
    assert ranker.seen[0] == (("item-0", "item-1", "item-2"), ("item-4", "item-0", "item-1", "item-2"))
    assert ranker.seen[1].tolist() == [[1, 1, 0], [1, 3, 0], [1, 5, 1]]
    assert scores.values.tolist() == [1, 1, 11]
    score(plugin, features, context={"history": ["item-2"]})
    assert ranker.seen[2] == (("item-0", "item-1", "item-2"), ("item-2",))
    score(plugin, features)
    assert ranker.seen[4] == (("item-0", "item-1", "item-2"), ())


def test_served_columns_reach_a_ranker_without_a_copy() -> None:
    class Keeps(TakesUpTheSame):
        id_columns = ()  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.manifest = RankerManifest.of(b"", name="same", objective="none", feature_names=("a", "b"))

        def score(self, features: Any) -> Any:
            self.seen.append(features)
            return np.zeros(len(features))

    ranker = Keeps()
    plugin, _ = plugin_with(ranker)
    features = Features(("x", "a", "b"), np.zeros((4, 3), np.float32))

    score(plugin, features)

    assert [np.shares_memory(seen, features.values) for seen in ranker.seen] == [True]


def test_columns_that_are_read_from_ids_need_not_be_served() -> None:
    plugin, _ = plugin_with(TakesUpTheSame())

    with pytest.raises(Exception, match="missing a"):
        score(plugin, Features(("b",), np.zeros((2, 1), np.float32)))


def test_a_new_event_is_in_the_history_of_the_next_request(stage: Stage, spy: Any) -> None:
    decision = stage.rank(user_id="reader-9", slots=3)
    before = history_of(spy.last.request)

    stage.reward(decision.decision_id, item_id=decision.items[0])
    stage.rank(user_id="reader-9", slots=3)

    taken = decision.items[0]
    assert history_of(spy.last.request) == (*(item for item in before if item != taken), taken)


def test_a_stage_serves_a_ranker_of_rankers_under_its_name(open_books: OpenStage, spy: Any) -> None:
    stage = open_books({"ranker": {"use": "bagging"}}, plugins=[spy])
    stage.rank(user_id="reader-9", slots=3)
    names = spy.last.features.names[:3]
    matrix = np.random.default_rng(7).normal(size=(200, len(names))).astype(np.float32)
    data = RankingData(features=matrix, labels=matrix[:, 0] > 0, feature_names=names)
    member = {"use": "lightgbm", "objective": "binary", "rounds": 3}
    bagging = Bagging.fit(data, options=BaggingOptions(member=member, bags=2))
    stage.installation.artefacts.publish("ranker", bagging.save)
    stage.installation.refresh()

    decision = stage.rank(user_id="reader-9", slots=3)

    assert decision.fallbacks == ()
    assert stage.installation.ranker.get().manifest == bagging.manifest


def test_a_session_of_a_known_user_follows_their_stored_likes(stage: Stage, spy: Any) -> None:
    stage.rank(user_id="reader-4", slots=3)
    stored = spy.last.request.context["liked"]

    decision = stage.rank(user_id="reader-4", slots=3, context={"history": ["sea-1", "sea-2"]})

    assert spy.last.request.context["history"] == ["sea-1", "sea-2"]
    assert spy.last.request.context["liked"] == (*stored, "sea-1", "sea-2")
    assert decision.fallbacks == ()


def test_the_seen_guard_knows_the_stored_history_beside_a_session(open_books: OpenStage, spy: Any) -> None:
    stage = open_books({"guards": [{"use": "already_seen"}]}, plugins=[spy])
    stage.rank(user_id="reader-4", slots=3, context={"history": ["sea-1"]})

    met = {"sea-1", *spy.last.request.context["stored_history"]}
    assert len(met) > 1
    assert met.isdisjoint(spy.last.candidates.item_ids.tolist())


class Broken:
    """A retriever of a third party that fails."""

    name = "broken"

    def retrieve(self, catalogue, query, k):
        raise ConnectionError("no answer")


class Astray(Broken):
    """A retriever that names rows that are not there."""

    name = "astray"

    def retrieve_rows(self, catalogue, query, k):
        return np.array([0, len(catalogue)]), np.ones(2, np.float32)


class ByIds:
    """A retriever that says what it found by ids alone."""

    name = "by_ids"

    def retrieve(self, catalogue, query, k):
        return Popular().retrieve(catalogue, query, k)


class BrokenPlugin:
    @hookimpl
    def ranking_register_components(self, registry):
        for retriever in (Broken, Astray, ByIds):
            registry.retriever(retriever.name, retriever)


def test_what_is_found_by_rows_is_what_is_found_by_ids(open_books: OpenStage, spy: Any) -> None:
    for popular in ("popular", "by_ids"):
        retrievers = [{"use": "similar_to_history", "k": 12}, {"use": popular, "k": 20}]
        at = {"as_of": "2026-03-02T00:00:00Z"}
        stage = open_books(
            {"features": at, "retrieval": {"retrievers": retrievers}}, plugins=[BrokenPlugin(), spy]
        )
        stage.rank(user_id="reader-4", slots=9)
    by_rows, by_ids = spy.seen
    assert by_rows.candidates.places is not None
    assert by_ids.candidates.places is None
    assert by_rows.candidates.item_ids.tolist() == by_ids.candidates.item_ids.tolist()
    np.testing.assert_array_equal(by_rows.candidates.source_bits, by_ids.candidates.source_bits)
    np.testing.assert_array_equal(by_rows.candidates.retrieval_scores, by_ids.candidates.retrieval_scores)
    np.testing.assert_array_equal(by_rows.features.values, by_ids.features.values)


def test_rows_that_are_not_there_cost_the_other_retrievers_nothing(open_books: OpenStage) -> None:
    retrievers = [{"use": "astray"}, {"use": "popular", "k": 20}]
    stage = open_books({"retrieval": {"retrievers": retrievers}}, plugins=[BrokenPlugin()])
    decision = stage.rank(user_id="reader-4", slots=3)
    assert len(decision.items) == 3
    assert "outside the catalogue" in decision.fallbacks[0].reason


def test_a_retriever_that_fails_costs_the_others_nothing(open_books: OpenStage) -> None:
    retrievers = [{"use": "broken"}, {"use": "popular", "k": 20}]
    stage = open_books({"retrieval": {"retrievers": retrievers}}, plugins=[BrokenPlugin()])
    decision = stage.rank(user_id="reader-4", slots=3)

    assert len(decision.items) == 3
    (fallback,) = decision.fallbacks
    assert (fallback.step, fallback.plugin, fallback.action) == ("retrieve", "broken", "skipped")
    assert "no answer" in fallback.reason


class ThirdParty(LightGBMRanker):
    """Somebody else's ranker, of which nobody knows what it waits for."""

    def score(self, features: Any) -> Any:
        return super().score(features)


@pytest.mark.parametrize(("ranker", "own_thread"), [(LightGBMRanker, True), (ThirdParty, False)])
def test_only_a_ranker_that_may_wait_is_given_a_thread_and_a_deadline(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, ranker: type[LightGBMRanker], own_thread: bool
) -> None:
    threads = []

    class Manifest:
        """Tells which thread asks."""

        def __init__(self, manifest: RankerManifest) -> None:
            self.manifest = manifest

        def __getattr__(self, name: str) -> Any:
            threads.append(threading.get_ident())
            return getattr(self.manifest, name)

    held = stage.installation.ranker
    version, loaded = held._held
    monkeypatch.setattr(held, "_held", (version, ranker(loaded._text, Manifest(loaded.manifest))))
    assert not stage.rank(user_id="reader-4", slots=3).fallbacks
    assert (set(threads) == {threading.get_ident()}) is own_thread


def test_a_hurried_request_is_scored_by_fewer_trees_and_says_so(stage: Stage) -> None:
    hurried = Effort(ranker="cheaper", reason="too much to do")
    whole, cheap = (
        stage.rank(user_id="reader-4", slots=3),
        stage.rank(user_id="reader-4", slots=3, effort=hurried),
    )

    ranker = stage.installation.ranker.get()
    assert isinstance(ranker, LightGBMRanker)
    assert whole.fallbacks == ()
    assert [(each.step, each.plugin, each.reason, each.action) for each in cheap.fallbacks] == [
        ("score", "explorank-rankers", "too much to do", ranker.cheaper_way)
    ]
    assert cheap.versions["ranker"] == f"{ranker.manifest.version}-cheaper"
    record = stage.decision(cheap.decision_id)
    assert record.fallbacks == cheap.fallbacks
    assert not np.array_equal(record.scores, stage.decision(whole.decision_id).scores)


class Counting:
    """A guard on single items that counts how often it is asked; it forbids one."""

    name = "counting"
    static = True
    asked = 0

    def eligible(self, request, batch, placed, slot):
        Counting.asked += 1
        return batch.item_ids != "sea-3"


class CountingPlugin:
    @hookimpl
    def ranking_register_components(self, registry):
        registry.guard("counting", Counting)


def test_a_guard_on_single_items_is_asked_once_in_a_request(open_books: OpenStage) -> None:
    for mode in ("off", "shadow", "live"):
        changes = {"guards": [{"use": "counting"}], "exploration": {"mode": mode, "holdout": 0.0}}
        stage = open_books(changes, plugins=[CountingPlugin()])
        Counting.asked = 0
        decision = stage.rank(user_id="reader-1", slots=30)
        assert Counting.asked == 1
        assert decision.fallbacks == ()
        assert "sea-3" not in decision.items
        assert "sea-3" not in stage.decision(decision.decision_id).item_ids


def test_similarities_that_the_search_told_are_those_that_would_be_computed(tmp_path: Path) -> None:
    """Of items that other retrievers found as well, and of those that none did, too."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1_000, 16)).astype(np.float32)
    catalogue = Catalogue.build([f"i{row}" for row in range(1_000)], vectors, kind="ivf_pq", device="cpu")
    store = ArtefactStore(tmp_path)
    store.publish(CATALOGUE, catalogue.save)
    plugin = RetrievalPlugin()
    plugin._catalogue = Watched(store, CATALOGUE, Catalogue.load)
    published = plugin._catalogue.get()
    request = RankingRequest(decision_id="d", slots=3, similar_to="i7")
    query = RetrievalQuery(time=0.0, similar_to="i7")
    for others in ([], [(Shuffled(), 30)]):
        found = united([(SimilarToHistory(), 40), *others], published, query, 40)
        for candidates in (found, found.take(np.arange(5, len(found)))):
            assert candidates.places is not None
            features = plugin.ranking_enrich(request, candidates)
            expected = catalogue.cosines(catalogue.vectors[7], candidates.item_ids)
            np.testing.assert_array_equal(features.values[:, 0], expected)


class Shuffled:
    """A retriever whose scores are above all cosines."""

    name = "shuffled"

    def retrieve_rows(self, catalogue, query, k):
        return np.random.default_rng(1).permutation(len(catalogue))[:k], np.full(k, 2.0, np.float32)
