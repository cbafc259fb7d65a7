"""Evaluation: what a policy would have done, and which slots are looked at, from the log alone."""

from explorank.hooks.evaluation.examination_curve import AdjacentSlots, ExaminationCurve
from explorank.hooks.evaluation.replay import replay, target_propensities

__all__ = ["AdjacentSlots", "ExaminationCurve", "replay", "target_propensities"]
