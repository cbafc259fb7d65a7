"""Conformance suites: inherit one in a test module, and pytest holds your component to the whole contract.

    class TestMyPolicy(PolicyTests):
        def make_policy(self):
            return MyPolicy()

The suites need nothing but Explorank to be imported, and pytest to be run.
"""

from explorank.testing.guards import GuardCase, GuardTests
from explorank.testing.policies import PolicyTests
from explorank.testing.rankers import RankerTests
from explorank.testing.state_stores import StateStoreTests

__all__ = ["GuardCase", "GuardTests", "PolicyTests", "RankerTests", "StateStoreTests"]
