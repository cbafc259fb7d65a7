"""Regret is accounted for by hand, and so are replays, intervals and what theory says. No contestant is judged."""

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

REPOSITORY = Path(__file__).parents[2]
MODULES = (
    "worlds",
    "play",
    "logs",
    "theory",
    "summary",
    "tournament",
    "worker",
    "design",
    "open_bandit",
    "page",
)


@pytest.fixture(scope="module")
def regret() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        modules = {name: importlib.import_module(f"benchmarks.regret.{name}") for name in MODULES}
        yield SimpleNamespace(**modules)


class Scripted:
    """Chooses by a list, and writes down what it is told after which choice."""

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = list(choices)
        self.told: list[tuple[int, list[int], list[int], list[float]]] = []
        self.now = -1

    def choose(self, time: int) -> int:
        self.now = time
        return self.choices[time % len(self.choices)]

    def learn(self, times: Sequence[int], positions: Sequence[int], rewards: Sequence[float]) -> None:
        self.told.append((self.now, list(times), list(positions), list(rewards)))


def clicks(regret: SimpleNamespace, arrival: Any) -> Any:
    nothing, nobody = np.zeros((0, 0)), np.zeros((0, 0), np.int64)
    noise = np.array([0.4, 0.1, 0.9, 0.3])
    return regret.worlds.World(
        "arms", np.array([[0.5, 0.2]]), noise, True, np.asarray(arrival), nothing, nobody
    )


def test_regret_is_what_is_forgone_in_expectation_and_rewards_follow_the_noise(
    regret: SimpleNamespace,
) -> None:
    bandit = Scripted([0, 1, 0, 1])

    played = regret.play.play(clicks(regret, [0, 1, 2, 3]), lambda _seen, _seed: bandit, seed=0)

    assert played.regret.tolist() == pytest.approx([0.0, 0.3, 0.3, 0.6])
    # 0.4 < 0.5, 0.1 < 0.2, 0.9 > 0.5, 0.3 > 0.2
    assert [told[3] for told in bandit.told] == [[1.0], [1.0], [0.0], [0.0]]
    assert played.earned == 2.0


def test_late_rewards_are_told_in_order_and_the_last_ones_never(regret: SimpleNamespace) -> None:
    bandit = Scripted([1, 0, 0, 0])

    regret.play.play(clicks(regret, regret.worlds.late(4, 2)), lambda _seen, _seed: bandit, seed=0)

    assert bandit.told == [(2, [0], [1], [0.0]), (3, [1], [0], [1.0])]


def test_batches_are_told_at_their_end(regret: SimpleNamespace) -> None:
    bandit = Scripted([0])

    regret.play.play(clicks(regret, regret.worlds.in_batches(4, 2)), lambda _seen, _seed: bandit, seed=0)

    assert [(told[0], told[1]) for told in bandit.told] == [(1, [0, 1]), (3, [2, 3])]


def test_a_mean_that_changes_is_compared_with_the_best_of_its_round(regret: SimpleNamespace) -> None:
    features = np.array([[1.0, 0.0], [0.0, 1.0]])
    truth = np.array([[1.0, 0.0], [0.0, 3.0]])  # in each of two rounds
    rng = np.random.default_rng(0)
    offered = regret.worlds.fixed(2, 2)

    world = regret.worlds.shared(features, offered, truth, 0.0, np.arange(2), rng)

    assert [world.regret(0, 1), world.regret(1, 0)] == [1.0, 3.0]
    assert world.reward(1, 1) == 3.0


def test_churning_replaces_the_oldest(regret: SimpleNamespace) -> None:
    offered = regret.worlds.churning(rounds=4, arms=3, every=2, replaced=1)

    assert offered.tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2, 3]]


def test_classes_pay_the_right_name_and_shorter_sets_are_gone_through_again(regret: SimpleNamespace) -> None:
    features, labels = np.array([[0.0], [2.0], [4.0]]), np.array([0, 1, 1])

    world = regret.worlds.classification(features, labels, 6, np.random.default_rng(3))

    assert world.features[:, 1].tolist() == [1.0] * 6
    for time in range(6):
        right = int(world.features[time, 0] > -1.0)  # the first row is the lowest
        assert (world.reward(time, right), world.reward(time, 1 - right)) == (1.0, 0.0)
        assert (world.regret(time, right), world.regret(time, 1 - right)) == (0.0, 1.0)
    assert np.sort(world.features[:3, 0]).tolist() == np.sort(world.features[3:, 0]).tolist()


