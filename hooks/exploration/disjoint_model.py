"""One Gaussian per arm over coefficients of its own, and how rewards narrow it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.arm_store import ArmStore
from explorank.hooks.exploration.linear_model import (
    LinearModel,
    not_learnt,
    overwhelmed,
    residuals,
    retention,
)
from explorank.hooks.exploration.policy import Policy, unpacked_version
from explorank.hooks.exploration.rewards import row_weights
from explorank.hooks.types import FeatureArray, FloatArray, Ids, IndexArray, RankingBatch, RewardBatch

_NOBODY: Final[Ids] = np.zeros(0, dtype="<U1")
# Candidates per block where each has features of its own: their products then stay in the cache.
_BLOCK: Final = 64


@dataclass(frozen=True)
class DisjointState:
    """What is known of each arm (A of them, those that ever earned a reward); additive.

    The rows are shared with the states before and after it (see `arm_store`) and never change.
    """

    version: int
    item_ids: Ids  # (A,) by first appearance
    store: ArmStore
    places: IndexArray  # (A + 1,) rows of the store; the last is that of an arm without rewards: the prior
    row_of: Mapping[Any, int] = field(repr=False, compare=False)
    """Where each item stands in `item_ids`."""

    def places_of(self, item_ids: Ids) -> IndexArray:
        """Return the store's row of each item, (n,)."""
        # Where every arm is a candidate, in the same order, comparing is much cheaper than looking up.
        if len(item_ids) == len(self.item_ids) and np.array_equal(item_ids, self.item_ids):
            return self.places[:-1]
        # An item without an arm has row -1: the prior's.
        known = np.fromiter(
            map(self.row_of.get, item_ids.tolist(), repeat(-1)), np.int64, count=len(item_ids)
        )
        return self.places[known]


