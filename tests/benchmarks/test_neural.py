"""The benchmarks of neural rankers run, and compare like with like. No speed is judged."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def sequence(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    return importlib.import_module("benchmarks.sequence")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "measured"), [("neural_scoring", "us"), ("text_ranking", "ms"), ("training_speed", "ours_s")]
)
def test_it_runs(name: str, measured: str, tmp_path: Path) -> None:
    written = tmp_path / "results.json"
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", written],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        timeout=900,
    )
    results = json.loads(written.read_text())["results"]
    assert results
    assert all(result[measured] > 0 for result in results)


def test_what_training_costs_is_asked_of_all_members_with_the_same_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    cost = importlib.import_module("benchmarks.training_cost")

    members = cost.options_of("blend", 2, 5)["members"]
    assert [member["use"] for member in members] == ["lightgbm", "dcn"]
    assert members[0]["num_threads"] == members[1]["training"]["num_threads"] == 2
    assert cost.options_of("bagging", 1, 5)["member"]["num_threads"] == 1

    found = cost.fit("lightgbm", 30, 1)
    assert found.rows == 300
    assert found.seconds > 0
    assert found.before_mib > found.mib >= 0


def test_requests_know_nothing_that_comes_after_them(sequence: ModuleType) -> None:
    items = np.array(list("abcdefgh"), np.str_)
    histories = sequence.Histories((tuple("abcde"), tuple("fgah")), items)
    # The request for `b` knows `a` alone, and nobody is drawn that the user took up before the last two.

    requests = histories._requests([(0, 1), (0, 2), (1, 1)], 2, seed=0, held_out=2)
    assert requests.histories == (("a",), ("a", "b"), ("f",))
    ids = np.asarray(requests.item_ids).reshape(3, 3)
    assert ids[:, 0].tolist() == ["b", "c", "g"]
    assert not set(ids[:2, 1:].ravel()) & set("abc")
    assert requests.labels.tolist() == [1, 0, 0] * 3


def test_the_last_item_is_ranked_among_what_is_new_to_the_user_and_loses_ties(sequence: ModuleType) -> None:
    histories = sequence.Histories((tuple("abc"),), np.array(list("abcdef"), np.str_))
    assert histories.ranks(0, np.array([9, 9, 3, 2, 1, 0.0])) == 0
    assert histories.ranks(0, np.array([0, 0, 3, 4, 1, 3.0])) == 2
    ndcg, hits = sequence.accuracy(np.array([0, 1, 9, 10]))
    assert ndcg == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(11), 0])
    assert hits.tolist() == [1, 1, 1, 0]
