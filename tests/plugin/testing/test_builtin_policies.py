"""Every built-in policy is held to what third parties are held to."""

from dataclasses import replace

import numpy as np

from explorank.hooks.exploration import (
    EXP3,
    UCB1,
    BetaThompson,
    BootstrappedThompson,
    DisjointLinearThompson,
    DisjointLinUCB,
    EpsilonGreedy,
    GaussianThompson,
    Greedy,
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralLinear,
    PerRepresentation,
    PlackettLuce,
    SlidingWindow,
    SlotStrategies,
    Softmax,
    SquareCB,
    Uniform,
    builtin,
)
from explorank.hooks.registry import Registry
from explorank.testing import PolicyTests
from explorank.testing.adding import AddingTests
from explorank.testing.distributions import DistributionTests
from explorank.testing.learning import LearningTests
from explorank.testing.propensities import PropensityTests
from explorank.testing.replaying import ReplayTests
from explorank.testing.storage import StorageTests


class Suite(PolicyTests):
    seeds = 1_000
    few_seeds = 8


class TestEpsilonGreedy(Suite):
    invalid_options = ({"epsilon": -0.1}, {"epsilon": 1.1}, {"epsilon": float("nan")})

    def make_policy(self):
        return EpsilonGreedy(epsilon=0.5)


class TestGreedy(Suite):
    def make_policy(self):
        return Greedy()


class TestUniform(Suite):
    def make_policy(self):
        return Uniform()


class TestSoftmax(Suite):
    invalid_options = ({"temperature": 0.0}, {"floor": 1.1})

    def make_policy(self):
        return Softmax(temperature=0.7, floor=0.1)


class TestPlackettLuce(Suite):
    invalid_options = ({"temperature": 0.0},)

    def make_policy(self):
        return PlackettLuce(temperature=0.7)


class TestSquareCB(Suite):
    invalid_options = ({"gamma": 0.0}, {"floor": -0.1})

    def make_policy(self):
        return SquareCB(gamma=3.0)


class TestUCB1(Suite):
    invalid_options = ({"alpha": 0.0}, {"floor": 2.0})

    def make_policy(self):
        return UCB1(floor=0.3)


class TestEXP3(Suite):
    invalid_options = ({"gamma": 0.0}, {"eta": -1.0})

    def make_policy(self):
        return EXP3(gamma=0.3, eta=0.2)


class TestBetaThompson(Suite):
    invalid_options = ({"floor": 0.0}, {"pool": 0}, {"draws": 0}, {"prior_alpha": 0.0}, {"prior_beta": -1.0})

    def make_policy(self):
        return BetaThompson(floor=0.2, draws=16)


class TestGaussianThompson(Suite):
    invalid_options = ({"noise": 0.0}, {"prior_precision": 0.0}, {"prior_mean": float("inf")})

    def make_policy(self):
        return GaussianThompson(floor=0.2, draws=16)


class TestLinearThompson(Suite):
    invalid_options = ({"dim": 0}, {"floor": 1.1}, {"pool": 0}, {"draws": 0}, {"noise": 0.0})

    def make_policy(self):
        return LinearThompson(dim=4, floor=0.2, draws=16)


class TestLinearThompsonThatForgets(Suite):
    invalid_options = ({"half_life": 0.0},)

    def make_policy(self):
        return LinearThompson(dim=4, floor=0.2, draws=16, half_life=20.0)


class TestBetaThompsonThatForgets(Suite):
    invalid_options = ({"half_life": 0.0}, {"half_life": float("inf")})

    def make_policy(self):
        return BetaThompson(floor=0.2, draws=16, half_life=20.0)


class TestGaussianThompsonThatForgets(Suite):
    invalid_options = ({"half_life": -1.0},)

    def make_policy(self):
        return GaussianThompson(floor=0.2, draws=16, half_life=20.0)


class TestUCB1ThatForgets(Suite):
    invalid_options = ({"half_life": 0.0},)

    def make_policy(self):
        return UCB1(floor=0.3, half_life=20.0)


class TestEXP3ThatForgets(Suite):
    invalid_options = ({"half_life": 0.0},)

    def make_policy(self):
        return EXP3(gamma=0.3, eta=0.2, half_life=20.0)


class TestLinUCB(Suite):
    invalid_options = ({"alpha": -1.0}, {"floor": 0.0}, {"prior_precision": 0.0})

    def make_policy(self):
        return LinUCB(dim=4, floor=0.3)


class TestDisjointLinUCB(Suite):
    invalid_options = ({"alpha": -1.0}, {"floor": 0.0})

    def make_policy(self):
        return DisjointLinUCB(dim=4, floor=0.3)


