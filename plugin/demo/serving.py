"""What the running stage does for real users: first in shadow mode, then live, with feedback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from explorank.demo.data import DemoData
from explorank.demo.result import ShownDecision, ShownItem
from explorank.hooks.types import DecisionRecord
from explorank.stage import Stage, load

_SLOTS = 10
_SHADOW_REQUESTS = 5
_LIVE_REQUESTS = 60


def rank_in_shadow(config: Path, queries: pd.DataFrame) -> str:
    """Rank for a few users, who get the baseline, and say how much exploration would have changed."""
    with load(config) as stage:
        users = queries["user_id"].iloc[:_SHADOW_REQUESTS]
        records = [stage.decision(stage.rank(user_id=user, slots=_SLOTS).decision_id) for user in users]
    slots = sum(len(record.slate) for record in records)
    other = sum(
        int((record.shadow.order != record.slate.order).sum())
        for record in records
        if record.shadow is not None
    )
    return (
        f"{len(records)} users got the baseline; exploration would have shown other items in {other} of "
        f"{slots} slots."
    )


def rank_live(config: Path, data: DemoData, queries: pd.DataFrame) -> tuple[str, ShownDecision]:
    """Explore for real users; where they really rated a shown item later, that is the reward.

    Returns what happened, and one decision made after the policy learnt from it.
    """
    later = data.future.groupby(["user_id", "item_id"])["value"].last()
    users = queries["user_id"].iloc[:_LIVE_REQUESTS]
    rewards = 0
    with load(config) as stage:
        for user in users:
            decision = stage.rank(user_id=user, slots=_SLOTS)
            stage.shown(decision.decision_id, decision.items)
            for item in decision.items:
                rating = later.get((user, item))
                if rating is not None:
                    liked = float(rating >= data.positive_from)
                    rewards += stage.reward(decision.decision_id, item_id=item, value=liked)
        stage.installation.learner.step(stage.installation.clock())
        version = stage.status()["policy_version"]
        shown = _explain(stage, str(users.iloc[0]), tuple(queries["liked"].iloc[0]), data.item_texts)
    return (
        f"{len(users)} users ranked live; {rewards} shown items have a real rating, which came back as a reward. "
        f"The policy is at version {version}."
    ), shown


def _explain(stage: Stage, user: str, liked: tuple[str, ...], texts: Mapping[str, str]) -> ShownDecision:
    record = stage.decision(stage.rank(user_id=user, slots=_SLOTS).decision_id)
    return ShownDecision(
        decision_id=record.decision_id,
        user_id=user,
        policy=record.slate.policy,
        policy_version=record.slate.policy_version,
        mode=record.mode,
        candidates=len(record.item_ids),
        liked_before=tuple(texts.get(item, item) for item in liked[-5:]),
        items=tuple(_shown_item(record, slot, texts) for slot in range(len(record.slate))),
        versions={name: version for name, version in record.versions.items() if version},
    )


def _shown_item(record: DecisionRecord, slot: int, texts: Mapping[str, str]) -> ShownItem:
    row = int(record.slate.order[slot])
    item = str(record.item_ids[row])
    kept = np.flatnonzero(record.feature_rows == row)
    values = record.features[kept[0]].tolist() if len(kept) else []
    return ShownItem(
        slot=slot,
        item_id=item,
        text=texts.get(item, item),
        score=float(record.scores[row]),
        score_rank=int((record.scores > record.scores[row]).sum()) + 1,
        propensity=float(record.slate.propensities[slot]),
        method=record.slate.method[slot],
        sources=record.sources[slot],
        features=dict(zip(record.feature_names, values, strict=False)),
    )
