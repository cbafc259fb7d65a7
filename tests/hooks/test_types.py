"""Candidates, columns and batches: what holds for any content, against plain Python that does the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.guards import BlockList, static_mask
from explorank.hooks.types import Candidates, Columns, Features, Places, RankingBatch, RankingRequest

# Few ids, so that parts overlap and repeat themselves; of different lengths, so that widths differ.
IDS = st.lists(st.sampled_from(["a", "b", "cc", "ddd", "eeeeeeee", "f", "gg"]), max_size=8)
PARTS = st.lists(st.tuples(IDS, st.integers(0, 3), st.integers(0, 99)), max_size=5)


def part(ids: list[str], source: int, seed: int) -> Candidates:
    """Return a part as a plugin may make it by hand, repeated ids included."""
    rng = np.random.default_rng(seed)
    scores = rng.random(len(ids)).astype(np.float32)
    scores[rng.random(len(ids)) < 0.3] = np.nan
    names = (f"s{source}", f"s{source + 1}")
    return Candidates(
        np.array(ids, dtype=np.str_), names, rng.integers(1, 4, len(ids)).astype(np.uint64), scores
    )


@given(PARTS)
def test_a_union_has_every_item_once_with_all_its_sources_and_its_best_score(parts):
    made = [part(*each) for each in parts]
    sources: dict[str, set[str]] = {}
    best: dict[str, float] = {}
    for each in made:
        for row, item in enumerate(each.item_ids.tolist()):
            found = {
                name
                for place, name in enumerate(each.source_names)
                if int(each.source_bits[row]) >> place & 1
            }
            sources.setdefault(item, set()).update(found)
            best[item] = float(np.fmax(best.get(item, np.nan), each.retrieval_scores[row]))
    union = Candidates.union(made)
    assert union.item_ids.tolist() == union.id_list == list(sources)
    assert [set(names) for names in union.sources_of(np.arange(len(union)))] == list(sources.values())
    np.testing.assert_array_equal(union.retrieval_scores, np.array(list(best.values()), np.float32))
    for each, (ids, source, seed) in zip(made, parts, strict=True):
        again = part(ids, source, seed)  # what was united is as it was
        np.testing.assert_array_equal(each.retrieval_scores, again.retrieval_scores)
        np.testing.assert_array_equal(each.source_bits, again.source_bits)


class Table:
    item_ids = np.array([f"item-{row}" for row in range(9)])


@given(st.lists(st.integers(0, 8), unique=True, min_size=1), st.data())
def test_what_was_found_in_a_table_keeps_its_places_in_it(rows, data):
    found = np.array(rows)
    n = len(rows)
    candidates = Candidates(
        Table.item_ids[found],
        ("s",),
        np.ones(n, np.uint64),
        np.ones(n, np.float32),
        Places(Table, found),
    )
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_)
    limit = data.draw(st.integers(1, n))
    for taken in (
        candidates.take(mask),
        candidates.head(limit),
        Candidates.union([candidates]),
        Candidates.union([Candidates.union([]), candidates]).take(np.flatnonzero(mask)),
    ):
        assert taken.item_ids.tolist() == Table.item_ids[taken.places.rows].tolist()
    assert Candidates.union([candidates, Candidates.of(["other"], "t")]).places is None


@given(IDS, st.data())
def test_what_is_taken_keeps_its_ids_sources_and_scores(ids, data):
    candidates = Candidates.union([part(ids, 0, 1)])
    n = len(candidates)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), np.bool_)
    limit = data.draw(st.integers(0, n + 2))
    if data.draw(st.booleans()):
        assert len(candidates.id_list) == n
    for taken, rows in (
        (candidates.take(mask), np.flatnonzero(mask)),
        (candidates.take(np.flatnonzero(mask)), np.flatnonzero(mask)),
        (candidates.head(limit), np.arange(min(limit, n))),
    ):
        assert taken.id_list == taken.item_ids.tolist() == candidates.item_ids[rows].tolist()
        np.testing.assert_array_equal(taken.source_bits, candidates.source_bits[rows])
        np.testing.assert_array_equal(taken.retrieval_scores, candidates.retrieval_scores[rows])


def test_one_source_keeps_the_first_of_equal_ids():
    found = Candidates.of(["b", "a", "b"], "near", [0.1, 0.2, 0.9])
    assert found.id_list == ["b", "a"]
    np.testing.assert_allclose(found.retrieval_scores, [0.1, 0.2])


def test_candidates_without_sources_and_scores_are_completed():
    union = Candidates.union([Candidates(np.array(["a", "b"])), Candidates.of(["b"], "near", [0.5])])
    assert union.id_list == ["a", "b"]
    assert union.sources_of(np.arange(2)) == ((), ("near",))
    np.testing.assert_array_equal(union.retrieval_scores, np.array([np.nan, 0.5], np.float32))
    assert Candidates.union([Candidates(np.array(["a"]))]).sources_of(np.zeros(1, np.int64)) == ((),)


@pytest.mark.parametrize("bits", [0, 2])
def test_candidates_whose_columns_do_not_fit_are_refused(bits):
    wrong = Candidates(np.array(["a", "b"]), ("s",), np.ones(bits, np.uint64), np.zeros(1, np.float32))
    with pytest.raises(InvalidBatch, match="2 candidates"):
        Candidates.union([wrong])


def test_replaced_ids_are_not_mixed_up_with_the_old_ones():
    candidates = Candidates.of([1, 2], "near")
    assert candidates.id_list == [1, 2]
    assert replace(candidates, item_ids=np.array(["1", "2"])).id_list == ["1", "2"]
    batch = RankingBatch(np.array(["a", "b"]), candidates=Candidates.of(["a", "b"], "near"))
    assert batch.id_list == ["a", "b"]
    assert replace(batch, item_ids=np.array(["c", "d"])).id_list == ["c", "d"]


def test_items_that_stand_twice_are_refused_wherever_they_were_found():
    class Table:
        item_ids = np.array(["a", "b"])

    twice = Candidates(np.array(["a", "a"]), places=Places(Table(), np.array([0, 0])))
    with pytest.raises(InvalidBatch, match="twice"):
        RankingBatch(twice.item_ids, candidates=twice)


def test_what_guards_said_goes_with_the_candidates_that_are_left():
    candidates = Candidates.of(["a", "b", "c"], "near").settle((("a guard",), np.array([True, False, True])))
    for rows in (np.array([True, True, False]), np.array([0, 1])):
        left = candidates.take(rows)
        batch = RankingBatch(left.item_ids, candidates=left)
        assert batch.settled[0] == ("a guard",)
        assert batch.settled[1].tolist() == [True, False]
    assert replace(candidates, item_ids=np.array(["d", "e", "f"])).settled is None


def test_columns_are_found_by_name_and_the_further_ones_count():
    features = Features(("age", "price"), np.array([[1, 2], [3, 4]], np.float32))
    columns = Columns(features, {"price": np.array([7, 8]), "source_bits": np.array([1, 2], np.uint64)})
    assert {name: column.tolist() for name, column in columns.items()} == {
        "age": [1.0, 3.0],
        "price": [7, 8],
        "source_bits": [1, 2],
    }
    assert len(columns) == 3
    assert "colour" not in columns
    with pytest.raises(KeyError, match="colour"):
        columns["colour"]
    assert RankingBatch(np.array(["a", "b"]), columns=columns).column("age").tolist() == [1.0, 3.0]
    with pytest.raises(InvalidBatch, match="'age'"):
        RankingBatch(np.array(["a", "b", "c"]), columns=columns)
    with pytest.raises(InvalidBatch, match="source_bits"):
        Columns(features, {"source_bits": np.array([1], np.uint64)})


class Counting:
    """A static guard that counts how often it is asked."""

    static = True

    def __init__(self) -> None:
        self.asked = 0

    def eligible(self, request, batch, placed, slot):
        self.asked += 1
        return np.array([item != request.context.get("not") for item in batch.id_list])


def test_a_static_guard_answers_once_for_a_request_and_its_candidates():
    guard, blocked = Counting(), BlockList(items=["c"])
    batch = RankingBatch(np.array(["a", "b", "c"]))
    request = RankingRequest(decision_id="d", slots=1, context={"not": "a"})
    for _ in range(3):
        mask = static_mask([guard, blocked], request, batch)
        assert mask.tolist() == [False, True, False]
        mask[:] = True  # what the caller does with its answer is its own
    assert guard.asked == 1
    # Others ask anew: another request, other candidates, other guards.
    other = RankingRequest(decision_id="e", slots=1, context={"not": "b"})
    assert static_mask([guard, blocked], other, batch).tolist() == [True, False, False]
    assert static_mask([guard], request, batch).tolist() == [False, True, True]
    assert static_mask([guard, blocked], request, RankingBatch(np.array(["a", "c"]))).tolist() == [
        False,
        False,
    ]
    assert guard.asked == 4
    excluding = replace(request, exclude=frozenset({"b"}))
    assert static_mask([guard, blocked], excluding, batch).tolist() == [False, False, False]
