"""The built-in policies, registered through the same door as anyone's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from explorank.hooks.exploration.beta_thompson import BetaThompson
from explorank.hooks.exploration.epsilon_greedy import EpsilonGreedy
from explorank.hooks.exploration.greedy import Greedy
from explorank.hooks.exploration.linear_thompson import LinearThompson
from explorank.hooks.exploration.uniform import Uniform
from explorank.hooks.markers import hookimpl

if TYPE_CHECKING:
    from explorank.hooks.registry import Registry


@hookimpl
def ranking_register_components(registry: Registry) -> None:
    """Add every policy of this package under its name in YAML."""
    for policy in (EpsilonGreedy, BetaThompson, LinearThompson, Greedy, Uniform):
        registry.policy(policy.name, policy)
