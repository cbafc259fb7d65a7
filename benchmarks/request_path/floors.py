"""What each step costs at the least: the same work on arrays that lie ready, with nothing around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from benchmarks.reference import Candidates, Rewards, Ridge, decide
from benchmarks.request_path.laps import Laps
from benchmarks.request_path.nearest import Nearest
from benchmarks.request_path.world import World
from explorank.rankers import Forest


class Floors:
    """IVF search, a gather, the compiled forest, Thompson sampling in plain numpy, orjson."""

    def __init__(
        self, world: World, nearest: Nearest, explored: tuple[int, ...], policy_columns: int
    ) -> None:
        """Lay everything ready; the policy sees the score and the first `policy_columns` - 1 features."""
        self._nearest = nearest
        self._item_ids = np.array(world.item_ids)
        self._vectors = world.user_vectors
        self._item_features, self._user_features = world.item_features, world.user_features
        self._matrix = np.empty((world.size.candidates, world.size.features), np.float32)
        self._forest = Forest.of(world.model)
        self._candidates, self._slots, self._explored = world.size.candidates, world.size.slots, explored
        self._rng = np.random.default_rng(0)
        self._policy_columns = policy_columns
        self._policy = Ridge(policy_columns, pool=50, draws=256, floor=0.02)
        m = 1_000
        self._policy.learn(
            Rewards(
                rows=np.zeros(m, np.int64),
                features=self._rng.standard_normal((m, policy_columns)),
                values=self._rng.random(m),
                propensities=np.ones(m),
                slots=np.zeros(m, np.int64),
                strategies=np.zeros(m, np.int64),
            )
        )

    def rank(self, user: int, laps: Laps) -> Any:
        """Do the work of one request of the user in row `user`."""
        rows = self._nearest(self._vectors[user], self._candidates)
        laps.lap("retrieve")
        half = self._item_features.shape[1]
        self._item_features.take(rows, axis=0, out=self._matrix[:, :half])
        self._matrix[:, half:] = self._user_features[user]
        laps.lap("features")
        scores = self._forest.predict(self._matrix)
        laps.lap("score")
        seen = np.empty((self._candidates, self._policy_columns))
        seen[:, 0] = scores
        seen[:, 1:] = self._matrix[:, : self._policy_columns - 1]
        np.nan_to_num(seen, copy=False)
        distribution = self._policy.contest(Candidates(seen, scores, {}), self._rng)
        free = np.ones(self._candidates, np.bool_)
        order, propensities = decide(distribution, scores, free, self._slots, self._explored, self._rng)
        laps.lap("explore")
        answer = orjson.dumps(
            [
                {"item_id": item, "score": score, "propensity": propensity}
                for item, score, propensity in zip(
                    self._item_ids[rows[order]].tolist(),
                    scores[order].tolist(),
                    propensities.tolist(),
                    strict=True,
                )
            ]
        )
        laps.lap("serialise")
        return answer
