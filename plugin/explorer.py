"""Decides whether a request explores, and sees to it that a slate is always there and always allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from explorank.baseline import Baseline
from explorank.budgets import NOTHING, Budgets, Reserved, explored_slots
from explorank.engine import Engine
from explorank.fallbacks import note_guard_error
from explorank.hooks.errors import InvalidBatch, LogUnavailable
from explorank.hooks.exploration import Greedy, Policy, best_by_score, build_slate
from explorank.hooks.feedback import KillSwitch, traffic
from explorank.hooks.guards import Guard, guard_mask, is_static, static_mask, with_snapshots
from explorank.hooks.limits import Gate, refusal
from explorank.hooks.types import (
    Allowance,
    Arm,
    BoolArray,
    DecisionRecord,
    Fallback,
    IndexArray,
    Mode,
    RankingBatch,
    RankingRequest,
    Slate,
)
from explorank.settings import ExplorationSettings

_BASELINE = Greedy()
_BASELINE_STATE = _BASELINE.initial_state()


@dataclass(frozen=True, slots=True)
class Explored:
    """What is shown, and what was decided about it."""

    baseline: Baseline
    mode: Mode
    arm: Arm
    drawn: Slate | None = None
    """What is shown instead of the baseline."""
    shadow: Slate | None = None
    """What exploration would have shown, where it was computed and kept back."""
    propensity_known: bool = True
    """False where exploration failed in a way that may depend on what it drew."""
    held_back: str = ""
    """Why a limit kept the request from exploring, in all its slots or in some; empty where none did."""
    reserved: Reserved = NOTHING
    """What was taken from the visitor's budget."""
    repeats: DecisionRecord | None = None
    """The earlier decision that `slate` is, in rows of the request's own candidates."""

    @property
    def slate(self) -> Slate:
        """What is shown."""
        return self.baseline.slate if self.drawn is None else self.drawn

    def kept_back(self) -> Explored:
        """Return the same decision with the baseline shown."""
        return replace(self, drawn=None, shadow=None)


