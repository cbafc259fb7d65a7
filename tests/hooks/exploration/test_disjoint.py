"""A posterior per arm: against direct solves, against the shared model, and as a value that never changes."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import (
    DisjointLinearThompson,
    DisjointLinUCB,
    LinearThompson,
    LinUCB,
    RankingBatch,
    RewardBatch,
    build_slate,
)

PAIRS = [
    (DisjointLinUCB(dim=3, noise=0.7), LinUCB(dim=3, noise=0.7)),
    (DisjointLinearThompson(dim=3, noise=0.7), LinearThompson(dim=3, noise=0.7)),
]


def rewards_of(m, dim, arms, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.array([f"i{row}" for row in rng.integers(arms, size=m)])
    return RewardBatch(
        ids,
        rng.standard_normal(m),
        rng.standard_normal((m, dim)),
        weights=rng.random(m) * 3,
        offsets=rng.standard_normal(m),
    )


def part(rewards, rows):
    return RewardBatch(
        rewards.item_ids[rows],
        rewards.values[rows],
        rewards.features[rows],
        weights=rewards.weights[rows],
        offsets=rewards.offsets[rows],
    )


def test_the_posterior_by_hand():
    """One feature: arm a has precision 2 + (1 + 4) / 0.25 = 22 and mean 28 / 22, arm b 2 + 4 and 8 / 6."""
    policy = DisjointLinUCB(dim=1, prior_precision=2.0, noise=0.5)
    rewards = RewardBatch(["a", "b", "a"], [1.0, 2.0, 3.0], [[1.0], [1.0], [2.0]])
    state = policy.learn(policy.initial_state(), rewards)
    means, covariances = policy.posterior(state)
    assert state.item_ids.tolist() == ["a", "b"]
    assert means.ravel() == pytest.approx([28 / 22, 8 / 6])
    assert covariances.ravel() == pytest.approx([1 / 22, 1 / 6])


def test_every_posterior_equals_a_direct_ridge_solve_after_many_updates():
    """10⁵ rewards of 40 arms, singly and in batches of any size."""
    dim, m, arms, prior, noise = 8, 100_000, 40, 0.7, 1.9
    rewards = rewards_of(m, dim, arms)
    policy = DisjointLinearThompson(dim=dim, prior_precision=prior, noise=noise)
    rng = np.random.default_rng(1)
    cuts = np.concatenate((np.arange(1, 10_000), np.sort(rng.integers(10_000, m, size=300))))
    state = policy.initial_state()
    for rows in np.split(np.arange(m), cuts):
        state = policy.learn(state, part(rewards, rows))
    assert state.version == len(cuts) + 1
    means, covariances = policy.posterior(state)
    for arm, item in enumerate(state.item_ids):
        mine = rewards.item_ids == item
        scale = np.sqrt(rewards.weights[mine]) / noise
        design = np.vstack((rewards.features[mine] * scale[:, None], np.sqrt(prior) * np.eye(dim)))
        target = np.concatenate(((rewards.values - rewards.offsets)[mine] * scale, np.zeros(dim)))
        direct = np.linalg.lstsq(design, target, rcond=None)[0]
        np.testing.assert_allclose(means[arm], direct, atol=1e-9, rtol=0)
        np.testing.assert_allclose(covariances[arm], np.linalg.inv(design.T @ design), atol=1e-9, rtol=0)


@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_ill_conditioned_designs_stay_exact(condition):
    """Two features that differ by 1 / condition: the width along the difference is what the prior left."""
    policy = DisjointLinUCB(dim=2)
    rng = np.random.default_rng(2)
    common, apart = rng.standard_normal(5000), rng.standard_normal(5000) / condition
    x = np.column_stack((common + apart, common - apart)).astype(np.float32)
    state = policy.initial_state()
    for rows in np.split(np.arange(5000), 50):
        state = policy.learn(state, RewardBatch(np.full(100, "a"), common[rows], x[rows]))
    mean, covariance = (array[0] for array in policy.posterior(state))
    exact = x.astype(float)
    design = np.vstack((exact, np.eye(2)))
    direct = np.linalg.lstsq(design, np.concatenate((common, np.zeros(2))), rcond=None)[0]
    np.testing.assert_allclose(mean, direct, atol=1e-9, rtol=0)
    gram = np.linalg.qr(design, mode="r")
    np.testing.assert_allclose(covariance, np.linalg.inv(gram.T @ gram), rtol=1e-6)


@pytest.mark.parametrize(("disjoint", "shared"), PAIRS, ids=["ucb", "thompson"])
def test_with_one_arm_it_is_the_shared_model(disjoint, shared):
    rewards = rewards_of(500, 3, arms=1)
    ours = disjoint.learn(disjoint.initial_state(), rewards)
    theirs = shared.learn(shared.initial_state(), rewards)
    (mean,), (covariance,) = disjoint.posterior(ours)
    np.testing.assert_allclose(mean, shared.posterior(theirs)[0], rtol=1e-12)
    np.testing.assert_allclose(covariance, shared.posterior(theirs)[1], rtol=1e-11, atol=1e-18)
    batch = RankingBatch(["i0"], [[1.0, 2.0, -1.0]])
    everyone, row = np.ones(1, dtype=bool), np.arange(1)
    mean, deviation = disjoint.model.beliefs(ours, batch).moments(row)
    x = batch.features[0].astype(float)
    assert mean == pytest.approx(x @ theirs.mean)
    assert deviation == pytest.approx(math.sqrt(x @ shared.posterior(theirs)[1] @ x))
    contest = disjoint.contest(ours, batch, everyone, np.random.default_rng(0))
    assert contest.distribution(everyone).tolist() == [1.0]


def test_indices_by_hand():
    """Arm a: precision 5, mean 4/5, sd 1/√5; arm b: precision 2, mean -1/2, sd 1/√2; c is unseen: 0 and 1."""
    policy = DisjointLinUCB(dim=1, alpha=2.0, floor=0.3)
    rewards = RewardBatch(["a", "b"], [1.0, -1.0], [[1.0], [1.0]], weights=[4.0, 1.0])
    state = policy.learn(policy.initial_state(), rewards)
    batch = RankingBatch(list("abc"), [[1.0], [1.0], [0.8]])
    contest = policy.contest(state, batch, np.ones(3, dtype=bool), np.random.default_rng(0))
    mean, deviation = policy.model.beliefs(state, batch).moments(np.arange(3))
    assert mean == pytest.approx([0.8, -0.5, 0.0])
    assert deviation == pytest.approx([5**-0.5, 2**-0.5, 0.8])
    # Indices 1.69, 0.91 and 1.6; without a, the unseen item is the best.
    assert contest.distribution(np.array([True, True, True])) == pytest.approx([0.8, 0.1, 0.1])
    assert contest.distribution(np.array([False, True, True])) == pytest.approx([0.0, 0.15, 0.85])


def test_draws_have_each_arms_mean_and_width_and_are_independent():
    policy = DisjointLinearThompson(dim=2, draws=200_000)
    state = policy.learn(policy.initial_state(), rewards_of(30, 2, arms=3))
    batch = RankingBatch(["i0", "i1", "i2", "new"], np.random.default_rng(4).standard_normal((4, 2)))
    contest = policy.contest(state, batch, np.ones(4, dtype=bool), np.random.default_rng(5))
    drawn = contest._posterior.draws(np.arange(4))
    mean, deviation = policy.model.beliefs(state, batch).moments(np.arange(4))
    standard = (drawn - mean) / deviation
    # Standard errors 1 / √M for means and correlations, √(2 / M) for variances; bound 5 of them.
    assert np.abs(standard.mean(axis=0)).max() < 5 / math.sqrt(200_000)
    assert np.abs(np.cov(standard.T) - np.eye(4)).max() < 5 * math.sqrt(2 / 200_000)


@pytest.mark.parametrize("context", ["one", "each"])
def test_the_pool_is_the_best_by_optimism(context):
    policy = DisjointLinearThompson(dim=6, pool=20, draws=4)
    state = policy.learn(policy.initial_state(), rewards_of(4000, 6, arms=300))
    rng = np.random.default_rng(7)
    features = rng.standard_normal((1 if context == "one" else 300, 6)) * np.ones((300, 1))
    batch = RankingBatch([f"i{row}" for row in range(300)], features)
    eligible = rng.random(300) < 0.8
    mean, deviation = policy.model.beliefs(state, batch).moments(np.arange(300))
    upper = np.where(eligible, mean + 2.0 * deviation, -np.inf)
    contest = policy.contest(state, batch, eligible, rng)
    assert np.flatnonzero(contest.distribution(eligible)).tolist() == sorted(np.argsort(-upper)[:20].tolist())


def test_features_beyond_single_precision_still_have_an_order():
    policy = DisjointLinUCB(dim=2, pool=1)
    batch = RankingBatch(list("abc"), [[3e38, 0.0], [3e38, 3e38], [1.0, 1.0]])
    slate = build_slate(policy, policy.initial_state(), batch, 3)
    assert slate.order.tolist() == [1, 0, 2]


def test_unseen_arms_are_broken_by_the_seed():
    policy = DisjointLinUCB(dim=2, pool=5)
    batch = RankingBatch([f"i{row}" for row in range(40)], np.ones((40, 2)))
    pools = np.array(
        [build_slate(policy, policy.initial_state(), batch, 1, seed=seed).support[0] for seed in range(200)]
    )
    assert (pools.sum(axis=1) == 5).all()
    # Each is in the pool 1 time in 8. 40 binomials, bound at z = 4.5 (false alarm 3e-4).
    assert np.abs(pools.sum(axis=0) - 25).max() < 4.5 * math.sqrt(200 / 8 * 7 / 8)


def test_a_state_never_changes_however_much_is_learnt_from_it():
    policy = DisjointLinUCB(dim=3)
    rewards = rewards_of(600, 3, arms=90)
    state, snapshots = policy.initial_state(), []
    for row in range(600):
        snapshots.append((state, policy.dumps(state)))
        state = policy.learn(state, part(rewards, slice(row, row + 1)))
    assert len({id(old.store) for old, _ in snapshots}) > 2  # it was copied into a larger store on the way
    for old, before in snapshots:
        assert policy.dumps(old) == before
    whole = policy.learn(policy.initial_state(), rewards)
    assert state.item_ids.tolist() == whole.item_ids.tolist()
    np.testing.assert_allclose(policy.posterior(state)[0], policy.posterior(whole)[0], rtol=1e-9)


def test_states_learnt_from_one_state_by_many_threads_are_apart():
    policy = DisjointLinUCB(dim=3)
    base = policy.learn(policy.initial_state(), rewards_of(200, 3, arms=50))
    batches = [rewards_of(40, 3, arms=60, seed=seed) for seed in range(32)]
    with ThreadPoolExecutor(4) as pool:
        learnt = list(pool.map(lambda batch: policy.learn(base, batch), batches))
    restored = policy.loads(policy.dumps(base))
    for state, batch in zip(learnt, batches, strict=True):
        assert policy.dumps(state) == policy.dumps(policy.learn(restored, batch))


def test_arms_appear_with_their_first_reward_and_can_be_dropped():
    policy = DisjointLinearThompson(dim=1)
    state = policy.learn(policy.initial_state(), RewardBatch(["b"], [1.0], [[1.0]]))
    rewards = RewardBatch(["a much longer id", "b", "a"], [1.0, 0.0, 0.5], np.ones((3, 1)))
    state = policy.learn(state, rewards)
    assert state.item_ids.tolist() == ["b", "a much longer id", "a"]
    fewer = policy.drop(state, ["a much longer id", "never seen"])
    assert fewer.item_ids.tolist() == ["b", "a"]
    assert fewer.version == state.version + 1 == 3
    assert policy.posterior(fewer)[0].ravel() == pytest.approx([1 / 3, 1 / 4])
    assert state.item_ids.tolist() == ["b", "a much longer id", "a"]
    # A dropped arm is an unseen one, and may come back.
    again = policy.learn(fewer, RewardBatch(["a much longer id"], [2.0], [[1.0]]))
    assert again.item_ids.tolist() == ["b", "a", "a much longer id"]
    assert policy.posterior(again)[0].ravel() == pytest.approx([1 / 3, 1 / 4, 1.0])


def test_the_store_stays_small_when_arms_come_and_go():
    policy = DisjointLinUCB(dim=2)
    state = policy.initial_state()
    for day in range(300):
        ids = [f"day {day}, item {row}" for row in range(20)]
        state = policy.learn(state, RewardBatch(ids, np.ones(20), np.ones((20, 2))))
        if day:
            state = policy.drop(state, [f"day {day - 1}, item {row}" for row in range(20)])
    assert len(state.item_ids) == 20
    assert len(state.store.mean) <= 100


def test_half_lives_count_the_rewards_of_the_arm():
    """Half-life 1: arm a keeps ½ of 4 and 1 of 2, whatever b earned between; precision 1 + 1.5."""
    policy = DisjointLinUCB(dim=1, half_life=1.0)
    one = RewardBatch(["a", "b", "b", "a"], [4.0, 9.0, 9.0, 2.0], np.ones((4, 1)))
    state = policy.learn(policy.initial_state(), one)
    assert policy.posterior(state)[0][0] == pytest.approx(4 / 2.5)
    singly = policy.initial_state()
    for row in range(4):
        singly = policy.learn(singly, RewardBatch(one.item_ids[[row]], one.values[[row]], np.ones((1, 1))))
    np.testing.assert_allclose(policy.posterior(singly)[0], policy.posterior(state)[0], rtol=1e-12)


def test_the_prior_is_no_part_of_a_state():
    policy, cautious = DisjointLinUCB(dim=1), DisjointLinUCB(dim=1, prior_precision=9.0)
    state = policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], [[1.0]]))
    assert cautious.posterior(cautious.loads(policy.dumps(state)))[0] == pytest.approx(1 / 10)


def test_ids_may_be_numbers_or_text_held_as_objects():
    policy = DisjointLinUCB(dim=1)
    state = policy.learn(policy.initial_state(), RewardBatch([7, 7, 9], [1.0, 1.0, 0.0], np.ones((3, 1))))
    assert policy.loads(policy.dumps(state)).item_ids.tolist() == [7, 9]
    with pytest.raises(InvalidBatch, match="one type of id"):
        policy.learn(state, RewardBatch(["a"], [1.0], [[1.0]]))
    objects = np.array(["a", "bb"], dtype=object)
    state = policy.learn(policy.initial_state(), RewardBatch(objects, [1.0, 0.0], np.ones((2, 1))))
    assert policy.loads(policy.dumps(state)).item_ids.tolist() == ["a", "bb"]


@pytest.mark.parametrize(
    ("values", "features", "columns"),
    [
        ([1e308, 1e308], [[9.0], [9.0]], {}),
        ([1.0, 1.0], [[1.0], [1.0]], {"offsets": [0.0, math.nan]}),
        ([1.0, 1.0], [[1.0], [1.0]], {"weights": [1e308, 1e308]}),
    ],
)
def test_numbers_that_leave_no_posterior_are_refused(values, features, columns):
    policy = DisjointLinUCB(dim=1, noise=0.1)
    state = policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], [[1.0]]))
    before = policy.dumps(state)
    with pytest.raises(InvalidBatch, match="no posterior"):
        policy.learn(state, RewardBatch(["a", "a"], values, features, **columns))
    assert policy.dumps(state) == before


@pytest.mark.parametrize("features", [None, np.ones((1, 2))], ids=["none", "two"])
def test_other_features_than_it_was_set_up_for_are_refused(features):
    policy = DisjointLinearThompson(dim=3)
    with pytest.raises(InvalidBatch, match="dim 3"):
        policy.learn(policy.initial_state(), RewardBatch(["a"], [1.0], features))
    with pytest.raises(InvalidBatch, match="dim 3"):
        build_slate(policy, policy.initial_state(), RankingBatch(["a"], features), 1)


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (DisjointLinUCB, {"dim": 0}),
        (DisjointLinUCB, {"alpha": -0.1}),
        (DisjointLinUCB, {"floor": 0.0}),
        (DisjointLinUCB, {"pool": 0}),
        (DisjointLinearThompson, {"prior_precision": 0.0}),
        (DisjointLinearThompson, {"noise": math.inf}),
        (DisjointLinearThompson, {"half_life": -1.0}),
        (DisjointLinearThompson, {"draws": 0}),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(policy, options):
    with pytest.raises(InvalidPolicy, match=f"`{next(iter(options))}` of {policy.name}"):
        policy(**{"dim": 2, **options})


def test_a_prior_too_wide_for_float64_is_refused():
    with pytest.raises(InvalidPolicy, match="`prior_precision` of disjoint_lin_ucb is 1e-320"):
        DisjointLinUCB(dim=2, prior_precision=1e-320).initial_state()
