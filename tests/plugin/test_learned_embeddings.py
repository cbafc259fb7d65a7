"""A running stage searches a learnt space: after each event, and the newest one."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch

from explorank.retrieval import Catalogue
from explorank.retrieval.collaborative import (
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    SASRec,
    SASRecOptions,
)
from explorank.retrieval.collaborative.sasrec.training import Network

ITEMS = np.array([f"i{number}" for number in range(6)])


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
def search(open_search: Any) -> Any:
    retriever = {"use": "learned_embeddings", "k": 2}
    return open_search("learned_embeddings", retriever, catalogue(EAST_AND_NORTH))


def test_a_history_finds_what_is_near(search: Any) -> None:
    decision = search.rank("i0")
    assert decision.items == ("i1", "i2")
    assert decision.sources == (("learned_embeddings",), ("learned_embeddings",))
    assert search.rank("i0", exclude=["i1"]).items[0] == "i2"
    assert search.rank(similar_to="i3").items[0] == "i4"
    assert search.rank().items == search.rank("gone").items == search.rank("i5").items == ()


def test_the_next_request_follows_an_event(search: Any) -> None:
    assert search.rank("i0", user_id="ann").items == ("i1", "i2")
    with_other = search.stage.explore(["i3"], [1.0], user_id="ann", slots=1)

    search.stage.reward(with_other.decision_id, item_id="i3")

    assert set(search.rank("i0", user_id="ann").items) == {"i1", "i4"}
    assert search.rank("i0", user_id="bob").items == ("i1", "i2")


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


def test_a_model_that_reads_the_order_has_the_newest_event_last(search: Any) -> None:
    space = EmbeddingSpace.build(following())
    search.publish(Catalogue.build(ITEMS, np.eye(6), embeddings=space))

    assert search.rank("i0", "i1", user_id="ann").items[0] == "i4"
    assert search.rank("i1", "i0", user_id="ann").items[0] == "i3"
    shown = search.stage.explore(["i2"], [1.0], user_id="ann", slots=1)
    search.stage.reward(shown.decision_id, item_id="i2")
    assert search.rank("i0", "i1", user_id="ann").items[0] == "i5"
    assert search.rank("i0", "i1", user_id="bob").items[0] == "i4"


def test_a_new_space_takes_over_and_a_damaged_one_does_not(search: Any) -> None:
    search.publish(catalogue(EAST_AND_NORTH[::-1]))
    assert search.rank("i5").items == ("i4", "i3")
    old = search.store.pointer("catalogue").parent / search.store.versions("catalogue")[0]
    shutil.rmtree(old)  # what was mapped of it is not needed any more

    search.publish(catalogue(EAST_AND_NORTH), damaged="learned_embeddings/model/factors.npy")

    assert "factors.npy is damaged" in search.stage.status()["refused_artefacts"]["catalogue"]
    assert search.rank("i5").items == ("i4", "i3")


def test_without_a_space_decisions_and_checks_say_so(search: Any) -> None:
    assert search.checked() == ("ok", "5 of 6 items have a place in the space of `als`")
    search.publish(catalogue(None))

    (fallback,) = search.rank("i0").fallbacks
    assert (fallback.step, fallback.plugin, fallback.action) == ("retrieve", "learned_embeddings", "skipped")
    assert "run `explorank build --interactions FILE`" in fallback.reason
    verdict, detail = search.checked()
    assert verdict == "wrong"
    assert "built without a space" in detail
