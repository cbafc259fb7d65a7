"""A window knows the latest rewards, and nothing of those before."""

import numpy as np
import pytest

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration import (
    BetaThompson,
    LinearThompson,
    LogisticThompson,
    RankingBatch,
    RewardBatch,
    SlidingWindow,
    build_slate,
)


def successes(window, state):
    return dict(zip(state.merged.item_ids.tolist(), state.merged.successes.tolist(), strict=True))


def numbered(first, last):
    """Rewards of 1 for the items of these numbers."""
    return RewardBatch(np.arange(first, last), np.ones(last - first))


@pytest.mark.parametrize("size", [1, 3, 4, 7, 50])
def test_the_window_holds_the_latest_blocks(size):
    """12 rewards in 3 blocks of 4: after t rewards, those from the block before last but one on."""
    window = SlidingWindow(BetaThompson(), rewards=12, blocks=3)
    state = window.initial_state()
    for start in range(0, 50, size):
        state = window.learn(state, numbered(start, min(start + size, 50)))
        end = min(start + size, 50)
        begun = -(-end // 4)  # blocks that hold a reward
        oldest = max(begun - 3, 0) * 4
        assert sorted(successes(window, state)) == list(range(oldest, end))
        if end >= 12:
            assert 12 * (1 - 1 / 3) < end - oldest <= 12
    assert state.version == -(-50 // size)


def test_the_cut_into_batches_does_not_matter_to_the_last_bit():
    window = SlidingWindow(LinearThompson(dim=3), rewards=40, blocks=4)
    rng = np.random.default_rng(1)
    x, r = rng.standard_normal((130, 3)), rng.standard_normal(130)
    ids = np.arange(130)
    once = window.learn(window.initial_state(), RewardBatch(ids, r, x))
    # Blocks end after every ten rewards; cuts there change no sum.
    state = window.initial_state()
    for start in range(0, 130, 10):
        rows = slice(start, start + 10)
        state = window.learn(state, RewardBatch(ids[rows], r[rows], x[rows]))
    np.testing.assert_array_equal(state.merged.precision, once.merged.precision)
    latest = LinearThompson(dim=3).learn(
        LinearThompson(dim=3).initial_state(), RewardBatch(ids[90:], r[90:], x[90:])
    )
    np.testing.assert_allclose(once.merged.precision, latest.precision, rtol=1e-12)
    np.testing.assert_allclose(once.merged.mean, latest.mean, rtol=1e-12)


def test_a_request_reads_the_sum():
    inner = BetaThompson(floor=0.1, draws=32)
    window = SlidingWindow(inner, rewards=6, blocks=3)
    state = window.learn(window.initial_state(), RewardBatch(list("aabbcc"), [1, 1, 0, 1, 0, 0]))
    direct = inner.learn(inner.initial_state(), RewardBatch(list("aabbcc"), [1, 1, 0, 1, 0, 0]))
    batch = RankingBatch(list("abcd"))
    for seed in range(20):
        through, plain = (
            build_slate(policy, of, batch, 3, seed=seed) for policy, of in ((window, state), (inner, direct))
        )
        assert through.order.tolist() == plain.order.tolist()
        assert through.propensities.tolist() == plain.propensities.tolist()
    assert (through.policy, through.floor) == ("windowed_beta_thompson", 0.1)
    expected = window.expected(state, RewardBatch(["a", "z"], [0, 0]))
    assert expected.tolist() == [3 / 4, 1 / 2]


def test_what_is_no_sum_has_no_window():
    for policy in (LogisticThompson(dim=3), BetaThompson(half_life=10.0)):
        with pytest.raises(InvalidPolicy, match=f"`policy`.*{policy.name}.*additive"):
            SlidingWindow(policy)


@pytest.mark.parametrize("options", [{"blocks": 1}, {"rewards": 5, "blocks": 10}, {"rewards": 25}], ids=str)
def test_a_window_has_blocks_of_one_size(options):
    with pytest.raises(InvalidPolicy, match="`blocks`"):
        SlidingWindow(BetaThompson(), **options)


@pytest.mark.parametrize(
    ("changes", "arrays"),
    [({"latest": 99}, {}), ({"blocks": []}, {}), ({"latest": None}, {}), ({}, {"9.item_ids": np.zeros(1)})],
    ids=str,
)
def test_what_is_no_window_is_refused(changes, arrays):
    window = SlidingWindow(BetaThompson(), rewards=6, blocks=3)
    meta, packed = window.pack(window.learn(window.initial_state(), numbered(0, 5)))
    with pytest.raises(CorruptState, match="A saved state of windowed_beta_thompson"):
        window.unpack({**meta, **changes}, {**packed, **arrays})
