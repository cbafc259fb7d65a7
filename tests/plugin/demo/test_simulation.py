"""The simulated loop: the same visits for all, real rewards, repeatable, and learning that pays where it can."""

from collections.abc import Sequence

import numpy as np
import pytest

from explorank.demo.result import DemoResult
from explorank.demo.simulation import SLOTS, Run, simulate
from explorank.demo.visitors import Visitor

NAMES = ["no exploration", "ε-greedy", "Beta Thompson", "linear, greedy", "linear Thompson"]


def planted_world(users: int = 80, items: int = 24, seed: int = 4) -> list[Visitor]:
    """Return visitors whose likes follow one linear model that the scores know nothing of."""
    random = np.random.default_rng(seed)
    wanted = np.array([0.0, 1.5, -1.0, 0.8])
    visitors = []
    for _ in range(users):
        features = random.normal(size=(items, 4)).astype(np.float32)
        features[:, 0] = 1.0
        liked = random.random(items) < 1.0 / (1.0 + np.exp(-3.0 * (features @ wanted)))
        visitors.append(
            Visitor(
                item_ids=np.array([f"i{item}" for item in random.choice(300, items, replace=False)]),
                scores=random.normal(size=items),
                features=features,
                rewards=liked.astype(np.float64),
            )
        )
    return visitors


@pytest.fixture(scope="module")
def world() -> list[Visitor]:
    return planted_world()


@pytest.fixture(scope="module")
def runs(world: list[Visitor]) -> list[Run]:
    return simulate(world, seeds=4)


def ends(runs: Sequence[Run], policy: str) -> np.ndarray:
    return np.array([run.cumulative_reward[-1] for run in runs if run.policy == policy])


def test_every_policy_runs_once_with_each_seed(runs: list[Run]) -> None:
    assert [(run.seed, run.policy) for run in runs] == [(seed, name) for seed in range(4) for name in NAMES]


def test_rewards_and_coverage_are_within_their_bounds(runs: list[Run], world: list[Visitor]) -> None:
    liked = sum(visitor.rewards.sum() for visitor in world)
    for run in runs:
        earned = np.diff(run.cumulative_reward, prepend=0.0)
        assert earned.min() >= 0
        assert earned.max() <= SLOTS
        assert run.cumulative_reward[-1] <= liked
        assert (np.diff(run.coverage) >= 0).all()
        assert 0 < run.coverage[0] <= run.coverage[-1] <= 1
        assert len(run.coverage) == 80 * (24 // (2 * SLOTS))


def test_all_policies_of_a_seed_see_the_same_visits(world: list[Visitor]) -> None:
    # Whoever has exactly one slate's worth of items must be shown all of them: what a visit earns is then
    # the visitor's own, whatever the policy, and tells who came.
    few = [
        Visitor(v.item_ids[:SLOTS], v.scores[:SLOTS], v.features[:SLOTS], v.rewards[:SLOTS]) for v in world
    ]

    runs = simulate(few, seeds=3)

    by_seed = {seed: {tuple(run.cumulative_reward) for run in runs if run.seed == seed} for seed in range(3)}
    assert [len(curves) for curves in by_seed.values()] == [1, 1, 1]
    assert len(set.union(*by_seed.values())) == 3


def test_a_seed_repeats_a_run(world: list[Visitor], runs: list[Run]) -> None:
    again = simulate(world, seeds=1)

    for run, before in zip(again, runs, strict=False):
        np.testing.assert_array_equal(run.cumulative_reward, before.cumulative_reward)
        np.testing.assert_array_equal(run.coverage, before.coverage)


def test_no_exploration_shows_the_best_scores(world: list[Visitor]) -> None:
    # Likes are the scores' own order here: every visit's best five are liked, so the reference loses nothing.
    perfect = [
        Visitor(v.item_ids, v.scores, v.features, (v.scores >= np.sort(v.scores)[-10]).astype(np.float64))
        for v in world
    ]

    runs = simulate(perfect, seeds=2)

    np.testing.assert_array_equal(ends(runs, "no exploration"), [80 * 2 * SLOTS] * 2)


def test_learning_beats_a_ranker_that_knows_nothing(runs: list[Run], world: list[Visitor]) -> None:
    # Scores are noise, so "no exploration" earns what uniform choice would: each shown item is liked with
    # the overall share p. Five standard errors of a binomial mean over one run (error rate below 1e-6).
    shown = 80 * 2 * SLOTS
    share = np.mean([visitor.rewards.mean() for visitor in world])
    uniform, error = share * shown, np.sqrt(share * (1 - share) * shown)
    assert (np.abs(ends(runs, "no exploration") - uniform) < 5 * error).all()

    # The planted model is linear: both linear policies gain far more than chance in every seed. The rest
    # of the world's likes bounds what anybody could earn, so this is regret below half of uniform's.
    best = sum(min(2 * SLOTS, visitor.rewards.sum()) for visitor in world)
    for policy in ("linear, greedy", "linear Thompson"):
        assert (best - ends(runs, policy) < 0.5 * (best - uniform)).all()


def test_progress_counts_the_runs(world: list[Visitor]) -> None:
    seen: list[tuple[int, int]] = []

    simulate(world[:5], seeds=2, progress=lambda done, total: seen.append((done, total)))

    assert seen == [(done, 10) for done in range(1, 11)]


def test_gains_are_against_no_exploration_under_the_same_seed() -> None:
    def run(policy: str, seed: int, end: float) -> Run:
        return Run(policy, seed, np.array([0.0, end]), np.array([0.1, 0.5]))

    result = DemoResult(
        data_name="",
        data_note="",
        positive_from=1.0,
        split="",
        runs=[
            run("no exploration", 0, 10),
            run("other", 0, 13),
            run("no exploration", 1, 20),
            run("other", 1, 23),
        ],
    )

    reference, other = result.contestants()

    assert (reference.name, reference.gain.mean, reference.reward.mean) == ("no exploration", 0.0, 15.0)
    assert (other.gain.low, other.gain.mean, other.gain.high) == (3.0, 3.0, 3.0)
    assert result.seeds == 2


def test_without_runs_there_are_no_contestants() -> None:
    assert DemoResult(data_name="", data_note="", positive_from=1.0, split="").contestants() == []
