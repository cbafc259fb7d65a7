"""Limits: what exploration may cost, and whether a request may explore at all."""

from explorank.hooks.limits.automatic_stop import AutomaticStop, StopRule, Watch
from explorank.hooks.limits.confidence import BoundedMean
from explorank.hooks.limits.conservative import ConservativeExploration, Headroom
from explorank.hooks.limits.earnings import Account, EarningRules, Earnings
from explorank.hooks.limits.gate import Gate, refusal
from explorank.hooks.limits.monitor import Monitor, Monitored

__all__ = [
    "Account",
    "AutomaticStop",
    "BoundedMean",
    "ConservativeExploration",
    "EarningRules",
    "Earnings",
    "Gate",
    "Headroom",
    "Monitor",
    "Monitored",
    "StopRule",
    "Watch",
    "refusal",
]
