"""From interactions to an adapted encoder, a catalogue built with it, and a running stage that takes it up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from explorank import Decision, load
from explorank.artefacts import ArtefactStore
from explorank.assembly import ENCODER
from explorank.errors import DamagedArtefact, DataError
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.encoders import AdaptOptions, adapt_encoder, behaviours, configured_encoder
from explorank.pipeline.item_tables import item_table
from explorank.pipeline.tables import past_interactions
from explorank.retrieval import interest_vector
from explorank.retrieval.encoding import Adapter, FineTuning, TextRanking
from explorank.settings import Settings, load_settings, parse_settings

OPTIONS = AdaptOptions(fine_tuning=FineTuning(steps=60, batch_size=64), positive_from=4.0)
DECAY = 0.9


@pytest.fixture
def settings(installation: Path) -> Settings:
    return load_settings(installation / "explorank.yaml")


@pytest.fixture
def events(installation: Path) -> pd.DataFrame:
    return past_interactions(pd.read_parquet(installation / "interactions.parquet"))


def texts(settings: Settings) -> dict[str, str]:
    """Texts that say nothing of a book's subject: what can be learnt is in the likes."""
    return {item: f"volume {number}" for number, item in enumerate(item_table(settings, None)["item_id"])}


def adapt(settings: Settings, events: pd.DataFrame) -> Adapter:
    return adapt_encoder(settings, events, texts(settings), options=OPTIONS)[1]


def with_retrieval(settings: Settings, **retrieval: object) -> Settings:
    written = settings.model_dump(mode="json", include={"version", "features"})
    return parse_settings({**written, "retrieval": retrieval}, settings.path("."))


def test_validation_is_later_than_training(events: pd.DataFrame) -> None:
    known = {item: item for item in events["item_id"].unique()}
    train, valid = behaviours(events, known, OPTIONS)
    likes = events[events["value"] >= 4.0].sort_values("timestamp")
    assert train.window is not None
    assert train.window[0] == pytest.approx(likes["timestamp"].iloc[0].timestamp())
    split = pd.Timestamp(train.window[1], unit="s", tz="UTC")
    assert int((likes["timestamp"] > split).sum()) == pytest.approx(0.1 * len(likes), abs=1)
    # Of each user nothing after the split is in a training pair, and nothing before it is a validation pair.
    order = {(user, item): time for user, item, time in likes[["user_id", "item_id", "timestamp"]].to_numpy()}
    users = sorted(likes["user_id"].unique())
    for behaviour, late in ((train, False), (valid, True)):
        for user, positive in zip(behaviour.users, behaviour.positives, strict=True):
            time = order[users[user], behaviour.item_ids[positive]]
            assert (time > split + pd.Timedelta(microseconds=1)) == late


def test_a_teacher_is_trained_and_asked_before(settings: Settings, events: pd.DataFrame) -> None:
    begun: list[str] = []
    options = replace(OPTIONS, teacher=TextRanking(steps=1, batch_size=2, history=1), lessons=5)
    _, adapter = adapt_encoder(settings, events, texts(settings), options=options, begins=begun.append)
    assert begun == ["training the teacher", "asking the teacher", "learning what is liked together"]
    assert adapter.metrics["lessons"] == 5.0
    assert "lessons" not in adapt(settings, events).metrics


class CutOff(Exception):
    """Ends a training in the middle."""


def test_a_run_that_was_cut_off_goes_on_and_stands_in_no_other_ones_way(
    settings: Settings, events: pd.DataFrame
) -> None:
    steps = 50  # unlike the number of items, whose embedding is counted too
    options = replace(OPTIONS, fine_tuning=replace(OPTIONS.fine_tuning, steps=steps))
    told: list[int] = []

    def end_late(done: int, total: int) -> None:
        if total == steps and done >= steps - 1:
            raise CutOff

    def tell(done: int, total: int) -> None:
        if total == steps:
            told.append(done)

    with pytest.raises(CutOff):
        adapt_encoder(settings, events, texts(settings), options=options, progress=end_late)
    (left,) = (settings.folder_path / "adapting").iterdir()
    adapt_encoder(settings, events, texts(settings), options=replace(options, seed=1), progress=tell)
    assert told[0] <= 1
    assert [left] == list((settings.folder_path / "adapting").iterdir())
    told.clear()
    adapt_encoder(settings, events, texts(settings), options=options, progress=tell)
    assert told[0] > 1
    assert told[-1] == steps
    assert list((settings.folder_path / "adapting").iterdir()) == []


