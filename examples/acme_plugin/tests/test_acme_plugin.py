from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from acme_plugin import AtMostPerCategory, Boltzmann

from explorank.hooks.types import RankingBatch
from explorank.testing import GuardCase, GuardTests, PolicyTests

CATEGORIES = {"a": "red", "b": "red", "c": "red", "d": "blue", "e": "blue"}


class TestBoltzmann(PolicyTests):
    """The contract of every policy, and what is Boltzmann's own."""

    invalid_options = ({"temperature": 0.0}, {"temperature": float("inf")})

    def make_policy(self) -> Boltzmann:
        return Boltzmann(temperature=0.5)

    def test_the_first_slot_has_the_closed_form(self) -> None:
        policy = self.make_policy()
        batch = RankingBatch(item_ids=np.array(list("abcde")), scores=np.array([1.0, 0.8, 0.6, 0.4, 0.2]))
        everybody = np.ones(5, np.bool_)
        contest = policy.contest(policy.initial_state(), batch, everybody, np.random.default_rng(0))
        weights = np.exp(batch.score_values / 0.5)
        np.testing.assert_allclose(contest.distribution(everybody), weights / weights.sum())


class TestAtMostPerCategory(GuardTests):
    """The contract of every guard; `cases` says what this one allows."""

    @pytest.fixture(autouse=True)
    def _categories(self, tmp_path: Path) -> None:
        self.file = tmp_path / "categories.csv"
        self.file.write_text("".join(f"{item},{category}\n" for item, category in CATEGORIES.items()))

    def make_guard(self) -> AtMostPerCategory:
        return AtMostPerCategory(self.file, limit=2)

    def cases(self) -> Iterator[GuardCase]:
        yield GuardCase(list("abcde"), blocked=[], allowed=list("abcde"))
        yield GuardCase(list("abcde"), placed=["a"], blocked=[], allowed=["b", "c", "d", "e"])
        yield GuardCase(list("abcde"), placed=["a", "c"], blocked=["b"], allowed=["d", "e"])
        # An item without a category is always allowed.
        yield GuardCase(list("xyza"), placed=["x", "y", "z"], blocked=[], allowed=["a"])
