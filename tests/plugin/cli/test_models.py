"""`explorank train` with its options and `explorank models`, as somebody types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

TRAIN = ("train", "--interactions", "interactions.parquet", "-o", "rounds=15", "--tracker", "none")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(installation: Path, monkeypatch: pytest.MonkeyPatch, run_command: Run) -> Run:
    monkeypatch.chdir(installation)
    return run_command


def versions(run: Run) -> list[dict[str, object]]:
    code, out, _ = run("models", "list", "--json")
    assert code == 0
    found: list[dict[str, object]] = json.loads(out)
    return found


def test_train_list_show_promote_and_roll_back(run: Run) -> None:
    code, out, _ = run(*TRAIN, "--seed", "3", "--no-promote")
    assert code == 0
    assert "it does not serve: as asked; `explorank models promote` makes it current" in out
    assert "serves until now: NDCG@10 0." in out
    first, second = versions(run)
    assert (first["current"], second["current"]) == (True, False)
    assert second["card"]["options"]["rounds"] == 15  # type: ignore[index]

    code, out, _ = run("models", "list")
    assert code == 0
    _, *rows = out.splitlines()
    assert rows[0].strip().startswith(f"{first['version']}  current  lightgbm ")
    assert rows[1].strip().startswith("became current 20")
    assert rows[2].strip().startswith(f"{second['version']}           lightgbm ")
    assert rows[3].strip() == "was never current"

    code, out, _ = run("models", "show", str(second["version"])[:24])
    assert code == 0
    for part in ("lightgbm", "ndcg@10", "For whom", "min_data_in_leaf", "similarity"):
        assert part in out
    code, out, _ = run("models", "show", str(second["version"]), "--json")
    assert json.loads(out)["seed"] == 3

    assert run("models", "promote", str(second["version"]))[1].startswith(
        f"ranker {second['version']} serves"
    )
    assert [one["current"] for one in versions(run)] == [False, True]
    assert [one["previous"] for one in versions(run)] == [True, False]
    assert run("models", "rollback")[0] == 0
    assert [one["current"] for one in versions(run)] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*TRAIN, "--ranker", "lihgtgbm"], "Did you mean 'lightgbm'?"),
        ([*TRAIN, "-o", "num_leafs=3"], "did you mean `num_leaves`?"),
        ([*TRAIN, "-o", "rounds"], "no NAME=VALUE"),
        ([*TRAIN, "-o", "monotone=[1,"], "single quotes"),
        ([*TRAIN, "-o", "rounds=0"], "`rounds` is 0"),
        ([*TRAIN, "-o", "objective=lambdrank"], "Did you mean `lambdarank`?"),
        (["models", "promote", "29991231"], "There is no ranker of version '29991231'"),
        (["models", "rollback"], "nothing to go back to"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(run: Run, arguments: list[str], said: str) -> None:
    code, _, err = run(*arguments)
    assert code == 1
    assert err.startswith("error ")
    assert "Traceback" not in err
    assert said in err
