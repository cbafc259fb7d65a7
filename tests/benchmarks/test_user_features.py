"""What profiles add to towers: who is held out, who knows what, and what a profile is worth that tells the taste."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from explorank.retrieval.collaborative import Interactions, SideInformation, TwoTowerOptions

REPOSITORY = Path(__file__).parents[2]
CLUBS = 12
PER_CLUB = 25
TOWERS = TwoTowerOptions(dim=16, hidden=16, batch_size=256, epochs=6, learning_rate=0.02)


@pytest.fixture
def user_features(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(REPOSITORY)
    return importlib.import_module("benchmarks.user_features")


@pytest.fixture
def clubs(user_features: ModuleType):
    """Return a world in which the profile tells of which twelfth of the items a user likes ten."""
    random = np.random.default_rng(0)
    who, what, when = [], [], []
    for user in range(240):
        for place, item in enumerate(random.permutation(PER_CLUB)[:10]):
            who.append(f"u{user:03}")
            what.append(f"i{user % CLUBS * PER_CLUB + item:03}")
            when.append(float(place))
    interactions = Interactions.of(who, what, times=when)
    side = SideInformation(
        user_groups={"club": np.arange(240) % CLUBS + 1, "age": np.ones(240, np.int64)},
        user_numbers={"user_age": random.integers(20, 60, 240).astype(np.float64)},
    )
    return importlib.import_module("benchmarks.accuracy.worlds").World("clubs", interactions, side)


def test_a_telling_profile_finds_newcomers_what_popularity_cannot(user_features, clubs):
    found = {(one.situation, one.system): one for one in user_features.play(clubs, TOWERS, [1])}

    assert found["new users, 0 likes known", user_features.PROFILES].recall.mean > 0.9
    assert found["new users, 0 likes known", user_features.POPULAR].recall.mean < 0.6
    assert ("new users, 0 likes known", user_features.HISTORIES) not in found
    assert ("new users, 0 likes known", user_features.WITHHELD) not in found
    assert {one.users for (situation, _), one in found.items() if situation == "known users"} == {216}
    assert {one.users for (situation, _), one in found.items() if situation.startswith("new")} == {24}
    beyond = found["known users", user_features.PROFILES].beyond[user_features.HISTORIES]
    assert beyond.low <= beyond.mean <= beyond.high
    lines = user_features.table(list(found.values()))
    assert len(lines) == 2 + len(found)


def test_profiles_are_columns_and_a_number_is_no_group_too(user_features, clubs):
    told = user_features.profiles(clubs)
    assert (told.names, told.categories) == (("user_age", "club"), {"club"})


def test_the_latest_fifth_of_each_user_is_held_out(user_features, clubs):
    latest = user_features._latest(clubs.interactions)
    np.testing.assert_array_equal(np.bincount(clubs.interactions.users[latest]), np.full(240, 2))
    assert clubs.interactions.times[latest].min() == 8.0
