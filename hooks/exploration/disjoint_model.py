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
from explorank.hooks.exploration.triangle import Triangle, triangle
from explorank.hooks.types import FeatureArray, FloatArray, Ids, IndexArray, RankingBatch, RewardBatch

_NOBODY: Final[Ids] = np.zeros(0, dtype="<U1")
# Candidates whose covariances are read at once; those of 32 features then fit into the second-level cache.
_BLOCK: Final = 128


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

    def places_of(self, batch: RankingBatch) -> IndexArray:
        """Return the store's row of each candidate, (n,)."""
        # Where every arm is a candidate, in the same order, comparing is much cheaper than looking up.
        if len(batch) == len(self.item_ids) and np.array_equal(batch.item_ids, self.item_ids):
            return self.places[:-1]
        # An item without an arm has row -1: the prior's.
        known = np.fromiter(map(self.row_of.get, batch.id_list, repeat(-1)), np.int64, count=len(batch))
        return self.places[known]


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
        covariance: FloatArray = self._triangle.unpack(state.store.covariance[live])
        return state.store.mean[live], covariance

    def beliefs(self, state: DisjointState, batch: RankingBatch) -> ArmBeliefs:
        """Return what is believed of the candidates; raise `InvalidBatch` without (n, dim) features."""
        features = self.linear.checked(batch.features)
        return ArmBeliefs(state.store, state.places_of(batch), features, self._triangle)

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


class ArmBeliefs:
    """The mean and the width of what each candidate is expected to earn, each by its own arm."""

    __slots__ = ("_context", "_features", "_layout", "_places", "_store")

    def __init__(self, store: ArmStore, places: IndexArray, features: FeatureArray, layout: Triangle) -> None:
        """Take the store's row of each candidate's arm, (n,), and the candidates' features, (n, d)."""
        self._store = store
        self._places = places
        self._features = features
        self._layout = layout
        # Often they describe the request, not the candidate, and are the same for all.
        self._context = features[0] if len(features) and _is_one(features) else None

    @property
    def one_context(self) -> bool:
        """Whether all candidates have the same features."""
        return self._context is not None

    def moments(self, rows: IndexArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of `rows`, (len(rows),) each."""
        places = self._places[rows]
        means, covariances = self._store.mean, self._store.covariance
        mean: FloatArray
        variance: FloatArray
        if self._context is not None:
            context = self._context.astype(np.float64)
            mean = self._products(means, context, places)
            variance = self._products(covariances, self._layout.squares(context), places)
        else:
            features = self._features.take(rows, axis=0).astype(np.float64)
            mean = np.vecdot(means.take(places, axis=0), features)
            variance = np.vecdot(covariances.take(places, axis=0), self._layout.squares(features))
        return mean, np.sqrt(np.maximum(variance, 0.0))  # rounding may leave less than nothing

    def upper_bounds(self, rows: IndexArray, deviations: float) -> FloatArray:
        """Return mean + `deviations` standard deviations of `rows`, (len(rows),)."""
        mean, deviation = self.moments(rows)
        return mean + deviations * deviation

    def rough_upper_bounds(self, rows: IndexArray, deviations: float) -> NDArray[np.floating[Any]]:
        """Return `upper_bounds` in single precision where it suffices: to say who contends."""
        places = self._places[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            if self._context is not None:
                squares = self._layout.squares(self._context)
                mean = self._products(self._store.rough_mean, self._context, places)
                variance = self._products(self._store.rough_packed, squares, places)
            else:
                mean, variance = self._for_each_context(self._features.take(rows, axis=0), places)
            upper: NDArray[np.floating[Any]] = np.sqrt(np.maximum(variance, 0.0, out=variance), out=variance)
            upper *= deviations
            upper += mean
            if math.isfinite(float(upper.sum())):
                return upper
        return self.upper_bounds(rows, deviations)

    def _products(self, table: NDArray[Any], vector: NDArray[Any], places: IndexArray) -> NDArray[Any]:
        """Return the product of `vector` with each of the rows at `places` of one of the store's tables."""
        used = self._store.used
        if used <= 2 * len(places):
            # To read rows that are not asked for is cheaper than to copy those that are.
            every: NDArray[Any] = table[:used] @ vector
            return every[places]
        few: NDArray[Any] = table.take(places, axis=0) @ vector
        return few

    def _for_each_context(
        self, features: FeatureArray, places: IndexArray
    ) -> tuple[FeatureArray, FeatureArray]:
        """Return rough means and variances where each candidate has features (n, d) of its own."""
        mean: FeatureArray = np.vecdot(self._store.rough_mean.take(places, axis=0), features)
        variance = np.empty(len(places), np.float32)
        for start in range(0, len(places), _BLOCK):
            block = slice(start, start + _BLOCK)
            covariance = self._store.rough_covariance.take(places[block], axis=0)
            np.vecdot(np.matvec(covariance, features[block]), features[block], out=variance[block])
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
    return features.strides[0] == 0 or bool((features == features[0]).all())


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
