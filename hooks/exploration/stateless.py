"""The base of policies that learn nothing themselves: the ranker's scores carry all that is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.policy import Policy, unpacked_version
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch


@dataclass(frozen=True, slots=True)
class Stateless:
    """A state that only counts how often `learn` was called."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class ScoreMixture:
    """The best scores share 1 - `uniform` of the probability, all eligible candidates share `uniform`."""

    batch: RankingBatch
    uniform: float

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return (1 - u) · [i is best] / #{best} + u / #{eligible}, (n,) float64."""
        scores = self.batch.score_values
        winners = eligible & (scores == np.max(scores, where=eligible, initial=-np.inf))
        distribution: FloatArray = winners * ((1.0 - self.uniform) / np.count_nonzero(winners))
        distribution[eligible] += self.uniform / np.count_nonzero(eligible)
        return distribution


@dataclass(frozen=True)
class StatelessPolicy(Policy[Stateless]):
    """A policy whose distribution has a closed form in the scores: the best, mixed with its floor."""

    def initial_state(self) -> Stateless:
        """Return version 0."""
        return Stateless()

    def contest(
        self,
        state: Stateless,  # noqa: ARG002 - the scores are all that is known
        batch: RankingBatch,
        eligible: BoolArray,  # noqa: ARG002 - no pool is formed
        rng: np.random.Generator,  # noqa: ARG002 - the distribution has a closed form
    ) -> ScoreMixture:
        """Return the closed form over this request's scores."""
        return ScoreMixture(batch, uniform=self.exploration_floor)

    def learn(self, state: Stateless, rewards: RewardBatch) -> Stateless:  # noqa: ARG002 - nothing to learn
        """Return the next version; rewards change nothing here."""
        return replace(state, version=state.version + 1)

    def pack(self, state: Stateless) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the version."""
        return {"version": state.version}, {}

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> Stateless:
        """Return the version; raise `CorruptState` where there is none, or arrays beside it."""
        return Stateless(unpacked_version(self.name, meta, packed, names=()))