def test_a_world_is_the_same_for_another_interpreter(regret: SimpleNamespace, tmp_path: Path) -> None:
    recipe = regret.worlds.recipes({})["churning"]
    world = regret.worlds.build("churning", recipe, seed=4, rounds=20)
    regret.worlds.save(world, tmp_path / "world.npz")

    read, again = regret.worlds.load(tmp_path / "world.npz"), regret.worlds.build("churning", recipe, 4, 20)

    assert (read.kind, read.clicks) == ("shared", False)
    for name in ("means", "noise", "arrival", "features", "offered"):
        np.testing.assert_array_equal(getattr(read, name), getattr(world, name))
        np.testing.assert_array_equal(getattr(again, name), getattr(world, name))


def test_every_world_can_be_played(regret: SimpleNamespace) -> None:
    data = {"iris/x": np.random.default_rng(0).normal(size=(30, 4)), "iris/y": np.arange(30) % 3}
    recipes = regret.worlds.recipes(data)
    assert "iris" in recipes
    assert "digits" not in recipes  # its data is not there

    for name, recipe in recipes.items():
        world = regret.worlds.build(name, recipe, seed=0, rounds=4)
        played = regret.play.play(world, lambda _seen, _seed: Scripted([0, 1]), seed=0)
        assert len(played.regret) == 4
        assert (np.diff(played.regret) >= 0.0).all()
        assert (np.diff(world.arrival) >= 0).all(), name


def test_a_replay_counts_and_teaches_the_rows_that_match(regret: SimpleNamespace) -> None:
    log = regret.logs.Log(3, np.array([0, 1, 2, 0, 1, 0]), np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0]))
    bandit = Scripted([0])

    found = regret.logs.replay(log, lambda _seen, _seed: bandit, seed=5)

    assert (found.matched, found.earned) == (3, 2.0)
    assert [told[2] for told in bandit.told] == [[0]] * 3
    assert sorted(told[3][0] for told in bandit.told) == [0.0, 1.0, 1.0]
    order = np.random.default_rng(5).permutation(6)
    assert [told[0] for told in bandit.told] == [at for at, row in enumerate(order) if row in {0, 3, 5}]


def test_a_replay_estimates_a_fixed_policy_without_bias(regret: SimpleNamespace) -> None:
    """Arms earn 0.2 and 0.6 in 4,000 random rows; choosing in turn earns 0.4.

    About 2,000 rows match, so that the mean lies within 4.5 standard deviations, 0.05: once in 100,000.
    """
    rng = np.random.default_rng(11)
    shown = rng.integers(2, size=4_000)
    log = regret.logs.Log(2, shown, (rng.random(4_000) < np.array([0.2, 0.6])[shown]).astype(float))

    found = regret.logs.replay(log, lambda _seen, _seed: Scripted([0, 1]), seed=1)

    assert found.earned / found.matched == pytest.approx(0.4, abs=0.05)


def test_clopper_and_pearson(regret: SimpleNamespace) -> None:
    # Without a click in n rows the upper end is 1 - 0.025^(1/n).
    assert regret.open_bandit.interval(0.0, 10.0) == (0.0, pytest.approx(1.0 - 0.025**0.1))
    assert regret.open_bandit.interval(10.0, 10.0) == (pytest.approx(0.025**0.1), 1.0)


def test_lai_and_robbins_by_hand(regret: SimpleNamespace) -> None:
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)

    assert regret.theory.divergence(0.25, 0.5) == pytest.approx(divergence)
    assert regret.theory.divergence(0.0, 0.5) == pytest.approx(math.log(2.0))
    constant = regret.theory.lai_robbins(np.array([0.5, 0.25, 0.5, 0.25]))
    assert constant == pytest.approx(2 * 0.25 / divergence)


def test_growth_and_slope_of_known_curves(regret: SimpleNamespace) -> None:
    rounds = np.arange(1.0, 1_001.0)

    assert regret.theory.growth(7.0 * np.sqrt(rounds), rounds) == pytest.approx(0.5)
    assert regret.theory.growth(7.0 * rounds, rounds) == pytest.approx(1.0)
    assert regret.theory.slope(7.0 * np.log(rounds) + 3.0, rounds) == pytest.approx(7.0)


def test_the_interval_of_a_mean(regret: SimpleNamespace) -> None:
    # Student's 97.5 % point with 3 degrees of freedom is 3.18245; the deviation is sqrt(5/3).
    found = regret.summary.Interval.of(np.array([1.0, 2.0, 3.0, 4.0]))

    half = 3.182446305284263 * math.sqrt(5.0 / 3.0) / 2.0
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


