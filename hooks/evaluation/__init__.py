"""Evaluation: what a policy would have done, from the log alone."""

from explorank.hooks.evaluation.replay import replay, target_propensities

__all__ = ["replay", "target_propensities"]
