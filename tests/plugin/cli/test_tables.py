"""The trade-off curve as it is printed."""

from __future__ import annotations

import io

from rich.console import Console

from explorank.cli.tables import print_tuning
from explorank.retrieval import Effort, TradeOff, Tuning

EXACT = TradeOff("flat", Effort(), 1.0, 5_800.2, 1_536.0)
NEAR = TradeOff("ivf_sq8", Effort(lists=12), 0.9812, 210.4, 390.2)
FAR = TradeOff("ivf_sq8", Effort(lists=8), 0.955, 150.0, 390.2)


def printed(**changes: object) -> list[str]:
    facts: dict[str, object] = {
        "wanted_recall": 0.98,
        "neighbours": 200,
        "recall": 0.9807,
        "reached": True,
        "complete": True,
        "seconds": 3.0,
        "chosen": NEAR,
        "curve": (EXACT, FAR, NEAR),
    }
    console = Console(file=io.StringIO(), width=120)
    print_tuning(Tuning(**(facts | changes)), console)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines() if line.strip()]


def test_every_point_has_a_line_and_one_is_taken() -> None:
    lines = printed()
    assert "200 nearest" in lines[0]
    assert lines[-3:] == [
        "flat all 1.0000 5,800 1,536",
        "ivf_sq8 nprobe 8 0.9550 150 390",
        "ivf_sq8 nprobe 12 0.9812 210 390 taken",
    ]


def test_a_recall_that_is_not_reached_is_said_and_why() -> None:
    missed = {"wanted_recall": 0.99, "reached": False}
    assert printed(**missed)[-1] == "note recall 0.9807 instead of 0.99; nothing tried reaches it"
    assert printed(**missed, complete=False)[-1].endswith("time ran out: allow more with --tune-seconds")
