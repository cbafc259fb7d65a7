"""The naive peer: what a good engineer would write from the tutorials of FastAPI, Feast, FAISS and LightGBM.

    python -m benchmarks.request_path.naive FOLDER PORT      (its HTTP server; the benchmark starts it)

User vectors lie ready in memory, the Feast SDK is asked in two calls, users and items apart, for whole feature
services, `Booster.predict` runs on one thread, and the slate is sampled from the softmax of the scores. There are no
guards, no propensities and no log.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
import uvicorn
from fastapi import FastAPI
from feast import FeatureStore
from pydantic import BaseModel

from benchmarks import environment
from benchmarks.request_path.laps import Laps
from benchmarks.request_path.nearest import Nearest, flat
from benchmarks.request_path.world import Size, World

SIZE_FILE: Final = "size.json"


class NaivePeer:
    """Retrieval, features, scores and a sampled slate, one after another."""

    def __init__(self, world: World, repository: Path, nearest: Nearest) -> None:
        """Load the model and open the feature store."""
        self._store = FeatureStore(repo_path=str(repository))
        self._services = {
            name: self._store.get_feature_service(name, allow_cache=True) for name in ("item_v1", "user_v1")
        }
        self._booster = lightgbm.Booster(model_str=world.model)
        self._nearest = nearest
        self._item_ids = world.item_ids
        self._item_names, self._user_names = world.item_names, world.user_names
        self._candidates = world.size.candidates
        self._vectors = dict(zip(world.user_ids, world.user_vectors, strict=True))
        self._rng = np.random.default_rng(0)

    def rank(self, user_id: str, slots: int, laps: Laps) -> dict[str, Any]:
        """Return the answer to one request."""
        rows = self._nearest(self._vectors[user_id], self._candidates)
        ids = [self._item_ids[row] for row in rows]
        laps.lap("retrieve")
        items = self._store.get_online_features(
            features=self._services["item_v1"], entity_rows=[{"item_id": item} for item in ids]
        ).to_dict()
        user = self._store.get_online_features(
            features=self._services["user_v1"], entity_rows=[{"user_id": user_id}]
        ).to_dict()
        columns = [items[name] for name in self._item_names]
        columns += [user[name] * len(ids) for name in self._user_names]
        matrix = np.array(columns, np.float32).T
        laps.lap("features")
        scores = self._booster.predict(matrix, num_threads=1)
        laps.lap("score")
        weights = np.exp(scores - scores.max())
        chosen = self._rng.choice(len(ids), slots, replace=False, p=weights / weights.sum())
        answer = {
            "user_id": user_id,
            "items": [{"item_id": ids[place], "score": float(scores[place])} for place in chosen],
        }
        laps.lap("explore")
        return answer


class RankedItem(BaseModel):
    """One slot of the answer."""

    item_id: str
    score: float


class Answer(BaseModel):
    """The answer to one request."""

    user_id: str
    items: list[RankedItem]


def create_app(peer: NaivePeer) -> FastAPI:
    """Return the peer as a FastAPI application."""
    app = FastAPI()

    @app.get("/rank/{user_id}", response_model=Answer)
    def rank(user_id: str, slots: int = 20) -> dict[str, Any]:
        return peer.rank(user_id, slots, Laps())

    return app


def main() -> None:
    """Serve until interrupted; FAISS looks at every vector."""
    parser = argparse.ArgumentParser(prog="benchmarks.request_path.naive")
    parser.add_argument("folder", type=Path, help="where the benchmark keeps its data")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    environment.restart_with_one_thread()
    size = Size(**json.loads((arguments.folder / SIZE_FILE).read_text(encoding="utf-8")))
    world = World(size, arguments.folder.parent)
    peer = NaivePeer(world, arguments.folder / "naive", flat(world.vectors))
    uvicorn.run(create_app(peer), host="127.0.0.1", port=arguments.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
