"""What `BootstrappedThompson` does with a scorer other than its own linear one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration.linear_model import overwhelmed, residuals
from explorank.hooks.exploration.policy import unpacked_version
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.exploration.scorers import Scorer
from explorank.hooks.types import FeatureArray, FloatArray, IndexArray, RewardBatch


@dataclass(frozen=True)
class ScoredState:
    """The model of a scorer, and how many rewards it has seen."""

    version: int
    rewards: int
    """How many rewards have been learnt: the next one's number."""
    model: Any


@dataclass(frozen=True)
class ScoredBootstrap:
    """The replicates of one scorer, for the policy called `policy`."""

    policy: str
    scorer: Scorer[Any]
    dim: int
    replicates: int

    def initial_state(self) -> ScoredState:
        """Return the scorer's model before any reward."""
        return ScoredState(0, 0, self.scorer.initial(self.replicates))

    def learn(
        self, state: ScoredState, rewards: RewardBatch, features: FeatureArray, counted: FloatArray
    ) -> ScoredState:
        """Return the state given `rewards`, each of which counts `counted` (B, m) times.

        Raises `InvalidBatch` for offsets that are not finite and numbers that the scorer has no solution for.
        """
        targets = residuals(rewards)
        if not np.isfinite(targets).all():
            raise overwhelmed(self.policy, rewards)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            counts = counted * row_weights(rewards)
            try:
                model = self.scorer.learn(state.model, features.astype(np.float64), targets, counts)
            except np.linalg.LinAlgError as error:
                raise overwhelmed(self.policy, rewards) from error
        return ScoredState(state.version + 1, state.rewards + len(rewards), model)

    def pack(self, state: ScoredState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the scorer's arrays, and what they belong to."""
        meta = {"version": state.version, "rewards": state.rewards, "belongs_to": self._identity}
        return meta, self.scorer.pack(state.model)

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> ScoredState:
        """Return the state; raise `CorruptState` where it does not fit the options."""
        rewards = meta.get("rewards")
        if meta.get("belongs_to") != self._identity or not isinstance(rewards, int) or rewards < 0:
            raise CorruptState(
                f"A saved state of {self.policy} has learnt {rewards!r} rewards and belongs to "
                f"{meta.get('belongs_to')!r}; the options describe {self._identity!r}. Set them back, or start "
                "a new state."
            )
        try:
            model = self.scorer.unpack(packed, self.replicates)
        except (KeyError, ValueError, np.linalg.LinAlgError) as error:
            raise CorruptState(
                f"A saved state of {self.policy} has arrays {sorted(packed)}, of which its scorer makes no "
                f"model ({error}). Restore an older copy, or rebuild it from the log."
            ) from error
        version = unpacked_version(self.policy, meta, packed, names=tuple(self.scorer.pack(model)))
        return ScoredState(version, rewards, model)

    @property
    def _identity(self) -> dict[str, Any]:
        scorer = type(self.scorer).__name__
        return {"scorer": scorer, "dim": self.dim, "replicates": self.replicates}


@dataclass(frozen=True, slots=True)
class ScorerVotes:
    """The `Posterior` whose draws are the replicates' predictions."""

    bootstrap: ScoredBootstrap
    model: Any
    features: FeatureArray  # (n, d)

    def optimistic(self, rows: IndexArray) -> FloatArray:
        """Return mean + 2 standard deviations of the predictions for each of `rows`, (len(rows),)."""
        predicted = self.draws(rows)
        upper: FloatArray = predicted.mean(axis=0) + 2.0 * predicted.std(axis=0)
        return upper

    def draws(self, rows: IndexArray) -> FloatArray:
        """Return each replicate's prediction for each of `rows`, (B, len(rows))."""
        taken = self.features.take(rows, axis=0).astype(np.float64)
        predicted = self.bootstrap.scorer.predict(self.model, taken)
        if predicted.ndim != 2 or predicted.shape[1] != len(rows) or not np.isfinite(predicted).all():
            raise InvalidPolicy(
                f"The scorer {self.bootstrap.scorer!r} of {self.bootstrap.policy} predicted an array of shape "
                f"{predicted.shape} for {len(rows)} candidates, or numbers that are not finite; nobody wins by "
                f"such votes. Return finite numbers, (replicates, {len(rows)})."
            )
        return predicted
