"""A learnt space that serves: it finds what its model scores highest, and survives a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorank.retrieval import (
    Catalogue,
    CorruptArtefact,
    InvalidVectors,
    LearnedEmbeddings,
    RetrievalQuery,
    UserFeatures,
)
from explorank.retrieval.collaborative import (
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    Interactions,
    SASRec,
    SASRecOptions,
    TwoTower,
    products_with_user,
)
from explorank.retrieval.collaborative.sasrec.training import Network
from explorank.retrieval.collaborative.two_tower.model import TowerArrays
from explorank.retrieval.collaborative.two_tower.user_encoding import UserEncoding

CLUBS = 3
PER_CLUB = 8
LEARNT = [f"i{item:02}" for item in range(CLUBS * PER_CLUB)]
IDS = np.array([*LEARNT[::-1], "new"])
"""The catalogue's order, with an item that nobody took up at its end."""


def factors() -> ImplicitALS:
    """Learn clubs of users, whose items differ in popularity, in the catalogue's order."""
    random = np.random.default_rng(0)
    pairs = [
        (f"u{user}", f"i{club * PER_CLUB + item:02}")
        for user in range(120)
        for club in [user % CLUBS]
        for item in range(PER_CLUB)
        if random.random() < 1.0 / (item + 1)
    ]
    interactions = Interactions.of(*zip(*pairs, strict=True), all_items=LEARNT)
    options = ImplicitALSOptions(factors=4, l2=1.0, confidence=10.0)
    return ImplicitALS.fit(interactions, options=options).in_rows_of(IDS)


def towers(*, content: int = 0) -> TwoTower:
    """Return towers of four outputs by chance, in the catalogue's order; without content "new" has no place."""
    random = np.random.default_rng(1)

    def drawn(*shape: int) -> NDArray[np.float32]:
        return random.normal(size=shape).astype(np.float32)

    items = drawn(len(LEARNT), 4)
    arrays = TowerArrays(
        item_vectors=items / np.linalg.norm(items, axis=1, keepdims=True),
        content_weights=drawn(content, 4),
        content_bias=drawn(4),
        history_vectors=drawn(len(LEARNT), 4),
        history_content=drawn(content, 4),
        hidden_weights=drawn(4, 6),
        hidden_bias=drawn(6),
        output_weights=drawn(6, 4),
        skip_weights=drawn(4, 4),
        output_bias=drawn(4),
    )
    return TwoTower(np.array(LEARNT), arrays, {}).in_rows_of(
        IDS, drawn(len(IDS), content) if content else None
    )


def transformer() -> SASRec:
    """Return a transformer of two heads by chance, in the catalogue's order; "new" has no place."""
    torch.manual_seed(0)
    options = SASRecOptions(dim=4, layers=2, heads=2, history=5)
    arrays = Network(len(LEARNT), options).arrays()
    return SASRec(np.array(LEARNT), arrays, options.heads, {}).in_rows_of(IDS)


MODELS: dict[str, Any] = {
    "als": factors(),
    "two_tower": towers(),
    "with content": towers(content=2),
    "sasrec": transformer(),
}
SPACES = {name: EmbeddingSpace.build(model) for name, model in MODELS.items()}


def test_factors_are_scanned_and_unit_vectors_indexed() -> None:
    assert {name: (space.search_kind, space.known) for name, space in SPACES.items()} == {
        "als": ("scan", 24),
        "two_tower": ("flat", 24),
        "with content": ("flat", 25),
        "sasrec": ("flat", 24),
    }


rows = st.lists(st.integers(-1, len(IDS) - 1), max_size=6)


