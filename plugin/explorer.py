"""Decides whether a request explores, and sees to it that a slate is always there and always allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from explorank.engine import Engine
from explorank.fallbacks import note_guard_error
from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration import Greedy, Policy, build_slate
from explorank.hooks.feedback import KillSwitch, traffic
from explorank.hooks.guards import Guard, guard_mask, static_mask, with_snapshots
from explorank.hooks.limits import Gate, refusal
from explorank.hooks.types import Arm, Fallback, Mode, RankingBatch, RankingRequest, Slate
from explorank.settings import ExplorationSettings

_BASELINE = Greedy()
_BASELINE_STATE = _BASELINE.initial_state()


@dataclass(frozen=True, slots=True)
class Explored:
    """What is shown, and what was decided about it."""

    slate: Slate
    mode: Mode
    arm: Arm
    baseline: Slate
    """The best by score that the guards allow."""
    shadow: Slate | None = None
    """What exploration would have shown, where it was computed and kept back."""
    propensity_known: bool = True
    """False where exploration failed in a way that may depend on what it drew."""
    held_back: str = ""
    """Why a limit kept the request from exploring; empty where none did."""

    def kept_back(self) -> Explored:
        """Return the same decision with the baseline shown."""
        return replace(self, slate=self.baseline, shadow=None)


class Explorer:
    """Shares the slots between what is known to work and what might work better, as far as settings allow."""

    def __init__(
        self,
        settings: ExplorationSettings,
        engine: Engine,
        policy: Policy[Any],
        guards: Sequence[Guard],
        kill_switch: KillSwitch,
        gates: Sequence[Gate] = (),
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._policy = policy
        self._guards = tuple(guards)
        self._kill_switch = kill_switch
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
    ) -> Explored:
        """Return the slate to show; it holds only what every guard allows, on every path."""
        request = with_snapshots(self._guards, request, note_guard_error)
        mode = self.mode_of(request)
        arm = self.arm_of(request) if mode == "live" else "baseline"
        baseline = self._baseline(request, ranking, n_slots, seed)
        explores = mode in {"shadow", "apprentice"} or (mode == "live" and arm == "explore")
        if not explores or not len(ranking) or n_slots == 0:
            return Explored(baseline, mode, arm, baseline)
        if mode == "live" and (reason := refusal(self._gates, request)) is not None:
            return Explored(baseline, mode, arm, baseline, held_back=reason)
        if (lacking := self._lacking(ranking)) is not None:
            fallbacks.append(Fallback("explore", "explorank", lacking, "score order"))
            return Explored(baseline, mode, arm, baseline)
        slate = self._engine.explore(
            request,
            ranking,
            n_slots,
            seed,
            lambda slate: self._check(slate, request, ranking, n_slots),
            fallbacks,
        )
        if slate is None:
            return Explored(baseline, mode, arm, baseline, propensity_known=mode != "live")
        if mode != "live":
            return Explored(baseline, mode, arm, baseline, shadow=slate)
        return Explored(slate, mode, arm, baseline)

    def _lacking(self, ranking: RankingBatch) -> str | None:
        """Return what the policy needs and this request has not, or None."""
        if ranking.features is None and self._policy.needs_features:
            return f"{self._policy.name} needs features (n, d) and this request has none"
        if ranking.offsets is None and self._settings.warm_start:
            return "the warm start has no calibration of the ranker that scored; run `explorank calibrate`"
        return None

    def _baseline(self, request: RankingRequest, ranking: RankingBatch, n_slots: int, seed: int) -> Slate:
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

    def _check(self, slate: Slate, request: RankingRequest, ranking: RankingBatch, n_slots: int) -> None:
        """Raise `InvalidBatch` for a slate that breaks the contract or holds what a guard forbids."""
        order, n = slate.order, len(ranking)
        if len(order) > n_slots or len(order) != len(slate.propensities) or len(order) != len(slate.method):
            raise InvalidBatch(
                f"a slate of {len(order)} items, {len(slate.propensities)} propensities for {n_slots} slots"
            )
        if len(order) and (order.min() < 0 or order.max() >= n or len(np.unique(order)) != len(order)):
            raise InvalidBatch(
                f"a slate whose rows {order.tolist()} repeat or lie outside the {n} candidates"
            )
        if not ((slate.propensities > 0) & (slate.propensities <= 1 + 1e-9)).all():
            raise InvalidBatch(f"a slate with propensities {slate.propensities.tolist()} outside (0, 1]")
        allowed = static_mask(self._guards, request, ranking, note_guard_error)
        for slot, row in enumerate(order.tolist()):
            eligible = allowed.copy()
            for guard in self._guards:
                if not getattr(guard, "static", False):
                    eligible &= guard_mask(guard, request, ranking, order[:slot], slot, note_guard_error)
            if not eligible[row]:
                raise InvalidBatch(
                    f"a slate with item {str(ranking.item_ids[row])!r} in slot {slot}, which a guard forbids there"
                )
