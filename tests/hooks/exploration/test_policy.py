"""What holds for every built-in policy: files, registration, documented options."""

import dataclasses
import inspect

import numpy as np
import pytest

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration import (
    BetaThompson,
    EpsilonGreedy,
    Greedy,
    LinearThompson,
    RewardBatch,
    Uniform,
    build_slate,
    builtin,
)


def test_a_saved_state_is_the_same_state(case, tmp_path):
    path = tmp_path / "states" / "one"
    case.policy.save(case.state, path)
    loaded = case.policy.load(path)
    assert loaded.version == case.state.version == 1
    assert case.policy.dumps(loaded) == path.read_bytes()
    for seed in range(20):
        ours = build_slate(case.policy, case.state, case.batch, 5, seed=seed)
        theirs = build_slate(case.policy, loaded, case.batch, 5, seed=seed)
        assert ours.order.tolist() == theirs.order.tolist()
        assert ours.propensities.tolist() == theirs.propensities.tolist()
    # And learning goes on from it.
    rewards = RewardBatch(["a", "z"], [1.0, 0.0], np.ones((2, 3)))
    assert case.policy.dumps(case.policy.learn(loaded, rewards)) == case.policy.dumps(
        case.policy.learn(case.state, rewards)
    )


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "noise"])
def test_a_damaged_file_is_refused(case, tmp_path, damage):
    path = tmp_path / "state"
    case.policy.save(case.state, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b"", "noise": b"\x00" * 64}
    path.write_bytes(damaged[damage])
    with pytest.raises(CorruptState):
        case.policy.load(path)


def test_a_state_of_another_policy_is_refused(case):
    other = Uniform() if case.policy.name == "greedy" else Greedy()
    with pytest.raises(CorruptState, match=other.name):
        case.policy.loads(other.dumps(other.initial_state()))


@pytest.mark.parametrize(
    ("policy", "meta", "named"),
    [
        (Greedy(), {}, {}),
        (Greedy(), {"version": -1}, {}),
        (Greedy(), {"version": 1}, {"extra": np.zeros(1)}),
        (BetaThompson(), {"version": 1}, {}),
        *[
            (
                BetaThompson(),
                {"version": 1},
                dict(zip(("item_ids", "successes", "failures"), sums, strict=True)),
            )
            for sums in (
                (np.array(["a", "a"]), np.ones(2), np.ones(2)),
                (np.array(["a", "b"]), np.ones(2), np.ones(1)),
                (np.array(["a"]), np.array([-1.0]), np.ones(1)),
                (np.array(["a"]), np.array([np.nan]), np.ones(1)),
            )
        ],
        *[
            (LinearThompson(dim=2), {"version": 1}, {"precision": precision, "information": np.zeros(2)})
            for precision in (np.eye(3), -np.eye(2), np.full((2, 2), np.nan))
        ],
    ],
)
def test_arrays_that_fit_no_state_are_refused(policy, meta, named):
    data = arrays.dumps({"policy": policy.name, "state": meta}, named)
    with pytest.raises(CorruptState, match=policy.name):
        policy.loads(data)


def test_the_prior_is_no_part_of_a_beta_state():
    state = BetaThompson().learn(BetaThompson().initial_state(), RewardBatch(["a"], [1.0]))
    cautious = BetaThompson(prior_beta=9.0)
    alpha, beta = cautious.posterior(cautious.loads(BetaThompson().dumps(state)))
    assert (alpha.item(), beta.item()) == (2.0, 9.0)


def test_policies_without_a_state_count_their_batches():
    for policy in (EpsilonGreedy(), Greedy(), Uniform()):
        state = policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0]))
        assert (policy.initial_state().version, state.version) == (0, 1)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, float("nan")])
def test_epsilon_is_a_probability(epsilon):
    with pytest.raises(InvalidPolicy, match="`epsilon`"):
        EpsilonGreedy(epsilon=epsilon)


def test_every_policy_is_registered_under_its_name():
    class Registry:
        def __init__(self):
            self.policies = {}

        def policy(self, name, factory):
            self.policies[name] = factory

    registry = Registry()
    builtin.ranking_register_components(registry)
    assert registry.policies == {
        "epsilon_greedy": EpsilonGreedy,
        "beta_thompson": BetaThompson,
        "linear_thompson": LinearThompson,
        "greedy": Greedy,
        "uniform": Uniform,
    }


@pytest.mark.parametrize("policy", [EpsilonGreedy, BetaThompson, LinearThompson, Greedy, Uniform])
def test_a_policy_documents_its_propensity_its_source_and_each_option(policy):
    assert "Propensity:" in policy.__doc__
    assert "Source:" in policy.__doc__
    lines = [line.strip() for line in inspect.getsource(policy).splitlines()]
    for option in dataclasses.fields(policy):
        (at,) = [row for row, line in enumerate(lines) if line.startswith(f"{option.name}: ")]
        assert lines[at + 1].startswith('"""')
