"""The suite that a policy inherits."""

from __future__ import annotations

from explorank.testing.adding import AddingTests
from explorank.testing.distributions import DistributionTests
from explorank.testing.learning import LearningTests
from explorank.testing.options import OptionTests
from explorank.testing.propensities import PropensityTests
from explorank.testing.replaying import ReplayTests
from explorank.testing.storage import StorageTests


class PolicyTests(
    DistributionTests, PropensityTests, ReplayTests, LearningTests, AddingTests, StorageTests, OptionTests
):
    """Holds a policy to the whole contract.

        class TestClickRateSoftmax(PolicyTests):
            invalid_options = [{"temperature": 0.0}]

            def make_policy(self):
                return ClickRateSoftmax(temperature=0.2)

    Only `make_policy` is needed. `make_state`, `make_batch` and `rewards` may give the suite other data, and
    the class attributes of `PolicyCases` say how many seeds it takes and what the policy needs. Each test's
    docstring says what it demands and why.
    """
