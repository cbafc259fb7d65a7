"""Examination models: by hand, and that learning with them finds the appeal where learning without does not."""

from dataclasses import replace

import numpy as np
import pytest

from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import (
    BetaThompson,
    Cascade,
    GaussianThompson,
    LinearThompson,
    PositionBased,
    RewardBatch,
)

APPEAL = np.array([0.6, 0.3, 0.1])
EXAMINED = np.array([1.0, 0.5, 0.2])
IDS = np.array(["a", "b", "c"])
MODEL = PositionBased((1.0, 0.5, 0.2))


def slates(count, seed):
    """Rankings of a, b, c in which the most appealing item is on top of one slate in ten, and else at the end."""
    rng = np.random.default_rng(seed)
    orders = np.where(rng.random(count)[:, None] < 0.1, [0, 1, 2], [2, 1, 0])
    return rng, orders


def clicks_by_position(count, seed):
    rng, orders = slates(count, seed)
    seen = rng.random((count, 3)) < EXAMINED
    return orders, seen & (rng.random((count, 3)) < APPEAL[orders])


def clicks_by_cascade(count, seed):
    rng, orders = slates(count, seed)
    liked = rng.random((count, 3)) < APPEAL[orders]
    return orders, liked & (liked.cumsum(axis=1) == 1)


def rewards_of(orders, clicks):
    count = len(orders)
    return RewardBatch(
        IDS[orders.ravel()],
        clicks.ravel().astype(float),
        np.eye(3)[orders.ravel()],
        decision_ids=np.repeat(np.arange(count), 3),
        slots=np.tile([0, 1, 2], count),
    )


def means(policy, rewards):
    """What a policy expects of a, b and c after `rewards`."""
    state = policy.learn(policy.initial_state(), rewards)
    if isinstance(policy, LinearThompson):
        return policy.posterior(state)[0]
    first, second = policy.posterior(state)
    mean = first / (first + second) if isinstance(policy, BetaThompson) else first
    return mean[state.rows(IDS)]


def test_the_probability_of_a_slot():
    assert MODEL.examination([2, 0, 1, 7]).tolist() == [0.2, 1.0, 0.5, 0.2]


def test_a_click_proves_an_examination_and_its_absence_doubts_it():
    """θ = ½ and an appeal of 0.6: 0.5 · 0.4 / (1 - 0.3) = 2/7. Certain appeal on top: nobody looked."""
    given = MODEL.examination_given([1, 1, 0, 0, 2], [1, 0, 0, 0, 0], [0.6, 0.6, 0.3, 1.0, 0.0])
    assert given == pytest.approx([1.0, 2 / 7, 1.0, 0.0, 0.2])


def test_unbiased_rewards_by_hand():
    rewards = MODEL.unbiased(RewardBatch(["a", "b"], [1.0, 1.0], slots=[0, 2]))
    assert rewards.values.tolist() == [1.0, 5.0]
    assert rewards.examination.tolist() == [1.0, 0.2]


def test_the_cascade_by_hand():
    """d: clicked in slot 1, so that slot 2 was not looked at. e: no click, all of it was. Rows in any order."""
    examined = Cascade().examination(
        ["d", "e", "d", "e", "d", "f"], [2, 1, 0, 0, 1, 3], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    )
    assert examined.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert Cascade().examination([], [], []).tolist() == []


@pytest.mark.parametrize("policy", [GaussianThompson(), LinearThompson(dim=3)], ids=["gaussian", "linear"])
def test_position_bias_is_removed_from_normal_posteriors(policy):
    """Σ r / Σ θ over 40,000 slates: a has Σ θ = 40,000 · (0.1 · 1 + 0.9 · 0.2) = 11,200, b and c more.

    The standard error is at most sqrt(0.6 / 11,200) = 0.0073; the bound is 4.5 of them, which a correct
    implementation passes but for 1e-5 each, and the prior's pull is below 1e-4. Without the model a is taken
    for 0.6 · 0.28, less than half of what it is.
    """
    rewards = rewards_of(*clicks_by_position(40_000, seed=1))
    assert np.abs(means(policy, MODEL.unbiased(rewards)) - APPEAL).max() < 0.033
    assert means(policy, rewards)[0] < 0.5 * APPEAL[0]


