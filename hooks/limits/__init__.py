"""Limits: what exploration may cost, and whether a request may explore at all."""

from explorank.hooks.limits.explorable import Explorable, Rule
from explorank.hooks.limits.exposures import Exposures, Kept, SqliteExposures
from explorank.hooks.limits.gate import Gate, refusal
from explorank.hooks.limits.question import question_of
from explorank.hooks.limits.rejected import Rejected
from explorank.hooks.limits.visitor import day_of, visitor_of

__all__ = [
    "Explorable",
    "Exposures",
    "Gate",
    "Kept",
    "Rejected",
    "Rule",
    "SqliteExposures",
    "day_of",
    "question_of",
    "refusal",
    "visitor_of",
]