class Triangle:
    """Symmetric matrices (d, d) packed as their lower triangle (t,), row by row: LAPACK's packed `U`."""

    def __init__(self, dim: int) -> None:
        rows, columns = np.tril_indices(dim)
        self.dim: Final = dim
        self.size: Final = len(rows)
        self.diagonal: Final[IndexArray] = np.flatnonzero(rows == columns)
        self._rows: Final = rows
        self._columns: Final = columns
        self._flat: Final = rows * dim + columns
        self._twice: Final = np.where(rows == columns, np.float32(1.0), np.float32(2.0))

    def pack(self, matrix: FloatArray) -> FloatArray:
        """Return (d, d) as (t,)."""
        packed: FloatArray = matrix.ravel().take(self._flat)
        return packed

    def unpack(self, packed: FloatArray) -> FloatArray:
        """Return (..., t) as (..., d, d)."""
        matrices = np.empty((*packed.shape[:-1], self.dim, self.dim))
        matrices[..., self._rows, self._columns] = packed
        matrices[..., self._columns, self._rows] = packed
        return matrices

    def squares(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return q (..., t) such that the packed S has q · S = xᵀSx for each x of `vectors` (..., d)."""
        products: NDArray[Any] = vectors.take(self._rows, axis=-1)
        products *= vectors.take(self._columns, axis=-1)
        products *= self._twice
        return products


@lru_cache(maxsize=32)
def triangle(dim: int) -> Triangle:
    """Return the layout of packed matrices (dim, dim)."""
    return Triangle(dim)


@lru_cache(maxsize=1)
def _lapack() -> Any:
    # A third of a second, and first needed for an initial or a loaded state: never in a request.
    from scipy.linalg import lapack  # noqa: PLC0415 - who has no disjoint arms should not wait for it

    return lapack


@dataclass(frozen=True, slots=True)
class DisjointModel:
    """`LinearModel` with coefficients of each arm's own; the age of a reward counts that arm's rewards.

    An arm's posterior is solved from its sums by Cholesky, each time they change. LAPACK's packed routines
    take some 15 µs for it at 32 features, and unlike with the Sherman-Morrison formula, rounding does not add
    up over the rewards: a state is a function of its sums, however it was reached.
    """

    linear: LinearModel

    def initial_state(self) -> DisjointState:
        """Return a state without arms; raise `InvalidPolicy` for a prior that is too wide for float64."""
        none = np.zeros((0, self._triangle.size)), np.zeros((0, self.linear.dim))
        state = self._state(0, _NOBODY, *none)
        if state is None:
            raise InvalidPolicy(
                f"`prior_precision` of {self.linear.policy} is {self.linear.prior_precision!r}; its inverse "
                "overflows float64, and an arm without rewards would have no width. Try 1."
            )
        return state

    def learn(self, state: DisjointState, rewards: RewardBatch) -> DisjointState:
        """Return the posteriors given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for offsets that are not finite, for ids of another
        type than the state's, and where the numbers are too large for a posterior in float64.
        """
        features = self.linear.checked(rewards.features)
        if not len(rewards):
            return replace(state, version=state.version + 1)
        item_ids, row_of, arms, order, sizes = _grouped(self.linear.policy, state, rewards.item_ids)
        known = len(state.item_ids)
        unseen = np.full(len(item_ids) - known, state.places[known])
        places = np.concatenate((state.places[:known], unseen, state.places[known:]))
        gram, information = state.store.gram[places[arms]], state.store.information[places[arms]]
        with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the numbers named
            weights = (row_weights(rewards) / self.linear.noise**2)[order]
            features, targets = features[order].astype(np.float64), residuals(rewards)[order]
            stop = 0
            for position, size in enumerate(sizes):
                start, stop = stop, stop + size
                counted, taken = weights[start:stop], features[start:stop]
                if self.linear.half_life is not None:
                    kept = retention(self.linear.half_life, size)
                    counted = counted * kept[1:]
                    gram[position] *= kept[0]
                    information[position] *= kept[0]
                weighted = taken.T * counted
                gram[position] += self._triangle.pack(weighted @ taken)
                information[position] += weighted @ targets[start:stop]
        solved = self._solved(gram, information)
        if solved is None:
            raise overwhelmed(self.linear.policy, rewards)
        store = state.store
        while (at := store.append(gram, information, *solved)) is None:
            others = np.delete(np.arange(len(places)), arms)
            store = store.grown(places[others], extra=len(arms))
            places[others] = np.arange(len(others))
        places[arms] = at
        return DisjointState(state.version + 1, item_ids, store, places, row_of)

    def without(self, state: DisjointState, item_ids: Iterable[Any]) -> DisjointState:
        """Return the state, one version on, in which nothing is known of `item_ids`."""
        dropped = [row for row in map(state.row_of.get, set(item_ids)) if row is not None]
        left = np.delete(state.item_ids, dropped)
        places = np.delete(state.places, dropped)
        return DisjointState(state.version + 1, left, state.store, places, _rows_of(left))

    def merged(self, state: DisjointState, other: DisjointState) -> DisjointState:
        """Return the posteriors given what both have learnt; the version is the sum of both.

        Raises `InvalidBatch` where their ids differ in type, or a sum has no posterior in float64.
        """
        policy = self.linear.policy
        version = state.version + other.version
        if not len(state.item_ids) or not len(other.item_ids):
            return replace(state if len(state.item_ids) else other, version=version)
        if state.item_ids.dtype.kind != other.item_ids.dtype.kind:
            raise InvalidBatch(
                f"One state of {policy} names items by {state.item_ids.dtype}, the other by "
                f"{other.item_ids.dtype}; the same item would get two arms. Use one type of id throughout."
            )
        (_, mine), (_, theirs) = self.pack(state), self.pack(other)
        new = [item for item in other.item_ids.tolist() if item not in state.row_of]
        item_ids = np.concatenate((state.item_ids, np.asarray(new, dtype=other.item_ids.dtype)))
        row_of = _rows_of(item_ids)
        arms = np.fromiter(map(row_of.__getitem__, other.item_ids.tolist()), np.int64)
        gram = np.zeros((len(item_ids), self._triangle.size))
        information = np.zeros((len(item_ids), self.linear.dim))
        gram[: len(mine["gram"])], information[: len(mine["gram"])] = mine["gram"], mine["information"]
        gram[arms] += theirs["gram"]
        information[arms] += theirs["information"]
        merged = self._state(version, item_ids, gram, information)
        if merged is None:
            raise InvalidBatch(
                f"Two states of {policy} have no common posterior in float64; their numbers are too far apart. "
                "Standardise features and rewards, and rebuild both from the log."
            )
        return merged

    def minus(self, state: DisjointState, other: DisjointState) -> DisjointState:
        """Return the next version: the posteriors without what `other` has learnt, empty arms dropped.

        Raises `InvalidBatch` where `other` has learnt more of an arm than is there.
        """
        (_, mine), (_, theirs) = self.pack(state), self.pack(other)
        arms = np.fromiter(
            map(state.row_of.get, other.item_ids.tolist(), repeat(-1)), np.int64, count=len(other.item_ids)
        )
        if (arms < 0).any():
            raise not_learnt(self.linear.policy)
        gram, information = mine["gram"].copy(), mine["information"].copy()
        gram[arms] -= theirs["gram"]
        information[arms] -= theirs["information"]
        diagonal = self._triangle.diagonal
        before, after = mine["gram"][arms][:, diagonal], gram[arms][:, diagonal]
        rounding = 1e-9 * before.max(axis=1, keepdims=True, initial=0.0)
        if (after < -rounding).any():
            raise not_learnt(self.linear.policy)
        left = np.delete(np.arange(len(gram)), arms[(after <= rounding / 10).all(axis=1)])
        remaining = self._state(state.version + 1, state.item_ids[left], gram[left], information[left])
        if remaining is None:
            raise not_learnt(self.linear.policy)
        return remaining

    def posterior(self, state: DisjointState) -> tuple[FloatArray, FloatArray]:
        """Return the mean (A, d) and the covariance (A, d, d) of each arm in `state.item_ids`."""
        live = state.places[:-1]
        return state.store.mean[live], self._triangle.unpack(state.store.covariance[live])

    def beliefs(self, state: DisjointState, batch: RankingBatch) -> ArmBeliefs:
        """Return what is believed of the candidates; raise `InvalidBatch` without (n, dim) features."""
        features = self.linear.checked(batch.features)
        return ArmBeliefs(state.store, state.places_of(batch.item_ids), features, self._triangle)

    def pack(self, state: DisjointState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the sums of each arm; the prior is an option of the policy, not part of the state."""
        live = state.places[:-1]
        return {"version": state.version}, {
            "item_ids": state.item_ids,
            "gram": state.store.gram[live],
            "information": state.store.information[live],
        }

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> DisjointState:
        """Return the state; raise `CorruptState` where it does not fit `dim` or has no posterior."""
        version = unpacked_version(
            self.linear.policy, meta, packed, names=("item_ids", "gram", "information")
        )
        item_ids, gram, information = packed["item_ids"], packed["gram"], packed["information"]
        arms = len(set(item_ids.tolist()))
        needed = [(arms,), (arms, self._triangle.size), (arms, self.linear.dim)]
        found = [item_ids.shape, gram.shape, information.shape]
        if found != needed:
            raise CorruptState(
                f"A saved state of {self.linear.policy} has {arms} distinct arms in arrays of shapes {found}; "
                f"with dim {self.linear.dim} they must be {needed}, or numbers would belong to other "
                "features. Set `dim` back, or start a new state."
            )
        state = self._state(version, item_ids, gram, information)
        if state is None:
            raise CorruptState(
                f"A saved state of {self.linear.policy} has an arm without a posterior: its sums are not "
                "those of any rewards. Restore an older copy, or rebuild it from the log."
            )
        return state

    @property
    def _triangle(self) -> Triangle:
        return triangle(self.linear.dim)

    def _state(
        self, version: int, item_ids: Ids, gram: FloatArray, information: FloatArray
    ) -> DisjointState | None:
        """Return the state with these sums, (A, t) and (A, d), or `None` where one has no posterior."""
        # The last row is the prior's: that of an arm without rewards.
        gram = np.vstack((gram, np.zeros(self._triangle.size)))
        information = np.vstack((information, np.zeros(self.linear.dim)))
        solved = self._solved(gram, information)
        if solved is None:
            return None
        store = ArmStore(len(gram), self.linear.dim)
        places = store.append(gram, information, *solved)
        assert places is not None  # noqa: S101 - it was made for them
        return DisjointState(version, item_ids, store, places, _rows_of(item_ids))

    def _solved(self, gram: FloatArray, information: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return covariances (k, t) and means (k, d), or `None` where one is not finite."""
        covariance, mean = np.empty_like(gram), np.empty_like(information)
        dim, diagonal, lapack = self.linear.dim, self._triangle.diagonal, _lapack()
        precisions = gram.copy()
        precisions[:, diagonal] += self.linear.prior_precision
        for arm, precision in enumerate(precisions):
            factor, refused = lapack.dpptrf(dim, precision)
            if refused:
                return None
            mean[arm] = lapack.dpptrs(dim, factor, information[arm])[0]
            covariance[arm] = lapack.dpptri(dim, factor)[0]
        finite = np.isfinite(covariance).all() and np.isfinite(mean).all()
        return (covariance, mean) if finite else None


@dataclass(frozen=True, slots=True)
class ArmBeliefs:
    """The mean and the width of what each candidate is expected to earn, each by its own arm."""

    store: ArmStore
    places: IndexArray  # (n,) of each candidate's arm
    features: FeatureArray  # (n, d)
    layout: Triangle

    def moments(self, rows: IndexArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of `rows`, (len(rows),) each."""
        features = self.features.take(rows, axis=0).astype(np.float64)
        places = self.places[rows]
        mean: FloatArray = np.vecdot(self.store.mean.take(places, axis=0), features)
        squares = self.layout.squares(features[:1] if _is_one(features) else features)
        variance = np.vecdot(self.store.covariance.take(places, axis=0), squares)
        return mean, np.sqrt(np.maximum(variance, 0.0))  # rounding may leave less than nothing

    def upper_bounds(self, rows: IndexArray, deviations: float) -> FloatArray:
        """Return mean + `deviations` standard deviations of `rows`, (len(rows),)."""
        mean, deviation = self.moments(rows)
        return mean + deviations * deviation

    def rough_upper_bounds(self, rows: IndexArray, deviations: float) -> NDArray[np.floating[Any]]:
        """Return `upper_bounds` in single precision where it suffices: to say who contends."""
        features, places = self.features.take(rows, axis=0), self.places[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            if _is_one(features):
                mean, variance = self._for_one_context(features[0], places)
            else:
                mean, variance = self._for_each_context(features, places)
            upper = mean + np.float32(deviations) * np.sqrt(np.maximum(variance, 0.0))
            if math.isfinite(float(upper.sum())):
                return upper
        return self.upper_bounds(rows, deviations)

    def _for_one_context(
        self, context: FeatureArray, places: IndexArray
    ) -> tuple[FeatureArray, FeatureArray]:
        """Return rough means and variances where all candidates have the same features (d,)."""
        means, covariances = self.store.rough_mean, self.store.rough_covariance
        used = self.store.used
        squares = self.layout.squares(context)
        if used <= 2 * len(places):
            # To read rows that are not asked for is cheaper than to copy those that are.
            return (means[:used] @ context)[places], (covariances[:used] @ squares)[places]
        return means.take(places, axis=0) @ context, covariances.take(places, axis=0) @ squares

    def _for_each_context(
        self, features: FeatureArray, places: IndexArray
    ) -> tuple[FeatureArray, FeatureArray]:
        """Return rough means and variances where each candidate has features (n, d) of its own."""
        mean: FeatureArray = np.vecdot(self.store.rough_mean.take(places, axis=0), features)
        variance = np.empty(len(places), np.float32)
        for start in range(0, len(places), _BLOCK):
            rows = slice(start, start + _BLOCK)
            covariance = self.store.rough_covariance.take(places[rows], axis=0)
            variance[rows] = np.vecdot(covariance, self.layout.squares(features[rows]))
        return mean, variance


class DisjointPolicy(Policy[DisjointState]):
    """The base of linear policies with a posterior per arm."""

    needs_features: ClassVar[bool] = True

    @property
    @abstractmethod
    def model(self) -> DisjointModel:
        """The regression of each arm, by the policy's options."""

    def initial_state(self) -> DisjointState:
        """Return a state without arms: every item has the prior until its first reward."""
        return self.model.initial_state()

    def learn(self, state: DisjointState, rewards: RewardBatch) -> DisjointState:
        """Return the posteriors given `rewards`; how they are cut into batches matters only to rounding.

        Raises `InvalidBatch` without (m, dim) features, for offsets that are not finite, for ids of another
        type than the state's, and where the numbers are too large for a posterior in float64.
        """
        return self.model.learn(state, rewards)

    @property
    def additive(self) -> bool:
        """True unless rewards fade with a half-life."""
        return self.model.linear.half_life is None

    def merge(self, state: DisjointState, other: DisjointState) -> DisjointState:
        """Return the posteriors given what both have learnt; raise `InvalidPolicy` with a half-life."""
        if not self.additive:
            raise self._not_additive("merged")
        return self.model.merged(state, other)

    def unlearn(self, state: DisjointState, rewards: RewardBatch) -> DisjointState:
        """Return the posteriors without `rewards`; raise `InvalidPolicy` with a half-life."""
        if not self.additive:
            raise self._not_additive("unlearnt")
        return self.model.minus(state, self.learn(self.initial_state(), rewards))

    def drop(self, state: DisjointState, item_ids: Iterable[Any]) -> DisjointState:
        """Return the state, one version on, in which nothing is known of `item_ids`; unknown ids are ignored."""
        return self.model.without(state, item_ids)

    def posterior(self, state: DisjointState) -> tuple[FloatArray, FloatArray]:
        """Return the mean (A, d) and the covariance (A, d, d) of each arm in `state.item_ids`."""
        return self.model.posterior(state)

    def pack(self, state: DisjointState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the sums of each arm; the prior is an option of the policy, not part of the state."""
        return self.model.pack(state)

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> DisjointState:
        """Return the state; raise `CorruptState` where it does not fit `dim` or has no posterior."""
        return self.model.unpack(meta, packed)


def _is_one(features: NDArray[Any]) -> bool:
    """Return whether all rows (n, d) are the same: features of the request, not of the candidates."""
    return bool((features == features[0]).all())


def _rows_of(item_ids: Ids) -> Mapping[Any, int]:
    return MappingProxyType({item: row for row, item in enumerate(item_ids.tolist())})


def _grouped(
    policy: str, state: DisjointState, rewarded: Ids
) -> tuple[Ids, Mapping[Any, int], IndexArray, IndexArray, list[int]]:
    """Return the arms after rewards for the items `rewarded` (m,), and which rewards are whose.

    That is: all item ids (A',) and their rows, the rewarded arms (k,), the rewards arm by arm (m,), each
    arm's in their order, and how many they are.
    """
    if rewarded.dtype.kind not in "Uiu":
        rewarded = np.asarray(
            rewarded.tolist()
        )  # text held as objects becomes plain text, which can be saved
    if len(state.item_ids) and state.item_ids.dtype.kind != rewarded.dtype.kind:
        raise InvalidBatch(
            f"Rewards name items by {rewarded.dtype}, the state of {policy} by {state.item_ids.dtype}; the "
            "same item would get two arms. Use one type of id throughout."
        )
    groups: dict[Any, list[int]] = {}
    for row, item in enumerate(rewarded.tolist()):
        groups.setdefault(item, []).append(row)
    new = [item for item in groups if item not in state.row_of]
    item_ids, row_of = state.item_ids, state.row_of
    if new:
        added = np.asarray(new, dtype=rewarded.dtype)
        item_ids = np.concatenate((item_ids, added)) if len(item_ids) else added
        row_of = _rows_of(item_ids)
    arms = np.fromiter(map(row_of.__getitem__, groups), np.int64, count=len(groups))
    order = np.fromiter(chain.from_iterable(groups.values()), np.int64, count=len(rewarded))
    return item_ids, row_of, arms, order, [len(rows) for rows in groups.values()]
