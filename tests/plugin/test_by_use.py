"""A running stage finds what has the same users: after each event, and by the newest table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank import Decision, Stage, load
from explorank.artefacts import ArtefactStore
from explorank.checks import run_checks
from explorank.retrieval import Catalogue
from explorank.retrieval.collaborative import NeighbourTable
from explorank.settings import Settings, parse_settings

ITEMS = np.array([f"i{number}" for number in range(8)])
SETTINGS: dict[str, Any] = {
    "version": 1,
    "ranker": None,
    "retrieval": {"by_use": {"log": True}, "retrievers": [{"use": "similar_by_use", "k": 3}]},
    "exploration": {"mode": "off", "policy": {"use": "uniform"}},
}


def catalogue(*pairs: tuple[int, int, float]) -> Catalogue:
    """Return eight items; those of a pair have the same users, by that weight."""
    weights = np.zeros((8, 8), np.float32)
    for one, other, weight in pairs:
        weights[one, other] = weights[other, one] = weight
    table = NeighbourTable.of(ITEMS, weights, 8) if pairs else None
    return Catalogue.build(ITEMS, np.eye(8), by_use=table)


FIRST = catalogue((0, 1, 0.9), (0, 2, 0.5), (3, 4, 0.7))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return parse_settings(SETTINGS, tmp_path)


@pytest.fixture
def store(settings: Settings) -> ArtefactStore:
    return ArtefactStore(settings.folder_path / "artefacts")


@pytest.fixture
def stage(settings: Settings, store: ArtefactStore) -> Iterator[Stage]:
    store.publish("catalogue", FIRST.save)
    with load(settings) as stage:
        yield stage


def rank(stage: Stage, *history: str, **request: Any) -> Decision:
    return stage.rank(context={"history": history}, slots=8, **request)


def test_a_history_finds_its_neighbours(stage: Stage) -> None:
    assert rank(stage, "i0", "i3").items == ("i1", "i4", "i2")
    assert rank(stage, "i0", exclude=["i1"]).items == ("i2",)
    assert rank(stage, similar_to="i3").items == ("i4",)
    assert rank(stage).items == rank(stage, "gone").items == ()


def test_the_next_request_follows_an_event(stage: Stage) -> None:
    decision = rank(stage, "i0", user_id="ann")
    assert decision.items == ("i1", "i2")
    with_other = stage.explore(["i3"], [1.0], user_id="ann", slots=1)

    stage.reward(with_other.decision_id, item_id="i3")

    assert rank(stage, "i0", user_id="ann").items == ("i1", "i4", "i2")
    assert rank(stage, "i0", user_id="bob").items == ("i1", "i2")


def test_a_new_table_takes_over_and_a_damaged_one_does_not(stage: Stage, store: ArtefactStore) -> None:
    store.publish("catalogue", catalogue((0, 5, 1.0)).save)
    stage.installation.refresh()
    assert rank(stage, "i0").items == ("i5",)
    catalogue_folder = store.pointer("catalogue").parent / store.versions("catalogue")[0]
    shutil.rmtree(catalogue_folder)  # what was mapped of the old one is not needed any more

    damaged = store.publish("catalogue", catalogue((0, 6, 1.0)).save)
    file = store.pointer("catalogue").parent / damaged / "by_use" / "weights.npy"
    file.write_bytes(file.read_bytes()[:-1])
    stage.installation.refresh()

    assert "weights.npy is damaged" in stage.status()["refused_artefacts"]["catalogue"]
    assert rank(stage, "i0").items == ("i5",)


def test_without_a_table_decisions_and_checks_say_so(
    stage: Stage, store: ArtefactStore, settings: Settings
) -> None:
    def checked() -> tuple[str, str]:
        (found,) = (one for one in run_checks(settings) if one.name == "retrieval.by_use")
        return found.verdict, found.detail

    assert checked() == ("ok", "5 of 8 items have others of the same users")
    store.publish("catalogue", catalogue().save)
    stage.installation.refresh()

    (fallback,) = rank(stage, "i0").fallbacks
    assert (fallback.step, fallback.plugin, fallback.action) == ("retrieve", "similar_by_use", "skipped")
    assert "run `explorank build --interactions FILE`" in fallback.reason
    verdict, detail = checked()
    assert verdict == "wrong"
    assert "built without a table" in detail
