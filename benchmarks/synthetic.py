"""A small installation without Feast: random vectors, a gather for a feature store, trees of a wanted size.

What is measured with it is the stage around its parts. The user's row and the items' columns are an array each, so
that retrieval, ranker, guards, exploration and log are the real ones and the feature store is nearly nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np

from explorank.artefacts import ArtefactStore
from explorank.assembly import CATALOGUE, RANKER
from explorank.hooks import hookimpl
from explorank.hooks.types import Candidates, FeatureArray, Features, RankingRequest
from explorank.rankers import LightGBMRanker
from explorank.retrieval import Catalogue
from explorank.services import Services
from explorank.settings import Settings, parse_settings

SLOTS: Final = 20
_DIM: Final = 64
_FEATURES: Final = 50
_HISTORY: Final = 20
_SETTINGS: Final[Mapping[str, Any]] = {
    "version": 1,
    "exploration": {
        "mode": "live",
        "holdout": 0.0,
        "policy": {"use": "linear_thompson", "floor": 0.02},
        "features": ["score", *(f"f{column}" for column in range(14))],
        "slots": [2, 5, 8],
    },
    "guards": [{"use": "block_list", "items": ["item-7", "item-11"]}, {"use": "already_seen"}],
}


class GatheredFeatures:
    """The items' columns by row of the catalogue, and a history for every user."""

    def __init__(self, seed: int = 0) -> None:
        """Draw the columns from `seed` once the catalogue is known."""
        self._seed = seed
        self._catalogue: Catalogue | None = None
        self._columns: FeatureArray = np.zeros((0, _FEATURES), np.float32)

    @hookimpl
    def ranking_startup(self, services: Services) -> None:
        """Draw the columns of the catalogue's items."""
        self._catalogue = services.catalogue.get()
        if self._catalogue is not None:
            rng = np.random.default_rng(self._seed)
            self._columns = rng.standard_normal((len(self._catalogue), _FEATURES), dtype=np.float32)

    @hookimpl
    def ranking_enrich_request(self, request: RankingRequest) -> Mapping[str, Any] | None:
        """Add a history that follows from the user's number."""
        if self._catalogue is None or request.user_id is None:
            return None
        n = len(self._catalogue)
        first = int(request.user_id) * 31
        history = tuple(f"item-{(first + 7 * step) % n}" for step in range(_HISTORY))
        return {"history": history, "liked": history}

    @hookimpl
    def ranking_enrich(self, candidates: Candidates) -> Features | None:
        """Return the columns of the candidates."""
        if self._catalogue is None:
            return None
        rows = self._catalogue.rows(candidates.id_list)
        return Features(tuple(f"f{column}" for column in range(_FEATURES)), self._columns[rows])


def prepare(
    folder: Path,
    *,
    items: int = 5_000,
    candidates: int = 500,
    trees: int = 60,
    leaves: int = 63,
    changes: Mapping[str, Any] | None = None,
) -> Settings:
    """Publish a catalogue and a ranker in `folder`, and return settings that serve them.

    `changes` replace whole sections of the settings. `GatheredFeatures` must be among the stage's plugins.
    """
    rng = np.random.default_rng(1)
    settings = parse_settings(
        {
            **_SETTINGS,
            "retrieval": {
                "candidates": candidates,
                "retrievers": [
                    {"use": "similar_to_history", "k": candidates},
                    {"use": "popular", "k": candidates // 4},
                ],
            },
            **(changes or {}),
        },
        folder,
    )
    store = ArtefactStore(settings.folder_path / "artefacts")
    catalogue = Catalogue.build(
        [f"item-{number}" for number in range(items)],
        rng.standard_normal((items, _DIM), dtype=np.float32),
        popularity=rng.exponential(size=items),
    )
    store.publish(CATALOGUE, catalogue.save)
    store.publish(RANKER, _ranker(rng, trees, leaves).save)
    return settings


def _ranker(rng: np.random.Generator, trees: int, leaves: int) -> LightGBMRanker:
    rows = 20_000
    features = rng.standard_normal((rows, _FEATURES), dtype=np.float32)
    target = np.sin(features @ rng.standard_normal(_FEATURES) / 3.0) + rng.standard_normal(rows)
    booster = lightgbm.train(
        {
            "objective": "regression",
            "num_leaves": leaves,
            "min_data_in_leaf": 5,
            "num_threads": 1,
            "verbosity": -1,
        },
        lightgbm.Dataset(features, target, feature_name=[f"f{column}" for column in range(_FEATURES)]),
        trees,
    )
    return LightGBMRanker.from_booster(booster)