class Explorer:
    """Shares the slots between what is known to work and what might work better, as far as settings allow."""

    def __init__(
        self,
        settings: ExplorationSettings,
        engine: Engine,
        policy: Policy[Any],
        guards: Sequence[Guard],
        kill_switch: KillSwitch,
        budgets: Budgets,
        gates: Sequence[Gate] = (),
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._policy = policy
        self._guards = tuple(guards)
        self._varying = tuple(guard for guard in self._guards if not is_static(guard))
        self._kill_switch = kill_switch
        self._budgets = budgets
        self._gates = tuple(gates)

    def mode_of(self, request: RankingRequest) -> Mode:
        """Return the mode that holds for this request; the kill switch and foreign surfaces mean `off`."""
        surfaces = self._settings.surfaces
        if self._kill_switch.engaged or (surfaces != "all" and request.surface not in surfaces):
            return "off"
        return self._settings.mode

    def arm_of(self, request: RankingRequest) -> Arm:
        """Return the group of the request's user (session, where anonymous) by a stable hash."""
        key = request.user_id or str(request.context.get("session_id") or request.decision_id)
        return traffic.assign(
            key, salt=self._settings.salt, holdout=self._settings.holdout, share=self._settings.share
        )

    def explore(
        self,
        request: RankingRequest,
        ranking: RankingBatch,
        n_slots: int,
        seed: int,
        fallbacks: list[Fallback],
        *,
        held_back: str = "",
    ) -> Explored:
        """Return the slate to show; it holds only what every guard allows, on every path.

        `held_back` says why the request must not explore; empty where it may.
        """
        request = with_snapshots(self._guards, request, note_guard_error)
        mode = self.mode_of(request)
        arm = self.arm_of(request) if mode == "live" else "baseline"
        baseline = self._baseline(request, ranking, n_slots, seed)
        explores = mode in {"shadow", "apprentice"} or (mode == "live" and arm == "explore")
        decided = Explored(baseline, mode, arm)
        if not explores or not len(ranking) or n_slots == 0:
            return decided
        if mode == "live" and (settled := self._settled(decided, request, ranking, n_slots)) is not None:
            return settled
        if held_back:
            # Not a draw decided it, so that the propensities of the baseline are 1 and known.
            fallbacks.append(Fallback("explore", "explorank", held_back, "score order, nothing explored"))
            return replace(decided, held_back=held_back)
        return self._drawn(decided, request, ranking, n_slots, seed, fallbacks)

    def _settled(
        self, decided: Explored, request: RankingRequest, ranking: RankingBatch, n_slots: int
    ) -> Explored | None:
        """Return what is settled without a draw: a request held back, or an earlier decision served again."""
        if (reason := refusal(self._gates, request)) is not None:
            return replace(decided, held_back=reason)
        try:
            kept = self._kept(request, ranking, n_slots)
        except LogUnavailable as error:
            return replace(decided, held_back=str(error))
        return None if kept is None else replace(decided, drawn=kept[1], repeats=kept[0])

    def _drawn(
        self,
        decided: Explored,
        request: RankingRequest,
        ranking: RankingBatch,
        n_slots: int,
        seed: int,
        fallbacks: list[Fallback],
    ) -> Explored:
        """Return the decision with what is drawn within the budget: shown, or kept back as a shadow."""
        if (lacking := self._lacking(ranking)) is not None:
            fallbacks.append(Fallback("explore", "explorank", lacking, "score order"))
            return decided
        live = decided.mode == "live"
        reserved = self._budgets.reserve(request, ranking, n_slots, live=live)
        if reserved is not NOTHING:
            decided = replace(decided, held_back=reserved.held_back, reserved=reserved)
            if not reserved.explores:
                return decided
            request = replace(request, allowance=reserved.allowance)
        slate = self._engine.explore(
            request,
            ranking,
            n_slots,
            seed,
            lambda slate: self._check(slate, request, ranking, n_slots),
            fallbacks,
        )
        if slate is None:
            return replace(decided, propensity_known=not live)
        return replace(decided, drawn=slate) if live else replace(decided, shadow=slate)

    def _kept(
        self, request: RankingRequest, ranking: RankingBatch, n_slots: int
    ) -> tuple[DecisionRecord, Slate] | None:
        """Return the decision to serve again, and its slate in rows of `ranking`, where it still may be shown."""
        record = self._budgets.kept(request, n_slots)
        if record is None:
            return None
        row_of = dict(zip(ranking.item_ids.tolist(), range(len(ranking)), strict=True))
        shown = [row_of.get(item, -1) for item in record.shown_ids]
        if -1 in shown or (len(shown) < n_slots and len(ranking) > len(record.item_ids)):
            return None
        order = np.array(shown, np.int64)
        if self._forbidden(order, request, ranking) is not None:
            return None
        rows = np.array([row_of.get(item, -1) for item in record.item_ids.tolist()], np.int64)
        slate = record.slate
        served = replace(
            slate,
            order=order,
            eligible=_moved(slate.eligible, rows, len(ranking)),
            support=_moved(slate.support, rows, len(ranking)),
            decision_id=record.decision_id,
        )
        return record, served

    def _lacking(self, ranking: RankingBatch) -> str | None:
        """Return what the policy needs and this request has not, or None."""
        if ranking.features is None and self._policy.needs_features:
            return f"{self._policy.name} needs features (n, d) and this request has none"
        if ranking.offsets is None and self._settings.warm_start:
            return "the warm start has no calibration of the ranker that scored; run `explorank calibrate`"
        return None

    def _baseline(self, request: RankingRequest, ranking: RankingBatch, n_slots: int, seed: int) -> Baseline:
        def build() -> Slate:
            return build_slate(
                _BASELINE,
                _BASELINE_STATE,
                ranking,
                n_slots,
                explore_slots=(),
                guards=self._guards,
                request=request,
                seed=seed,
                on_guard_error=note_guard_error,
            )

        if self._varying:
            return Baseline.of(build())
        possible = static_mask(self._guards, request, ranking, note_guard_error)
        return Baseline(best_by_score(ranking, possible, n_slots, seed), build)

    def _check(self, slate: Slate, request: RankingRequest, ranking: RankingBatch, n_slots: int) -> None:
        """Raise `InvalidBatch` for a slate that breaks the contract or holds what a guard forbids."""
        order, n = slate.order, len(ranking)
        if len(order) > n_slots or len(order) != len(slate.propensities) or len(order) != len(slate.method):
            raise InvalidBatch(
                f"a slate of {len(order)} items, {len(slate.propensities)} propensities for {n_slots} slots"
            )
        if len(order) and (order.min() < 0 or order.max() >= n or len(set(order.tolist())) != len(order)):
            raise InvalidBatch(
                f"a slate whose rows {order.tolist()} repeat or lie outside the {n} candidates"
            )
        if not ((slate.propensities > 0) & (slate.propensities <= 1 + 1e-9)).all():
            raise InvalidBatch(f"a slate with propensities {slate.propensities.tolist()} outside (0, 1]")
        if (slot := self._forbidden(order, request, ranking)) is not None:
            item = str(ranking.item_ids[order[slot]])
            raise InvalidBatch(f"a slate with item {item!r} in slot {slot}, which a guard forbids there")
        if request.allowance is not None:
            _check_allowance(slate, request.allowance)

    def _forbidden(self, order: IndexArray, request: RankingRequest, ranking: RankingBatch) -> int | None:
        """Return the first slot whose item a guard forbids, given the slots above it, or `None`."""
        allowed = static_mask(self._guards, request, ranking, note_guard_error)[order]
        for guard in self._varying:
            for slot, row in enumerate(order.tolist()):
                mask = guard_mask(guard, request, ranking, order[:slot], slot, note_guard_error)
                allowed[slot] &= mask[row]
        return None if allowed.all() else int(allowed.argmin())


def _check_allowance(slate: Slate, allowance: Allowance) -> None:
    """Raise `InvalidBatch` for a slate that explores beyond what limits allow."""
    explored = explored_slots(slate)
    if not set(explored) <= set(allowance.slots):
        raise InvalidBatch(
            f"a slate that explores in slots {explored}, of which limits allow {list(allowance.slots)}; "
            "keep to `request.allowance`"
        )
    if allowance.explorable is not None and not allowance.explorable[slate.order[explored]].all():
        raise InvalidBatch(
            "a slate that explores with items which limits do not allow; keep to `request.allowance.explorable`"
        )


def _moved(masks: BoolArray, rows: IndexArray, n: int) -> BoolArray:
    """Return the columns of `masks` (k, m) at `rows` (m,) of (k, n); those at -1 are dropped."""
    moved = np.zeros((len(masks), n), np.bool_)
    moved[:, rows[rows >= 0]] = masks[:, rows >= 0]
    return moved
