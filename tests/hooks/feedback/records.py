"""Decisions to log, small and derivable by hand; shared by the tests and by the processes that they kill."""

from __future__ import annotations

from typing import Any

import numpy as np

from explorank.hooks.types import DecisionRecord, Impression, RankingRequest, Reward, Slate

FEATURES = 3


def make_record(
    decision_id: str = "d0", *, n: int = 6, slots: int = 3, time: float = 1000.0, **changes: Any
) -> DecisionRecord:
    """Slot s holds item i<s>; its features are (s + 1, 1, 0) and its propensity 1 / (s + 2)."""
    placed = np.tri(slots, n, -1, dtype=np.bool_)
    fields: dict[str, Any] = {
        "request": RankingRequest(decision_id=decision_id, slots=slots, user_id="u1", time=time),
        "mode": "live",
        "arm": "explore",
        "item_ids": np.array([f"i{row}" for row in range(n)]),
        "scores": np.linspace(1.0, 0.0, n),
        "slate": Slate(
            order=np.arange(slots),
            propensities=1.0 / (np.arange(slots) + 2.0),
            method=("explore",) * slots,
            policy="linear_thompson",
            policy_version=0,
            eligible=~placed,
            support=~placed,
            seed=7,
            floor=0.01,
        ),
        "baseline_order": np.arange(slots),
        "feature_names": ("position", "bias", "nothing"),
        "feature_rows": np.arange(n),
        "features": np.column_stack([np.arange(n) + 1.0, np.ones(n), np.zeros(n)]).astype(np.float32),
        "versions": {"exploration_features": "f1"},
    }
    return DecisionRecord(**{**fields, **changes})


def reward(
    decision_id: str = "d0",
    slot: int = 0,
    *,
    kind: str = "click",
    value: float = 1.0,
    time: float = 1001.0,
    reward_id: str | None = None,
    item_id: str | None = None,
) -> Reward:
    return Reward(
        decision_id=decision_id,
        slot=slot,
        item_id=f"i{slot}" if item_id is None else item_id,
        kind=kind,
        value=value,
        reward_id=f"{decision_id}/{slot}/{kind}" if reward_id is None else reward_id,
        time=time,
    )


def impression(decision_id: str = "d0", items: tuple[str, ...] = ("i0", "i1", "i2")) -> Impression:
    return Impression(decision_id=decision_id, items_in_order=items, time=1000.5)
