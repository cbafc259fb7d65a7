"""Candidates and their columns: nothing held out shows in them, and what they say can be counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval import InvalidOption, InvalidTable
from explorank.retrieval.collaborative import (
    EASE,
    EASEOptions,
    FirstStage,
    FirstStageOptions,
    Interactions,
    SideInformation,
    cuts_in_time,
    folds_by_user,
    training_rows,
)

DAY = 86_400.0


def random_interactions(seed: int, *, count: int = 150, users: int = 12, items: int = 30) -> Interactions:
    generator = np.random.default_rng(seed)
    return Interactions.of(
        [f"u{n:02}" for n in generator.integers(users, size=count)],
        [f"i{n:02}" for n in generator.integers(items, size=count)],
        values=generator.integers(1, 6, count),
        times=np.floor(generator.random(count) * 50) * DAY,
    )


def pairs(interactions: Interactions) -> set[tuple[int, int]]:
    return set(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_folds_part_each_users_interactions(seed: int, count: int) -> None:
    interactions = random_interactions(seed)
    folds = list(folds_by_user(interactions, count, seed))

    assert sum(len(fold.held_out) for fold in folds) == len(interactions)
    for fold in folds:
        assert not pairs(fold.known) & pairs(fold.held_out)
        assert pairs(fold.known) | pairs(fold.held_out) == pairs(interactions)
        assert fold.known.times is None
        share = interactions.activity / count
        assert (np.abs(fold.held_out.activity - share) < 1).all()


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.9))
def test_cuts_in_time_know_only_the_past(seed: int, share: float) -> None:
    interactions = random_interactions(seed)
    for fold in cuts_in_time(interactions, [share], 0.3):
        assert fold.now is not None
        assert (fold.known.times < fold.now).all()
        assert (fold.held_out.times >= fold.now).all()
        assert len(fold.known) <= share * len(interactions)


def test_a_cut_needs_times() -> None:
    with pytest.raises(InvalidTable, match="no times"):
        next(cuts_in_time(random_interactions(0).without_times(), [0.5], 0.2))


@given(st.integers(0, 2**32 - 1))
def test_features_do_not_depend_on_what_is_held_out(seed: int) -> None:
    interactions = random_interactions(seed)
    fold = next(folds_by_user(interactions, 3, seed))
    options = FirstStageOptions(
        models={"ease": (EASE, EASEOptions(l2=1.0))}, sources=("ease", "popular"), depth=9
    )
    stage = FirstStage.fit(fold.known, options=options)
    plain, labelled = stage.rows(range(12)), stage.rows(range(12), fold.held_out)

    told = dict(
        zip(
            zip(plain.users.tolist(), plain.items.tolist(), strict=True), plain.features.tolist(), strict=True
        )
    )
    for user, item, features, label in zip(
        labelled.users.tolist(),
        labelled.items.tolist(),
        labelled.features.tolist(),
        labelled.labels,
        strict=True,
    ):
        np.testing.assert_array_equal(features, told[user, item])
        assert label == ((user, item) in pairs(fold.held_out))
        assert (user, item) not in pairs(fold.known)


def test_training_rows_have_positives_in_every_group() -> None:
    interactions = random_interactions(1)
    for rows in training_rows(folds_by_user(interactions, 3, 0)):
        ends = np.cumsum(rows.groups)
        for start, end in zip(ends - rows.groups, ends, strict=True):
            assert rows.labels[start:end].any()
            assert len(set(rows.users[start:end].tolist())) == 1


def test_columns_by_hand() -> None:
    # u0: a, b; u1: b; everything on days 0 to 9, asked on day 10.
    seen = Interactions.of(
        ["u0", "u0", "u1"],
        ["a", "b", "b"],
        values=[5.0, 1.0, 3.0],
        times=[0.0, 9 * DAY, 5 * DAY],
        all_items=["c"],
    )
    side = SideInformation(
        tags=np.array([[1, 0], [0, 1], [0, 1]], np.float32),
        item_numbers={"year": np.array([1990.0, 2000.0, np.nan])},
        user_groups={"club": np.array([0, 1])},
    )
    options = FirstStageOptions(models={}, sources=("popular",), depth=9)
    rows = FirstStage.fit(seen, side=side, options=options, now=10 * DAY).rows([0, 1])
    told = {
        (user, item): dict(zip(rows.names, features, strict=True))
        for user, item, features in zip(
            rows.users.tolist(), rows.items.tolist(), rows.features.tolist(), strict=True
        )
    }

    assert set(told) == {(0, 2), (1, 0), (1, 2)}
    of_a = told[1, 0]
    assert of_a["popularity"] == pytest.approx(np.log(2))
    assert of_a["item_mean_value"] == pytest.approx((5 + 5 * 3) / 6)
    assert of_a["user_mean_value"] == pytest.approx(3.0)
    assert of_a["year_beyond_usual"] == pytest.approx(-10.0)
    assert of_a["tag_taste"] == pytest.approx(np.log(0.01 / (1 / 3 + 0.01)))
    share = 2 / 6  # of a, one more than counted
    assert of_a["club_taste"] == pytest.approx(np.log((0 + 1) / (1 * share + 1)), abs=1e-6)
    assert of_a["item_age_days"] == pytest.approx(10.0)
    assert of_a["popularity_3d"] == pytest.approx(0.0)
    assert of_a["user_idle_days"] == pytest.approx(5.0)
    assert told[0, 2]["popularity_7d"] == pytest.approx(0.0)
    assert np.isnan(told[0, 2]["item_age_days"])


def test_times_of_the_future_are_refused() -> None:
    with pytest.raises(InvalidTable, match="future"):
        FirstStage.fit(random_interactions(0), now=10 * DAY)


def test_a_column_of_another_length_is_named() -> None:
    with pytest.raises(InvalidTable, match="year has 3 rows for 30"):
        FirstStage.fit(random_interactions(0), side=SideInformation(item_numbers={"year": np.zeros(3)}))


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(InvalidOption, match="eese"):
        FirstStageOptions(sources=("eese",))
