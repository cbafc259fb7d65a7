"""The space that a build learns: from which events, with which seed, and what becomes of too few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from explorank import load
from explorank.artefacts import ArtefactStore
from explorank.checks import run_checks
from explorank.errors import DataError, SettingsError
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.embeddings import fit_embeddings, sampled_users
from explorank.pipeline.tables import past_interactions
from explorank.retrieval import InvalidTable
from explorank.retrieval.collaborative import (
    EmbeddingSpace,
    ImplicitALS,
    ImplicitALSOptions,
    Interactions,
    SASRecOptions,
    TwoTowerOptions,
)
from explorank.settings import LearnedEmbeddingsSettings, Settings, load_settings, parse_settings

SMALL = {"factors": 2, "l2": 1.0}
"""As many factors as there are sorts."""
SEQUENCE = SASRecOptions(
    dim=8,
    layers=1,
    history=6,
    negatives=10,
    batch_size=16,
    epochs=12,
    learning_rate=0.02,
    validation_share=0.0,
)
TOWERS = TwoTowerOptions(dim=8, hidden=16, batch_size=64, epochs=12, learning_rate=0.02, validation_share=0.0)


def clubs(users: int = 60) -> pd.DataFrame:
    """Each user likes six of ten items: those whose number has the same parity as theirs."""
    random = np.random.default_rng(0)
    liked = [
        (f"u{user}", f"i{item}")
        for user in range(users)
        for item in random.permutation(10)[:6] * 2 + user % 2
    ]
    table = pd.DataFrame(liked, columns=["user_id", "item_id"])
    return table.assign(timestamp=pd.date_range("2026-01-01", periods=len(table), freq="min", tz="UTC"))


def test_an_index_is_tuned_by_what_some_users_liked() -> None:
    events = clubs(users=300)
    ids = np.array(["other", "i3", "i0", "i1"])
    histories, _ = sampled_users(events, ids)
    assert 100 < len(histories) < 256  # some liked nothing that is known
    liked = {frozenset(history.tolist()) for history in histories}
    assert liked == {frozenset(some) for some in ({1}, {3}, {1, 3}, {2})}


# ---- what is learnt -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["als", "two_tower", "sasrec"])
def test_who_likes_one_sort_finds_the_rest_of_it(model: Any) -> None:
    ids = np.array([*(f"i{item}" for item in range(19, -1, -1)), "new even", "new odd"])
    parity = np.array([*(item % 2 for item in range(19, -1, -1)), 0, 1])
    texts = np.eye(2, dtype=np.float32)[parity] + np.float32(0.1)
    wanted = LearnedEmbeddingsSettings(
        model=model, als=ImplicitALSOptions(**SMALL), two_tower=TOWERS, sasrec=SEQUENCE
    )
    passes: list[tuple[int, int]] = []
    begun: list[str] = []

    def fit(**changes: Any) -> Any:
        return fit_embeddings(
            wanted.model_copy(update=changes),
            clubs(),
            ids,
            texts,
            progress=lambda *done: passes.append(done),
            begins=begun.append,
        )

    fitted = fit()

    history = np.flatnonzero(np.isin(ids, ["i2", "i4", "gone"]))
    found, _ = EmbeddingSpace.build(fitted).best(history, 9 if model == "two_tower" else 8)
    assert not parity[found].any()
    # Texts alone place what nobody liked yet.
    assert ("new even" in ids[found]) == (model == "two_tower")
    assert len(begun) == 1
    total = {"als": ImplicitALSOptions().iterations, "two_tower": TOWERS.epochs, "sasrec": SEQUENCE.epochs}[
        model
    ]
    assert passes == [(done, total) for done in range(1, total + 1)]
    np.testing.assert_array_equal(fit().item_vectors, fitted.item_vectors)
    assert not np.array_equal(fit(seed=1).item_vectors, fitted.item_vectors)


def test_too_little_to_learn_from_is_named() -> None:
    ids, texts = np.array(["i0", "i1", "i2"]), np.eye(3, dtype=np.float32)
    alone = pd.DataFrame({"user_id": ["a", "b", "b"], "item_id": ["i0", "i1", "i1"]})
    alone["timestamp"] = pd.date_range("2026-01-01", periods=3, tz="UTC")
    with pytest.raises(DataError, match=r"No user liked two items of the catalogue \(3 liked"):
        fit_embeddings(LearnedEmbeddingsSettings(), alone, ids, texts)
    two = alone.assign(user_id="a")
    with pytest.raises(InvalidTable, match="learn nothing from fewer than 10"):
        fit_embeddings(LearnedEmbeddingsSettings(model="two_tower"), two, ids, texts)
    assert fit_embeddings(LearnedEmbeddingsSettings(), two, ids, texts).item_vectors[:2].any()


# ---- in a build -----------------------------------------------------------------------------------------


@pytest.fixture
def written(installation: Path) -> Settings:
    return load_settings(installation / "explorank.yaml")


def learning(written: Settings, by_use: dict[str, Any] | None = None, **learned: Any) -> Settings:
    retrieval = {
        "by_use": by_use,
        "learned_embeddings": {"als": SMALL, **learned},
        "retrievers": [{"use": "learned_embeddings", "k": 30}, {"use": "popular", "k": 30}],
    }
    plain = written.model_dump(mode="json", include={"version", "features", "exploration", "ranker"})
    return parse_settings({**plain, "retrieval": retrieval}, written.path("."))


def test_a_build_learns_from_what_was_liked_until_then(written: Settings, installation: Path) -> None:
    half = pd.Timestamp("2026-01-31", tz="UTC")

    _, catalogue = build_catalogue(
        learning(written, by_use={"interactions": "interactions.parquet"}, seed=3), until=half.to_pydatetime()
    )

    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    liked = events[(events["value"] >= 4.0) & (events["timestamp"] <= half)]
    liked = liked[liked["item_id"].isin(catalogue.item_ids)]
    expected = ImplicitALS.fit(
        Interactions.of(liked["user_id"], liked["item_id"]), options=ImplicitALSOptions(**SMALL), seed=3
    )
    space = catalogue.embeddings
    assert space is not None
    assert space.known == len(expected.item_ids)
    np.testing.assert_array_equal(
        space.model.item_vectors, expected.in_rows_of(catalogue.item_ids).item_vectors
    )
    assert catalogue.by_use is not None


@pytest.mark.parametrize("part", ["by_use", "learned_embeddings"])
def test_too_little_costs_the_catalogue_nothing_but_what_is_learnt(
    written: Settings, installation: Path, part: str
) -> None:
    plain = written.model_dump(mode="json", include={"version", "features", "ranker"})
    settings = parse_settings({**plain, "retrieval": {part: {"log": True}}}, written.path("."))
    store = ArtefactStore(settings.folder_path / "artefacts")
    before = store.current("catalogue")
    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))

    with pytest.raises(
        DataError, match=rf"Catalogue \S+ is published without `{part}`.* No user liked two items"
    ) as told:
        build_catalogue(settings, interactions=events[events["value"] >= 4.0].head(1))

    now = store.current("catalogue")
    assert now is not None
    assert now != before
    assert now[0] in str(told.value)
    (found,) = (one for one in run_checks(settings) if one.name == f"retrieval.{part}")
    assert found.verdict == "wrong"
    assert "The build said: No user liked two items of the catalogue (1 liked" in found.detail


def test_both_that_lack_are_told_of(written: Settings, installation: Path) -> None:
    events = past_interactions(pd.read_parquet(installation / "interactions.parquet"))
    settings = learning(written, by_use={"log": True})
    with pytest.raises(DataError, match=r"without `by_use` and `learned_embeddings`") as told:
        build_catalogue(settings, interactions=events.head(0))
    assert str(told.value).count("(0 liked interactions)") == 2
    with load(settings) as stage:
        (fallback,) = stage.rank(user_id="reader-1", slots=3).fallbacks
    assert fallback.plugin == "learned_embeddings"
    assert "The build said: No user liked two items" in fallback.reason


def test_what_is_missing_is_named_with_the_way_out(written: Settings, installation: Path) -> None:
    with pytest.raises(DataError, match=r"set `retrieval\.learned_embeddings\.interactions: FILE` or"):
        build_catalogue(learning(written))
    with pytest.raises(SettingsError, match=r"Set `retrieval\.learned_embeddings: \{interactions: FILE\}`"):
        parse_settings(
            {"version": 1, "retrieval": {"retrievers": [{"use": "learned_embeddings"}]}}, installation
        )
    with pytest.raises(SettingsError, match=r"`b` is another table than `by_use\.interactions`"):
        learning(written, by_use={"interactions": "a"}, interactions="b")
    with pytest.raises(SettingsError, match=r"learned_embeddings\.als\.factor: unknown key; did you mean"):
        learning(written, als={"factor": 3})
    with pytest.raises(
        SettingsError, match=r"two_tower\.epochs: given the text 'many'; accepted: a whole number"
    ):
        learning(written, two_tower={"epochs": "many"})
    with pytest.raises(SettingsError, match=r"learned_embeddings\.als: ImplicitALS: factors=0"):
        learning(written, als={"factors": 0})
