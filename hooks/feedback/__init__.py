"""Feedback: the durable log of decisions and rewards, and the learner that reads it."""

from explorank.hooks.feedback.kill_switch import KillSwitch
from explorank.hooks.feedback.learner import Learner, LearnerStats
from explorank.hooks.feedback.log import DecisionLog, Durability, LogStats
from explorank.hooks.feedback.outcomes import OpenDecision, Outcome, RewardRules, is_learnt
from explorank.hooks.feedback.segments import LoggedDecision, count_decisions, read_log
from explorank.hooks.feedback.traffic import assign

__all__ = [
    "DecisionLog",
    "Durability",
    "KillSwitch",
    "Learner",
    "LearnerStats",
    "LogStats",
    "LoggedDecision",
    "OpenDecision",
    "Outcome",
    "RewardRules",
    "assign",
    "count_decisions",
    "is_learnt",
    "read_log",
]
