"""The stage as a host uses it: rank, explore, shown, reward, and the awaitable twins."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from explorank import Decision, Stage
from explorank.errors import InvalidFeedback, InvalidRequest, UnknownDecision
from explorank.hooks import hookimpl
from explorank.hooks.evaluation import replay, target_propensities

OpenStage = Callable[..., Stage]

ITEMS = [f"i{number}" for number in range(20)]
SCORES = np.linspace(2.0, 0.1, 20)


def assert_consistent(stage: Stage, decision: Decision, slots: int) -> None:
    """Check what holds for every decision, and that its record says the same."""
    answered = len(decision.items)
    assert answered <= slots
    assert len(set(decision.items)) == answered
    per_slot = (decision.scores, decision.propensities, decision.methods, decision.sources)
    assert [len(column) for column in per_slot] == [answered] * 4
    assert all(0.0 < propensity <= 1.0 for propensity in decision.propensities)
    for propensity, method in zip(decision.propensities, decision.methods, strict=True):
        assert method == "explore" or propensity == 1.0
    told = orjson.loads(orjson.dumps(decision.to_dict()))
    assert [entry["item_id"] for entry in told["items"]] == list(decision.items)
    assert [entry["slot"] for entry in told["items"]] == list(range(answered))
    assert told["decision_id"] == decision.decision_id
    record = stage.decision(decision.decision_id)
    assert tuple(record.shown_ids) == decision.items
    assert tuple(record.slate.propensities) == decision.propensities
    assert (record.mode, record.arm, record.sources) == (decision.mode, decision.arm, decision.sources)
    assert dict(record.versions) == dict(decision.versions)


# ---- ranking --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_of",
    [
        pytest.param({"user_id": "reader-1"}, id="known-user"),
        pytest.param({"user_id": "reader-1", "surface": "search"}, id="surface"),
        pytest.param({"user_id": "nobody"}, id="unknown-user"),
        pytest.param({"user_id": 987}, id="unknown-user-as-number"),
        pytest.param({}, id="anonymous"),
        pytest.param({"context": {"history": ["sea-1", "sea-2"], "session_id": "s1"}}, id="session"),
        pytest.param({"similar_to": "crime-3"}, id="similar-to"),
        pytest.param({"user_id": "reader-1", "similar_to": "crime-3"}, id="similar-to-for-user"),
    ],
)
def test_every_kind_of_request_is_answered_in_full(open_books: OpenStage, request_of: dict[str, Any]) -> None:
    stage = open_books()
    assert stage.readiness() == {}
    decision = stage.rank(slots=10, **request_of)
    assert len(decision.items) == 10
    assert decision.fallbacks == ()
    assert decision.logged
    assert decision.propensity_known
    assert decision.policy == "linear_thompson"
    assert [slot for slot, method in enumerate(decision.methods) if method == "explore"] == [2, 5, 8]
    assert all(decision.sources)
    assert_consistent(stage, decision, 10)


def test_the_log_alone_gives_the_logged_propensities_back(open_books: OpenStage) -> None:
    stage = open_books()
    state = stage.installation.learner.snapshot
    for number in range(5):
        decision = stage.rank(user_id=f"reader-{number}")
        record = stage.decision(decision.decision_id)
        again = target_propensities(record, stage.installation.policy, state)
        np.testing.assert_allclose(again, decision.propensities, rtol=1e-12)
        assert replay(record, stage.installation.policy, state).order.tolist() == record.slate.order.tolist()


def test_the_score_slots_hold_the_best_of_what_is_left(open_books: OpenStage) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-3")
    record = stage.decision(decision.decision_id)
    left = dict(zip(record.item_ids.tolist(), record.scores.tolist(), strict=True))
    for item, method in zip(decision.items, decision.methods, strict=True):
        if method == "score":
            assert left[item] == max(left.values())
        del left[item]


def test_the_ranker_knows_what_readers_like(open_books: OpenStage) -> None:
    # reader-2 likes baking alone (2 % 6 == 2, 2 // 6 == 0 adds the sea).
    stage = open_books({"exploration": {"mode": "off"}})
    decision = stage.rank(user_id="reader-2", slots=10)
    liked = [item for item in decision.items if item.partition("-")[0] in {"baking", "sea"}]
    assert len(liked) >= 8


def test_a_session_stands_in_for_a_history(open_books: OpenStage) -> None:
    stage = open_books({"exploration": {"mode": "off"}, "ranker": None})
    decision = stage.rank(context={"history": ["space-1", "space-2"]}, slots=5)
    assert sum(item.startswith("space-") for item in decision.items) >= 4
    assert all("similar_to_history" in sources for sources in decision.sources)


def test_similar_items_never_include_the_item_itself(open_books: OpenStage) -> None:
    stage = open_books()
    for item in ("crime-3", "garden-0"):
        decision = stage.rank(similar_to=item, slots=60)
        assert item not in decision.items
        assert {"similar_to_history"} in [set(sources) for sources in decision.sources]


def test_an_unknown_item_to_resemble_is_answered_with_what_is_popular(open_books: OpenStage) -> None:
    decision = open_books().rank(similar_to="no-such-book", slots=5)
    assert len(decision.items) == 5
    assert not any("similar_to_history" in sources for sources in decision.sources)


def test_excluded_and_blocked_items_are_not_answered(open_books: OpenStage) -> None:
    stage = open_books()
    excluded = {"sea-0", "crime-1", "space-2"}
    decision = stage.rank(user_id="reader-1", slots=60, exclude=[*excluded, "unknown"])
    assert excluded.isdisjoint(decision.items)
    assert "chess-9" not in decision.items  # in blocked.txt
    assert len(decision.items) == 60 - 4


def test_exclusions_may_be_numbers(open_stage: OpenStage) -> None:
    decision = open_stage().explore(range(6), SCORES[:6], slots=6, exclude=[2, "4"])
    assert sorted(decision.items) == ["0", "1", "3", "5"]


def test_more_slots_than_candidates_answers_all_candidates(open_books: OpenStage) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-1", slots=1_000)
    assert len(decision.items) == 59  # of 60 books one is blocked
    assert_consistent(stage, decision, 1_000)


def test_asking_retrievers_for_more_than_the_catalogue_holds(open_books: OpenStage) -> None:
    retrievers = [{"use": name, "k": 5_000} for name in ("similar_to_history", "popular", "new_items")]
    stage = open_books({"retrieval": {"retrievers": retrievers, "candidates": 5_000}})
    decision = stage.rank(user_id="reader-1", slots=100)
    assert len(decision.items) == 59
    assert "-1" not in decision.items


def test_no_slots_is_an_empty_logged_answer(open_books: OpenStage) -> None:
    stage = open_books()
    decision = stage.rank(user_id="reader-1", slots=0)
    assert decision.items == ()
    assert decision.logged
    assert_consistent(stage, decision, 0)


@pytest.mark.parametrize("slots", [10_000, -1])
def test_an_impossible_number_of_slots_is_refused_by_name(open_stage: OpenStage, slots: int) -> None:
    stage = open_stage()
    with pytest.raises(InvalidRequest, match=r"limits\.slots"):
        stage.rank(slots=slots)
    with pytest.raises(InvalidRequest, match=rf"slots={slots}"):
        stage.explore(ITEMS, SCORES, slots=slots)


def test_an_empty_user_id_is_nobody(open_stage: OpenStage) -> None:
    stage = open_stage()
    with pytest.raises(InvalidRequest, match="None for an anonymous visitor"):
        stage.rank(user_id="")
    with pytest.raises(InvalidRequest, match="None for an anonymous visitor"):
        stage.explore(ITEMS, SCORES, user_id="", slots=1)


def test_a_number_of_numpys_is_a_number_of_slots(open_stage: OpenStage) -> None:
    stage = open_stage()
    slots: Any = np.int64(2)
    decision = stage.explore(ITEMS, SCORES, user_id="u", slots=slots)
    assert len(decision.items) == 2
    assert decision.logged
    for other in (2.0, "2"):
        slots = other
        with pytest.raises(InvalidRequest, match="no whole number"):
            stage.explore(ITEMS, SCORES, slots=slots)


def test_a_text_is_no_list_of_its_letters(open_stage: OpenStage) -> None:
    stage = open_stage()
    decision = stage.explore(ITEMS, SCORES, user_id="u", slots=3)
    with pytest.raises(InvalidRequest, match=r"exclude is 'sea-1'.*\['sea-1'\]"):
        stage.rank(exclude="sea-1")
    with pytest.raises(InvalidRequest, match="item_ids"):
        stage.explore("ab", [1.0, 2.0])
    with pytest.raises(InvalidRequest, match="items_in_order"):
        stage.shown(decision.decision_id, decision.items[0])
    with pytest.raises(InvalidRequest, match="item_ids"):
        stage.explain(decision.decision_id, decision.items[0])


def test_nothing_to_rank_is_an_empty_answer(open_stage: OpenStage) -> None:
    stage = open_stage()
    for decision in (stage.rank(user_id="u"), stage.explore([], [], user_id="u")):
        assert decision.items == ()
        assert decision.logged
        assert_consistent(stage, decision, 10)


def test_everything_blocked_is_an_empty_answer(open_stage: OpenStage) -> None:
    stage = open_stage({"guards": [{"use": "block_list", "items": ITEMS}]})
    decision = stage.explore(ITEMS, SCORES, slots=5)
    assert decision.items == ()
    assert decision.fallbacks == ()


# ---- only the exploration -------------------------------------------------------------------------------


def test_a_host_brings_candidates_scores_and_features(open_stage: OpenStage) -> None:
    stage = open_stage({"exploration": {"policy": {"use": "linear_thompson", "dim": 3}, "slots": [1]}})
    features = np.random.default_rng(0).normal(size=(20, 3))
    decision = stage.explore(ITEMS, SCORES, features, user_id=7, slots=4)
    assert decision.items[0] == "i0"
    assert decision.methods == ("score", "explore", "score", "score")
    assert decision.sources == (("host",),) * 4
    assert_consistent(stage, decision, 4)
    record = stage.decision(decision.decision_id)
    assert record.request.user_id == "7"
    np.testing.assert_array_equal(record.features, features.astype(np.float32)[record.feature_rows])


def test_features_of_blocked_items_do_not_shift_those_of_others(open_stage: OpenStage) -> None:
    stage = open_stage(
        {
            "exploration": {"policy": {"use": "linear_thompson", "dim": 1}},
            "guards": [{"use": "block_list", "items": ["i0", "i3"]}],
        }
    )
    features = np.arange(6, dtype=np.float32)[:, None]
    decision = stage.explore(ITEMS[:6], SCORES[:6], features, slots=2)
    record = stage.decision(decision.decision_id)
    kept = record.item_ids[record.feature_rows].tolist()
    assert dict(zip(kept, record.features[:, 0].tolist(), strict=True)) == {
        "i1": 1.0, "i2": 2.0, "i4": 4.0, "i5": 5.0,
    }  # fmt: skip


def test_features_are_looked_up_where_the_host_brings_none(open_books: OpenStage) -> None:
    stage = open_books()
    books = ["sea-1", "sea-2", "crime-1", "crime-2", "space-1"]
    decision = stage.explore(books, [5, 4, 3, 2, 1], user_id="reader-1", slots=3)
    record = stage.decision(decision.decision_id)
    assert record.feature_names == ("constant", "score", "similarity")
    assert decision.fallbacks == ()
    assert decision.policy == "linear_thompson"
    assert_consistent(stage, decision, 3)


def test_a_policy_that_needs_features_is_not_asked_without_them(open_stage: OpenStage) -> None:
    stage = open_stage({"exploration": {"policy": {"use": "linear_thompson", "dim": 3}}})
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert decision.items == ("i0", "i1", "i2")
    assert decision.propensities == (1.0, 1.0, 1.0)
    assert [fallback.step for fallback in decision.fallbacks] == ["explore"]
    assert "linear_thompson" in decision.fallbacks[0].reason


@pytest.mark.parametrize(
    ("scores", "features", "told"),
    [
        pytest.param([1.0, np.nan, 0.5], None, "i1", id="nan-score"),
        pytest.param([1.0, 0.5, np.inf], None, "i2", id="infinite-score"),
        pytest.param([1.0, 0.5], None, r"\(3,\)", id="too-few-scores"),
        pytest.param(["a", "b", "c"], None, "could not convert", id="text-scores"),
        pytest.param([1, 2, 3], [[0, 0], [0, -np.inf], [0, 0]], "i1", id="infinite-feature"),
        pytest.param([1, 2, 3], [[0, 0], [0, 0]], r"\(3, d\)", id="too-few-feature-rows"),
        pytest.param([1, 2, 3], [[0], [0], [0]], "1 columns.*2", id="wrong-feature-width"),
        pytest.param([1, 2, 3], [0, 0, 0], r"\(3, d\)", id="flat-features"),
    ],
)
def test_numbers_that_cannot_be_drawn_from_are_refused_by_item(
    open_stage: OpenStage, scores: list[Any], features: list[Any] | None, told: str
) -> None:
    stage = open_stage({"exploration": {"policy": {"use": "linear_thompson", "dim": 2}}})
    with pytest.raises(InvalidRequest, match=told):
        stage.explore(ITEMS[:3], scores, features)


def test_an_item_given_twice_is_refused(open_stage: OpenStage) -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        open_stage().explore(["a", "b", "a"], [3, 2, 1])
    with pytest.raises(InvalidRequest, match="twice"):
        open_stage({"folder": "other"}).explore([1, "1"], [3, 2])


def test_too_many_candidates_are_refused(open_stage: OpenStage) -> None:
    stage = open_stage()
    with pytest.raises(InvalidRequest, match=r"10001.*limits\.candidates"):
        stage.explore(range(10_001), np.zeros(10_001))
    assert len(stage.explore(range(10_000), np.zeros(10_000), slots=3).items) == 3


def test_decision_ids_are_unique_and_ascend(open_stage: OpenStage) -> None:
    stage = open_stage()
    ids = []
    for _ in range(3):
        ids.append(stage.explore(ITEMS, SCORES).decision_id)
        time.sleep(0.002)  # ids order by the millisecond
    assert ids == sorted(set(ids))


def test_a_context_that_no_log_can_hold_costs_exploration_not_the_answer(open_stage: OpenStage) -> None:
    stage = open_stage()
    decision = stage.explore(ITEMS, SCORES, slots=3, context={"number": 2**70})
    assert decision.items == ("i0", "i1", "i2")
    assert not decision.logged
    assert [fallback.step for fallback in decision.fallbacks] == ["log"]
    assert stage.readiness() == {}
    assert stage.explore(ITEMS, SCORES, slots=3).logged


# ---- feedback -------------------------------------------------------------------------------------------


def test_a_reward_by_item_and_one_by_slot_are_the_same_reward(open_stage: OpenStage) -> None:
    stage = open_stage()
    decision = stage.explore(ITEMS, SCORES, slots=4)
    assert stage.reward(decision.decision_id, item_id=decision.items[2])
    assert not stage.reward(decision.decision_id, slot=2)
    assert not stage.reward(decision.decision_id, item_id=decision.items[2], slot=2)
    assert stage.reward(decision.decision_id, slot=3)


def test_reward_ids_count_once_even_for_other_slots(open_stage: OpenStage) -> None:
    stage = open_stage()
    decision = stage.explore(ITEMS, SCORES, slots=4)
    assert stage.reward(decision.decision_id, slot=0, reward_id="order-17")
    assert not stage.reward(decision.decision_id, slot=1, reward_id="order-17")
    assert stage.reward(decision.decision_id, slot=0, reward_id="order-18")


def test_kinds_have_rewards_of_their_own(open_stage: OpenStage) -> None:
    stage = open_stage({"feedback": {"rewards": {"click": 1.0, "sale": {"weight": 2.0, "maximum": 50.0}}}})
    decision = stage.explore(ITEMS, SCORES, slots=2)
    assert stage.reward(decision.decision_id, slot=0)
    assert stage.reward(decision.decision_id, slot=0, kind="sale", value=49.5)


def test_a_reward_after_a_restart_finds_its_decision(open_stage: OpenStage) -> None:
    stage = open_stage()
    decision = stage.explore(ITEMS, SCORES, slots=2)
    stage.close()
    later = open_stage()
    assert later.reward(decision.decision_id, slot=1)
    assert not later.reward(decision.decision_id, slot=1)


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        pytest.param({}, "neither item nor slot", id="nothing-named"),
        pytest.param({"slot": 3}, "no slot 3", id="slot-beyond"),
        pytest.param({"slot": -1}, "no slot -1", id="slot-below"),
        pytest.param({"item_id": "i19x"}, "did not answer item 'i19x'", id="other-item"),
        pytest.param({"slot": 0, "kind": "purchase"}, r"'purchase'.*\['click'\]", id="unknown-kind"),
        pytest.param({"slot": 0, "value": 1.5}, "between 0.0 and 1.0, not at 1.5", id="too-high"),
        pytest.param({"slot": 0, "value": -0.1}, "between 0.0 and 1.0", id="too-low"),
        pytest.param({"slot": 0, "value": float("nan")}, "between 0.0 and 1.0", id="nan"),
        pytest.param({"slot": 0, "time": float("inf")}, "time", id="no-time"),
    ],
)
def test_feedback_that_contradicts_its_decision_is_refused(
    open_stage: OpenStage, reward: dict[str, Any], told: str
) -> None:
    stage = open_stage()
    decision = stage.explore(ITEMS, SCORES, slots=3)
    with pytest.raises(InvalidFeedback, match=told):
        stage.reward(decision.decision_id, **reward)


def test_an_item_and_another_items_slot_contradict_each_other(open_stage: OpenStage) -> None:
    stage = open_stage()
    decision = stage.explore(ITEMS, SCORES, slots=3)
    with pytest.raises(InvalidFeedback, match="in slot 1, not 2"):
        stage.reward(decision.decision_id, item_id=decision.items[1], slot=2)


def test_feedback_for_an_unknown_decision_is_refused(open_stage: OpenStage) -> None:
    stage = open_stage()
    with pytest.raises(UnknownDecision, match="never-made"):
        stage.reward("never-made", slot=0)
    with pytest.raises(UnknownDecision, match="never-made"):
        stage.shown("never-made", ["i0"])
    with pytest.raises(UnknownDecision, match="never-made"):
        stage.decision("never-made")


def test_a_reward_moves_the_policy_and_the_next_decision_says_so(open_stage: OpenStage) -> None:
    stage = open_stage({"exploration": {"policy": {"use": "beta_thompson"}}})
    learner = stage.installation.learner
    decision = stage.explore(ITEMS, SCORES, slots=3)
    assert decision.policy_version == 0
    before = learner.snapshot
    stage.reward(decision.decision_id, slot=1)
    learner.step()
    assert learner.snapshot is not before
    assert learner.stats.folded == 1
    later = stage.explore(ITEMS, SCORES, slots=3)
    assert later.policy_version == learner.snapshot.version == 1
    policy = stage.installation.policy
    propensities = target_propensities(stage.decision(later.decision_id), policy, learner.snapshot)
    np.testing.assert_allclose(propensities, later.propensities, rtol=1e-12)


def test_slots_learn_which_strategy_earned(open_books: OpenStage) -> None:
    """Strategies read the ranker's columns; the log names who chose each item, and has what replay needs."""
    strategies = ["score", "similarity", "-item_events", "random"]
    policy = {"use": "slot_strategies", "strategies": strategies, "floor": 0.01}
    stage = open_books({"exploration": {"slots": "all", "policy": policy}})
    learner = stage.installation.learner
    before = learner.snapshot
    decision = stage.rank(user_id="reader-1", slots=3)
    record = stage.decision(decision.decision_id)
    assert record.columns.keys() == {"similarity", "item_events"}
    named = record.slate.strategies
    assert set(named) <= {*strategies, ""}
    again = target_propensities(record, stage.installation.policy, before)
    np.testing.assert_allclose(again, decision.propensities, rtol=1e-12)
    assert replay(record, stage.installation.policy, before).strategies == named
    stage.shown(decision.decision_id, decision.items)
    for slot in range(3):
        stage.reward(decision.decision_id, slot=slot)
    learner.step(record.request.time + 1e9)
    state = learner.snapshot
    counted = dict(zip(state.item_ids.tolist(), state.counts.tolist(), strict=True))
    assert counted == {f"{slot}:{name}": 1.0 for slot, name in enumerate(named) if name}


