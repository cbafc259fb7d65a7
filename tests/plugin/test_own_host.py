"""Explorank in a host's own pluggy manager."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pluggy
import pytest

import explorank
from explorank.hooks import hookimpl, specs
from explorank.hooks.feedback import read_log
from explorank.hooks.isolation import isolated
from explorank.hooks.manager import implementations_for, specs_for
from explorank.hooks.types import (
    BoolArray,
    Candidates,
    Features,
    Impression,
    RankingBatch,
    RankingRequest,
    Reward,
    Scores,
)
from explorank.seeds import seed_of
from explorank.settings import parse_settings

ITEMS = np.array([f"i{number}" for number in range(8)])
NOW = time.time()
RANKING = RankingBatch(item_ids=ITEMS, scores=np.linspace(1.0, 0.3, 8))

MakePlugin = Callable[..., explorank.ExplorankPlugin]


def request_of(decision_id: str, **more: Any) -> RankingRequest:
    return RankingRequest(decision_id=decision_id, slots=3, user_id="u", time=NOW, **more)


@pytest.fixture
def make_plugin(tmp_path: Path) -> Iterator[MakePlugin]:
    """Make plugins with a folder each; closed after the test."""
    with ExitStack() as closing:

        def make(folder: str = "state", plugins: tuple[object, ...] = (), **more: Any) -> Any:
            data = {
                "version": 1,
                "folder": folder,
                "ranker": None,
                "retrieval": {"retrievers": []},
                "exploration": {
                    "mode": "live", "holdout": 0.0, "policy": {"use": "epsilon_greedy", "epsilon": 0.8},
                },
                "feedback": {"learn_every_s": 3600.0},
                **more,
            }  # fmt: skip
            made = explorank.plugin(parse_settings(data, tmp_path), plugins=plugins)
            closing.callback(made.stage.close)
            return made

        yield make


def manager_with(*plugins: object) -> pluggy.PluginManager:
    """Return a host's own, ordinary manager."""
    manager = pluggy.PluginManager("explorank")
    manager.add_hookspecs(specs)
    for plugin in plugins:
        manager.register(plugin)
    manager.check_pending()
    return manager


class Host:
    """What a host implements itself."""

    def __init__(self) -> None:
        self.decisions: list[str] = []

    @hookimpl
    def ranking_retrieve(self, k: int) -> Candidates:
        return Candidates.of(ITEMS[:k], "host")

    @hookimpl
    def ranking_enrich(self, candidates: Candidates) -> Features:
        return Features(("price",), np.ones((len(candidates), 1), np.float32))

    @hookimpl
    def ranking_filter(self, candidates: Candidates) -> BoolArray:
        return np.ones(len(candidates), np.bool_)

    @hookimpl
    def ranking_score(self, candidates: Candidates) -> Scores:
        return Scores(np.arange(len(candidates), dtype=np.float64))


def test_every_hook_answers_beside_the_hosts_own(make_plugin: MakePlugin) -> None:
    manager = manager_with(Host(), make_plugin(guards=[{"use": "block_list", "items": ["i2"]}]))
    request = request_of("d1")
    assert manager.hook.ranking_enrich_request(request=request) == [{"recent": (), "recent_disliked": ()}]
    ours, hosts = manager.hook.ranking_retrieve(request=request, k=4)
    assert (len(ours), len(hosts)) == (0, 4)
    candidates = Candidates.union([ours, hosts])
    masks = manager.hook.ranking_filter(request=request, candidates=candidates)
    assert [mask.tolist() for mask in masks] == [[True, True, False, True], [True] * 4]
    features = manager.hook.ranking_enrich(request=request, candidates=candidates)
    assert Features.join(features, 4).names == ("price",)
    # We have no ranker here, so the host's is asked.
    scores = manager.hook.ranking_score(request=request, candidates=candidates, features=Features.empty(4))
    assert scores.values.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_slate_is_durable_when_it_is_returned(make_plugin: MakePlugin, tmp_path: Path) -> None:
    manager = manager_with(make_plugin())
    for number in range(3):
        request = request_of(f"d{number}")
        seed = seed_of(request.decision_id)
        slate = manager.hook.ranking_explore(request=request, ranking=RANKING, n_slots=3, seed=seed)
        assert len(slate) == 3
        assert slate.policy == "epsilon_greedy"
        entries = {entry.record.decision_id: entry.record for entry in read_log(tmp_path / "state" / "log")}
        assert list(entries) == [f"d{earlier}" for earlier in range(number + 1)]
        record = entries[request.decision_id]
        assert record.slate.order.tolist() == slate.order.tolist()
        assert record.slate.propensities.tolist() == slate.propensities.tolist()


