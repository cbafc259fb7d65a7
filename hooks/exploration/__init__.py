"""Exploration: policies, and the slates that they draw slot by slot."""

from explorank.hooks.exploration.beta_thompson import BetaThompson
from explorank.hooks.exploration.bootstrapped_thompson import BootstrappedThompson
from explorank.hooks.exploration.calibration import Calibration
from explorank.hooks.exploration.disjoint_lin_ucb import DisjointLinUCB
from explorank.hooks.exploration.disjoint_linear_thompson import DisjointLinearThompson
from explorank.hooks.exploration.epsilon_greedy import EpsilonGreedy
from explorank.hooks.exploration.examination import Cascade, PositionBased
from explorank.hooks.exploration.exp3 import EXP3
from explorank.hooks.exploration.gaussian_thompson import GaussianThompson
from explorank.hooks.exploration.greedy import Greedy
from explorank.hooks.exploration.lin_ucb import LinUCB
from explorank.hooks.exploration.linear_thompson import LinearThompson
from explorank.hooks.exploration.logistic_thompson import LogisticThompson
from explorank.hooks.exploration.marginals import PositionPropensities, position_propensities
from explorank.hooks.exploration.neural_linear import NeuralLinear
from explorank.hooks.exploration.order import best_by_score
from explorank.hooks.exploration.per_representation import PerRepresentation
from explorank.hooks.exploration.plackett_luce import PlackettLuce
from explorank.hooks.exploration.policy import Contest, Policy
from explorank.hooks.exploration.scorers import Scorer
from explorank.hooks.exploration.slate import build_slate, slate_log_propensity
from explorank.hooks.exploration.sliding_window import SlidingWindow
from explorank.hooks.exploration.slot_strategies import SlotStrategies
from explorank.hooks.exploration.softmax import Softmax
from explorank.hooks.exploration.square_cb import SquareCB
from explorank.hooks.exploration.ucb1 import UCB1
from explorank.hooks.exploration.uniform import Uniform
from explorank.hooks.types import RankingBatch, RewardBatch, Slate

__all__ = [
    "EXP3",
    "UCB1",
    "BetaThompson",
    "BootstrappedThompson",
    "Calibration",
    "Cascade",
    "Contest",
    "DisjointLinUCB",
    "DisjointLinearThompson",
    "EpsilonGreedy",
    "GaussianThompson",
    "Greedy",
    "LinUCB",
    "LinearThompson",
    "LogisticThompson",
    "NeuralLinear",
    "PerRepresentation",
    "PlackettLuce",
    "Policy",
    "PositionBased",
    "PositionPropensities",
    "RankingBatch",
    "RewardBatch",
    "Scorer",
    "Slate",
    "SlidingWindow",
    "SlotStrategies",
    "Softmax",
    "SquareCB",
    "Uniform",
    "best_by_score",
    "build_slate",
    "position_propensities",
    "slate_log_propensity",
]