def test_position_bias_is_removed_from_a_beta_posterior():
    """Expectation-maximisation over 40,000 slates: the estimate of greatest likelihood, to the same bound."""
    policy = BetaThompson()
    orders, clicks = clicks_by_position(40_000, seed=2)
    rewards, rows = rewards_of(orders, clicks), orders.ravel()
    appeal = np.full(3, 0.5)
    for _ in range(60):
        examined = MODEL.examination_given(rewards.slots, rewards.values, appeal[rows])
        appeal = means(policy, replace(rewards, examination=examined))
    assert np.abs(appeal - APPEAL).max() < 0.033
    assert means(policy, rewards)[0] < 0.5 * APPEAL[0]
    # The probabilities before the click, as weights, do not do: each examination counts as a failed one.
    unconditional = replace(rewards, examination=MODEL.examination(rewards.slots))
    assert means(policy, unconditional)[0] < 0.75 * APPEAL[0]


def test_without_the_appeal_the_bias_is_as_stated():
    """All in slot 1, θ = ½, appeal 0.6, none assumed: 0.6 / (1 + 0.6 · ½) by expectation, not 0.6."""
    examined = MODEL.examination_given([1, 1], [1, 0], 0.0)
    learnt = 0.3 * examined[0] / (0.3 * examined[0] + 0.7 * examined[1])
    assert learnt == pytest.approx(0.6 / 1.3)
    exact = MODEL.examination_given([1, 1], [1, 0], 0.6)
    assert 0.3 * exact[0] / (0.3 * exact[0] + 0.7 * exact[1]) == pytest.approx(0.6)


def test_the_cascade_is_undone():
    """a is examined below a click-free c and b: 40,000 · (0.1 + 0.9 · 0.7 · 0.9) times, a standard error of 0.003.

    b and c are examined more often. The bound of 0.0135 is 4.5 of them; without the model, a is taken for
    less than 0.45.
    """
    rewards = rewards_of(*clicks_by_cascade(40_000, seed=3))
    examined = Cascade().examination(rewards.decision_ids, rewards.slots, rewards.values)
    policy = BetaThompson()
    assert np.abs(means(policy, replace(rewards, examination=examined)) - APPEAL).max() < 0.0135
    assert means(policy, rewards)[0] < 0.45


@pytest.mark.parametrize("probabilities", [(), (0.0,), (1.1,), (float("nan"),)])
def test_probabilities_are_above_zero(probabilities):
    with pytest.raises(InvalidPolicy, match="`probabilities`"):
        PositionBased(probabilities)


def test_what_no_model_can_take_is_refused():
    with pytest.raises(InvalidBatch, match="count from 0"):
        MODEL.examination([-1])
    with pytest.raises(InvalidBatch, match="`clicks`"):
        MODEL.examination_given([0], [0.5], 0.1)
    with pytest.raises(InvalidBatch, match="`appeal`"):
        MODEL.examination_given([0], [1], float("nan"))
    with pytest.raises(InvalidBatch, match="`clicks`"):
        Cascade().examination(["d"], [0], [2.0])
    with pytest.raises(InvalidBatch, match="2 slots"):
        Cascade().examination(["d"], [0, 1], [1, 0])
    with pytest.raises(InvalidBatch, match="`slots`"):
        MODEL.unbiased(RewardBatch(["a"], [1.0]))
    with pytest.raises(InvalidBatch, match="offsets"):
        MODEL.unbiased(RewardBatch(["a"], [1.0], slots=[0], offsets=[0.1]))
