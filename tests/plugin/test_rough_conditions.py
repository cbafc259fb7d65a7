"""What may go wrong around a stage, each with what it answers then."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from explorank import Decision, Stage
from explorank.artefacts import ArtefactStore
from explorank.hooks import hookimpl
from explorank.hooks.deadlines import Deadline
from explorank.hooks.registry import Registry
from explorank.hooks.types import (
    BoolArray,
    Candidates,
    FeatureArray,
    Features,
    FloatArray,
    IndexArray,
    RankingBatch,
    RankingRequest,
    Scores,
)
from explorank.rankers import LightGBMRanker
from explorank.retrieval import Catalogue

OpenStage = Callable[..., Stage]

ITEMS = [f"i{number}" for number in range(10)]
SCORES = np.linspace(1.0, 0.1, 10)
TAKEN_UP_S = 60.0  # it takes one second; the rest is for busy machines
NO_EXPLORATION = {"exploration": {"mode": "off"}}


def steps(decision: Decision) -> list[tuple[str, str]]:
    return [(fallback.step, fallback.plugin) for fallback in decision.fallbacks]


# ---- a plugin that raises in each hook ------------------------------------------------------------------

REQUEST_HOOKS = ["enrich_request", "retrieve", "enrich", "filter", "score", "explore"]
SILENT_HOOKS = [
    "startup", "shutdown", "register_components", "log_decision", "observe_impressions", "observe_rewards",
    "stage_error",
]  # fmt: skip


def broken_in(hook: str, error: Exception | None = None) -> object:
    """Return a plugin named `Broken` whose implementation of `hook` raises."""

    def fail(self: object) -> None:
        raise error or RuntimeError(f"no {hook} today")

    return type("Broken", (), {f"ranking_{hook}": hookimpl(fail)})()


@pytest.mark.parametrize("hook", REQUEST_HOOKS)
def test_a_plugin_that_raises_costs_its_own_part_and_is_named(open_books: OpenStage, hook: str) -> None:
    stage = open_books(plugins=[broken_in(hook)])
    decision = stage.rank(user_id="reader-1")
    assert steps(decision) == [(hook, "Broken")]
    assert f"no {hook} today" in decision.fallbacks[0].reason
    assert decision.logged
    if hook == "filter":  # nobody knows whom it would have removed
        assert decision.items == ()
        return
    # Everybody else's part is there: all retrievers, the ranker's scores, the policy.
    assert len(decision.items) == 10
    assert decision.policy == "linear_thompson"
    sound = stage.decision(decision.decision_id)
    assert len(set(sound.scores.tolist())) > 10
    assert stage.decision(decision.decision_id).fallbacks == decision.fallbacks


@pytest.mark.parametrize("hook", ["score", "explore"])
def test_what_another_plugin_made_good_is_said_so(open_books: OpenStage, hook: str) -> None:
    decision = open_books(plugins=[broken_in(hook)]).rank(user_id="reader-1")
    assert decision.fallbacks[0].action == "the next plugin answered"


@pytest.mark.parametrize("hook", SILENT_HOOKS)
def test_a_plugin_that_raises_beside_the_request_changes_nothing(open_books: OpenStage, hook: str) -> None:
    stage = open_books(plugins=[broken_in(hook)])
    decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == 10
    assert decision.fallbacks == ()
    stage.shown(decision.decision_id, decision.items)
    assert stage.reward(decision.decision_id, slot=0)
    stage.close()


def test_who_raises_while_told_of_an_error_stops_nothing(open_stage: OpenStage) -> None:
    class Alarm:
        told: ClassVar[list[str]] = []

        @hookimpl
        def ranking_stage_error(self, plugin: str, stage: str) -> None:
            self.told.append(f"{plugin} in {stage}")
            raise RuntimeError("nobody answers the telephone")

    stage = open_stage(plugins=[Alarm(), broken_in("enrich_request")])
    decision = stage.explore(ITEMS, SCORES, slots=2)
    assert len(decision.items) == 2
    assert steps(decision) == [("enrich_request", "Broken")]
    assert Alarm.told == ["Broken in enrich_request"]


@pytest.mark.parametrize("hook", REQUEST_HOOKS)
def test_a_plugin_that_keeps_raising_is_left_alone(open_stage: OpenStage, hook: str) -> None:
    calls = 0

    def fail(self: object) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("again")

    stage = open_stage(plugins=[type("Broken", (), {f"ranking_{hook}": hookimpl(fail)})()])
    decisions = [stage.rank() for _ in range(8)]
    if calls:  # some hooks are not called where nothing was found
        assert calls <= 5
        (status,) = [one for one in stage.status()["plugins"] if one["name"] == "Broken"]
        assert status["state"] == "open"
        assert "again" in status["last_error"]
    assert all(decision.logged for decision in decisions)


def test_a_skipped_filter_still_fails_closed(open_stage: OpenStage) -> None:
    stage = open_stage(plugins=[broken_in("filter")])
    for _ in range(8):
        decision = stage.explore(ITEMS, SCORES, slots=3)
        assert decision.items == ()
        assert steps(decision) == [("filter", "Broken")]


def test_a_filter_that_fails_open_lets_everybody_pass(open_stage: OpenStage) -> None:
    class Optional:
        ranking_filter_fails = "open"

        @hookimpl
        def ranking_filter(self) -> BoolArray:
            raise RuntimeError("no connection")

    stage = open_stage(NO_EXPLORATION, plugins=[Optional()])
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert decision.items == ("i0", "i1", "i2")
    assert decision.fallbacks[0].action == "ignored: it fails open"


# ---- plugins that answer nonsense -----------------------------------------------------------------------


def test_candidates_beside_ours_are_ranked_with_ours(open_books: OpenStage) -> None:
    class Editors:
        @hookimpl
        def ranking_retrieve(self) -> Candidates:
            return Candidates.of(["sea-1", "unheard-of"], "editors")

    decision = open_books(plugins=[Editors()]).rank(user_id="reader-1", slots=100)
    sources = dict(zip(decision.items, decision.sources, strict=True))
    assert sources["unheard-of"] == ("editors",)
    assert "editors" in sources["sea-1"]
    assert len(sources["sea-1"]) > 1


def test_a_column_that_two_plugins_bring_is_named(open_books: OpenStage) -> None:
    class Rival:
        @hookimpl
        def ranking_enrich(self, candidates: Candidates) -> Features:
            return Features(("similarity",), np.zeros((len(candidates), 1), np.float32))

    decision = open_books(plugins=[Rival()]).rank(user_id="reader-1")
    assert len(decision.items) == 10
    (fallback,) = decision.fallbacks
    assert (fallback.step, fallback.action) == ("enrich", "columns missing")
    assert "similarity" in fallback.reason


def test_infinite_feature_values_do_not_stop_anything(open_books: OpenStage) -> None:
    class Wild:
        @hookimpl
        def ranking_enrich(self, candidates: Candidates) -> Features:
            values = np.full((len(candidates), 2), np.inf, np.float32)
            values[::2] = np.nan
            return Features(("wild", "wilder"), values)

    stage = open_books({"exploration": {"features": ["score", "wild"]}}, plugins=[Wild()])
    decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == 10
    assert decision.policy == "linear_thompson"


def test_a_policys_column_that_nobody_brings_costs_exploration(open_books: OpenStage) -> None:
    stage = open_books({"exploration": {"features": ["score", "colour"]}})
    decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == 10
    assert decision.methods == ("score",) * 10
    assert {step for step, _ in steps(decision)} == {"explore"}
    assert "colour" in decision.fallbacks[0].reason


def test_a_context_key_that_two_plugins_set_is_named(open_books: OpenStage) -> None:
    class Rival:
        @hookimpl
        def ranking_enrich_request(self) -> dict[str, Any]:
            return {"recent": ("sea-1",)}

    decision = open_books(plugins=[Rival()]).rank(user_id="reader-1")
    assert len(decision.items) == 10
    assert [fallback.step for fallback in decision.fallbacks] == ["enrich_request"]


def test_a_context_that_cannot_be_logged_costs_exploration(open_stage: OpenStage) -> None:
    class Big:
        @hookimpl
        def ranking_enrich_request(self) -> dict[str, Any]:
            return {"number": 2**80}

    decision = open_stage(plugins=[Big()]).explore(ITEMS, SCORES, slots=3)
    assert decision.items == ("i0", "i1", "i2")
    assert not decision.logged


# ---- the ranker -----------------------------------------------------------------------------------------


class SlowRanker(LightGBMRanker):
    """Takes longer than it may: until it is told to go on."""

    goes_on: ClassVar[threading.Event] = threading.Event()
    cheaper_way = ""

    def score(self, features: FeatureArray) -> FloatArray:
        assert self.goes_on.wait(60.0)
        return super().score(features)


class RaisingRanker(LightGBMRanker):
    """Always fails."""

    cheaper_way = ""

    def score(self, features: FeatureArray) -> FloatArray:
        raise MemoryError("no room for the trees")


class NanRanker(LightGBMRanker):
    """Knows nothing."""

    def score(self, features: FeatureArray) -> FloatArray:
        return np.full(len(features), np.nan)


class LaggardRanker(SlowRanker):
    """Has a cheaper way, which is in time."""

    cheaper_way = "some of the trees"


class BadRankers:
    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        registry.ranker("slow", SlowRanker)
        registry.ranker("laggard", LaggardRanker)
        registry.ranker("raising", RaisingRanker)
        registry.ranker("nan", NanRanker)


def publish_without_card(installation: Path) -> None:
    """Publish the ranker without a card, which would say that it is a `lightgbm` whatever the settings name."""
    store = ArtefactStore(installation / ".explorank" / "artefacts")
    (_, folder) = store.current("ranker") or pytest.fail("no ranker")
    store.publish("ranker", LightGBMRanker.load(folder).save)


@pytest.mark.parametrize(
    ("ranker", "budget_ms", "told"),
    [
        ("slow", 50.0, "budget of 50 ms"),
        ("raising", 60_000.0, "no room for the trees"),
        ("nan", 60_000.0, "not finite"),
    ],
)
def test_a_ranker_that_fails_leaves_retrieval_order(
    open_books: OpenStage, installation: Path, ranker: str, budget_ms: float, told: str
) -> None:
    publish_without_card(installation)
    SlowRanker.goes_on.clear()
    stage = open_books(
        {"ranker": {"use": ranker, "budget_ms": budget_ms}, **NO_EXPLORATION}, plugins=[BadRankers()]
    )
    decision = stage.rank(user_id="reader-1")  # would never return if it waited for a slow one
    SlowRanker.goes_on.set()
    (fallback,) = decision.fallbacks
    assert (fallback.step, fallback.action) == ("score", "retrieval order")
    assert told in fallback.reason
    record = stage.decision(decision.decision_id)
    assert record.scores.tolist() == list(range(len(record.scores), 0, -1))
    assert list(decision.items) == record.item_ids[:10].tolist()


def test_a_ranker_that_is_late_answers_in_its_cheaper_way(
    open_books: OpenStage, installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_without_card(installation)
    SlowRanker.goes_on.clear()
    settings = {"ranker": {"use": "laggard", "budget_ms": 60_000.0}, **NO_EXPLORATION}
    stage = open_books(settings, plugins=[BadRankers()])
    # Late at once, while the cheaper way has a minute.
    plugin = stage.installation.manager.get_plugin("explorank-rankers")
    monkeypatch.setattr(plugin, "_deadline", Deadline(1.0))
    try:
        # More calls than may be abandoned at once: then none is begun, and the cheaper way stays open.
        decisions = [stage.rank(user_id="reader-1") for _ in range(6)]
    finally:
        SlowRanker.goes_on.set()
    ranker = stage.installation.ranker.get()
    assert isinstance(ranker, LightGBMRanker)
    for decision in decisions:
        (fallback,) = decision.fallbacks
        assert fallback.action == "some of the trees"
        assert fallback.reason.startswith("PluginLate: ")
        assert decision.versions["ranker"] == f"{ranker.manifest.version}-cheaper"
    assert "earlier calls overran" in decisions[-1].fallbacks[0].reason


def test_without_a_trained_ranker_retrieval_order_is_shown(open_books: OpenStage, installation: Path) -> None:
    shutil.rmtree(installation / ".explorank" / "artefacts" / "ranker")
    stage = open_books()
    decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == 10
    assert [fallback.reason for fallback in decision.fallbacks] == ["no trained ranker"]
    assert "explorank train" in stage.readiness()["ranker"]


def test_without_a_catalogue_nothing_is_retrieved_and_readiness_says_so(
    open_books: OpenStage, installation: Path
) -> None:
    shutil.rmtree(installation / ".explorank" / "artefacts" / "catalogue")
    stage = open_books()
    assert stage.rank(user_id="reader-1").items == ()
    assert "explorank build" in stage.readiness()["catalogue"]
    decision = stage.explore(["sea-1", "sea-2"], [2.0, 1.0], np.zeros((2, 3)))
    assert set(decision.items) == {"sea-1", "sea-2"}


# ---- features -------------------------------------------------------------------------------------------


def drop_tables(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            connection.execute(f'DROP TABLE "{table}"')
    connection.close()


def test_feast_losing_its_tables_means_missing_values_and_is_named(
    open_books: OpenStage, installation: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = open_books()
    assert stage.rank(user_id="reader-1").fallbacks == ()
    drop_tables(installation / "feature_repo" / "data" / "online_store.db")
    with caplog.at_level(logging.CRITICAL):
        decision = stage.rank(user_id="reader-1")
        deadline = time.monotonic() + TAKEN_UP_S  # the columns in memory learn of it within a second
        while not decision.fallbacks and time.monotonic() < deadline:
            time.sleep(0.1)
            decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == 10
    assert {step for step, _ in steps(decision)} == {"enrich"}
    assert {plugin for _, plugin in steps(decision)} == {"explorank-features"}
    named = " ".join(fallback.reason for fallback in decision.fallbacks)
    for view in ("item_content", "item_statistics", "user_profile", "user_statistics"):
        assert view in named
    assert decision.policy == "linear_thompson"


@pytest.mark.parametrize("gone", ["feature_repo/data/online_store.db", "feature_repo"])
def test_files_that_vanish_while_serving_never_stop_the_answer(
    open_books: OpenStage, installation: Path, gone: str
) -> None:
    stage = open_books()
    stage.rank(user_id="reader-1")
    # Moved rather than deleted: a folder cannot be deleted while somebody writes to it, and the stage reads and writes.
    (installation / gone).rename(installation / "moved away")
    decision = stage.rank(user_id="reader-2")
    assert len(decision.items) == 10
    assert decision.logged


def test_an_absent_feature_repository_is_named_at_the_start(
    open_books: OpenStage, installation: Path
) -> None:
    shutil.rmtree(installation / "feature_repo")
    stage = open_books()
    decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == 10
    assert "explorank-features" in {plugin for _, plugin in steps(decision)}
    assert "feature_store.yaml" in " ".join(stage.readiness().values())


def test_items_that_feast_does_not_know_are_ranked_with_missing_values(
    open_books: OpenStage, installation: Path
) -> None:
    publish_catalogue(installation, extra="sea-99")
    stage = open_books(NO_EXPLORATION)
    decision = stage.rank(user_id="reader-1", slots=100)
    assert "sea-99" in decision.items
    assert decision.fallbacks == ()


def test_expired_features_are_not_used(open_books: OpenStage) -> None:
    stage = open_books({"features": {"as_of": "2056-01-01T00:00:00Z"}})
    decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == 10
    context = stage.decision(decision.decision_id).request.context
    assert list(context["history"]) == []
    assert list(context["liked"]) == []


# ---- guards ---------------------------------------------------------------------------------------------


class BrokenGuard:
    """Fails; `static` and `fails` are set by the tests."""

    name: ClassVar[str] = "broken"

    def __init__(self, static: bool = False, fails: str = "closed", where: str = "eligible") -> None:
        self.static = static
        self.fails = fails
        if where == "snapshot":
            self.snapshot = self._raise

    def _raise(self, request: RankingRequest) -> None:
        raise ConnectionError("no inventory")

    def eligible(
        self, request: RankingRequest, batch: RankingBatch, placed: IndexArray, slot: int
    ) -> BoolArray:
        raise ConnectionError("no inventory")


class Guards:
    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        registry.guard("broken", BrokenGuard)


@pytest.mark.parametrize("mode", ["off", "shadow", "live"])
@pytest.mark.parametrize("where", ["eligible", "snapshot"])
@pytest.mark.parametrize("static", [False, True])
def test_a_guard_that_fails_closed_shows_nothing(
    open_stage: OpenStage, static: bool, where: str, mode: str
) -> None:
    guard = {"use": "broken", "static": static, "where": where}
    stage = open_stage({"guards": [guard], "exploration": {"mode": mode}}, plugins=[Guards()])
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert decision.items == ()
    assert ("guard", "broken") in steps(decision)
    assert "no inventory" in decision.fallbacks[0].reason


@pytest.mark.parametrize("mode", ["off", "shadow", "live"])
@pytest.mark.parametrize("where", ["eligible", "snapshot"])
@pytest.mark.parametrize("static", [False, True])
def test_a_guard_that_fails_open_is_named(open_stage: OpenStage, static: bool, where: str, mode: str) -> None:
    guard = {"use": "broken", "static": static, "where": where, "fails": "open"}
    stage = open_stage({"guards": [guard], "exploration": {"mode": mode}}, plugins=[Guards()])
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert len(decision.items) == 3
    assert ("guard", "broken") in steps(decision)


def test_a_history_that_is_no_list_costs_the_filter_not_the_answer(open_stage: OpenStage) -> None:
    stage = open_stage({"guards": [{"use": "already_seen"}]})
    decision = stage.explore(ITEMS, SCORES, slots=3, context={"history": "i1,i2"})
    assert len(decision.items) == 3
    assert steps(decision) == [("guard", "already_seen")]


# ---- the log --------------------------------------------------------------------------------------------


@contextmanager
def locked(segment: Path) -> Iterator[None]:
    connection = sqlite3.connect(segment, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


def assert_baseline_not_logged(stage: Stage) -> Decision:
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert decision.items == ("i0", "i1", "i2")
    assert decision.propensities == (1.0,) * 3
    assert decision.methods == ("score",) * 3
    assert not decision.logged
    assert [fallback.step for fallback in decision.fallbacks] == ["log"]
    assert "log" in stage.readiness()
    return decision


def assert_recovered(stage: Stage) -> None:
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert decision.logged
    assert decision.fallbacks == ()
    assert "log" not in stage.readiness()
    assert stage.reward(decision.decision_id, slot=0)


ALL_EXPLORE = {"exploration": {"policy": {"use": "epsilon_greedy", "epsilon": 1.0}}}


def test_a_locked_log_means_the_baseline_until_it_is_free(open_stage: OpenStage, tmp_path: Path) -> None:
    stage = open_stage(ALL_EXPLORE)
    with locked(tmp_path / ".explorank" / "log" / "segment-0.db"):
        assert_baseline_not_logged(stage)
        assert stage.installation.log.stats.failures == 1
    assert_recovered(stage)


def test_feedback_that_cannot_be_stored_says_so(open_stage: OpenStage, tmp_path: Path) -> None:
    stage = open_stage(ALL_EXPLORE)
    decision = stage.explore(ITEMS, SCORES, slots=3)
    with locked(tmp_path / ".explorank" / "log" / "segment-0.db"), pytest.raises(OSError, match="locked"):
        stage.reward(decision.decision_id, slot=0)
    assert stage.reward(decision.decision_id, slot=0)  # the failed one was not acknowledged


def test_a_log_folder_that_became_a_file_means_the_baseline(open_stage: OpenStage, tmp_path: Path) -> None:
    stage = open_stage(ALL_EXPLORE)
    folder = tmp_path / ".explorank" / "log"
    folder.rename(folder.with_name("moved"))  # the learner may write beside the log while files are deleted
    folder.write_text("not a folder", encoding="utf-8")
    assert_baseline_not_logged(stage)
    folder.unlink()
    folder.mkdir()
    assert_recovered(stage)


def test_a_truncated_segment_is_moved_aside(
    open_stage: OpenStage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = open_stage(ALL_EXPLORE)
    stage.explore(ITEMS, SCORES, slots=3)
    stage.close()
    segment = tmp_path / ".explorank" / "log" / "segment-0.db"
    with segment.open("r+b") as file:
        file.truncate(5_000)
    with caplog.at_level(logging.CRITICAL):
        later = open_stage(ALL_EXPLORE)
        assert_recovered(later)
    assert list(segment.parent.glob("segment-0.db.corrupt-*"))


def test_a_segment_truncated_while_serving_is_moved_aside(
    open_stage: OpenStage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = open_stage(ALL_EXPLORE)
    stage.explore(ITEMS, SCORES, slots=3)
    segment = tmp_path / ".explorank" / "log" / "segment-0.db"
    with segment.open("r+b") as file:
        file.truncate(100)
    with caplog.at_level(logging.CRITICAL):
        decision = stage.explore(ITEMS, SCORES, slots=3)
        assert decision.items  # answered either way
        assert_recovered(stage)


def test_a_damaged_state_is_rebuilt_from_the_log(
    open_stage: OpenStage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"exploration": {"policy": {"use": "beta_thompson"}}}
    stage = open_stage(changes)
    decision = stage.explore(ITEMS, SCORES, slots=3)
    stage.reward(decision.decision_id, slot=0)
    stage.installation.learner.step()
    learnt = stage.installation.policy.dumps(stage.installation.learner.snapshot)
    stage.close()
    state = tmp_path / ".explorank" / "state.db"
    for path in state.parent.glob("state.db-*"):
        path.unlink()
    state.write_bytes(b"scribbled over" * 500)
    with caplog.at_level(logging.CRITICAL):
        later = open_stage(changes)
        later.installation.learner.step()
    assert later.installation.policy.dumps(later.installation.learner.snapshot) == learnt


# ---- artefacts ------------------------------------------------------------------------------------------


def store_of(installation: Path) -> ArtefactStore:
    return ArtefactStore(installation / ".explorank" / "artefacts")


def publish_catalogue(installation: Path, *, extra: str) -> None:
    """Publish the current catalogue with one more item, much like `sea-1`."""
    store = store_of(installation)
    current = store.current("catalogue")
    assert current is not None
    old = Catalogue.load(current[1])
    like = int(old.rows(["sea-1"])[0])
    vector = old.vectors[like] + 1e-3
    new = Catalogue.build(
        [*old.item_ids.tolist(), extra],
        np.vstack([old.vectors, vector]),
        popularity=[*old.popularity.tolist(), 1e6],
        first_seen=[*old.first_seen.tolist(), np.nan],
        encoder_name=old.encoder_name,
        encoder_fingerprint=old.encoder_fingerprint,
    )
    store.publish("catalogue", new.save)


def publish_damaged(installation: Path, kind: str, file: str) -> str:
    """Publish a copy of the current artefact in which one file was overwritten."""
    store = store_of(installation)
    current = store.current(kind)
    assert current is not None
    source = current[1]

    def write(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "checksums.json").unlink()
        (folder / file).write_bytes(b"scribbled over")

    return store.publish(kind, write)


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


DAMAGE = [
    ("ranker", "model.txt"),
    ("ranker", "manifest.json"),
    ("catalogue", "index/index.faiss"),
    ("catalogue", "vectors.npy"),
    ("catalogue", "catalogue.json"),
]


@pytest.mark.parametrize(("kind", "file"), DAMAGE)
def test_damage_at_the_start_is_named_and_refused(
    open_books: OpenStage, installation: Path, kind: str, file: str
) -> None:
    current = store_of(installation).current(kind)
    assert current is not None
    damaged = current[1] / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(bytes(content))
    stage = open_books()
    problem = stage.readiness()[kind]
    assert str(damaged) in problem
    decision = stage.rank(user_id="reader-1")
    assert len(decision.items) == (10 if kind == "ranker" else 0)
    assert stage.status()["refused_artefacts"][kind] == problem


@pytest.mark.parametrize(("kind", "file"), DAMAGE)
def test_a_damaged_new_version_is_refused_and_the_last_good_one_stays(
    open_books: OpenStage, installation: Path, kind: str, file: str
) -> None:
    stage = open_books()
    before = stage.rank(user_id="reader-1").versions
    publish_damaged(installation, kind, file)
    stage.installation.refresh()
    decision = stage.rank(user_id="reader-1")
    assert dict(decision.versions) == dict(before)
    assert len(decision.items) == 10
    assert decision.fallbacks == ()
    assert Path(file).name in stage.status()["refused_artefacts"][kind]
    assert stage.readiness() == {}


def test_a_start_on_a_damaged_version_takes_the_intact_one_before(
    open_books: OpenStage, installation: Path
) -> None:
    publish_damaged(installation, "ranker", "model.txt")
    stage = open_books()
    assert "model.txt" in stage.status()["refused_artefacts"]["ranker"]
    decision = stage.rank(user_id="reader-1")
    assert decision.versions["ranker"]
    assert decision.fallbacks == ()


def test_a_new_version_is_taken_up_without_a_restart(open_books: OpenStage, installation: Path) -> None:
    stage = open_books(NO_EXPLORATION)
    assert "sea-99" not in stage.rank(slots=100).items
    publish_catalogue(installation, extra="sea-99")
    assert within(TAKEN_UP_S, lambda: "sea-99" in stage.rank(slots=100).items)


def test_going_back_to_an_older_version_is_taken_up_too(open_books: OpenStage, installation: Path) -> None:
    store = store_of(installation)
    publish_catalogue(installation, extra="sea-99")
    stage = open_books(NO_EXPLORATION)
    assert "sea-99" in stage.rank(slots=100).items
    store.set_current("catalogue", store.versions("catalogue")[0])
    assert within(TAKEN_UP_S, lambda: "sea-99" not in stage.rank(slots=100).items)


def test_requests_go_on_while_versions_change(open_books: OpenStage, installation: Path) -> None:
    stage = open_books()
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                assert len(stage.rank(user_id="reader-1").items) == 10
        except BaseException as error:  # told to the test's thread
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(3):
        publish_catalogue(installation, extra=f"sea-{100 + number}")
        stage.installation.refresh()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


# ---- unused answers -------------------------------------------------------------------------------------


def test_third_party_scores_are_used_before_ours(open_books: OpenStage) -> None:
    class Alphabetical:
        @hookimpl
        def ranking_score(self, candidates: Candidates) -> Scores:
            order = np.argsort(np.argsort(candidates.item_ids))
            return Scores(-order.astype(np.float64), version="abc-1")

    decision = open_books(NO_EXPLORATION, plugins=[Alphabetical()]).rank(user_id="reader-1", slots=3)
    assert list(decision.items) == ["baking-0", "baking-1", "baking-2"]
    assert decision.versions["ranker"] == "abc-1"
