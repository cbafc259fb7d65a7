"""Gates: the first that is shut speaks, and one that raises is shut."""

from dataclasses import dataclass

from explorank.hooks.limits import refusal
from explorank.hooks.types import RankingRequest

REQUEST = RankingRequest(decision_id="d", slots=1)


@dataclass(frozen=True)
class Says:
    answer: str | None

    def refusal(self, request):
        return self.answer


class Broken:
    def refusal(self, request):
        raise OSError("the disk is gone")


def test_a_request_passes_where_every_gate_is_open():
    assert refusal([], REQUEST) is None
    assert refusal([Says(None), Says(None)], REQUEST) is None


def test_the_first_gate_that_is_shut_says_why():
    assert refusal([Says(None), Says("enough for today"), Says("stopped")], REQUEST) == "enough for today"


def test_a_gate_that_raises_is_shut():
    assert refusal([Broken(), Says(None)], REQUEST) == "Broken failed: the disk is gone"