def result(regret: SimpleNamespace, library: str, contestant: str, tuned: float, ends: list[float]) -> Any:
    curves = np.array([[0.0, end] for end in ends])
    return regret.tournament.Result(library, contestant, "s", {"s": tuned}, curves, 1.0)


def outcome(regret: SimpleNamespace, *results: Any) -> Any:
    recipe = regret.worlds.Recipe("A world", "It is one.", 2, lambda _rng, _rounds: None)
    return regret.tournament.Outcome(recipe, 2, results)


def test_the_best_of_either_side_are_compared_seed_by_seed(regret: SimpleNamespace) -> None:
    played = outcome(
        regret,
        result(regret, "explorank", "worse", 1.0, [9.0, 9.0, 9.0]),
        result(regret, "explorank", "best", 2.0, [5.0, 6.0, 7.0]),
        result(regret, "other", "worse", 1.0, [9.0, 9.0, 9.0]),
        result(regret, "other", "best", 2.0, [4.0, 5.1, 6.0]),
    )

    found = regret.summary.compare(played)

    assert (found.ours.contestant, found.theirs.contestant) == ("best", "best")
    assert found.difference.mean == pytest.approx((1.0 + 0.9 + 1.0) / 3.0)
    assert found.verdict == "MORE"
    assert regret.summary.compare(outcome(regret, played.results[0])) is None
    assert [each.library for each in regret.summary.best_of_each(played)] == ["explorank", "other"]


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([1.0, 2.0, 3.0], [2.0, 3.1, 4.0], "less"),
        ([1.0, 2.0, 3.0], [2.0, 1.0, 4.0], "no difference shown"),
        ([2.0, 3.1, 4.0], [1.0, 2.0, 3.0], "MORE"),
    ],
)
def test_a_verdict_is_that_of_the_paired_interval(
    regret: SimpleNamespace, ours: list[float], theirs: list[float], verdict: str
) -> None:
    played = outcome(
        regret, result(regret, "explorank", "a", 1.0, ours), result(regret, "other", "b", 1.0, theirs)
    )

    assert regret.summary.compare(played).verdict == verdict
    assert f"| {verdict} |" in regret.summary.verdicts({"world": played})[-1]


def test_the_worker_answers_line_by_line(regret: SimpleNamespace, tmp_path: Path) -> None:
    recipe = regret.worlds.recipes({})["linear"]
    world = regret.worlds.build("linear", recipe, seed=2, rounds=30)
    regret.worlds.save(world, tmp_path / "world.npz")
    job = {
        "library": "explorank",
        "world": str(tmp_path / "world.npz"),
        "contestant": "lin_ucb",
        "setting": "as it comes",
        "seed": 2,
    }
    jobs = [
        {"list": "shared", "changing": True},
        job,
        {**job, "setting": "no such setting"},
        {**job, "contestant": "logistic_thompson"},
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.regret.worker", "explorank"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        input="".join(json.dumps(each) + "\n" for each in jobs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    listed, played, failed, unfit = map(json.loads, ended.stdout.splitlines())

    assert any("half-life" in setting for setting in listed["settings"]["linear_thompson"])
    entry = regret.worker.entries("explorank", "shared", changing=False)["lin_ucb"]["as it comes"]
    expected = regret.play.play(world, entry, seed=2)
    assert played["regret"] == pytest.approx(expected.regret.tolist(), abs=1e-3)
    assert played["earned"] == pytest.approx(expected.earned)
    assert {name: played[name] for name in job} == job
    assert "KeyError" in failed["error"]
    assert "unfit" in unfit


def test_what_has_been_played_is_not_played_again(regret: SimpleNamespace, tmp_path: Path) -> None:
    job = {"library": "l", "world": "w", "contestant": "c", "setting": "s", "seed": 1}
    path = tmp_path / "played.jsonl"
    asked = []

    def ask(given: Any) -> dict[str, Any]:
        asked.append(given["seed"])
        return {**given, "regret": [1.0], "seconds": 60.0}

    first = regret.tournament.Ledger(path)
    first.played(job, ask)
    first.played(job, ask)
    second = regret.tournament.Ledger(path)
    second.played({**job, "seed": 2}, ask)

    assert second.played(job, ask)["regret"] == [1.0]
    assert asked == [1, 2]
    assert (first.cpu_minutes, second.cpu_minutes) == (1.0, 2.0)


def test_settings_are_chosen_on_other_seeds_than_they_are_judged_by(regret: SimpleNamespace) -> None:
    run = regret.tournament.Run()

    assert len(run.testing) >= 20
    assert not set(run.testing) & set(run.tuning)


def test_the_run_writes_tables_results_and_curves(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "benchmarks.regret", "--quick", "--libraries"]
    written = ["--json", tmp_path / "r.json", "--plots", tmp_path / "plots", "--folder", tmp_path / "work"]
    ended = subprocess.run(
        [*command, *written, "--worlds", "spaced", "linear"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    results = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))

    assert "explorank linear_thompson" in ended.stdout
    assert "Lai and Robbins" in ended.stdout
    assert set(results["worlds"]) == {"spaced", "linear"}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"arms.svg", "linear.svg"}
    assert "explorank" in (tmp_path / "plots" / "arms.svg").read_text(encoding="utf-8")


