"""Exploration: policies, and the slates that they draw slot by slot."""

from explorank.hooks.exploration.beta_thompson import BetaThompson
from explorank.hooks.exploration.epsilon_greedy import EpsilonGreedy
from explorank.hooks.exploration.greedy import Greedy
from explorank.hooks.exploration.linear_thompson import LinearThompson
from explorank.hooks.exploration.policy import Contest, Policy
from explorank.hooks.exploration.slate import build_slate, slate_log_propensity
from explorank.hooks.exploration.uniform import Uniform
from explorank.hooks.types import RankingBatch, RewardBatch, Slate

__all__ = [
    "BetaThompson",
    "Contest",
    "EpsilonGreedy",
    "Greedy",
    "LinearThompson",
    "Policy",
    "RankingBatch",
    "RewardBatch",
    "Slate",
    "Uniform",
    "build_slate",
    "slate_log_propensity",
]
