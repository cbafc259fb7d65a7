"""The ranker behind its hook: how good each candidate is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from explorank.artefacts import Watched
from explorank.builtin.retrieval import history_of
from explorank.cross_encoder import CrossEncoderRanker
from explorank.exploration_features import REPRESENTATION
from explorank.fallbacks import note_fallback
from explorank.hooks import hookimpl
from explorank.hooks.deadlines import Deadline
from explorank.hooks.registry import Registry
from explorank.hooks.types import (
    Candidates,
    Fallback,
    FeatureArray,
    Features,
    FloatArray,
    IndexArray,
    RankingRequest,
    Scores,
)
from explorank.rankers import (
    Bagging,
    Blend,
    Calibrated,
    DCNRanker,
    HurriedRanker,
    IdReadingRanker,
    LightGBMRanker,
    Ranker,
    ReciprocalRank,
    RepresentingRanker,
    Rerank,
    SequenceRanker,
    Stack,
    UncertainRanker,
    is_prompt,
    places_of,
)
from explorank.services import Services
from explorank.settings import Settings

NAME: Final = "explorank-rankers"
CHEAPER: Final = "-cheaper"
"""Ends the version of scores that a ranker gave in its cheaper way."""


class RankersPlugin:
    """Scores with the newest trained ranker that passed its checks."""

    def __init__(self) -> None:
        self._ranker: Watched[Ranker] | None = None
        self._represents = False
        self._plan: _Plan | None = None
        self._deadline: Deadline | None = None
        self._hurried: Deadline | None = None
        """Of its own, since calls that were abandoned must not take the way out of their being late."""

    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        """Add the built-in rankers."""
        registry.ranker("lightgbm", LightGBMRanker)
        registry.ranker("bagging", Bagging)
        registry.ranker("blend", Blend)
        registry.ranker("calibrated", Calibrated)
        registry.ranker("reciprocal_rank", ReciprocalRank)
        registry.ranker("rerank", Rerank)
        registry.ranker("stack", Stack)
        registry.ranker("cross_encoder", CrossEncoderRanker)
        registry.ranker("dcn", DCNRanker)
        registry.ranker("sequence", SequenceRanker)

    @hookimpl
    def ranking_startup(self, settings: Settings, services: Services) -> None:
        """Watch the trained ranker, and see whether anybody reads its last layer."""
        self._ranker = services.ranker
        if settings.ranker is not None and settings.ranker.budget_ms is not None:
            self._deadline = Deadline(settings.ranker.budget_ms)
            self._hurried = Deadline(settings.ranker.budget_ms)
        self._represents = REPRESENTATION in settings.exploration.features

    @hookimpl
    def ranking_score(
        self, request: RankingRequest, candidates: Candidates, features: Features
    ) -> Scores | None:
        """Return the ranker's scores, with their uncertainty where it knows it, or None where none is trained.

        One that is late, or fails, is asked for its cheaper way, where it has one.
        """
        ranker = None if self._ranker is None else self._ranker.get()
        if ranker is None:
            return None
        plan = self._plan
        if plan is None or plan.ranker is not ranker or plan.names != features.names:
            self._plan = plan = _Plan.of(ranker, features.names, represents=self._represents)
        try:
            return self._scored(plan, request, candidates, features.values, self._deadline)
        except Exception as error:
            if plan.may_hurry is None or request.hurried:
                raise
            failed = replace(request, hurried=f"{type(error).__name__}: {error}")
            return self._scored(plan, failed, candidates, features.values, self._hurried)

    @staticmethod
    def _scored(
        plan: _Plan,
        request: RankingRequest,
        candidates: Candidates,
        values: FeatureArray,
        deadline: Deadline | None,
    ) -> Scores:
        if deadline is None or plan.prompt:
            return plan.score(request, candidates, values)
        scores: Scores = deadline.run(plan.score, (request, candidates, values), {})
        return scores


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one ranker scores requests with columns of these names; remembered, since both rarely change."""

    ranker: Ranker
    names: tuple[str, ...]
    columns: IndexArray | slice
    """Where the ranker's columns stand, those that it reads from ids after the served ones. A slice where they stand
    together and in order, so that nothing is copied."""
    prompt: bool
    """Whether the ranker waits for nothing, so that it needs no deadline."""
    reads_ids: IdReadingRanker | None
    """The ranker, where it computes columns from ids."""
    knows_uncertainty: UncertainRanker | None
    """The ranker, where it says how sure it is."""
    may_hurry: HurriedRanker | None
    """The ranker, where it has a cheaper way."""
    represents: _Representation | None
    """The ranker's last layer, where it has one and somebody reads it."""

    @classmethod
    def of(cls, ranker: Ranker, names: tuple[str, ...], *, represents: bool) -> _Plan:
        """Look up the columns; raise `FeatureMismatch` for one that nobody serves."""
        reads_ids = ranker if isinstance(ranker, IdReadingRanker) and ranker.id_columns else None
        all_names = names if reads_ids is None else (*names, *reads_ids.id_columns)
        wanted = ranker.manifest.feature_names
        ranker.check([name for name in wanted if name in all_names])
        return cls(
            ranker=ranker,
            names=names,
            columns=places_of(wanted, all_names),
            prompt=is_prompt(ranker),
            reads_ids=reads_ids,
            knows_uncertainty=ranker if isinstance(ranker, UncertainRanker) else None,
            may_hurry=ranker if isinstance(ranker, HurriedRanker) and ranker.cheaper_way else None,
            represents=_Representation.of(ranker) if represents else None,
        )

    def score(self, request: RankingRequest, candidates: Candidates, values: FeatureArray) -> Scores:
        """Return the scores of candidates with served columns `values` (n, d)."""
        if self.reads_ids is not None:
            read = self.reads_ids.read_ids(candidates.id_list, history_of(request))
            values = np.concatenate([values, read], axis=1)
        version = self.ranker.manifest.version
        if request.hurried and self.may_hurry is not None:
            note_fallback(Fallback("score", NAME, request.hurried, self.may_hurry.cheaper_way))
            # Another version, since nothing that was fitted to the whole ranker's scores holds for these.
            return Scores(
                self.may_hurry.score_cheaply(values[:, self.columns]), version=f"{version}{CHEAPER}"
            )
        own = values[:, self.columns]
        if self.represents is not None:
            scores, hidden = self.represents.score(own)
            uncertainty = None
            if self.knows_uncertainty is not None:
                scores, uncertainty = self.knows_uncertainty.score_with_uncertainty(own)
            return Scores(scores, uncertainty, version, hidden)
        if self.knows_uncertainty is None:
            return Scores(self.ranker.score(own), version=version)
        scores, uncertainty = self.knows_uncertainty.score_with_uncertainty(own)
        return Scores(scores, uncertainty, version)


@dataclass(frozen=True, slots=True)
class _Representation:
    """A ranker's last layer on the scale of its training."""

    ranker: RepresentingRanker
    mean: FeatureArray
    deviation: FeatureArray

    @classmethod
    def of(cls, ranker: Ranker) -> _Representation | None:
        """Return that of a ranker, None where it has none."""
        return cls(ranker, *ranker.representation_scale) if isinstance(ranker, RepresentingRanker) else None

    def score(self, features: FeatureArray) -> tuple[FloatArray, FeatureArray]:
        """Return the scores (n,) and the standardised last layer (n, h) of features (n, d)."""
        scores, hidden = self.ranker.score_with_representation(features)
        return scores, (hidden - self.mean) / self.deviation
