"""The suite finds what it is there to find: guards that break the contract in one way each."""

import itertools
from typing import Any

import numpy as np
import pytest

from explorank.testing import GuardCase, GuardTests


class Sound:
    """Blocks `a`, and allows no item below itself."""

    name = "sound"

    def eligible(self, request, batch, placed, slot) -> Any:
        return batch.item_ids != "a"


class Counting(Sound):
    """Answers in the wrong type."""

    def eligible(self, request, batch, placed, slot):
        return (batch.item_ids != "a").astype(int)


class OnlyTheRest(Sound):
    def eligible(self, request, batch, placed, slot):
        return np.delete(batch.item_ids != "a", placed)


class Turns(Sound):
    def __init__(self):
        self._asked = itertools.count()

    def eligible(self, request, batch, placed, slot):
        return (batch.item_ids != "a") & (next(self._asked) % 3 > 0)


class Writes(Sound):
    def eligible(self, request, batch, placed, slot):
        placed[:] = 0
        return batch.item_ids != "a"


class ByPosition(Sound):
    def eligible(self, request, batch, placed, slot):
        return np.arange(len(batch)) > 0


class NotQuiteStatic(Sound):
    static = True

    def eligible(self, request, batch, placed, slot):
        return (batch.item_ids != "a") & (slot < 2)


class StaticByScore(Sound):
    static = True

    def eligible(self, request, batch, placed, slot):
        return (batch.item_ids != "a") & (batch.score_values < 4)


class Lenient(Sound):
    def eligible(self, request, batch, placed, slot):
        return np.ones(len(batch), bool)


class Harsh(Sound):
    def eligible(self, request, batch, placed, slot):
        return np.zeros(len(batch), bool)


class Listed(Sound):
    def eligible(self, request, batch, placed, slot):
        return np.array([item != "a" for item in batch.item_ids.tolist()])


class Knowing(Sound):
    def eligible(self, request, batch, placed, slot):
        known = {"a": False, "b": True, "c": True} | {f"item-{row}": True for row in range(2_000)}
        return np.fromiter(map(known.__getitem__, batch.item_ids.tolist()), bool)


class Misspelt(Sound):
    fails = "shut"


class Vague(Sound):
    static = "no"


class Nameless:
    def eligible(self, request, batch, placed, slot):
        return batch.item_ids != "a"


BROKEN = [
    (Counting, "a_mask_says_who_is_eligible", "must be bool"),
    (OnlyTheRest, "a_mask_says_who_is_eligible", "must be bool"),
    (Listed, "no_candidates_have_an_empty_mask", "must be bool"),
    (Turns, "a_mask_is_a_function", "and then"),
    (Writes, "a_mask_is_a_function", "wrote into"),
    (ByPosition, "the_order_of_candidates_does_not_matter", "ids and columns"),
    (NotQuiteStatic, "a_static_guard_keeps_its_promise", "for slot 2"),
    (StaticByScore, "a_static_guard_keeps_its_promise", "without scores"),
    (Lenient, "it_blocks_what_it_says", "allows \\['a'\\]"),
    (Harsh, "it_blocks_what_it_says", "bars \\['b'\\]"),
    (Knowing, "unknown_items_and_users_have_an_answer", "KeyError"),
    (Misspelt, "its_declarations_are_valid", "'shut'"),
    (Vague, "its_declarations_are_valid", "True or False"),
    (Nameless, "settings_can_name_it", "need a word"),
    (Listed, "a_mask_does_not_loop_over_candidates", "loops over them"),
]


def suite_of(guard):
    class Suite(GuardTests):
        def make_guard(self):
            return guard()

        def cases(self):
            yield GuardCase(["a", "b", "c"], blocked=["a"], allowed=["b"])

    return Suite()


@pytest.mark.parametrize(("guard", "test", "words"), BROKEN)
def test_a_break_is_found_and_explained(run, guard, test, words):
    with pytest.raises(AssertionError, match=words):
        run(suite_of(guard), f"test_{test}")


class TestSound(GuardTests):
    """The base of the broken ones passes, so that what is found is the break."""

    def make_guard(self):
        return Sound()

    def cases(self):
        yield GuardCase(["a", "b"], blocked=["a"], allowed=["b"])
        yield GuardCase(["a", "b"], blocked=["a"], placed=["b"])


def test_every_test_of_the_suite_is_seen_to_fail():
    tests = {name for name in dir(GuardTests) if name.startswith("test_")}
    assert tests == {f"test_{test}" for _, test, _ in BROKEN}


def test_a_guard_that_blocks_nothing_was_not_tested(run):
    class Suite(GuardTests):
        def make_guard(self):
            return Lenient()

        def cases(self):
            yield GuardCase(["a"], blocked=[])

    with pytest.raises(AssertionError, match="blocks an item"):
        run(Suite(), "test_it_blocks_what_it_says")


@pytest.mark.parametrize(("given", "missing"), [("cases", "make_guard"), ("make_guard", "cases")])
def test_a_suite_without_its_parts_says_what_is_missing(run, given, missing):
    suite = type("Suite", (GuardTests,), {given: lambda self: Sound()})()
    with pytest.raises(NotImplementedError, match=f"def {missing}"):
        run(suite, "test_it_blocks_what_it_says")
