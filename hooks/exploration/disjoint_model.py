"""One Gaussian per arm over coefficients of its own, and how rewards narrow it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
from explorank.hooks.exploration.arm_beliefs import ArmBeliefs
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
from explorank.hooks.exploration.roster import Roster
from explorank.hooks.exploration.triangle import Triangle, solve, triangle
from explorank.hooks.types import FloatArray, Ids, IndexArray, RankingBatch, RewardBatch

_NOBODY: Final[Ids] = np.zeros(0, dtype="<U1")


@dataclass(frozen=True)
class DisjointState:
    """What is known of each arm (A of them, those that ever earned a reward); additive.

    The rows are shared with the states before and after it (see `arm_store`) and never change.
    """

    version: int
    roster: Roster  # of A arms, by first appearance
    store: ArmStore
    places: IndexArray  # (A + 1,) rows of the store; the last is that of an arm without rewards: the prior

    @property
    def item_ids(self) -> Ids:
        """The arms, (A,)."""
        return self.roster.item_ids

    def places_of(self, batch: RankingBatch) -> IndexArray:
        """Return the store's row of each candidate, (n,)."""
        # An item without an arm has row -1: the prior's.
        return self.places[self.roster.rows_of(batch)]


@dataclass(frozen=True, slots=True)
class DisjointModel:
    """`LinearModel` with coefficients of each arm's own; the age of a reward counts that arm's rewards.

    An arm's posterior is solved from its sums by Cholesky, each time they change. That takes some 10 µs at 32
    features, and unlike with the Sherman-Morrison formula, rounding does not add up over the rewards: a state is
    a function of its sums, however it was reached.
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
        roster, arms, order, sizes = _grouped(self.linear.policy, state.roster, rewards.item_ids)
        known = len(state.roster)
        places = np.full(len(roster) + 1, state.places[known])  # new arms begin with the prior
        places[:known] = state.places[:known]
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
        return DisjointState(state.version + 1, roster, store, places)

    def without(self, state: DisjointState, item_ids: Iterable[Any]) -> DisjointState:
        """Return the state, one version on, in which nothing is known of `item_ids`."""
        named = set(item_ids)
        rows = state.roster.rows(named, len(named))
        dropped = rows[rows >= 0]
        left = Roster(np.delete(state.item_ids, dropped))
        return DisjointState(state.version + 1, left, state.store, np.delete(state.places, dropped))

    def merged(self, state: DisjointState, other: DisjointState) -> DisjointState:
        """Return the posteriors given what both have learnt; the version is the sum of both.

        Raises `InvalidBatch` where their ids differ in type, or a sum has no posterior in float64.
        """
        policy = self.linear.policy
        version = state.version + other.version
        if not len(state.roster) or not len(other.roster):
            return replace(state if len(state.roster) else other, version=version)
        if state.item_ids.dtype.kind != other.item_ids.dtype.kind:
            raise InvalidBatch(
                f"One state of {policy} names items by {state.item_ids.dtype}, the other by "
                f"{other.item_ids.dtype}; the same item would get two arms. Use one type of id throughout."
            )
        (_, mine), (_, theirs) = self.pack(state), self.pack(other)
        theirs_only = state.roster.rows(other.item_ids.tolist(), len(other.roster)) < 0
        item_ids = np.concatenate((state.item_ids, other.item_ids[theirs_only]))
        arms = Roster(item_ids).rows(other.item_ids.tolist(), len(other.roster))
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
        arms = state.roster.rows(other.item_ids.tolist(), len(other.roster))
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
        return ArmBeliefs(state.store, state.places_of(batch), features)

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
        return DisjointState(version, Roster(item_ids), store, places)

    def _solved(self, gram: FloatArray, information: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return covariances (k, t) and means (k, d), or `None` where one is not finite."""
        covariance, mean = np.empty_like(gram), np.empty_like(information)
        solvable = solve(gram, information, self.linear.prior_precision, covariance, mean)
        return (covariance, mean) if solvable else None


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

    def _merge(self, state: DisjointState, other: DisjointState) -> DisjointState:
        """Return the posteriors given what both have learnt."""
        return self.model.merged(state, other)

    def _unlearn(self, state: DisjointState, rewards: RewardBatch) -> DisjointState:
        """Return the posteriors without `rewards`."""
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


def _grouped(policy: str, roster: Roster, rewarded: Ids) -> tuple[Roster, IndexArray, IndexArray, list[int]]:
    """Return the arms after rewards for the items `rewarded` (m,), and which rewards are whose.

    That is: the roster of A' arms, the rewarded arms (k,), the rewards arm by arm (m,), each arm's in their
    order, and how many they are.
    """
    if rewarded.dtype.kind not in "Uiu":
        # Text held as objects becomes plain text, which can be saved.
        rewarded = np.asarray(rewarded.tolist())
    if len(roster) and roster.item_ids.dtype.kind != rewarded.dtype.kind:
        raise InvalidBatch(
            f"Rewards name items by {rewarded.dtype}, the state of {policy} by {roster.item_ids.dtype}; the "
            "same item would get two arms. Use one type of id throughout."
        )
    groups: dict[Any, list[int]] = {}
    for row, item in enumerate(rewarded.tolist()):
        groups.setdefault(item, []).append(row)
    new = [item for item in groups if item not in roster]
    if new:
        added = np.asarray(new, dtype=rewarded.dtype)
        roster = Roster(np.concatenate((roster.item_ids, added)) if len(roster) else added)
    order = np.fromiter(chain.from_iterable(groups.values()), np.int64, count=len(rewarded))
    return roster, roster.rows(groups, len(groups)), order, [len(rows) for rows in groups.values()]