def test_without_a_log_the_host_gets_the_baseline(
    make_plugin: MakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = make_plugin()
    manager = manager_with(plugin)
    plugin.stage.installation.log.close()
    with caplog.at_level(logging.CRITICAL):
        slate = manager.hook.ranking_explore(request=request_of("d1"), ranking=RANKING, n_slots=3, seed=1)
    assert slate.order.tolist() == [0, 1, 2]
    assert slate.propensities.tolist() == [1.0] * 3


def test_rewards_are_learnt_once(make_plugin: MakePlugin, tmp_path: Path) -> None:
    plugin = make_plugin()
    manager = manager_with(plugin)
    slate = manager.hook.ranking_explore(request=request_of("d1"), ranking=RANKING, n_slots=3, seed=1)
    shown = ITEMS[slate.order].tolist()
    reward = Reward(
        decision_id="d1", slot=0, item_id=shown[0], kind="click", value=1.0, reward_id="r1", time=NOW + 1
    )
    impression = Impression(decision_id="d1", items_in_order=tuple(shown), time=NOW)
    manager.hook.ranking_observe_impressions(impressions=[impression])
    manager.hook.ranking_observe_rewards(rewards=[reward])
    manager.hook.ranking_observe_rewards(rewards=[reward])
    learner = plugin.stage.installation.learner
    learner.step(NOW + 2)
    assert learner.stats.folded == 1
    (entry,) = read_log(tmp_path / "state" / "log")
    assert [one.reward_id for one in entry.rewards] == ["r1"]
    assert [one.items_in_order for one in entry.impressions] == [tuple(shown)]


def test_feedback_that_cannot_be_stored_does_not_stop_the_host(
    make_plugin: MakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    class Counting:
        def __init__(self) -> None:
            self.rewards = 0

        @hookimpl(trylast=True)
        def ranking_observe_rewards(self) -> None:
            self.rewards += 1

    counting = Counting()
    plugin = make_plugin()
    manager = manager_with(counting, plugin)
    good = Reward(decision_id="d1", slot=0, item_id="i0", kind="click", value=1.0, reward_id="r1", time=NOW)
    bad = Reward(
        decision_id="d1", slot=0, item_id="i0", kind="click", value=float("nan"), reward_id="r2", time=NOW
    )
    with caplog.at_level(logging.CRITICAL):
        manager.hook.ranking_observe_rewards(rewards=[bad, good])
        endless = Impression(decision_id="d1", items_in_order=(), time=float("inf"))
        manager.hook.ranking_observe_impressions(impressions=[endless])
        plugin.stage.installation.log.close()
        manager.hook.ranking_observe_rewards(rewards=[good])
        fine = Impression(decision_id="d1", items_in_order=(), time=1.0)
        manager.hook.ranking_observe_impressions(impressions=[fine])
    assert counting.rewards == 2


@pytest.mark.parametrize("hook", ["retrieve", "enrich_request", "enrich", "filter", "score", "explore"])
def test_one_broken_plugin_inside_does_not_lose_the_hosts_results(make_plugin: MakePlugin, hook: str) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("broken")

    broken = type("Broken", (), {f"ranking_{hook}": hookimpl(fail)})()
    manager = manager_with(Host(), make_plugin(plugins=(broken,)))
    request = request_of("d1")
    candidates = Candidates.of(ITEMS, "host")
    assert len(manager.hook.ranking_retrieve(request=request, k=4)) == 2
    assert len(manager.hook.ranking_enrich(request=request, candidates=candidates)) == 2
    masks = manager.hook.ranking_filter(request=request, candidates=candidates)
    assert [bool(mask.any()) for mask in masks] == [hook != "filter", True]  # ours fails closed
    assert manager.hook.ranking_score(request=request, candidates=candidates, features=Features.empty(8))
    slate = manager.hook.ranking_explore(request=request, ranking=RANKING, n_slots=3, seed=1)
    assert len(slate) == 3


def test_the_hosts_own_broken_plugin_is_isolated_on_request(make_plugin: MakePlugin) -> None:
    class Broken:
        @hookimpl
        def ranking_retrieve(self) -> Candidates:
            raise RuntimeError("broken")

    told: list[str] = []
    guarded = isolated(Broken(), "broken", report=lambda failure, request: told.append(failure.plugin))
    manager = manager_with(Host(), make_plugin(), guarded)
    ours, hosts = manager.hook.ranking_retrieve(request=request_of("d1"), k=2)
    assert (len(ours), len(hosts)) == (0, 2)
    assert told == ["broken"]


def test_a_manager_of_another_project(make_plugin: MakePlugin, tmp_path: Path) -> None:
    class ShopPlugin:
        @pluggy.HookimplMarker("shop")
        def ranking_retrieve(self, k: int) -> Candidates:
            return Candidates.of(ITEMS[:k], "shop")

    manager = pluggy.PluginManager("shop")
    manager.add_hookspecs(specs_for("shop"))
    manager.register(ShopPlugin())
    plugin = make_plugin()
    manager.register(implementations_for(plugin, "shop"))
    manager.check_pending()
    assert len(manager.hook.ranking_retrieve(request=request_of("d1"), k=2)) == 2
    slate = manager.hook.ranking_explore(request=request_of("d1"), ranking=RANKING, n_slots=3, seed=1)
    assert slate.policy == "epsilon_greedy"
    assert [entry.record.decision_id for entry in read_log(tmp_path / "state" / "log")] == ["d1"]


def test_two_managers_at_once(make_plugin: MakePlugin, tmp_path: Path) -> None:
    first, second = make_plugin("first"), make_plugin("second", exploration={"mode": "off"})
    one, two = manager_with(first), manager_with(second)
    for manager in (one, two):
        manager.hook.ranking_explore(request=request_of("d1"), ranking=RANKING, n_slots=3, seed=1)
    explored = first.stage.decision("d1")
    baseline = second.stage.decision("d1")
    assert (explored.mode, baseline.mode) == ("live", "off")
    one.hook.ranking_shutdown()
    slate = two.hook.ranking_explore(request=request_of("d2"), ranking=RANKING, n_slots=3, seed=1)
    assert slate.order.tolist() == [0, 1, 2]
    assert second.stage.decision("d2")


def test_one_manager_may_hold_two_installations(make_plugin: MakePlugin) -> None:
    manager = manager_with(make_plugin("first"), make_plugin("second"))
    assert len(manager.hook.ranking_retrieve(request=request_of("d1"), k=2)) == 2


def test_the_host_may_exclude_and_explore_on_some_surfaces_only(make_plugin: MakePlugin) -> None:
    exploration = {
        "mode": "live", "holdout": 0.0, "surfaces": ["home"],
        "policy": {"use": "epsilon_greedy", "epsilon": 1.0},
    }  # fmt: skip
    manager = manager_with(make_plugin(exploration=exploration))
    request = request_of("d1", surface="checkout", exclude=frozenset({"i0"}))
    slate = manager.hook.ranking_explore(request=request, ranking=RANKING, n_slots=3, seed=1)
    assert slate.order.tolist() == [1, 2, 3]
    request = request_of("d2", surface="home", exclude=frozenset({"i0"}))
    slate = manager.hook.ranking_explore(request=request, ranking=RANKING, n_slots=8, seed=1)
    assert len(slate) == 7
    assert 0 not in slate.order


def test_a_class_cannot_be_registered_by_mistake() -> None:
    with pytest.raises(TypeError):
        explorank.plugin()  # type: ignore[call-arg] - it needs settings


def test_a_decision_id_used_twice_gets_the_baseline_and_keeps_the_first_record(
    make_plugin: MakePlugin, tmp_path: Path
) -> None:
    plugin = make_plugin()
    explore = manager_with(plugin).hook.ranking_explore
    first = explore(request=request_of("same"), ranking=RANKING, n_slots=3, seed=1)
    second = explore(request=request_of("same"), ranking=RANKING, n_slots=3, seed=2)
    assert (second.propensities == 1.0).all()
    assert second.order.tolist() == [0, 1, 2]
    (logged,) = read_log(tmp_path / "state" / "log")
    np.testing.assert_array_equal(logged.record.slate.order, first.order)


def test_a_reward_out_of_range_is_refused_alone(
    make_plugin: MakePlugin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = manager_with(make_plugin())
    slate = manager.hook.ranking_explore(request=request_of("d"), ranking=RANKING, n_slots=3, seed=1)
    items = [str(ITEMS[row]) for row in slate.order]
    rewards = [
        Reward(
            decision_id="d",
            slot=slot,
            item_id=items[slot],
            kind=kind,
            value=value,
            reward_id=f"{slot}{kind}",
            time=NOW,
        )
        for slot, kind, value in ((0, "click", 7.0), (1, "clap", 1.0), (2, "click", 1.0))
    ]
    with caplog.at_level(logging.CRITICAL):
        manager.hook.ranking_observe_rewards(rewards=rewards)
    (logged,) = read_log(tmp_path / "state" / "log")
    assert [reward.slot for reward in logged.rewards] == [2]


LIMITED = {
    "exploration": {
        "mode": "live",
        "holdout": 0.0,
        "policy": {"use": "epsilon_greedy", "epsilon": 1.0},
        "budget": {"per_user_per_day": 5, "candidates": [{"column": "fresh", "at_least": 1}]},
        "stability": {"keep_s": 1800, "rejections": ["dismiss"]},
    },
    "feedback": {"learn_every_s": 3600.0, "rewards": {"click": 1.0, "dismiss": 0.0}},
}
FRESH = RankingBatch(
    item_ids=ITEMS, scores=np.linspace(1.0, 0.3, 8), columns={"fresh": np.array([0, 1, 1, 0, 1, 1, 1, 1])}
)


def reward_of(decision_id: str, item: str, kind: str, reward_id: str) -> Reward:
    return Reward(
        decision_id=decision_id, slot=0, item_id=item, kind=kind, value=1.0, reward_id=reward_id, time=NOW + 1
    )


def test_a_host_s_slates_keep_to_cap_and_candidates(make_plugin: MakePlugin) -> None:
    plugin = make_plugin(**LIMITED)
    explore = manager_with(plugin).hook.ranking_explore
    slates = []
    for number in range(3):
        request = request_of(f"d{number}", context={"page": number})
        slates.append(explore(request=request, ranking=FRESH, n_slots=3, seed=number))
    assert [slate.method.count("explore") for slate in slates] == [3, 2, 0]
    assert not {0, 3} & set(slates[0].order.tolist())
    assert slates[2].order.tolist() == [0, 1, 2]
    assert slates[2].decision_id == ""
    assert "leaves 0 of 3 slots" in plugin.stage.decision("d2").held_back


def test_a_host_serves_the_same_decision_again_and_its_feedback_joins_the_original(
    make_plugin: MakePlugin, tmp_path: Path
) -> None:
    plugin, other = make_plugin(**LIMITED), make_plugin(**LIMITED)
    manager = manager_with(plugin)
    first = manager.hook.ranking_explore(request=request_of("d1"), ranking=FRESH, n_slots=3, seed=1)
    backwards = RankingBatch(
        item_ids=ITEMS[::-1], scores=FRESH.score_values[::-1], columns={"fresh": FRESH.columns["fresh"][::-1]}
    )
    again = manager.hook.ranking_explore(request=request_of("d2"), ranking=backwards, n_slots=3, seed=2)
    assert again.decision_id == "d1"
    assert ITEMS[::-1][again.order].tolist() == ITEMS[first.order].tolist()
    assert again.propensities.tolist() == first.propensities.tolist()
    np.testing.assert_array_equal(again.support[:, ::-1], first.support)
    np.testing.assert_array_equal(again.eligible[:, ::-1], first.eligible)
    # The host knows its own id only; another of its processes may bring the reward.
    shown = ITEMS[first.order].tolist()
    impression = Impression(decision_id="d2", items_in_order=tuple(shown), time=NOW)
    manager.hook.ranking_observe_impressions(impressions=[impression])
    plugin.stage.installation.exposures.refresh()
    manager_with(other).hook.ranking_observe_rewards(rewards=[reward_of("d2", shown[0], "click", "r1")])
    (entry,) = read_log(tmp_path / "state" / "log")
    assert entry.record.decision_id == "d1"
    assert [one.decision_id for one in (*entry.impressions, *entry.rewards)] == ["d1", "d1"]
    learner = plugin.stage.installation.learner
    learner.step(NOW + 2)
    assert learner.stats.unknown == learner.stats.refused == 0


def test_a_host_s_rejection_hides_the_item_from_its_filter_and_its_slates(make_plugin: MakePlugin) -> None:
    plugin = make_plugin(**LIMITED)
    manager = manager_with(plugin)
    slate = manager.hook.ranking_explore(request=request_of("d1"), ranking=FRESH, n_slots=3, seed=1)
    gone = int(slate.order[0])
    rewards = [
        reward_of("d1", str(ITEMS[gone]), "dismiss", "r1"),
        reward_of("elsewhere", "i1", "dismiss", "r2"),
    ]
    with_unknown = logging.getLogger("explorank")
    with_unknown.disabled = True
    try:
        manager.hook.ranking_observe_rewards(rewards=rewards)
    finally:
        with_unknown.disabled = False
    (mask,) = manager.hook.ranking_filter(request=request_of("d2"), candidates=Candidates.of(ITEMS, "host"))
    assert np.flatnonzero(~mask).tolist() == [gone]
    slate = manager.hook.ranking_explore(request=request_of("d2"), ranking=FRESH, n_slots=8, seed=1)
    assert sorted({*range(8)} - set(slate.order.tolist())) == [gone]