def test_too_few_likes_are_refused(events: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="too few to learn from"):
        behaviours(events.head(1), {"a": "a"}, AdaptOptions(positive_from=1.0))


def test_an_adapter_is_published_and_the_catalogue_is_built_with_it(
    settings: Settings, events: pd.DataFrame
) -> None:
    _, before = build_catalogue(settings)
    adapter = adapt(settings, events)
    store = ArtefactStore(settings.folder_path / "artefacts")
    current = store.current(ENCODER)
    assert current is not None
    assert adapter.folder == current[1]
    assert list((settings.folder_path / "adapting").iterdir()) == []
    assert adapter.metrics["valid_recall"] > adapter.metrics["valid_recall_before"] + 0.1

    _, unchanged = build_catalogue(settings)  # publishing alone changes nothing
    assert unchanged.encoder_fingerprint == before.encoder_fingerprint
    published = with_retrieval(settings, adapter="published")
    _, after = build_catalogue(published)
    assert after.encoder_fingerprint == configured_encoder(published).fingerprint
    assert after.encoder_fingerprint != before.encoder_fingerprint
    assert adapter.version in after.encoder_name
    assert not np.allclose(after.vectors, before.vectors, atol=0.01)
    by_path = with_retrieval(settings, adapter=str(adapter.folder), truncate_dim=16)
    _, short = build_catalogue(by_path)
    assert short.vectors.shape == (60, 16)
    assert len({after.encoder_fingerprint, short.encoder_fingerprint}) == 2


def test_what_is_not_there_or_damaged_is_named(settings: Settings, events: pd.DataFrame) -> None:
    published = with_retrieval(settings, adapter="published")
    with pytest.raises(DataError, match="Run `explorank adapt`"):
        build_catalogue(published)
    adapter = adapt(settings, events)
    file = adapter.folder / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedArtefact, match=r"head\.safetensors is damaged"):
        build_catalogue(published)


def test_live_interests_survive_the_swap_and_spaces_never_mix(
    settings: Settings, events: pd.DataFrame, installation: Path
) -> None:
    """A user is served, rewards, and is served again, across a swap to an encoder of other dimensions."""
    adapt(settings, events)
    served = parse_settings(
        {
            "version": 1,
            "ranker": None,
            "retrieval": {"retrievers": [{"use": "similar_to_history", "k": 40}], "decay": DECAY},
            "exploration": {"mode": "off", "policy": {"use": "uniform"}},
        },
        installation,
    )
    adapted = with_retrieval(settings, adapter="published", truncate_dim=24)
    with load(served) as stage:
        history = ["sea-1", "crime-2"]

        def take(decision: Decision) -> None:
            """Reward an item that the user has not met yet."""
            item = next(item for item in decision.items if item not in {*history, *taken})
            stage.reward(decision.decision_id, item_id=item)
            taken.append(item)

        def rank() -> tuple[str, ...]:
            decision = stage.rank(user_id="reader", context={"history": history}, slots=10)
            take(decision)
            return tuple(decision.items)

        def assert_nearest(answered: tuple[str, ...], before: int) -> None:
            """Check that no item is nearer to all that the user took up, in the space of now."""
            catalogue = stage.installation.catalogue.get()
            assert catalogue is not None
            liked = [*history, *taken[:before]]
            interest = interest_vector(catalogue.vectors[catalogue.rows(liked)], DECAY)
            scores = catalogue.vectors @ interest
            nearest = np.sort(scores)[::-1][: len(answered)]
            np.testing.assert_allclose(scores[catalogue.rows(answered)], nearest, rtol=1e-4)

        taken: list[str] = []
        assert_nearest(rank(), before=0)
        old = stage.installation.catalogue.get()
        build_catalogue(adapted)
        decision = stage.rank(user_id="reader", context={"history": history}, slots=10)
        stage.installation.refresh()
        new = stage.installation.catalogue.get()
        assert old is not None
        assert new is not None
        assert (old.vectors.shape[1], new.vectors.shape[1]) == (384, 24)
        # A reward that comes between the swap and the next request, for a user held in the old space.
        take(decision)
        assert_nearest(rank(), before=2)
        assert_nearest(rank(), before=3)
