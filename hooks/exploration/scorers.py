"""Scorers: what a bootstrap can train many replicates of, and ask for a prediction each.

A scorer is a frozen value of pure functions; what it learns is a model of its own type, an immutable value
too, with B replicates in it. `linear` and `fourier` learn; `columns` reads predictions that an ensemble made
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState
from explorank.hooks.exploration.options import check_positive
from explorank.hooks.exploration.triangle import triangle
from explorank.hooks.types import FloatArray

ScorerName: TypeAlias = Literal["linear", "fourier", "columns"]

# The prior draws and the random features are functions of the options alone, so that a state can be rebuilt.
_SEED: Final = 20180612
# Rewards per block, so that what is summed for all replicates at once stays in the cache.
_BLOCK: Final = 256

M = TypeVar("M")


class Scorer(Protocol[M]):
    """What `BootstrappedThompson(scorer=...)` asks of one; nothing in it may change what it was given.

    Two scorers with equal options are equal (a frozen dataclass is), and the class's name goes into saved
    states.
    """

    def initial(self, replicates: int) -> M:
        """Return the model before any reward, `replicates` (B) times; let them differ, or nothing is explored."""

    def learn(self, model: M, features: FloatArray, targets: FloatArray, counts: FloatArray) -> M:
        """Return the model given `features` (m, d) with `targets` (m,); `counts` (B, m) says how often each.

        How rewards are cut into batches must not matter but for rounding: a learner that was restarted cuts
        them elsewhere. Raises `numpy.linalg.LinAlgError` where the numbers have no solution.
        """

    def predict(self, model: M, features: FloatArray) -> FloatArray:
        """Return what each replicate expects of each row of `features` (n, d), as (B, n) float64.

        A row's prediction must not depend on the other rows, because a decision is replayed from its pool.
        """

    def pack(self, model: M) -> dict[str, NDArray[Any]]:
        """Return the model as named arrays."""

    def unpack(self, packed: Mapping[str, NDArray[Any]], replicates: int) -> M:
        """Return the model that `pack` took apart; raise `CorruptState` or `KeyError` where it does not fit."""


class NamedInSettings:
    """Put into `Annotated[...]`: settings choose a scorer by its name, Python may pass any."""

    def __get_pydantic_core_schema__(self, source: object, handler: Callable[[Any], Any]) -> Any:
        """Return what pydantic checks; this package itself does not need pydantic."""
        return handler(ScorerName)


@dataclass(frozen=True)
class RidgeModel:
    """The normal equations of B ridge regressions over D features, and their solution."""

    precision: FloatArray  # (B, D, D)
    information: FloatArray  # (B, D)
    coefficients: FloatArray  # (B, D)

    @classmethod
    def of(cls, precision: FloatArray, information: FloatArray) -> RidgeModel:
        """Solve; raise `numpy.linalg.LinAlgError` where a system has no finite solution."""
        coefficients = np.linalg.solve(precision, information[..., None])[..., 0].astype(
            np.float64, copy=False
        )
        if not np.isfinite(coefficients).all():
            raise np.linalg.LinAlgError("a solution is not finite")
        return cls(precision, information, coefficients)


@dataclass(frozen=True)
class RidgeScorer:
    """Ridge regressions on the features as they are.

    θ_b = argmin_θ Σ_t c_bt (r_t - x_tᵀθ)² / noise² + prior_precision · |θ - θ⁰_b|²,   θ⁰_b ~ N(0, I / prior_precision)
    """

    dim: int
    prior_precision: float
    noise: float

    @property
    def width(self) -> int:
        """How many coefficients a replicate has."""
        return self.dim

    def lift(self, features: FloatArray) -> FloatArray:
        """Return what is regressed on, (n, D)."""
        return features

    def initial(self, replicates: int) -> RidgeModel:
        """Return the prior draws."""
        drawn = np.random.Generator(np.random.PCG64(_SEED)).standard_normal((replicates, self.width))
        precision = np.tile(np.eye(self.width) * self.prior_precision, (replicates, 1, 1))
        return RidgeModel.of(precision, drawn * np.sqrt(self.prior_precision))

    def learn(
        self, model: RidgeModel, features: FloatArray, targets: FloatArray, counts: FloatArray
    ) -> RidgeModel:
        """Return the regressions with the rewards added to their sums."""
        lifted, weights = self.lift(features), counts / self.noise**2
        precision = model.precision + grams(weights, lifted)
        return RidgeModel.of(precision, model.information + (weights * targets) @ lifted)

    def predict(self, model: RidgeModel, features: FloatArray) -> FloatArray:
        """Return what each regression expects of each row, (B, n)."""
        return model.coefficients @ self.lift(features).T

    def pack(self, model: RidgeModel) -> dict[str, NDArray[Any]]:
        """Return the normal equations."""
        return {"precision": model.precision, "information": model.information}

    def unpack(self, packed: Mapping[str, NDArray[Any]], replicates: int) -> RidgeModel:
        """Return the regressions; raise `CorruptState` where the arrays have other shapes."""
        precision, information = packed["precision"], packed["information"]
        needed = (replicates, self.width)
        if information.shape != needed or precision.shape != (*needed, self.width):
            raise CorruptState(
                f"The saved regressions have shapes {precision.shape} and {information.shape}; the options "
                f"describe {replicates} replicates of {self.width} coefficients, which would belong to other "
                "features. Set the options back, or start a new state."
            )
        return RidgeModel.of(precision, information)


@dataclass(frozen=True)
class FourierScorer(RidgeScorer):
    """Ridge regressions on random Fourier features: smooth functions of any form, as a Gaussian process has.

        φ_j(x) = sqrt(2 / components) · cos(w_jᵀx + u_j),   w_j ~ N(0, I / length_scale²),   u_j ~ U(0, 2π)

    φ(x)ᵀφ(y) is about exp(-|x - y|² / (2 · length_scale²)), off by about 1 / √components (Rahimi and Recht,
    *Random Features for Large-Scale Kernel Machines*, 2007). A prior draw is then a function of variance
    1 / prior_precision at every x.
    """

    components: int
    length_scale: float

    @property
    def width(self) -> int:
        """How many coefficients a replicate has."""
        return self.components

    def lift(self, features: FloatArray) -> FloatArray:
        """Return φ of each row, (n, components)."""
        directions, shifts = _waves(self.dim, self.components)
        lifted: FloatArray = np.cos(features @ (directions / self.length_scale) + shifts)
        lifted *= np.sqrt(2.0 / self.components)
        return lifted

    def pack(self, model: RidgeModel) -> dict[str, NDArray[Any]]:
        """Return the normal equations, and the length scale that gives coefficients their meaning."""
        return {**super().pack(model), "length_scale": np.array([self.length_scale])}

    def unpack(self, packed: Mapping[str, NDArray[Any]], replicates: int) -> RidgeModel:
        """Return the regressions; raise `CorruptState` for those of other features."""
        if packed["length_scale"].tolist() != [self.length_scale]:
            raise CorruptState(
                f"The saved regressions have length scale {packed['length_scale'].tolist()}, the options "
                f"{self.length_scale!r}; coefficients would belong to other features. Set `length_scale` back, "
                "or start a new state."
            )
        return super().unpack(packed, replicates)


@lru_cache(maxsize=16)
def _waves(dim: int, components: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.Generator(np.random.PCG64(_SEED + 1))
    directions, shifts = rng.standard_normal((dim, components)), rng.uniform(0.0, 2.0 * np.pi, components)
    directions.flags.writeable = shifts.flags.writeable = False  # every caller has the same
    return directions, shifts


@dataclass(frozen=True)
class ColumnScorer:
    """An ensemble that was trained elsewhere: each feature column holds one member's prediction.

    The members of a bagged model are bootstrap replicates already. There is nothing to learn here; what
    rewards teach enters with the next ensemble.
    """

    def initial(self, replicates: int) -> None:
        """Return nothing: all that is known comes with the candidates."""

    def learn(
        self,
        model: None,
        features: FloatArray,  # noqa: ARG002 - nothing to learn
        targets: FloatArray,  # noqa: ARG002 - the same
        counts: FloatArray,  # noqa: ARG002 - the same
    ) -> None:
        """Return nothing: rewards change nothing here."""
        return model

    def predict(self, model: None, features: FloatArray) -> FloatArray:  # noqa: ARG002 - there is none
        """Return the columns, (d, n)."""
        return features.T

    def pack(self, model: None) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - there is none
        """Return nothing."""
        return {}

    def unpack(self, packed: Mapping[str, NDArray[Any]], replicates: int) -> None:
        """Return nothing."""


def grams(counted: FloatArray, features: FloatArray) -> FloatArray:
    """Return Σ_m counted[b, m] x_m x_mᵀ of each replicate, (B, d, d)."""
    m, dim = features.shape
    if m < dim:  # what is saved is not worth the packing
        few: FloatArray = (features.T * counted[:, None]) @ features
        return few
    layout = triangle(dim)
    packed = np.zeros((len(counted), layout.size))
    products = np.empty((layout.size, min(m, _BLOCK)))
    for start in range(0, m, _BLOCK):
        columns = np.ascontiguousarray(features[start : start + _BLOCK].T)
        block = products[:, : columns.shape[1]]
        at = 0
        for row in range(dim):
            np.multiply(columns[: row + 1], columns[row], out=block[at : at + row + 1])
            at += row + 1
        packed += counted[:, start : start + _BLOCK] @ block.T
    gram: FloatArray = layout.unpack(packed)
    return gram


def check_fourier(policy: str, components: int, length_scale: float) -> None:
    """Raise `InvalidPolicy` for options without Fourier features."""
    check_positive(policy, "components", components, otherwise="there is nothing to regress on", example=64)
    check_positive(policy, "length_scale", length_scale, otherwise="no two items are alike", example=1.0)
