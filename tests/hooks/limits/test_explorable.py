"""Which candidates may be explored, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import EpsilonGreedy, build_slate
from explorank.hooks.limits import Explorable, Rule, SqliteExposures
from explorank.hooks.types import RankingBatch

NAN = np.nan
BATCH = RankingBatch(
    item_ids=np.array(["a", "b", "c", "d"]),
    scores=np.array([4.0, 3.0, 2.0, 1.0]),
    uncertainty=np.array([0.1, 0.2, NAN, 0.3]),
    columns={
        "item_first_event": np.array([NAN, 14.0, 14.5, 3.0], np.float32),
        "popularity": np.array([0.05, 0.1, NAN, 0.0], np.float32),
        "stock": np.array([0, 1, 2, 3]),
        "colour": np.array(["red", "red", "blue", "blue"]),
    },
)


class Counted:
    """Knows how often each item was shown."""

    def times_shown(self, item_ids):
        return np.array([{"a": 1000, "b": 999}.get(item, 0) for item in item_ids.tolist()])


def mask_of(*rules, **options):
    return Explorable(rules, **options).mask(BATCH).tolist()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], "abcd"),
        ([Rule(new_within_days=14)], "abd"),  # without an age: no event yet, the newest of all
        ([Rule(uncertainty_from=0.2)], "bd"),
        ([Rule(impressions_below=1000)], "bcd"),
        ([Rule(column="popularity", below=0.1)], "ad"),
        ([Rule(column="popularity", at_least=0.05)], "ab"),
        ([Rule(column="stock", at_least=1, below=3)], "bc"),
        ([Rule(new_within_days=14, uncertainty_from=0.2)], "bd"),
        ([Rule(new_within_days=5, column="stock", at_least=1)], "d"),
        ([Rule(column="stock", below=1), Rule(uncertainty_from=0.3)], "ad"),
        ([Rule(column="stock", below=0)], ""),
    ],
    ids=str,
)
def test_any_rule_and_all_of_its_keys(rules, expected):
    mask = mask_of(*rules, impressions=Counted())
    assert mask == [item in expected for item in "abcd"]


@pytest.mark.parametrize("column", ["weather", "colour"])
def test_a_column_that_is_not_there_or_holds_no_numbers_makes_nobody_explorable(column):
    told = []
    rule = Rule(column=column, at_least=0.0)
    assert mask_of(rule, on_missing=told.append) == [False] * 4
    assert told == [column]
    assert mask_of(rule, Rule(column="stock", at_least=3)) == [False, False, False, True]


def test_uncertainty_may_be_a_column_and_may_be_missing():
    told = []
    explorable = Explorable([Rule(uncertainty_from=0.5)], on_missing=told.append)
    ids = np.array(["a", "b"])
    assert explorable.mask(RankingBatch(ids)).tolist() == [False, False]
    assert told == ["uncertainty"]
    with_column = RankingBatch(ids, columns={"uncertainty": np.array([0.4, 0.5])})
    assert explorable.mask(with_column).tolist() == [False, True]


def test_the_age_may_stand_in_another_column():
    explorable = Explorable([Rule(new_within_days=1)], age_column="stock")
    assert explorable.columns == ("stock",)
    assert explorable.mask(BATCH).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "without a condition"),
        ({"column": "stock"}, "says nothing"),
        ({"below": 1.0}, "says nothing"),
        ({"uncertainty_from": NAN}, "`uncertainty_from` of a rule is nan"),
        ({"column": "stock", "below": np.inf}, "`below` of a rule is inf"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(fields, message):
    with pytest.raises(InvalidPolicy, match=message):
        Rule(**fields)


def test_impressions_need_somebody_who_counts():
    with pytest.raises(InvalidPolicy, match="nobody counts impressions"):
        Explorable([Rule(impressions_below=10)])


def test_no_candidates_no_mask():
    empty = RankingBatch(np.zeros(0, "<U1"), columns={"stock": np.zeros(0)})
    assert Explorable([Rule(column="stock", below=1.0)]).mask(empty).shape == (0,)


def test_it_narrows_a_slate_in_a_notebook(tmp_path):
    ledger = SqliteExposures(tmp_path / "exposures.db", counts_items=True)
    explorable = Explorable([Rule(impressions_below=2)], impressions=ledger)
    policy = EpsilonGreedy(epsilon=1.0)
    explored = set()
    for seed in range(20):
        mask = explorable.mask(BATCH)
        slate = build_slate(policy, policy.initial_state(), BATCH, 1, seed=seed, explorable=mask)
        shown = BATCH.item_ids[slate.order[0]]
        if slate.method[0] == "explore":
            explored.add(str(shown))
            assert mask[slate.order[0]]
        ledger.count_shown([str(shown)])
    # Each of the four was explored twice; then nobody was explorable and the best stood there.
    assert explored == set("abcd")
    assert ledger.times_shown(BATCH.item_ids).tolist() == [14, 2, 2, 2]
    ledger.close()


numbers = st.one_of(st.none(), st.floats(-3, 3, width=32))


@settings(max_examples=100)
@given(
    values=st.lists(
        st.tuples(st.floats(-3, 3, width=32) | st.just(NAN), st.floats(-3, 3, width=32)), max_size=8
    ),
    bounds=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3),
)
def test_it_is_what_a_loop_would_say(values, bounds):
    rules = [
        Rule(column="x" if position % 2 else "y", at_least=low, below=high)
        for position, (low, high) in enumerate(bounds)
        if (low, high) != (None, None)
    ]
    columns = {"x": np.array([x for x, _ in values]), "y": np.array([y for _, y in values])}
    batch = RankingBatch(np.array([f"i{row}" for row in range(len(values))], dtype="<U4"), columns=columns)

    def fulfilled(rule, row):
        value = float(columns[rule.column][row])
        return (rule.at_least is None or value >= rule.at_least) and (
            rule.below is None or value < rule.below
        )

    expected = [not rules or any(fulfilled(rule, row) for rule in rules) for row in range(len(values))]
    assert Explorable(rules).mask(batch).tolist() == expected
