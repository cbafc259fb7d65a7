"""The built-in policies, registered through the same door as anyone's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorank.hooks.exploration.beta_thompson import BetaThompson
from explorank.hooks.exploration.bootstrapped_thompson import BootstrappedThompson
from explorank.hooks.exploration.disjoint_lin_ucb import DisjointLinUCB
from explorank.hooks.exploration.disjoint_linear_thompson import DisjointLinearThompson
from explorank.hooks.exploration.epsilon_greedy import EpsilonGreedy
from explorank.hooks.exploration.exp3 import EXP3
from explorank.hooks.exploration.gaussian_thompson import GaussianThompson
from explorank.hooks.exploration.greedy import Greedy
from explorank.hooks.exploration.lin_ucb import LinUCB
from explorank.hooks.exploration.linear_thompson import LinearThompson
from explorank.hooks.exploration.logistic_thompson import LogisticThompson
from explorank.hooks.exploration.neural_linear import NeuralLinear
from explorank.hooks.exploration.plackett_luce import PlackettLuce
from explorank.hooks.exploration.slot_strategies import SlotStrategies
from explorank.hooks.exploration.softmax import Softmax
from explorank.hooks.exploration.square_cb import SquareCB
from explorank.hooks.exploration.ucb1 import UCB1
from explorank.hooks.exploration.uniform import Uniform
from explorank.hooks.markers import hookimpl

if TYPE_CHECKING:
    from explorank.hooks.registry import Registry


@hookimpl
def ranking_register_components(registry: Registry) -> None:
    """Add every policy of this package under its name in YAML."""
    for policy in (
        EpsilonGreedy,
        Softmax,
        PlackettLuce,
        SquareCB,
        UCB1,
        BetaThompson,
        GaussianThompson,
        EXP3,
        LinearThompson,
        LinUCB,
        DisjointLinUCB,
        DisjointLinearThompson,
        LogisticThompson,
        BootstrappedThompson,
        NeuralLinear,
        SlotStrategies,
        Greedy,
        Uniform,
    ):
        registry.policy(policy.name, policy)
