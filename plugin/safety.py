"""Puts the limits of `exploration.safety` to work: the monitor beside the learner, and the gates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from explorank.hooks.feedback import KillSwitch
from explorank.hooks.limits import (
    AutomaticStop,
    BoundedMean,
    ConservativeExploration,
    EarningRules,
    Gate,
    Monitor,
    StopRule,
)
from explorank.settings import Settings


@dataclass(frozen=True, slots=True)
class Safety:
    """The limits that are set, and what they stand on."""

    monitor: Monitor
    conservative: ConservativeExploration | None
    stop: AutomaticStop | None

    @classmethod
    def of(cls, settings: Settings, kill_switch: KillSwitch) -> Self | None:
        """Return the limits that `settings` ask for, or `None` where they ask for none."""
        safety = settings.exploration.safety
        if not safety.active:
            return None
        minimum, maximum = settings.earning_bounds
        rules = EarningRules(
            weights=settings.earning_weights,
            window_s=safety.window_s or settings.feedback.horizon_s,
            minimum=minimum,
            maximum=maximum,
        )
        rule = None
        if safety.stop is not None:
            rule = StopRule(
                drop=safety.stop.drop,
                false_alarm=safety.stop.false_alarm,
                recent=safety.stop.recent,
                metric="reward" if safety.metric is None else f"reward of kind {safety.metric!r}",
            )
        monitor = Monitor(rules, kill_switch, stop=rule)
        conservative = None
        if safety.conservative is not None:
            conservative = ConservativeExploration(
                monitor.snapshot.earnings,
                alpha=safety.conservative.alpha,
                confidence=safety.conservative.confidence,
            )
            gate = conservative  # bound once, for the listener
            monitor.subscribe(lambda news: gate.update(news.earnings, news.step))
        stop = None if rule is None else AutomaticStop(lambda: monitor.snapshot.watch)
        return cls(monitor, conservative, stop)

    @property
    def gates(self) -> list[Gate]:
        """The gates that are asked before a request explores.

        The budget comes last: whoever passes it is counted as explored.
        """
        return [gate for gate in (self.stop, self.conservative) if gate is not None]

    def status(self) -> dict[str, Any]:
        """Return what was counted, the bounds, and what follows, as JSON-ready plain types."""
        now = self.monitor.snapshot
        described: dict[str, Any] = {
            "step": now.step,
            "clipped": now.earnings.clipped,
            "groups": {
                group: {
                    "open": account.open,
                    "settled": account.settled.count,
                    "total": account.settled.total,
                    "mean": account.settled.mean,
                }
                for group, account in now.earnings.accounts.items()
            },
            "conservative": None if self.conservative is None else _budget(self.conservative),
            "stop": self._stop_status(),
        }
        return described

    def _stop_status(self) -> dict[str, Any] | None:
        rule, watch = self.monitor.stop, self.monitor.snapshot.watch
        if rule is None or self.stop is None:
            return None
        return {
            "stopped": watch.reason is not None,
            "reason": watch.reason,
            "since": watch.since,
            "refused": self.stop.refused,
            "stretch": watch.stretch,
            "comparisons": {
                name: {
                    "explore": _side(comparison.explore),
                    "baseline": _side(comparison.baseline),
                    "explore_at_most": comparison.bounds(error)[0],
                    "baseline_at_least": comparison.bounds(error)[1],
                }
                for name, comparison, error in zip(
                    ("whole", "recent"), (watch.whole, watch.recent), rule.errors(watch), strict=True
                )
            },
        }


def _budget(gate: ConservativeExploration) -> dict[str, Any]:
    headroom = gate.headroom
    return {
        "open": gate.open,
        "allowed": None if math.isinf(headroom.decisions) else int(headroom.decisions),
        "earned_at_least": headroom.earned,
        "needed": headroom.required,
        "baseline_at_least": headroom.low,
        "baseline_at_most": headroom.high,
        "baseline_decisions": headroom.baseline,
        "refused": gate.refused,
    }


def _side(mean: BoundedMean) -> dict[str, float | None]:
    return {"settled": mean.count, "mean": mean.mean}


def figures(status: Mapping[str, Any]) -> list[tuple[str, str, dict[str, str], float]]:
    """Return (name, meaning, labels, value) of what is watched over time; a few values, none from a client."""
    rows: list[tuple[str, str, dict[str, str], float]] = []
    for group, counted in status["groups"].items():
        labels = {"group": group}
        rows += [
            ("decisions_open", "Live decisions that are not settled yet.", labels, counted["open"]),
            ("decisions_settled", "Live decisions that are settled.", labels, counted["settled"]),
            ("earned", "What the settled decisions earned, in the guarded metric.", labels, counted["total"]),
        ]
    rows.append(("decisions_clipped", "Settled decisions beyond the bounds.", {}, status["clipped"]))
    limits = {name: status[name] for name in ("conservative", "stop") if status[name] is not None}
    rows += [
        (
            "refused",
            "Requests of this process that a limit kept from exploring.",
            {"limit": name},
            found["refused"],
        )
        for name, found in limits.items()
    ]
    if (budget := limits.get("conservative")) is not None:
        allowed = math.inf if budget["allowed"] is None else budget["allowed"]
        rows += [
            ("budget_open", "1 while one more decision may be explored.", {}, budget["open"]),
            ("budget_decisions", "Decisions that may be explored until the log is read again.", {}, allowed),
            ("budget_earned", "What explored decisions earned at least.", {}, budget["earned_at_least"]),
            ("budget_needed", "What explored decisions must have earned.", {}, budget["needed"]),
        ]
        rows += [
            (
                "baseline_mean_bound",
                "Bounds on the baseline's mean per decision.",
                {"bound": bound},
                budget[key],
            )
            for bound, key in (("lower", "baseline_at_least"), ("upper", "baseline_at_most"))
        ]
    if (stop := limits.get("stop")) is not None:
        rows.append(("stopped", "1 after an automatic stop, until it is released.", {}, stop["stopped"]))
        for name, comparison in stop["comparisons"].items():
            rows += [
                (
                    "stop_bound",
                    "The bounds that the automatic stop compares.",
                    {"comparison": name, "arm": arm},
                    comparison[key],
                )
                for arm, key in (("explore", "explore_at_most"), ("baseline", "baseline_at_least"))
            ]
    return [(name, meaning, labels, float(value)) for name, meaning, labels, value in rows]
