"""The ranker behind its hook: how good each candidate is."""

from __future__ import annotations

import numpy as np

from explorank.artefacts import Watched
from explorank.hooks import hookimpl
from explorank.hooks.registry import Registry
from explorank.hooks.types import Features, IndexArray, Scores
from explorank.rankers import DCNRanker, LightGBMRanker, Ranker, SequenceRanker
from explorank.services import Services


class RankersPlugin:
    """Scores with the newest trained ranker that passed its checks."""

    def __init__(self) -> None:
        self._ranker: Watched[Ranker] | None = None
        self._columns: tuple[tuple[str, ...], str, IndexArray | slice] | None = None

    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        """Add the built-in rankers."""
        registry.ranker("lightgbm", LightGBMRanker)
        registry.ranker("dcn", DCNRanker)
        registry.ranker("sequence", SequenceRanker)

    @hookimpl
    def ranking_startup(self, services: Services) -> None:
        """Watch the trained ranker."""
        self._ranker = services.ranker

    @hookimpl
    def ranking_score(self, features: Features) -> Scores | None:
        """Return the ranker's scores, or None where none is trained."""
        ranker = None if self._ranker is None else self._ranker.get()
        if ranker is None:
            return None
        columns = self._columns_for(ranker, features)
        return Scores(ranker.score(features.values[:, columns]), version=ranker.manifest.version)

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
