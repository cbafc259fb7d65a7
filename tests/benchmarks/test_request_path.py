"""The benchmark of the request path runs whole, and its world is what it says. No speed is judged."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY)
    from benchmarks.request_path import world

    return world


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    written = tmp_path / "request_path.json"
    small = {"items": 400, "dim": 16, "users": 30, "features": 10, "trees": 3, "candidates": 40, "slots": 10}
    sizes = [argument for name, value in small.items() for argument in (f"--{name}", str(value))]
    options = [
        "--quick",
        "--http",
        "--online-store",
        "sqlite",
        "--folder",
        str(tmp_path),
        "--json",
        str(written),
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.request_path", *sizes, *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    results = json.loads(written.read_text())
    steps = {"retrieve", "features", "score", "explore", "serialise"}
    times = results["in_process"]["us"]
    assert (
        times["floors"].keys() == times["naive, flat"].keys() == times["naive, chosen index"].keys() == steps
    )
    assert times["explorank"].keys() == steps | {"guards", "log", "rest"}
    assert all(min(each) >= 0 for contestant in times.values() for each in contestant.values())
    assert results["http"].keys() == {"bare Starlette", "Explorank", "naive, flat"}
    assert len(results["http"]["Explorank"]["in_process_us"]) == len(results["http"]["Explorank"]["alone_us"])
    for line in ("retrieve", "whole, p50", "whole, p99", "bare Starlette"):
        assert f"\n| {line} " in done.stdout


def test_a_smaller_world_is_the_beginning_of_a_larger_one(world: ModuleType, tmp_path: Path) -> None:
    small, large = (
        world.World(world.Size(items=items, dim=24, users=20, features=10, trees=2), tmp_path)
        for items in (300, 900)
    )
    np.testing.assert_array_equal(small.item_features, large.item_features[:300])
    np.testing.assert_array_equal(small.item_ids, large.item_ids[:300])
    np.testing.assert_array_equal(small.user_features, large.user_features)


def test_the_world_has_clusters_and_users_who_like_some(world: ModuleType, tmp_path: Path) -> None:
    made = world.World(world.Size(items=3_000, dim=48, users=40, features=20, trees=2), tmp_path)
    vectors = np.array(made.vectors)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    # Unrelated unit vectors of 48 dimensions have cosines of 0 +- 0.14; the best of 3,000 is about 0.5.
    assert np.median(cosines.max(axis=1)) > 0.6
    assert abs(np.median(cosines)) < 0.2
    assert made.histories.shape == (40, 20)
    near = np.einsum("ud,uhd->uh", made.user_vectors, vectors[made.histories])
    others = made.user_vectors @ vectors.T
    assert np.median(near) > np.quantile(others, 0.95)
    assert np.isnan(made.item_features).mean() == pytest.approx(0.02, abs=0.005)


def test_the_world_is_kept(world: ModuleType, tmp_path: Path) -> None:
    size = world.Size(items=200, dim=16, users=10, features=10, trees=2)
    first = world.World(size, tmp_path)
    vectors, model = np.array(first.vectors), first.model
    again = world.World(size, tmp_path)
    np.testing.assert_array_equal(again.vectors, vectors)
    assert again.model == model
    other = world.World(size, tmp_path, seed=1)
    assert not np.array_equal(other.vectors, vectors)


def test_growth_is_told_and_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)
    from benchmarks.request_path import growth

    points = [
        growth.Point(
            varied=varied,
            value=value,
            p50_us={"explorank": 1.5 * value, "floors": 1.0 * value, "naive, flat": 50.0 * value},
            p99_us={"explorank": 2.5 * value},
            shares={"retrieve": 0.25, "score": 0.75},
            memory_mb={"Explorank": 300.0, "naive, flat": 1_800.0},
        )
        for varied, value in (("items", 1_000), ("items", 2_000), ("trees", 100))
    ]
    told = dict(growth.tables(points))
    assert list(told) == ["items", "trees"]
    cells = [list(column.cells) for column in told["items"].columns]
    assert cells == [
        ["1,000", "2,000"],
        ["1,500", "3,000"],
        ["2,500", "5,000"],
        ["1,000", "2,000"],
        ["50,000", "100,000"],
        ["25%", "25%"],
        ["75%", "75%"],
        ["300", "300"],
        ["1,800", "1,800"],
    ]
    growth.draw(points, tmp_path / "growth.svg")
    drawn = (tmp_path / "growth.svg").read_text()
    assert "p50 in ms, by items" in drawn
    assert "naive, flat" in drawn