def test_shown_slots_without_reward_earn_the_default_at_the_horizon(open_stage: OpenStage) -> None:
    stage = open_stage({"exploration": {"policy": {"use": "beta_thompson"}}, "feedback": {"horizon_s": 60.0}})
    learner = stage.installation.learner
    decision = stage.explore(ITEMS, SCORES, slots=4)
    stage.shown(decision.decision_id, decision.items[:3])
    stage.reward(decision.decision_id, slot=0)
    learner.step(time.time() + 61.0)
    assert learner.stats.folded == 3  # one reward, two defaults; the fourth slot was not shown
    assert learner.stats.open == 0


def test_a_changed_order_is_kept_out_of_learning(open_stage: OpenStage) -> None:
    stage = open_stage({"feedback": {"horizon_s": 60.0}})
    decision = stage.explore(ITEMS, SCORES, slots=3)
    stage.shown(decision.decision_id, decision.items[::-1])
    stage.reward(decision.decision_id, slot=0)
    stage.installation.learner.step(time.time() + 61.0)
    stats = stage.installation.learner.stats
    assert (stats.folded, stats.order_changed) == (0, 1)


def test_the_users_interest_follows_rewards(open_books: OpenStage) -> None:
    stage = open_books({"exploration": {"mode": "off"}, "ranker": None, "guards": [{"use": "already_seen"}]})
    first = stage.rank(user_id="newcomer", slots=60)
    assert not any("similar_to_history" in sources for sources in first.sources)
    stage.reward(first.decision_id, item_id="space-3")
    second = stage.rank(user_id="newcomer", slots=4)
    assert all(item.startswith("space-") for item in second.items)
    assert "space-3" not in second.items
    stage.reward(second.decision_id, slot=0)
    third = stage.rank(user_id="newcomer", slots=60)
    assert {"space-3", second.items[0]}.isdisjoint(third.items)
    assert stage.rank(user_id="somebody-else", slots=60).items.count("space-3") == 1