def contest(policy: Any, state: Any, features: Any, seed: int) -> Any:
    from explorank.hooks.exploration import RankingBatch

    batch = RankingBatch(np.arange(len(features)), features)
    everyone = np.ones(len(features), np.bool_)
    rng = np.random.default_rng(seed)
    return policy.contest(state, batch, everyone, rng).distribution(everyone)


def test_the_first_variant_is_the_policy_itself(regret: SimpleNamespace) -> None:
    from explorank.hooks.exploration import LinearThompson

    features = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    plain = LinearThompson(dim=4, pool=10)
    variant = regret.design.Variant(dim=4, pool=10)

    for seed in range(5):
        np.testing.assert_array_equal(
            contest(variant, variant.initial_state(), features, seed),
            contest(plain, plain.initial_state(), features, seed),
        )


def test_variants_differ_in_what_they_say(regret: SimpleNamespace) -> None:
    """Twins share every joint draw; on their own they agree in none. Half of the width is half of it."""
    policy = regret.design.Variant(dim=3)
    state = policy.initial_state()
    features = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.float32)
    rows = np.arange(3)

    def of(kind: Any) -> Any:
        return kind(state, features, 4_000, np.random.default_rng(7))

    joint = of(regret.design._Joint).draws(rows)
    apart = of(regret.design._Independent).draws(rows)
    narrow = of(regret.design._Narrow).draws(rows)

    np.testing.assert_array_equal(joint[:, 0], joint[:, 1])
    # Correlation of independent draws: within 5 standard deviations of 0, 5 / sqrt(4,000).
    assert abs(np.corrcoef(apart[:, 0], apart[:, 1])[0, 1]) < 0.08
    # A standard deviation is known to 1 / sqrt(8,000): five of those.
    np.testing.assert_allclose(apart.std(axis=0), [1.0, 1.0, 2.0], rtol=0.056)
    np.testing.assert_allclose(narrow, joint / 2.0)
    np.testing.assert_array_equal(of(regret.design._ByMean).optimistic(rows), [0.0, 0.0, 0.0])


def test_what_was_measured_goes_between_its_marks(regret: SimpleNamespace) -> None:
    page = regret.page
    text = f"Before.\n{page.mark('a')}\nold\n{page.END}\nbetween\n{page.mark('b')}\n{page.END}\nAfter.\n"

    filled = page.filled(text, {"a": ["new", "lines"], "b": ["more"]})

    assert filled == (
        f"Before.\n{page.mark('a')}\nnew\nlines\n{page.END}\nbetween\n{page.mark('b')}\nmore\n{page.END}\nAfter.\n"
    )
    assert page.filled(filled, {"a": ["new", "lines"]}) == filled
    with pytest.raises(ValueError, match="'c'"):
        page.filled(text, {"c": []})


def test_the_page_has_a_place_for_everything(regret: SimpleNamespace) -> None:
    text = (REPOSITORY / "docs" / "regret.md").read_text(encoding="utf-8")

    for section in ("run", "verdicts", "theory", "everyone", "design", "replay"):
        assert regret.page.mark(section) in text


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_labels_keep_their_order_and_their_distance(heights: list[float], gap: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY)
        apart = importlib.import_module("benchmarks.plotting").apart
    wanted = np.sort(np.array(heights))

    moved = apart(wanted, gap)

    assert (np.diff(moved) >= gap - 1e-9).all()
    if (np.diff(wanted) >= gap).all():
        np.testing.assert_allclose(moved, wanted, atol=1e-9)


def test_an_environment_that_is_not_built_is_named(
    regret: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    foreign = importlib.import_module("benchmarks.foreign")
    monkeypatch.setattr(foreign, "ENVIRONMENTS", tmp_path)

    assert foreign.available(foreign.LIBRARIES) == []
    with pytest.raises(FileNotFoundError, match=r"'gittins' is not built.*python -m benchmarks\.foreign"):
        foreign.interpreter("gittins")
    assert all("==" in pin for pins in foreign.PINS.values() for pin in pins)