class TestDisjointLinearThompson(Suite):
    invalid_options = ({"draws": 0}, {"noise": 0.0})

    def make_policy(self):
        return DisjointLinearThompson(dim=4, floor=0.2, draws=16)


class TestLogisticThompson(Suite):
    invalid_options = ({"dim": 0}, {"prior_precision": 0.0})

    def make_policy(self):
        return LogisticThompson(dim=4, floor=0.2, draws=16)


class TestBootstrappedThompson(Suite):
    invalid_options = ({"replicates": 1}, {"replicates": 65}, {"floor": 0.0})

    def make_policy(self):
        return BootstrappedThompson(dim=4, replicates=16, floor=0.2)


class TestBootstrappedThompsonOverFourierFeatures(Suite):
    invalid_options = ({"components": 0}, {"length_scale": 0.0}, {"scorer": "fourir"})

    def make_policy(self):
        return BootstrappedThompson(dim=4, replicates=16, floor=0.2, scorer="fourier", components=12)


class TestBootstrappedThompsonOverColumns(Suite):
    def make_policy(self):
        return BootstrappedThompson(dim=4, floor=0.2, scorer="columns")


class TestNeuralLinear(Suite):
    invalid_options = (
        {"dim": 0},
        {"noise": 0.0},
        {"noise": 1e200},
        {"noise_shape": 1.0},
        {"prior_precision": 0.0},
        {"floor": 0.0},
    )

    def make_policy(self):
        return NeuralLinear(dim=4, representation="tower-3", floor=0.2, draws=16)


class TestSlotStrategies(Suite):
    strategies = ("score", "newest", "popular", "uncertain", "diverse", "-price", "random")
    invalid_options = (
        {"strategies": ()},
        {"strategies": ("score", "score")},
        {"strategies": ("-",)},
        {"floor": 0.0},
        {"draws": 0},
        {"noise": 0.0},
        {"noise": 1e-200},
        {"prior_mean": float("nan")},
    )

    def make_policy(self):
        return SlotStrategies(self.strategies, floor=0.2, draws=16)

    def make_batch(self, policy, n):
        rng = np.random.default_rng(5)
        return replace(
            super().make_batch(policy, n),
            features=rng.integers(3, size=(n, 2)),
            uncertainty=rng.integers(4, size=n) / 4.0,
            columns={name: rng.integers(4, size=n) for name in ("first_seen", "popularity", "price")},
        )

    def rewards(self, policy, m):
        named = np.array([*self.strategies, ""])
        return replace(super().rewards(policy, m), strategies=named[np.arange(m) % len(named)])


class TestSlotStrategiesThatChooseOneItemEach(TestSlotStrategies):
    strategies = ("score", "newest", "-price", "diverse")


class WindowSuite(DistributionTests, PropensityTests, ReplayTests, LearningTests, AddingTests, StorageTests):
    """All but the options: settings name a window by `exploration.forgetting`, not as a policy."""

    seeds = 1_000
    few_seeds = 8


class TestSlidingWindowOfBetaThompson(WindowSuite):
    def make_policy(self):
        return SlidingWindow(BetaThompson(floor=0.2, draws=16), rewards=20, blocks=5)


class TestSlidingWindowOfLinearThompson(WindowSuite):
    def make_policy(self):
        return SlidingWindow(LinearThompson(dim=4, floor=0.2, draws=16), rewards=12, blocks=2)


class TestSlidingWindowOfDisjointLinUCB(WindowSuite):
    def make_policy(self):
        return SlidingWindow(DisjointLinUCB(dim=4, floor=0.3), rewards=30, blocks=3)


class TestSlidingWindowOfSlotStrategies(TestSlotStrategies):
    # As in `WindowSuite`; the batches are those of the suite it inherits.
    test_settings_can_name_it = test_wrong_options_are_refused = test_every_option_is_documented = None

    def make_policy(self):
        return SlidingWindow(SlotStrategies(self.strategies, floor=0.2, draws=16), rewards=20, blocks=4)


class TestPerRepresentationOfNeuralLinear(WindowSuite):
    def make_policy(self):
        return PerRepresentation(NeuralLinear(dim=4, floor=0.2, draws=16))


def test_no_policy_is_left_out():
    registry = Registry()
    builtin.ranking_register_components(registry)
    assert {suite().make_policy().name for suite in Suite.__subclasses__()} == set(registry.names("policy"))


def test_which_states_are_sums():
    additive = {
        policy.name
        for suite in Suite.__subclasses__()
        if (policy := suite().make_policy()).additive and not getattr(policy, "half_life", None)
    }
    registry = Registry()
    builtin.ranking_register_components(registry)
    assert set(registry.names("policy")) - additive == {"logistic_thompson", "bootstrapped_thompson"}
