"""Arms are dealt evenly, independently, and for good."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.feedback import assign

USERS = [f"user-{number}" for number in range(20_000)]


def test_arms_have_their_shares() -> None:
    """Chi-square at a false-alarm rate of 0.001; the users are fixed, so the outcome is."""
    arms = [assign(user, salt="s", holdout=0.1, share=0.3) for user in USERS]
    observed = [arms.count(arm) for arm in ("holdout", "explore", "baseline")]
    expected = np.array([0.1, 0.9 * 0.3, 0.9 * 0.7]) * len(USERS)
    assert stats.chisquare(observed, expected).pvalue > 0.001


def test_the_draws_are_uniform_and_independent() -> None:
    """Each user's decile in both draws, by raising one share at a time; 100 cells, chi-square at 0.001."""
    cells = np.zeros((10, 10))
    edges = [0.0, *(tenth / 10 for tenth in range(1, 10))]
    for user in USERS[:5000]:
        row = sum(assign(user, salt="s", holdout=edge, share=0.0) != "holdout" for edge in edges) - 1
        column = sum(assign(user, salt="s", holdout=0.0, share=edge) != "explore" for edge in edges) - 1
        cells[row, column] += 1
    assert stats.chisquare(cells.ravel()).pvalue > 0.001


def test_a_larger_share_only_adds_users() -> None:
    before = {user for user in USERS if assign(user, salt="s", holdout=0.1, share=0.2) == "explore"}
    after = {user for user in USERS if assign(user, salt="s", holdout=0.1, share=0.4) == "explore"}
    assert before < after


def test_the_holdout_does_not_move_with_the_share() -> None:
    holdouts = [
        {user for user in USERS if assign(user, salt="s", holdout=0.1, share=share) == "holdout"}
        for share in (0.0, 0.5, 1.0)
    ]
    assert holdouts[0] == holdouts[1] == holdouts[2]


def test_another_salt_deals_anew() -> None:
    one, other = (
        np.array([assign(user, salt=salt, holdout=0.0, share=0.5) == "explore" for user in USERS])
        for salt in ("a", "b")
    )
    # Independent halves agree on half of the users; 5 standard deviations are 5 * sqrt(20000) / 2 = 354.
    assert abs(int((one == other).sum()) - 10_000) < 354


def test_assignments_stay_what_they_were() -> None:
    """Frozen: a change here moves users between arms in a running experiment."""
    arms = [
        assign(user, salt="2026", holdout=0.2, share=0.5) for user in ("alice", "bob", "zoë", "", "7", "8")
    ]
    assert arms == ["baseline", "explore", "holdout", "explore", "baseline", "holdout"]


def test_the_ends_of_the_range() -> None:
    assert {assign(user, salt="s", holdout=1.0, share=1.0) for user in USERS[:100]} == {"holdout"}
    assert {assign(user, salt="s", holdout=0.0, share=1.0) for user in USERS[:100]} == {"explore"}
    assert {assign(user, salt="s", holdout=0.0, share=0.0) for user in USERS[:100]} == {"baseline"}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(InvalidPolicy, match="`share`"):
        assign("u", salt="s", holdout=0.0, share=share)
    with pytest.raises(InvalidPolicy, match="`holdout`"):
        assign("u", salt="s", holdout=share, share=0.0)
