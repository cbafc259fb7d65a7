"""A reward changes what the same worker ranks next: over HTTP, by a ranker that reads the user's history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from explorank import Stage
from explorank.builtin.retrieval import history_of
from explorank.host import create_app
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.tables import past_interactions
from explorank.pipeline.train import TrainOptions, train_ranker
from explorank.rankers import SequenceRanker
from explorank.settings import RankerComponent

OpenStage = Callable[..., Stage]

NETWORK: dict[str, Any] = {
    "history": 8, "width": 8, "layers": 1, "heads": 1, "hidden": [8],
    "training": {"epochs": 3, "batch_rows": 200},
}  # fmt: skip
NO_EXPLORATION = {"mode": "off"}


@pytest.mark.asyncio
async def test_the_next_ranking_reads_the_event(open_books: OpenStage, installation: Path, spy: Any) -> None:
    changes = {
        "ranker": {"use": "sequence", "budget_ms": 5_000.0, **NETWORK},
        "features": {"as_of": "2026-03-02T00:00:00Z"},
        "exploration": NO_EXPLORATION,
    }
    stage = open_books(changes, plugins=[spy])
    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    options = TrainOptions(queries=QueryOptions(positive_from=4.0, stride=4, horizon=6), promote="always")
    component = RankerComponent.model_validate({"use": "sequence", **NETWORK})
    ranker, _ = train_ranker(stage.installation.settings, events, component=component, options=options)
    assert isinstance(ranker, SequenceRanker)
    stage.installation.refresh()

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(stage)), base_url="http://books"
    ) as client:
        asked = {"user_id": "reader-9", "slots": 3}
        first = (await client.post("/v1/rank", json=asked)).json()
        taken = first["items"][2]["item_id"]
        reward = {"decision_id": first["decision_id"], "item_id": taken}
        assert (await client.post("/v1/rewards", json=reward)).is_success
        second = (await client.post("/v1/rank", json=asked)).json()

    (before, _, _), (after, candidates, features) = spy.seen[-2:]
    assert history_of(after) == (*(item for item in history_of(before) if item != taken), taken)
    record = stage.decision(second["decision_id"])
    own = ranker.read_ids(candidates.id_list, history_of(after))
    served = {name: features.column(name) for name in features.names} | {
        name: own[:, place] for place, name in enumerate(ranker.id_columns)
    }
    matrix = np.column_stack([served[name] for name in ranker.manifest.feature_names])
    np.testing.assert_allclose(record.scores, ranker.score(matrix), atol=1e-6)
    stale = ranker.read_ids(candidates.id_list, history_of(before))
    assert not np.array_equal(own, stale)
