"""Pairs are what a user liked next, and negatives are never what they liked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval import InvalidTable, interest_vector
from explorank.retrieval.encoding import Behaviour, recall_at
from explorank.retrieval.encoding.batches import Batches, HardNegatives
from explorank.retrieval.encoding.behaviour import NO_ITEM

ITEMS = [f"i{number}" for number in range(12)]
TEXTS = {item: f"text of {item}" for item in ITEMS}
HISTORIES = st.lists(st.lists(st.sampled_from([*ITEMS, "unknown"]), max_size=8), min_size=1, max_size=6)


def pairs_of(behaviour: Behaviour) -> list[tuple[list[str], str]]:
    return [
        ([ITEMS[row] for row in history if row != NO_ITEM], ITEMS[positive])
        for history, positive in zip(behaviour.histories.tolist(), behaviour.positives.tolist(), strict=True)
    ]


def test_pairs_by_hand() -> None:
    behaviour = Behaviour.from_histories([["i1", "gone", "i2", "i3"], ["i5"]], TEXTS, history=2)
    assert pairs_of(behaviour) == [(["i1"], "i2"), (["i1", "i2"], "i3")]
    assert behaviour.liked.toarray().nonzero()[1].tolist() == [1, 2, 3, 5]
    assert behaviour.popularity()[[2, 3]].tolist() == [0.5, 0.5]


def test_further_next_items_and_a_later_slice() -> None:
    likes = [["i1", "i2", "i3", "i4"]]
    two = Behaviour.from_histories(likes, TEXTS, history=1, next_items=2)
    assert pairs_of(two) == [
        (["i1"], "i2"),
        (["i1"], "i3"),
        (["i2"], "i3"),
        (["i2"], "i4"),
        (["i3"], "i4"),
    ]
    late = Behaviour.from_histories(likes, TEXTS, history=9, from_event=[2])
    assert pairs_of(late) == [(["i1", "i2"], "i3"), (["i1", "i2", "i3"], "i4")]


def test_an_unknown_item_does_not_move_the_slice() -> None:
    late = Behaviour.from_histories([["gone", "i1", "i2", "i3"]], TEXTS, from_event=[3])
    assert pairs_of(late) == [(["i1", "i2"], "i3")]


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(InvalidTable, match="no pair to learn from"):
        Behaviour.from_histories([["i1"], ["gone", "i2"], ["i3", "i3"]], TEXTS)


def test_another_like_is_another_digest() -> None:
    first, same, other = (
        Behaviour.from_histories([["i1", "i2", last]], TEXTS) for last in ("i3", "i3", "i4")
    )
    assert first.digest == same.digest != other.digest


def test_interests_are_those_of_serving() -> None:
    vectors = np.random.default_rng(1).standard_normal((12, 4)).astype(np.float32)
    behaviour = Behaviour.from_histories([["i1", "i2", "i3"]], TEXTS, history=5)
    found = behaviour.interests(np.array([0, 1]), vectors, 0.8)
    np.testing.assert_allclose(found[0], interest_vector(vectors[[1]], 0.8), rtol=1e-6)
    np.testing.assert_allclose(found[1], interest_vector(vectors[[1, 2]], 0.8), rtol=1e-6)


def test_recall_by_hand() -> None:
    # i0 is liked first; by angle i1 is next to it, then i2, and so on.
    angles = np.arange(12) * 0.1
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    behaviour = Behaviour.from_histories([["i0", "i3"], ["i0", "i1"]], TEXTS)
    assert recall_at(vectors, behaviour, decay=1.0, k=1) == 0.5
    assert recall_at(vectors, behaviour, decay=1.0, k=2) == 0.5
    assert recall_at(vectors, behaviour, decay=1.0, k=3) == 1.0


@given(HISTORIES, st.integers(1, 4), st.integers(0, 3))
def test_negatives_were_liked_by_others(histories: list[list[str]], hard: int, seed: int) -> None:
    try:
        behaviour = Behaviour.from_histories(histories, TEXTS, history=3)
    except InvalidTable:
        return
    vectors = np.random.default_rng(seed).standard_normal((12, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    negatives = HardNegatives(vectors, behaviour, decay=0.9, after=1)
    batch = Batches(behaviour, 8, seed=seed, hard=negatives, hard_negatives=hard)[0]
    order = np.random.default_rng([seed, 0]).permutation(len(behaviour))[: len(batch.positives)]

    found = negatives.of(order, hard)
    liked = behaviour.liked.toarray()
    for pair, row in zip(order, found, strict=True):
        assert not liked[behaviour.users[pair], row[row != NO_ITEM]].any()
        assert liked[:, row[row != NO_ITEM]].any(axis=0).all()  # by somebody
    items = batch.items[batch.columns]
    for pair, masked, positive in zip(order, batch.masked, batch.positives, strict=True):
        assert items[positive] == behaviour.positives[pair]
        assert not masked[positive]
        told_apart = items[~masked]
        others = told_apart[told_apart != behaviour.positives[pair]]
        assert not liked[behaviour.users[pair], others].any()
    assert set(items) >= set(found[found != NO_ITEM])


def test_an_epoch_draws_every_pair_once(behaviour: Behaviour) -> None:
    batches = Batches(behaviour, 20, seed=5)
    steps = len(behaviour) // 20
    drawn = np.concatenate([batches[step].items[batches[step].histories[:, -1]] for step in range(steps)])
    assert len(drawn) == steps * 20
    np.testing.assert_array_equal(batches[3].histories, Batches(behaviour, 20, seed=5)[3].histories)
    assert not np.array_equal(batches[3].items, batches[3 + steps].items)
