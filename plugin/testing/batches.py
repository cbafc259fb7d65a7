"""Batches made of others."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from explorank.hooks.types import IndexArray, RankingBatch, RewardBatch


def taken(batch: RankingBatch, rows: IndexArray) -> RankingBatch:
    """Return the candidates at `rows`, in that order."""
    return replace(
        batch,
        item_ids=batch.item_ids[rows],
        scores=batch.score_values[rows],
        features=None if batch.features is None else batch.features[rows],
        uncertainty=None if batch.uncertainty is None else batch.uncertainty[rows],
        offsets=None if batch.offsets is None else batch.offsets[rows],
        columns={name: column[rows] for name, column in batch.columns.items()},
    )


def columns_of(rewards: RewardBatch) -> dict[str, Any]:
    """Return the columns of `rewards` by name, those that are not given left out."""
    columns = {field.name: getattr(rewards, field.name) for field in fields(rewards)}
    return {name: column for name, column in columns.items() if column is not None}