def test_a_stored_history_counts_as_seen(open_books: OpenStage) -> None:
    stage = open_books({"guards": [{"use": "already_seen"}]})
    decision = stage.rank(user_id="reader-1", slots=60)
    history = stage.decision(decision.decision_id).request.context["history"]
    assert len(history) == 30
    assert set(history).isdisjoint(decision.items)
    assert len(decision.items) == 30


# ---- the rest -------------------------------------------------------------------------------------------


async def test_the_awaitable_twins_do_the_same(open_stage: OpenStage) -> None:
    stage = open_stage({"exploration": {"policy": {"use": "linear_thompson", "dim": 2}}})
    decision = await stage.aexplore(ITEMS, SCORES, np.ones((20, 2)), user_id="u", slots=3)
    assert_consistent(stage, decision, 3)
    assert len((await stage.arank(user_id="u")).items) == 0
    await stage.ashown(decision.decision_id, decision.items)
    assert await stage.areward(decision.decision_id, slot=0)
    assert not await stage.areward(decision.decision_id, item_id=decision.items[0])
    assert await stage.aexplain(decision.decision_id) == stage.explain(decision.decision_id)
    with pytest.raises(InvalidRequest):
        await stage.arank(slots=-1)
    await stage.aclose()
    with pytest.raises(UnknownDecision):
        await stage.areward("never-made", slot=0)