@pytest.mark.parametrize("name", SPACES)
@given(history=rows, exclude=rows, k=st.integers(0, 30))
def test_the_best_are_those_that_the_model_scores_highest(
    name: str, history: list[int], exclude: list[int], k: int
) -> None:
    model, space = MODELS[name], SPACES[name]
    placed = [row for row in range(len(IDS)) if name == "with content" or IDS[row] != "new"]

    found, products = space.best(np.array(history, np.int64), k, np.array(exclude, np.int64))

    known = [IDS[row] for row in history if row in placed]
    if not known:
        assert (len(found), products.dtype) == (0, np.float32)
        return
    scores = model.scores(known)
    allowed = [row for row in placed if row not in {*history, *exclude}]
    assert not set(found.tolist()) - set(allowed)
    np.testing.assert_allclose(products, np.sort(scores[allowed])[::-1][:k], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(products, scores[found], rtol=1e-4, atol=1e-5)


def test_what_a_club_takes_up_is_best_for_its_users() -> None:
    where = {item: row for row, item in enumerate(IDS.tolist())}

    found, products = SPACES["als"].best(np.array([where["i08"], where["i10"]]), 6)

    # The rest of the second club, the most popular first.
    assert set(IDS[found]) == {"i09", *(f"i{item}" for item in range(11, 16))}
    assert IDS[found[0]] == "i09"
    assert products[0] == pytest.approx(1.0, abs=0.35)  # about what would be seen if it was taken up


def by_age() -> TwoTower:
    """Return towers whose users look to the east, and the more to the north the older they are; unknown ages to it."""
    items = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    encoding = UserEncoding.fit(UserFeatures(("age",), np.array([[20], [40]], np.float32)), np.array([0, 1]))
    arrays = TowerArrays(
        item_vectors=items,
        content_weights=np.zeros((0, 2), np.float32),
        content_bias=np.zeros(2, np.float32),
        history_vectors=items,
        history_content=np.zeros((0, 2), np.float32),
        hidden_weights=np.zeros((4, 1), np.float32),
        hidden_bias=np.zeros(1, np.float32),
        output_weights=np.zeros((1, 2), np.float32),
        # The history's mean, the age in deviations from 30, and whether it is missing.
        skip_weights=np.array([[1, 0], [0, 1], [0, 2], [0, 4]], np.float32),
        output_bias=np.array([1, 0], np.float32),
    )
    return TwoTower(np.array(["east", "north", "west"]), arrays, {}, encoding)


def test_what_is_known_of_a_user_places_them_with_and_without_a_history(tmp_path: Path) -> None:
    space = EmbeddingSpace.build(by_age())
    space.save(tmp_path)
    nothing = np.empty(0, np.int64)
    old = UserFeatures(("visits", "age"), np.array([1, 50], np.float32))
    unknown = UserFeatures(("visits", "age"), np.array([1, np.nan], np.float32))

    for one in (space, EmbeddingSpace.load(tmp_path)):
        rows, products = one.best(nothing, 2, user=old)  # (1, 4)
        assert rows.tolist() == [1, 0]
        np.testing.assert_allclose(products, np.array([4, 1]) / np.sqrt(17), rtol=1e-5)
        rows, products = one.best(np.array([0]), 2, user=old)  # (2, 4), of whom the east is known
        assert rows.tolist() == [1, 2]
        np.testing.assert_allclose(products, np.array([4, -2]) / np.sqrt(20), rtol=1e-5)
        rows, products = one.best(np.array([1]), 2, user=unknown)  # (1, 5)
        np.testing.assert_allclose(products, np.array([1, -1]) / np.sqrt(26), rtol=1e-5)
        assert len(one.best(nothing, 2, user=unknown)[0]) == len(one.best(nothing, 2)[0]) == 0
    catalogue = Catalogue.build(space.item_ids, np.eye(3), embeddings=space)
    query = RetrievalQuery(time=0.0, user_features=old, exclude=frozenset({"north"}))
    assert LearnedEmbeddings().retrieve(catalogue, query, 1)[0].tolist() == ["east"]
    told = products_with_user(space.model, nothing, np.array([1, -1, 0]), old)
    np.testing.assert_allclose(told, [4 / np.sqrt(17), np.nan, 1 / np.sqrt(17)], rtol=1e-5)
    assert np.isnan(products_with_user(space.model, nothing, np.array([1]), unknown)).all()


@pytest.mark.parametrize("name", SPACES)
def test_a_model_that_reads_histories_alone_passes_over_what_else_is_known(name: str) -> None:
    user = UserFeatures(("age",), np.array([50], np.float32))
    assert len(SPACES[name].best(np.empty(0, np.int64), 3, user=user)[0]) == 0
    for one, other in zip(
        SPACES[name].best(np.array([3]), 3), SPACES[name].best(np.array([3]), 3, user=user), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", SPACES)
def test_an_item_finds_others_by_its_own_vector(name: str) -> None:
    space = SPACES[name]
    row = int(np.flatnonzero(IDS == "i09")[0])
    vectors = np.asarray(space.model.item_vectors, np.float64)
    products = vectors @ vectors[row] / (vectors[row] @ vectors[row])
    others = np.flatnonzero((np.abs(vectors).sum(axis=1) > 0) & (np.arange(len(IDS)) != row))

    found, told = space.like(row, 5, np.array([others[0]]))

    allowed = others[1:]
    assert found.tolist() == allowed[np.argsort(-products[allowed])][:5].tolist()
    np.testing.assert_allclose(told, products[found], rtol=1e-4)
    assert len(space.like(-1, 5)[0]) == 0
    assert len(space.like(len(IDS) - 1, 5)[0]) == (5 if name == "with content" else 0)


@pytest.mark.parametrize("name", SPACES)
def test_the_same_is_found_without_an_index(name: str) -> None:
    space = EmbeddingSpace.exact(MODELS[name])

    history = np.array([3, 7])
    for one, other in zip(SPACES[name].best(history, 9), space.best(history, 9), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert (space.search_kind, space.known) == ("scan", SPACES[name].known)


@pytest.mark.parametrize("name", SPACES)
def test_saved_and_mapped(name: str, tmp_path: Path) -> None:
    SPACES[name].save(tmp_path)
    after = EmbeddingSpace.load(tmp_path)

    history = np.array([3, 7])
    for one, other in zip(SPACES[name].best(history, 9), after.best(history, 9), strict=True):
        np.testing.assert_array_equal(one, other)
    assert isinstance(after.model.item_vectors.base, np.memmap)
    assert after.item_ids.tolist() == IDS.tolist()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("als", "space.json"),
        ("als", "model/factors.npy"),
        ("als", "scan/vectors.npy"),
        ("two_tower", "model/history_vectors.npy"),
        ("two_tower", "index/index.faiss"),
        ("sasrec", "model/attention_weights.npy"),
    ],
)
def test_a_damaged_file_is_named(name: str, file: str, tmp_path: Path) -> None:
    SPACES[name].save(tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    content[-9] ^= 4
    (tmp_path / file).write_bytes(content)

    with pytest.raises(CorruptArtefact, match=file.rpartition("/")[2]):
        EmbeddingSpace.load(tmp_path)


def test_a_model_that_places_nothing_is_refused() -> None:
    with pytest.raises(InvalidVectors, match="places none of its 2 items"):
        EmbeddingSpace.build(MODELS["als"].in_rows_of(np.array(["x", "y"])))
