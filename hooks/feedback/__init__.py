"""Feedback: the durable log of decisions and rewards, and the learner that reads it."""

from explorank.hooks.feedback.kill_switch import KillSwitch
from explorank.hooks.feedback.learner import Learner, LearnerStats
from explorank.hooks.feedback.log import DecisionLog, Durability, LogStats
from explorank.hooks.feedback.outcomes import OpenDecision, Outcome, RewardRules, is_learnt
from explorank.hooks.feedback.segments import LoggedDecision, count_decisions, read_log
from explorank.hooks.feedback.sqlite_state_store import SqliteStateBackend
from explorank.hooks.feedback.state_store import Entry, Lease, Shelf, StateBackend, StateStore
from explorank.hooks.feedback.traffic import assign

__all__ = [
    "DecisionLog",
    "Durability",
    "Entry",
    "KillSwitch",
    "Learner",
    "LearnerStats",
    "Lease",
    "LogStats",
    "LoggedDecision",
    "OpenDecision",
    "Outcome",
    "RewardRules",
    "Shelf",
    "SqliteStateBackend",
    "StateBackend",
    "StateStore",
    "assign",
    "count_decisions",
    "is_learnt",
    "read_log",
]
