"""A running stage finds what has the same users: after each event, and by the newest table."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from explorank.retrieval import Catalogue
from explorank.retrieval.collaborative import NeighbourTable

ITEMS = np.array([f"i{number}" for number in range(8)])


def catalogue(*pairs: tuple[int, int, float]) -> Catalogue:
    """Return eight items; those of a pair have the same users, by that weight."""
    weights = np.zeros((8, 8), np.float32)
    for one, other, weight in pairs:
        weights[one, other] = weights[other, one] = weight
    table = NeighbourTable.of(ITEMS, weights, 8) if pairs else None
    return Catalogue.build(ITEMS, np.eye(8), by_use=table)


FIRST = catalogue((0, 1, 0.9), (0, 2, 0.5), (3, 4, 0.7))


@pytest.fixture
def search(open_search: Any) -> Any:
    return open_search("by_use", {"use": "similar_by_use", "k": 3}, FIRST)


def test_a_history_finds_its_neighbours(search: Any) -> None:
    assert search.rank("i0", "i3").items == ("i1", "i4", "i2")
    assert search.rank("i0", exclude=["i1"]).items == ("i2",)
    assert search.rank(similar_to="i3").items == ("i4",)
    assert search.rank().items == search.rank("gone").items == ()


def test_the_next_request_follows_an_event(search: Any) -> None:
    assert search.rank("i0", user_id="ann").items == ("i1", "i2")
    with_other = search.stage.explore(["i3"], [1.0], user_id="ann", slots=1)

    search.stage.reward(with_other.decision_id, item_id="i3")

    assert search.rank("i0", user_id="ann").items == ("i1", "i4", "i2")
    assert search.rank("i0", user_id="bob").items == ("i1", "i2")


def test_a_new_table_takes_over_and_a_damaged_one_does_not(search: Any) -> None:
    search.publish(catalogue((0, 5, 1.0)))
    assert search.rank("i0").items == ("i5",)
    old = search.store.pointer("catalogue").parent / search.store.versions("catalogue")[0]
    shutil.rmtree(old)  # what was mapped of it is not needed any more

    search.publish(catalogue((0, 6, 1.0)), damaged="by_use/weights.npy")

    assert "weights.npy is damaged" in search.stage.status()["refused_artefacts"]["catalogue"]
    assert search.rank("i0").items == ("i5",)


def test_without_a_table_decisions_and_checks_say_so(search: Any) -> None:
    assert search.checked() == ("ok", "5 of 8 items have others of the same users")
    search.publish(catalogue())

    (fallback,) = search.rank("i0").fallbacks
    assert (fallback.step, fallback.plugin, fallback.action) == ("retrieve", "similar_by_use", "skipped")
    assert "run `explorank build --interactions FILE`" in fallback.reason
    verdict, detail = search.checked()
    assert verdict == "wrong"
    assert "built without a table" in detail
