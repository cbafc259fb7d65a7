"""A running stage searches a learnt space: after each event, and the newest one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from explorank import Decision, Stage, load
from explorank.artefacts import ArtefactStore
from explorank.checks import run_checks
from explorank.retrieval import Catalogue
from explorank.retrieval.collaborative import (
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    SASRec,
    SASRecOptions,
)
from explorank.retrieval.collaborative.sasrec.training import Network
from explorank.settings import Settings, parse_settings

ITEMS = np.array([f"i{number}" for number in range(6)])
SETTINGS: dict[str, Any] = {
    "version": 1,
    "ranker": None,
    "retrieval": {
        "learned_embeddings": {"log": True},
        "retrievers": [{"use": "learned_embeddings", "k": 2}],
    },
    "exploration": {"mode": "off", "policy": {"use": "uniform"}},
}


def catalogue(factors: list[list[float]] | None) -> Catalogue:
    """Return six items, with these factors in two dimensions where there are any."""
    space = None
    if factors is not None:
        options = ImplicitALSOptions(factors=2, l2=0.1, confidence=50.0)
        space = EmbeddingSpace.build(ImplicitALS(ITEMS, np.array(factors), options))
    return Catalogue.build(ITEMS, np.eye(6), embeddings=space)


EAST_AND_NORTH = [[1, 0], [0.9, 0], [0.8, 0], [0, 1], [0, 0.9], [0, 0]]
"""The last one was never taken up."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return parse_settings(SETTINGS, tmp_path)


@pytest.fixture
def store(settings: Settings) -> ArtefactStore:
    return ArtefactStore(settings.folder_path / "artefacts")


@pytest.fixture
def stage(settings: Settings, store: ArtefactStore) -> Iterator[Stage]:
    store.publish("catalogue", catalogue(EAST_AND_NORTH).save)
    with load(settings) as stage:
        yield stage


def rank(stage: Stage, *history: str, **request: Any) -> Decision:
    return stage.rank(context={"history": history}, slots=6, **request)


def test_a_history_finds_what_is_near(stage: Stage) -> None:
    decision = rank(stage, "i0")
    assert decision.items == ("i1", "i2")
    assert decision.sources == (("learned_embeddings",), ("learned_embeddings",))
    assert rank(stage, "i0", exclude=["i1"]).items[0] == "i2"
    assert rank(stage, similar_to="i3").items[0] == "i4"
    assert rank(stage).items == rank(stage, "gone").items == rank(stage, "i5").items == ()


def test_the_next_request_follows_an_event(stage: Stage) -> None:
    assert rank(stage, "i0", user_id="ann").items == ("i1", "i2")
    with_other = stage.explore(["i3"], [1.0], user_id="ann", slots=1)

    stage.reward(with_other.decision_id, item_id="i3")

    assert set(rank(stage, "i0", user_id="ann").items) == {"i1", "i4"}
    assert rank(stage, "i0", user_id="bob").items == ("i1", "i2")


def following() -> SASRec:
    """Return a transformer that looks where the newest item lies: i3 is near to i0, i4 to i1, and i5 to i2."""
    near = [[1, -1, 0, 0], [0, 0, 1, -1], [-1, 1, 0, 0]]
    apart = [[1, -0.8, -0.1, -0.1], [0, -0.1, 1, -0.9], [-1, 0.9, 0.1, 0]]
    options = SASRecOptions(dim=4, heads=2, history=3)
    network = Network(len(ITEMS), options)
    with torch.no_grad():
        network.item_ids.weight[: len(ITEMS)] = torch.tensor(near + apart)
        network.positions.zero_()
        for block in network.blocks:
            block.attended.weight.zero_()
            block.output.weight.zero_()
            block.attended.bias.zero_()
            block.output.bias.zero_()
    return SASRec(ITEMS, network.arrays(), options.heads, {})


def test_a_model_that_reads_the_order_has_the_newest_event_last(stage: Stage, store: ArtefactStore) -> None:
    space = EmbeddingSpace.build(following())
    store.publish("catalogue", Catalogue.build(ITEMS, np.eye(6), embeddings=space).save)
    stage.installation.refresh()

    assert rank(stage, "i0", "i1", user_id="ann").items[0] == "i4"
    assert rank(stage, "i1", "i0", user_id="ann").items[0] == "i3"
    shown = stage.explore(["i2"], [1.0], user_id="ann", slots=1)
    stage.reward(shown.decision_id, item_id="i2")
    assert rank(stage, "i0", "i1", user_id="ann").items[0] == "i5"
    assert rank(stage, "i0", "i1", user_id="bob").items[0] == "i4"


def test_a_new_space_takes_over_and_a_damaged_one_does_not(stage: Stage, store: ArtefactStore) -> None:
    store.publish("catalogue", catalogue(EAST_AND_NORTH[::-1]).save)
    stage.installation.refresh()
    assert rank(stage, "i5").items == ("i4", "i3")
    old = store.pointer("catalogue").parent / store.versions("catalogue")[0]
    shutil.rmtree(old)  # what was mapped of it is not needed any more

    damaged = store.publish("catalogue", catalogue(EAST_AND_NORTH).save)
    file = store.pointer("catalogue").parent / damaged / "learned_embeddings" / "model" / "factors.npy"
    file.write_bytes(file.read_bytes()[:-1])
    stage.installation.refresh()

    assert "factors.npy is damaged" in stage.status()["refused_artefacts"]["catalogue"]
    assert rank(stage, "i5").items == ("i4", "i3")


def test_without_a_space_decisions_and_checks_say_so(
    stage: Stage, store: ArtefactStore, settings: Settings
) -> None:
    def checked() -> tuple[str, str]:
        (found,) = (one for one in run_checks(settings) if one.name == "retrieval.learned_embeddings")
        return found.verdict, found.detail

    assert checked() == ("ok", "5 of 6 items have a place in the space of `als`")
    store.publish("catalogue", catalogue(None).save)
    stage.installation.refresh()

    (fallback,) = rank(stage, "i0").fallbacks
    assert (fallback.step, fallback.plugin, fallback.action) == ("retrieve", "learned_embeddings", "skipped")
    assert "run `explorank build --interactions FILE`" in fallback.reason
    verdict, detail = checked()
    assert verdict == "wrong"
    assert "built without a space" in detail
