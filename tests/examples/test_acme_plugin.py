"""The example package installs like anyone's, and settings name what it brings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

PACKAGE = Path(__file__).parents[2] / "examples" / "acme_plugin"

SETTINGS = """\
version: 1
retrieval: {retrievers: []}
ranker: null
exploration:
  mode: live
  policy: {use: boltzmann, temperature: 0.5}
  holdout: 0.0
guards:
  - {use: at_most_per_category, categories: categories.csv, limit: 2}
"""

EXPLORE = """\
import sys
import explorank, orjson

answers = []
with explorank.load("explorank.yaml") as stage:
    for visit in range(50):
        decision = stage.explore(list("abcdef"), [6, 5, 4, 3, 2, 1], user_id=visit, slots=4)
        answers.append(decision.to_dict())
    failed = [plugin for plugin in stage.status()["plugins"] if plugin["state"] != "active"]
sys.stdout.buffer.write(orjson.dumps({"answers": answers, "failed": failed}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it, beside this environment."""
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("*.egg-info", "build"))
    arguments = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", *arguments, "--target", folder / "site", folder / "source", site=folder)
    return folder / "site"


def run(*command: str | Path, site: Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_stage_explores_with_its_policy_and_guard(site: Path, tmp_path: Path) -> None:
    (tmp_path / "explorank.yaml").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "categories.csv").write_text("a,red\nb,red\nc,red\nd,red\n", encoding="utf-8")
    told = orjson.loads(run(sys.executable, "-c", EXPLORE, site=site, cwd=tmp_path))
    assert told["failed"] == []
    for answer in told["answers"]:
        items = [item["item_id"] for item in answer["items"]]
        assert answer["policy"] == "boltzmann"
        assert len(items) == 4
        assert sum(item in "abcd" for item in items) == 2
        assert all(0 < item["propensity"] <= 1 for item in answer["items"])
    assert len({tuple(item["item_id"] for item in answer["items"]) for answer in told["answers"]}) > 1


def test_its_own_tests_pass(site: Path, tmp_path: Path) -> None:
    # Far from this repository's settings of pytest, as the package's authors would run them.
    tests = shutil.copytree(PACKAGE / "tests", tmp_path / "tests")
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, site=site, cwd=tmp_path)
