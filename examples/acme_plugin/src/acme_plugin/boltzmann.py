"""Boltzmann exploration: an item's probability grows exponentially with its score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import Policy
from explorank.hooks.exploration.policy import unpacked_version
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch


@dataclass(frozen=True, slots=True)
class Learnt:
    """Nothing but how often `learn` was called: the ranker's scores carry all that is known."""

    version: int = 0


@dataclass(frozen=True)
class Boltzmann(Policy[Learnt]):
    """Show item i with probability p(i) = exp(s_i / T) / Σ_j exp(s_j / T), over the eligible j.

    Source: Luce, *Individual Choice Behavior* (1959); drawn slot by slot it is Plackett and Luce's model.
    The propensity is in closed form; without a floor, importance weights have no bound.
    """

    name: ClassVar[str] = "boltzmann"

    temperature: float = 1.0
    """In units of the score, above 0: small is nearly greedy, large is nearly uniform."""

    def __post_init__(self) -> None:
        """Check the temperature."""
        if not 0.0 < self.temperature < np.inf:
            raise InvalidPolicy(
                f"`temperature` of {self.name} is {self.temperature!r}; it must be positive and finite, or "
                "no slot could be drawn. Try 1."
            )

    def initial_state(self) -> Learnt:
        """Return version 0."""
        return Learnt()

    def contest(
        self, state: Learnt, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> Softmax:
        """Return the closed form over this request's scores; nothing is random but the draw itself."""
        return Softmax(batch.score_values, self.temperature)

    def learn(self, state: Learnt, rewards: RewardBatch) -> Learnt:
        """Return the next version; rewards change nothing here."""
        return replace(state, version=state.version + 1)

    def pack(self, state: Learnt) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the version."""
        return {"version": state.version}, {}

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> Learnt:
        """Return the state; raise `CorruptState` where it is not one of ours."""
        return Learnt(unpacked_version(self.name, meta, packed, names=()))


@dataclass(frozen=True, slots=True)
class Softmax:
    """One request's scores."""

    scores: FloatArray  # (n,)
    temperature: float

    def distribution(self, eligible: BoolArray) -> FloatArray:
        """Return the softmax over `eligible`, (n,) float64; the same for scores shifted by a constant."""
        # The best eligible score is the reference: no exponent is above 0, so nothing overflows.
        best = np.max(self.scores, where=eligible, initial=-np.inf)
        weights = np.zeros(len(self.scores))
        with np.errstate(over="ignore", under="ignore"):  # a difference beyond the range has probability 0
            weights[eligible] = np.exp((self.scores[eligible] - best) / self.temperature)
        distribution: FloatArray = weights / weights.sum()
        return distribution
