"""The ranker behind its hook: how good each candidate is."""

from __future__ import annotations

from typing import Final

import numpy as np

from explorank.artefacts import Watched
from explorank.fallbacks import note_fallback
from explorank.hooks import hookimpl
from explorank.hooks.registry import Registry
from explorank.hooks.types import Fallback, Features, IndexArray, RankingRequest, Scores
from explorank.rankers import HurriedRanker, LightGBMRanker, Ranker
from explorank.services import Services

NAME: Final = "explorank-rankers"


class RankersPlugin:
    """Scores with the newest trained ranker that passed its checks."""

    def __init__(self) -> None:
        self._ranker: Watched[Ranker] | None = None
        self._columns: tuple[tuple[str, ...], str, IndexArray | slice] | None = None

    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        """Add the built-in ranker."""
        registry.ranker("lightgbm", LightGBMRanker)

    @hookimpl
    def ranking_startup(self, services: Services) -> None:
        """Watch the trained ranker."""
        self._ranker = services.ranker

    @hookimpl
    def ranking_score(self, request: RankingRequest, features: Features) -> Scores | None:
        """Return the ranker's scores, or None where none is trained."""
        ranker = None if self._ranker is None else self._ranker.get()
        if ranker is None:
            return None
        columns = self._columns_for(ranker, features)
        matrix, version = features.values[:, columns], ranker.manifest.version
        if request.hurried and isinstance(ranker, HurriedRanker) and ranker.cheaper_way:
            note_fallback(Fallback("score", NAME, request.hurried, ranker.cheaper_way))
            # Another version, since nothing that was fitted to the whole ranker's scores holds for these.
            return Scores(ranker.score_cheaply(matrix), version=f"{version}-cheaper")
        return Scores(ranker.score(matrix), version=version)

    def _columns_for(self, ranker: Ranker, features: Features) -> IndexArray | slice:
        """Return where the ranker's columns stand; remembered, since they rarely change.

        A slice where they stand together and in order, so that nothing is copied.
        """
        known = self._columns
        if known is not None and known[0] == features.names and known[1] == ranker.manifest.version:
            return known[2]
        wanted = ranker.manifest.feature_names
        ranker.check([name for name in wanted if name in features.names])
        places = [features.names.index(name) for name in wanted]
        run = range(min(places, default=0), min(places, default=0) + len(places))
        columns = slice(run.start, run.stop) if places == list(run) else np.array(places, np.int64)
        self._columns = (features.names, ranker.manifest.version, columns)
        return columns
