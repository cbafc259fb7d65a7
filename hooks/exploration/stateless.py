"""The base of policies that learn nothing themselves: the ranker's scores carry all that is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.exploration.mixture import WinnerMixture
from explorank.hooks.exploration.policy import Contest, Policy, unpacked_version
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch


@dataclass(frozen=True, slots=True)
class Stateless:
    """A state that only counts how often `learn` was called."""

    version: int = 0


@dataclass(frozen=True)
class StatelessPolicy(Policy[Stateless]):
    """A policy whose distribution has a closed form in the scores."""

    def initial_state(self) -> Stateless:
        """Return version 0."""
        return Stateless()

    def closed_form(self, scores: FloatArray) -> Contest:
        """Return the closed form over `scores` (n,); unless overridden, the best, mixed with the floor."""
        return WinnerMixture(scores, uniform=self.exploration_floor)

    def contest(
        self,
        state: Stateless,  # noqa: ARG002 - the scores are all that is known
        batch: RankingBatch,
        eligible: BoolArray,  # noqa: ARG002 - no pool is formed
        rng: np.random.Generator,  # noqa: ARG002 - the distribution has a closed form
    ) -> Contest:
        """Return the closed form over this request's scores."""
        return self.closed_form(batch.score_values)

    def learn(self, state: Stateless, rewards: RewardBatch) -> Stateless:  # noqa: ARG002 - nothing to learn
        """Return the next version; rewards change nothing here."""
        return replace(state, version=state.version + 1)

    @property
    def additive(self) -> bool:
        """True: there is nothing to add."""
        return True

    def _merge(self, state: Stateless, other: Stateless) -> Stateless:
        """Return the sum of both versions."""
        return replace(state, version=state.version + other.version)

    def _unlearn(self, state: Stateless, rewards: RewardBatch) -> Stateless:  # noqa: ARG002 - nothing was learnt
        """Return the next version; no reward has changed anything."""
        return replace(state, version=state.version + 1)

    def pack(self, state: Stateless) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the version."""
        return {"version": state.version}, {}

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> Stateless:
        """Return the version; raise `CorruptState` where there is none, or arrays beside it."""
        return Stateless(unpacked_version(self.name, meta, packed, names=()))
