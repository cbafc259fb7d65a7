"""Limits: what exploration may cost, and whether a request may explore at all."""

from explorank.hooks.limits.automatic_stop import AutomaticStop, StopRule, Watch
from explorank.hooks.limits.confidence import BoundedMean
from explorank.hooks.limits.conservative import ConservativeExploration, Headroom
from explorank.hooks.limits.earnings import Account, EarningRules, Earnings
from explorank.hooks.limits.explorable import Explorable, Rule
from explorank.hooks.limits.exposures import Exposures, Kept, SqliteExposures
from explorank.hooks.limits.gate import Gate, refusal
from explorank.hooks.limits.monitor import Monitor, Monitored
from explorank.hooks.limits.question import question_of
from explorank.hooks.limits.rejected import Rejected
from explorank.hooks.limits.visitor import day_of, visitor_of

__all__ = [
    "Account",
    "AutomaticStop",
    "BoundedMean",
    "ConservativeExploration",
    "EarningRules",
    "Earnings",
    "Explorable",
    "Exposures",
    "Gate",
    "Headroom",
    "Kept",
    "Monitor",
    "Monitored",
    "Rejected",
    "Rule",
    "SqliteExposures",
    "StopRule",
    "Watch",
    "day_of",
    "question_of",
    "refusal",
    "visitor_of",
]
