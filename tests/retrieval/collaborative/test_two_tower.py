"""Two towers: planted structure is learnt, new items are placed, and serving needs no torch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from explorank.retrieval import (
    CorruptArtefact,
    InvalidOption,
    InvalidTable,
    InvalidVectors,
    TwoTower,
    UserFeatures,
)
from explorank.retrieval.collaborative import Interactions, TwoTowerOptions

OPTIONS = TwoTowerOptions(dim=8, hidden=16, batch_size=64, epochs=15, learning_rate=0.02)
CLUBS = 3
PER_CLUB = 12


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def clubs(*, hidden_item: int | None = None) -> tuple[Interactions, np.ndarray, np.ndarray]:
    """Users take up items of their club; content and user columns tell the club, in noise."""
    generator = np.random.default_rng(0)
    who, what = [], []
    for user in range(90):
        own = np.arange(PER_CLUB) + PER_CLUB * (user % CLUBS)
        for item in generator.choice(own, 6, replace=False):
            if item != hidden_item:
                who.append(f"u{user:02}")
                what.append(f"i{item:02}")
    items = [f"i{item:02}" for item in range(CLUBS * PER_CLUB)]
    interactions = Interactions.of(who, what, all_items=items)
    content = np.eye(CLUBS)[np.arange(CLUBS * PER_CLUB) // PER_CLUB] + generator.normal(0, 0.1, (36, CLUBS))
    columns = np.eye(CLUBS)[np.arange(90) % CLUBS]
    return interactions, content, columns


@pytest.fixture(scope="module")
def fitted() -> TwoTower:
    torch.set_num_threads(1)
    interactions, content, columns = clubs(hidden_item=5)
    return TwoTower.fit(interactions, options=OPTIONS, content=content, user_features=columns)


def test_the_own_club_comes_first(fitted: TwoTower) -> None:
    scores = fitted.scores(["i12", "i14", "i20"], np.eye(CLUBS)[1])

    assert set(np.argsort(-scores)[:PER_CLUB].tolist()) == set(range(12, 24))


def test_a_profile_alone_tells_the_club(fitted: TwoTower) -> None:
    scores = fitted.scores([], np.eye(CLUBS)[2])

    assert set(np.argsort(-scores)[:PER_CLUB].tolist()) == set(range(24, 36))


def test_an_item_nobody_took_up_is_placed_by_its_content(fitted: TwoTower) -> None:
    _, content, columns = clubs()
    placed = fitted.place(content[[5]])[0]
    users = [fitted.user_vector([], columns[club]) for club in range(CLUBS)]

    assert np.linalg.norm(placed) == pytest.approx(1.0, abs=1e-5)
    assert np.argmax([user @ placed for user in users]) == 0


def test_items_that_came_later_have_a_place_on_both_sides(fitted: TwoTower) -> None:
    _, content, columns = clubs()
    ids = np.array(["late", "i12", "unknown", "i30"])
    told = np.concatenate([np.eye(CLUBS)[[2]], content[[12, 5, 30]]])

    model = fitted.in_rows_of(ids, told)

    np.testing.assert_array_equal(model.item_vectors[[1, 3]], fitted.item_vectors[[12, 30]])
    np.testing.assert_allclose(model.item_vectors[[0, 2]], fitted.place(told[[0, 2]]), rtol=1e-6)
    of_third_club = model.user_vector(["late"])
    assert of_third_club @ fitted.item_vectors[24:].T.mean(axis=1) > 0.5
    assert of_third_club @ fitted.item_vectors[:24].T.mean(axis=1) < 0
    nothing = fitted.in_rows_of(ids)
    assert not nothing.item_vectors[[0, 2]].any()
    np.testing.assert_array_equal(
        nothing.scores(["i12"], columns[1])[1], fitted.scores(["i12"], columns[1])[12]
    )
    with pytest.raises(InvalidVectors, match=r"content has nan in row 0, column 0.*Fill what is missing"):
        fitted.in_rows_of(ids, told * np.nan)


def test_outputs_are_of_length_1_and_scores_their_products(fitted: TwoTower) -> None:
    interactions, _, columns = clubs()
    histories = interactions.matrix[:4]
    users = fitted.user_vectors(histories, columns[:4])

    np.testing.assert_allclose(np.linalg.norm(fitted.item_vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1.0, atol=1e-5)
    history = interactions.item_ids[histories[1].indices].tolist()
    np.testing.assert_allclose(
        fitted.scores_of_many(histories, columns[:4])[1],
        fitted.scores([*history, "?"], columns[1]),
        atol=1e-5,
    )


def test_numpy_serves_what_torch_trained() -> None:
    from explorank.retrieval.collaborative.two_tower.training import Towers

    _, content, columns = clubs()
    torch.manual_seed(0)
    towers = Towers(content.astype(np.float32), 36, CLUBS, OPTIONS)
    model = TwoTower(np.array([f"i{item:02}" for item in range(36)]), towers.arrays(), {})
    with torch.no_grad():
        pooled = towers.histories(torch.tensor([3, 7])).mean(dim=0, keepdim=True)
        users = towers.users(pooled, torch.tensor(columns[:1], dtype=torch.float32))
        wanted = (users @ towers.items(torch.arange(36)).T)[0].numpy()

    np.testing.assert_allclose(model.scores(["i03", "i07"], columns[0]), wanted, atol=1e-5)


def test_without_content_or_columns() -> None:
    interactions, content, _ = clubs()
    model = TwoTower.fit(interactions, options=OPTIONS)

    assert set(np.argsort(-model.scores(["i00", "i03", "i07"]))[:PER_CLUB].tolist()) == set(range(12))
    with pytest.raises(InvalidVectors, match="new items cannot be placed"):
        model.place(content)


@pytest.mark.parametrize("logq", [0.0, 1.0])
def test_the_loss_by_hand(logq: float) -> None:
    from explorank.retrieval.collaborative.two_tower.training import Towers, _loss

    options = TwoTowerOptions(dim=8, hidden=16, temperature=0.5, logq=logq)
    towers = Towers(np.zeros((4, 0), np.float32), 4, 0, options)
    items, log_frequency = torch.tensor([0, 1, 2]), torch.tensor([-0.5, -1.5, -2.5])
    taken = torch.zeros(3, 3, dtype=torch.bool)
    taken[0, 2] = True  # the first user took up the third's item too, so it is no negative
    batch = {
        "items": items, "history_items": torch.tensor([1, 3]), "history": torch.tensor([0, 1, 1]),
        "history_starts": torch.tensor([0, 2, 3]), "user_features": torch.zeros(3, 0), "with_id": torch.ones(3, 1),
        "log_frequency": log_frequency, "taken": taken,
    }  # fmt: skip
    with torch.no_grad():
        both, second = (
            towers.histories(torch.tensor([1, 3])).mean(dim=0),
            towers.histories(torch.tensor([3]))[0],
        )
        users = towers.users(torch.stack([both, second, torch.zeros(8)]), torch.zeros(3, 0))
        cosines = (users @ towers.items(items).T).numpy()
        found = _loss(towers, batch, options).item()

    weights = np.exp(cosines / 0.5 - logq * log_frequency.numpy())
    weights[0, 2] = 0.0
    assert found == pytest.approx(-np.log(weights.diagonal() / weights.sum(axis=1)).mean(), rel=1e-5)


def test_the_same_seed_gives_the_same_towers_and_leaves_torchs_draws_alone() -> None:
    interactions, content, columns = clubs()
    torch.manual_seed(7)
    wanted = torch.rand(1).item()
    torch.manual_seed(7)
    vectors = [
        TwoTower.fit(
            interactions, options=OPTIONS, seed=seed, content=content, user_features=columns
        ).item_vectors
        for seed in (1, 1, 2)
    ]

    assert torch.rand(1).item() == wanted
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])


def test_what_is_kept_is_all_of_the_best_epoch() -> None:
    interactions, content, columns = clubs()
    few = replace(OPTIONS, epochs=40, patience=2)
    whole = TwoTower.fit(interactions, options=few, content=content, user_features=columns)
    best_epoch = int(whole.metrics["best_epoch"])
    assert best_epoch < whole.metrics["epochs"]

    again = TwoTower.fit(
        interactions, options=replace(few, epochs=best_epoch), content=content, user_features=columns
    )

    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name], err_msg=name)


# ---- columns of users, by name ------------------------------------------------------------------------------


PROFILED = replace(OPTIONS, history_dropout=0.3, feature_dropout=0.3, epochs=8, validation_share=0.0)


def profiled() -> tuple[Interactions, UserFeatures]:
    """The users of `clubs`; an amount tells the first club from the others, and a text the other two apart."""
    interactions, _, _ = clubs()
    club = np.array([int(user[1:]) % CLUBS for user in interactions.user_ids])[interactions.users]
    age = np.random.default_rng(1).normal(np.where(club == 0, 20.0, 60.0), 3.0)
    values = np.stack([age, np.where(club == 2, 1.0, 4.0)], axis=1).astype(np.float32)
    return interactions, UserFeatures(("age", "town"), values, frozenset({"town"}))


def user(**told: float) -> UserFeatures:
    return UserFeatures(tuple(told), np.array(list(told.values()), np.float32))


@pytest.fixture(scope="module")
def by_profile() -> TwoTower:
    torch.set_num_threads(1)
    interactions, told = profiled()
    return TwoTower.fit(interactions, options=PROFILED, content=clubs()[1], user_features=told)


def best_club(model: TwoTower, history: list[str], told: UserFeatures | None) -> set[int]:
    return set((np.argsort(-model.scores(history, told))[:PER_CLUB] // PER_CLUB).tolist())


def test_named_columns_place_users_without_a_history(by_profile: TwoTower) -> None:
    assert by_profile.user_features == ("age", "town")
    assert best_club(by_profile, [], user(age=21.0, town=4.0)) == {0}
    assert best_club(by_profile, [], user(town=4.0, visits=3.0, age=61.0)) == {1}  # in whatever order
    assert best_club(by_profile, [], user(age=61.0, town=1.0)) == {2}


def test_a_history_speaks_where_columns_are_missing_or_of_no_known_category(by_profile: TwoTower) -> None:
    for told in (None, user(age=np.nan, town=np.nan), user(town=99.0), user(visits=1.0)):
        assert best_club(by_profile, ["i12", "i14", "i20"], told) == {1}
    np.testing.assert_array_equal(
        by_profile.user_vector(["i12"]), by_profile.user_vector(["i12"], user(age=np.nan))
    )
    assert not np.array_equal(
        by_profile.user_vector([], user(town=np.nan, age=40.0)),
        by_profile.user_vector([], user(town=99.0, age=40.0)),
    )


def test_columns_are_those_of_each_event_and_the_last_of_repeated_ones_counts() -> None:
    interactions, told = profiled()
    who, what = interactions.user_ids[interactions.users], interactions.item_ids[interactions.items]
    order = np.random.default_rng(3).permutation(len(who))
    # Everything happened once before, when the columns were another's.
    times = np.concatenate([np.arange(len(who)), 10_000.0 + np.arange(len(who))])
    doubled = Interactions.of([*who, *who[order]], [*what, *what[order]], times=times)
    both = UserFeatures(told.names, np.concatenate([told.values[::-1], told.values[order]]), told.categories)
    np.testing.assert_array_equal(
        both.values[doubled.given, 1], told.values[order][doubled.given - len(who), 1]
    )

    model = TwoTower.fit(doubled, options=PROFILED, content=clubs()[1], user_features=both)

    assert best_club(model, [], user(age=21.0, town=4.0)) == {0}
    assert best_club(model, [], user(age=61.0, town=1.0)) == {2}


def test_interactions_know_which_of_the_given_they_are() -> None:
    who, what = ["b", "a", "b", "a", "b"], ["y", "x", "x", "y", "y"]
    interactions = Interactions.of(who, what, times=[5.0, 2.0, 3.0, 1.0, 4.0])

    for some in (interactions, interactions.without_times(), interactions.take(np.array([0, 3]))):
        assert np.array(who)[some.given].tolist() == some.user_ids[some.users].tolist()
        assert np.array(what)[some.given].tolist() == some.item_ids[some.items].tolist()
    assert interactions.given.tolist() == [3, 1, 2, 0]


def test_named_columns_survive_a_file_and_other_rows(by_profile: TwoTower, tmp_path: Path) -> None:
    by_profile.save(tmp_path)
    told = user(age=61.0, town=1.0)
    for mapped in (False, True):
        loaded = TwoTower.load(tmp_path, mapped=mapped)
        assert loaded.user_features == ("age", "town")
        np.testing.assert_array_equal(loaded.scores([], told), by_profile.scores([], told))
    turned = by_profile.in_rows_of(by_profile.item_ids[::-1])
    np.testing.assert_allclose(turned.scores([], told)[::-1], by_profile.scores([], told), atol=1e-6)
    assert set(by_profile.arrays) > {"user_names", "user_categories"}
    (tmp_path / "user_means.npy").write_bytes(b"")
    with pytest.raises(CorruptArtefact, match=r"user_means\.npy"):
        TwoTower.load(tmp_path)


def test_named_columns_must_fit(by_profile: TwoTower) -> None:
    interactions, told = profiled()
    with pytest.raises(InvalidVectors, match="Pass a row for each interaction"):
        TwoTower.fit(interactions, user_features=told.take(np.arange(9)))
    with pytest.raises(InvalidVectors, match="by name where it was trained by names"):
        by_profile.scores([], [61.0, 1.0])
    with pytest.raises(InvalidOption, match="history_dropout=1"):
        TwoTowerOptions(history_dropout=1.0)


def test_training_stops_early(fitted: TwoTower) -> None:
    assert fitted.metrics["best_epoch"] <= fitted.metrics["epochs"] <= OPTIONS.epochs
    assert fitted.metrics["recall@100"] > 0.2


def test_a_saved_model_serves_without_torch(fitted: TwoTower, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    code = (
        "import sys; from explorank.retrieval import TwoTower; "
        f"scores = TwoTower.load({str(tmp_path)!r}).scores(['i12', 'i14'], [0, 1, 0]); "
        "assert 'torch' not in sys.modules; print(*scores.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    np.testing.assert_allclose(
        [float(score) for score in done.stdout.split()], fitted.scores(["i12", "i14"], [0, 1, 0]), atol=1e-6
    )


def test_a_damaged_file_is_named(fitted: TwoTower, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    file = tmp_path / "skip_weights.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CorruptArtefact, match=r"skip_weights\.npy"):
        TwoTower.load(tmp_path)


def test_bad_input_is_named(fitted: TwoTower) -> None:
    interactions, content, columns = clubs()
    with pytest.raises(InvalidTable, match="3 interactions"):
        TwoTower.fit(Interactions.of(["u"] * 3, ["a", "b", "c"]))
    with pytest.raises(InvalidVectors, match="content of shape"):
        TwoTower.fit(interactions, content=content[:-1])
    with pytest.raises(InvalidVectors, match="user_features of shape"):
        TwoTower.fit(interactions, user_features=np.zeros((89, 1)))
    with pytest.raises(InvalidVectors, match="user_features has nan in row 0, column 0"):
        TwoTower.fit(interactions, user_features=np.full((90, 1), np.nan))
    with pytest.raises(InvalidVectors, match="User columns"):
        fitted.scores(["i12"], columns[0][:2])
    with pytest.raises(InvalidOption, match="temperature=0"):
        TwoTowerOptions(temperature=0)
