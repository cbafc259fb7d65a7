"""What the host counts, in Prometheus form. Every label has few values, none of which a client chooses."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from explorank.decision import Decision
from explorank.host.step_histogram import StepHistogram
from explorank.process import SHARED_FOLDER
from explorank.safety import figures

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_LOGGER: Final = logging.getLogger("explorank.host")

_LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


_LIMITS: Final = {
    "repeats": ("explorank_decisions_repeated", "Answers that were an earlier decision, served again."),
    "withheld_slots": (
        "explorank_explored_slots_withheld",
        "Slots that the cap per user and day kept from exploring.",
    ),
    "rejections": ("explorank_rejections", "Rewards that hid their item from their visitor."),
    "unchecked": (
        "explorank_limits_unchecked",
        "Requests that did not explore because a limit could not be checked.",
    ),
}
"""Which of the stage's figures are exposed, and how."""


class _KillSwitchCollector(Collector):
    """Looks at the switch at every scrape."""

    def __init__(self, engaged: Callable[[], bool]) -> None:
        self._engaged = engaged

    def collect(self) -> Iterable[Metric]:
        """Return the one gauge."""
        return [
            GaugeMetricFamily(
                "explorank_kill_switch_engaged",
                "1 while all exploration is stopped.",
                value=float(self._engaged()),
            )
        ]


class HostMetrics:
    """One application's counters, in a registry of its own, so that several may live in a process.

    Those of the workers of one `explorank serve` are one: whichever is asked answers for all.
    """

    def __init__(
        self, kill_switch_engaged: Callable[[], bool], *, status: Callable[[], Mapping[str, Any]] = dict
    ) -> None:
        folder = os.environ.get(SHARED_FOLDER)
        self._registry = CollectorRegistry()
        self._exposed = self._registry if folder is None else CollectorRegistry()
        self._steps = StepHistogram(None if folder is None else Path(folder))
        self._exposed.register(self._steps)
        if folder is None:
            ProcessCollector(registry=self._registry)  # of one process; each worker's would be another's
        else:
            MultiProcessCollector(self._exposed, folder)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        self._requests = Counter(
            "explorank_http_requests",
            "Requests by route, method and status; `disconnected` where the client left before the answer.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "explorank_http_request_duration_seconds",
            "From the request's head to the end of the answer.",
            ("route",),
            buckets=_LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._decisions = Counter(
            "explorank_decisions",
            "Answered slates.",
            ("mode", "arm", "policy"),
            registry=self._registry,
        )
        self._unlogged = Counter(
            "explorank_decisions_unlogged",
            "Answered slates that the log could not take: baseline answers without feedback.",
            registry=self._registry,
        )
        self._propensity_unknown = Counter(
            "explorank_decisions_propensity_unknown",
            "Answered slates whose propensity a fallback made unknown; evaluation leaves them out.",
            registry=self._registry,
        )
        self._fallbacks = Counter(
            "explorank_fallbacks",
            "What did not work in an answered slate, by step.",
            ("step",),
            registry=self._registry,
        )
        self._rewards = Counter(
            "explorank_rewards",
            "Rewards by what became of them.",
            ("result",),
            registry=self._registry,
        )
        self._shed = Counter(
            "explorank_shed",
            "Requests that got less than the whole effort under overload, by the effort; `refused` got 503.",
            ("effort",),
            registry=self._registry,
        )
        self._limits = {
            figure: Counter(name, documentation, registry=self._registry)
            for figure, (name, documentation) in _LIMITS.items()
        }
        self._status = status
        self._told: dict[str, int] = {}
        self._telling = Lock()
        self._exposed.register(_KillSwitchCollector(kill_switch_engaged))
        self._exposed.register(_SafetyCollector(status))

    def count_request(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count one finished request."""
        self._requests.labels(route, method, status).inc()
        self._latency.labels(route).observe(seconds)

    def count_decision(self, decision: Decision) -> None:
        """Count one answered slate and its fallbacks."""
        if decision.repeated:
            return  # counted when it was made, with what went wrong then
        self._decisions.labels(decision.mode, decision.arm, decision.policy).inc()
        if not decision.logged:
            self._unlogged.inc()
        if not decision.propensity_known:
            self._propensity_unknown.inc()
        for fallback in decision.fallbacks:
            self._fallbacks.labels(fallback.step).inc()

    def count_reward(self, result: Literal["accepted", "duplicate", "rejected"]) -> None:
        """Count one reward."""
        self._rewards.labels(result).inc()

    def count_shed(self, effort: str) -> None:
        """Count one request that got less than the whole effort."""
        self._shed.labels(effort).inc()

    def observe_steps(self, timings_us: Mapping[str, float]) -> None:
        """Count the time of each step of one request."""
        self._steps.observe(timings_us)

    def exposition(self) -> bytes:
        """Return all counters as Prometheus reads them."""
        self._count_limits()
        return generate_latest(self._exposed)

    def _count_limits(self) -> None:
        """Count what the stage counted itself since the last time; nothing while it cannot say."""
        try:
            counts = self._status().get("limits", {})
        except Exception:  # whatever fails in the stage, the other counters are what tells of it
            return
        with self._telling:
            for figure, counter in self._limits.items():
                counted = counts.get(figure, 0)
                counter.inc(max(0, counted - self._told.get(figure, 0)))
                self._told[figure] = counted


class _SafetyCollector(Collector):
    """Reads the limits on what exploration may cost at every scrape, where any is set."""

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each figure with its labels."""
        try:
            safety = self._status().get("safety")
        except Exception:
            # Whatever it is, those who watch still need the counters.
            _LOGGER.exception(
                "The stage cannot say how its limits fare, so they are missing from the metrics"
            )
            return
        families: dict[str, GaugeMetricFamily] = {}
        for name, meaning, labels, value in () if safety is None else figures(safety):
            full = f"explorank_safety_{name}"
            family = families.setdefault(full, GaugeMetricFamily(full, meaning, labels=list(labels)))
            family.add_metric(list(labels.values()), value)
        yield from families.values()