async def test_ranking_is_awaitable_on_real_features(open_books: OpenStage) -> None:
    decision = await open_books().arank(user_id="reader-1", slots=5)
    assert len(decision.items) == 5
    assert decision.fallbacks == ()


def test_closing_twice_is_harmless(open_stage: OpenStage) -> None:
    stage = open_stage()
    stage.close()
    stage.close()


def test_status_is_plain_json(open_books: OpenStage) -> None:
    stage = open_books()
    told = orjson.loads(orjson.dumps(stage.status()))
    assert told["policy"] == "linear_thompson"
    assert told["mode"] == "live"
    assert told["refused_artefacts"] == {}
    assert {plugin["state"] for plugin in told["plugins"]} == {"active"}
    assert told["versions"]["ranker"]
    assert told["versions"]["catalogue"]


def test_guards_read_feature_columns_and_sources_by_name(open_books: OpenStage) -> None:
    """A slot guard sees what the ranker sees, so that a rule over features needs no lookup of its own."""
    seen: dict[str, Any] = {}

    class Reads:
        def eligible(self, request, batch, placed, slot):
            seen.update(batch.columns)
            return np.ones(len(batch), dtype=bool)

    class Plugin:
        @hookimpl
        def ranking_register_components(self, registry):
            registry.guard("reads", Reads)

    stage = open_books({"guards": [{"use": "reads"}]}, plugins=[Plugin()])
    decision = stage.rank(user_id="reader-1", slots=3)
    n = len(stage.decision(decision.decision_id).item_ids)
    assert {"similarity", "item_events", "source_bits"} <= seen.keys()
    assert all(len(column) == n for column in seen.values())
