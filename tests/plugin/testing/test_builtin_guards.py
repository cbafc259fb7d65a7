"""Every built-in guard is held to what third parties are held to."""

from pathlib import Path

import pytest

from explorank.hooks.guards import AlreadySeen, BlockList, builtin
from explorank.hooks.limits import Rejected, SqliteExposures, visitor_of
from explorank.hooks.registry import Registry
from explorank.hooks.types import RankingRequest
from explorank.testing import GuardCase, GuardTests


class TestBlockList(GuardTests):
    @pytest.fixture(autouse=True)
    def _list(self, tmp_path: Path):
        self.path = tmp_path / "blocked"
        self.path.write_text("item-2\n# item-3\n")

    def make_guard(self):
        return BlockList(items=["item-1"], path=self.path)

    def cases(self):
        ids = ["item-1", "item-2", "item-3"]
        yield GuardCase(ids, blocked=["item-1", "item-2"], allowed=["item-3"])
        yield GuardCase(ids, blocked=["item-1"], placed=["item-3"])


class TestAlreadySeen(GuardTests):
    def make_guard(self):
        return AlreadySeen()

    def cases(self):
        context = {"seen": ["a"], "history": ("b", "elsewhere")}
        yield GuardCase(["a", "b", "c"], blocked=[], allowed=["a", "b", "c"])
        yield GuardCase(
            ["a", "b", "c"],
            blocked=["a", "b"],
            allowed=["c"],
            request=RankingRequest(decision_id="1", slots=3, context=context),
        )


class TestRejected(GuardTests):
    @pytest.fixture(autouse=True)
    def _ledger(self, tmp_path: Path):
        self.exposures = SqliteExposures(tmp_path / "exposures.db")
        yield
        self.exposures.close()

    def make_guard(self):
        return Rejected(self.exposures)

    def cases(self):
        request = RankingRequest(decision_id="1", slots=3, user_id="u", time=1_000.0)
        self.exposures.reject(visitor_of(request), "b", 990.0, 60.0)
        self.exposures.reject(visitor_of(request), "c", 900.0, 60.0)
        yield GuardCase(["a", "b", "c"], blocked=["b"], allowed=["a", "c"], request=request)
        yield GuardCase(["a", "b", "c"], blocked=[], allowed=["a", "b", "c"])


def test_no_guard_is_left_out():
    registry = Registry()
    builtin.ranking_register_components(registry)
    assert registry.names("guard") == ("already_seen", "block_list")
