"""What holds for every built-in policy: files, registration, documented options."""

import dataclasses
import inspect

import numpy as np
import pytest

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState, InvalidBatch, InvalidPolicy
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
    PlackettLuce,
    RewardBatch,
    SlotStrategies,
    Softmax,
    SquareCB,
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
    rewards = RewardBatch(
        ["a", "z"],
        [1.0, 0.0],
        np.ones((2, 3)),
        propensities=[0.5, 0.25],
        slots=[0, 1],
        strategies=["score", "random"],
    )
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
            (policy, {"version": 1}, {"item_ids": np.array(["a"]), "counts": counts, "totals": totals})
            for policy in (UCB1(), GaussianThompson())
            for counts, totals in (
                (np.array([-1.0]), np.array([-1.0])),
                (np.ones(1), np.array([np.inf])),
                (np.ones((1, 1)), np.ones(1)),
            )
        ],
        (UCB1(), {"version": 1}, {"item_ids": np.array([["a"]]), "counts": np.ones(1), "totals": np.ones(1)}),
        (EXP3(), {"version": 1}, {"item_ids": np.array(["a"]), "gains": np.array([-1.0])}),
        *[
            (LinearThompson(dim=2), {"version": 1}, {"precision": precision, "information": np.zeros(2)})
            for precision in (np.eye(3), -np.eye(2), np.full((2, 2), np.nan))
        ],
        *[
            (
                BootstrappedThompson(dim=1, replicates=2),
                {"version": 1, "rewards": rewards},
                {"precision": precision, "information": np.ones((2, 1))},
            )
            for rewards, precision in (
                (4, np.ones((3, 1, 1))),
                (4, np.zeros((2, 1, 1))),
                (4, np.full((2, 1, 1), np.nan)),
                (-1, np.ones((2, 1, 1))),
                (None, np.ones((2, 1, 1))),
            )
        ],
        *[
            (
                DisjointLinUCB(dim=2),
                {"version": 1},
                dict(zip(("item_ids", "gram", "information"), sums, strict=True)),
            )
            for sums in (
                (np.array(["a", "a"]), np.ones((2, 3)), np.ones((2, 2))),
                (np.array(["a"]), np.ones((1, 6)), np.ones((1, 3))),
                (np.array(["a"]), np.ones((2, 3)), np.ones((2, 2))),
                (np.array(["a"]), np.array([[-9.0, 0.0, 1.0]]), np.ones((1, 2))),
                (np.array(["a"]), np.ones((1, 3)), np.array([[np.nan, 1.0]])),
            )
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
    for policy in (EpsilonGreedy(), Softmax(), PlackettLuce(), SquareCB(gamma=1.0), Greedy(), Uniform()):
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
        "softmax": Softmax,
        "plackett_luce": PlackettLuce,
        "square_cb": SquareCB,
        "ucb1": UCB1,
        "beta_thompson": BetaThompson,
        "gaussian_thompson": GaussianThompson,
        "exp3": EXP3,
        "linear_thompson": LinearThompson,
        "lin_ucb": LinUCB,
        "disjoint_lin_ucb": DisjointLinUCB,
        "disjoint_linear_thompson": DisjointLinearThompson,
        "logistic_thompson": LogisticThompson,
        "bootstrapped_thompson": BootstrappedThompson,
        "neural_linear": NeuralLinear,
        "slot_strategies": SlotStrategies,
        "greedy": Greedy,
        "uniform": Uniform,
    }


def test_a_policy_asks_for_the_columns_it_learns_from_and_for_no_others(case):
    """What `learns_from` declares is what `learn` refuses to do without, naming it."""
    declared = {name: np.full(2, 0.5) for name in case.policy.learns_from}
    features = np.ones((2, 3)) if case.policy.needs_features else None
    rewards = RewardBatch(["a", "z"], [1.0, 0.0], features, **declared)
    assert case.policy.learn(case.state, rewards).version == 2
    for name in declared:
        with pytest.raises(InvalidBatch, match=f"{case.policy.name}.*`{name}`"):
            case.policy.learn(case.state, dataclasses.replace(rewards, **{name: None}))


@pytest.mark.parametrize(
    "policy",
    [
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
        SlotStrategies,
        Greedy,
        Uniform,
    ],
)
def test_a_policy_documents_its_propensity_its_source_and_each_option(policy):
    assert "Propensity:" in policy.__doc__
    assert "Source:" in policy.__doc__
    lines = [line.strip() for line in inspect.getsource(policy).splitlines()]
    for option in dataclasses.fields(policy):
        (at,) = [row for row, line in enumerate(lines) if line.startswith(f"{option.name}: ")]
        assert lines[at + 1].startswith('"""')
