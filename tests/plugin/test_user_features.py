"""Two towers that read users' columns, from build to answer: training, cold start, checks, the column of rankers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from explorank import Stage, load
from explorank.checks import run_checks
from explorank.errors import DataError, SettingsError
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.embeddings import fit_embeddings
from explorank.pipeline.features import feature_access
from explorank.pipeline.past_use import PastUse
from explorank.pipeline.tables import past_interactions
from explorank.pipeline.user_features import PastUserFeatures
from explorank.retrieval import Catalogue, UserFeatures
from explorank.retrieval.collaborative import EmbeddingSpace, TwoTowerOptions
from explorank.retrieval.features import FeatureAccess
from explorank.settings import LearnedEmbeddingsSettings, Settings, parse_settings

TOWERS = {"dim": 8, "hidden": 16, "batch_size": 256, "epochs": 3, "learning_rate": 0.02}
READS = ["user_age", "user_events"]
CHECK = "retrieval.learned_embeddings.user_features"


def settings_in(folder: Path, *, reads: list[str] = READS, **changes: Any) -> Settings:
    """Return the settings of the books with towers alone, which read `reads` of users."""
    written = yaml.safe_load((folder / "explorank.yaml").read_text(encoding="utf-8"))
    learned = {
        "model": "two_tower",
        "interactions": "interactions.parquet",
        "column": True,
        "user_features": reads,
        "two_tower": TOWERS,
    }
    retrieval = {"learned_embeddings": learned, "retrievers": [{"use": "learned_embeddings", "k": 30}]}
    plain = {
        "exploration": {"mode": "off", "policy": {"use": "uniform"}},
        "ranker": {"use": "lightgbm", "budget_ms": 5_000.0},
        "guards": [],
    }
    return parse_settings({**written, **plain, "retrieval": retrieval, **changes}, folder)


@pytest.fixture(scope="module")
def built(installation_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Catalogue]:
    """A copy of the prepared installation with such a catalogue, and newcomers who have an age but no history."""
    folder = Path(shutil.copytree(installation_folder, tmp_path_factory.mktemp("users") / "installation"))
    settings = settings_in(folder)
    _, catalogue = build_catalogue(settings)
    rows = pd.DataFrame(
        {
            "user_id": ["young", "old"],
            "user_age": pd.array([13, 79], "Int64"),
            "user_has_profile": np.float32(1.0),
            "event_timestamp": pd.Timestamp("2026-03-01", tz="UTC").as_unit("us"),
            "created_timestamp": pd.Timestamp("2026-03-01", tz="UTC").as_unit("us"),
        }
    )
    feature_access(settings).store.write_to_online_store("user_profile", rows)
    return folder, catalogue


@pytest.fixture(scope="module")
def spy(make_spy: Callable[[], Any]) -> Any:
    return make_spy()


@pytest.fixture(scope="module")
def stage(built: tuple[Path, Catalogue], spy: Any) -> Iterator[Stage]:
    with load(settings_in(built[0]), plugins=[spy]) as stage:
        yield stage


def checked(settings: Settings) -> list[tuple[str, str]]:
    return [(one.verdict, one.detail) for one in run_checks(settings) if one.name == CHECK]


# ---- learnt as of each event ----------------------------------------------------------------------------


def test_columns_are_those_from_before_each_event(built: tuple[Path, Catalogue]) -> None:
    settings = settings_in(built[0])
    events = past_interactions(pd.read_parquet(built[0] / "interactions.parquet"))
    people = PastUserFeatures.of(settings.retrieval.learned_embeddings, feature_access(settings))
    assert people is not None

    some = events[::17]
    beside = people.beside(some)

    told = people.among(beside[::2])
    ages = pd.read_parquet(built[0] / "users.parquet").set_index("user_id")["age"]
    before = [
        ((events["user_id"] == one.user_id) & (events["timestamp"] < one.timestamp)).sum()
        for one in some[::2].itertuples()
    ]
    assert told.names == ("user_age", "user_events")
    np.testing.assert_array_equal(told.values[:, 0], ages[some[::2]["user_id"]])
    # Of who did nothing before, nothing is counted yet.
    np.testing.assert_array_equal(np.nan_to_num(told.values[:, 1]), before)
    assert people.categories == frozenset()


def test_a_column_that_nobody_serves_is_refused_before_anything_is_built(
    built: tuple[Path, Catalogue],
) -> None:
    with pytest.raises(DataError, match=r"names 'user_agee', which the feature service 'user_v1'.*user_age"):
        build_catalogue(settings_in(built[0], reads=["user_agee"]))


OWN_REPOSITORY = """
    from pathlib import Path

    from feast import Entity, FeatureService, FeatureView, Field, FileSource
    from feast.types import Float32, String
    from feast.value_type import ValueType

    FOLDER = Path(__file__).resolve().parent
    person = Entity(name="person", join_keys=["person_id"], value_type=ValueType.STRING)
    thing = Entity(name="thing", join_keys=["thing_id"], value_type=ValueType.STRING)
    people = FeatureView(
        name="people",
        entities=[person],
        schema=[Field(name="shoe", dtype=Float32), Field(name="town", dtype=String)],
        source=FileSource(path=str(FOLDER / "people.parquet"), timestamp_field="at"),
    )
    things = FeatureView(
        name="things",
        entities=[thing],
        schema=[Field(name="price", dtype=Float32)],
        source=FileSource(path=str(FOLDER / "things.parquet"), timestamp_field="at"),
    )
    users = FeatureService(name="users", features=[people])
    items = FeatureService(name="items", features=[things])
"""


def test_texts_of_an_own_repository_place_newcomers_by_what_was_so_when_things_were_liked(
    tmp_path: Path, feast_repository: Callable[[Path, str], Path]
) -> None:
    """Who lived in the north liked the first dozen of things; all moved to the same place later."""
    folder, random = feast_repository(tmp_path / "shop", OWN_REPOSITORY), np.random.default_rng(0)
    users, begin = [f"u{number}" for number in range(40)], pd.Timestamp("2026-01-01", tz="UTC").as_unit("us")
    lived = pd.DataFrame({"person_id": users, "town": ["north", "south"] * 20, "at": begin})
    moved = lived.assign(town="elsewhere", at=begin + pd.Timedelta(days=90))
    people = pd.concat([lived, moved], ignore_index=True)
    people.assign(shoe=random.normal(40, 3, 80).astype(np.float32)).to_parquet(folder / "people.parquet")
    pd.DataFrame({"thing_id": ["i0"], "price": np.float32([1]), "at": begin}).to_parquet(
        folder / "things.parquet"
    )
    access = FeatureAccess(folder, user_service="users", item_service="items", history_service=None)
    access.apply()
    liked = pd.DataFrame(
        [
            (user, f"i{item:02}")
            for user in users
            for item in random.permutation(12)[:8] + 12 * (int(user[1:]) % 2)
        ],
        columns=["user_id", "item_id"],
    ).assign(timestamp=begin + pd.Timedelta(days=30))
    ids = np.array([f"i{item:02}" for item in range(24)])
    texts = np.eye(2, dtype=np.float32)[np.arange(24) // 12] + random.normal(0, 0.1, (24, 2)).astype(
        np.float32
    )
    wanted = LearnedEmbeddingsSettings(
        model="two_tower",
        user_features=("town", "shoe"),
        two_tower=TwoTowerOptions(
            dim=8, hidden=16, batch_size=64, epochs=8, learning_rate=0.02, validation_share=0.0
        ),
    )
    reader = PastUserFeatures.of(wanted, access)
    assert reader is not None

    model = fit_embeddings(wanted, reader.beside(liked), ids, texts, people=reader)

    assert access.texts("town") == (
        "north",
        "south",
    )  # codes of what was read, and of nothing that came later
    assert (reader.categories, model.user_features) == ({"town"}, ("town", "shoe"))
    space, nothing = EmbeddingSpace.build(model), np.empty(0, np.int64)
    for code in (0, 1):
        newcomer = UserFeatures(("shoe", "town"), np.array([np.nan, code], np.float32))
        assert set((space.best(nothing, 12, user=newcomer)[0] // 12).tolist()) == {code}


# ---- served ---------------------------------------------------------------------------------------------


def test_newcomers_with_a_profile_are_found_something_and_nobody_else(
    stage: Stage, built: tuple[Path, Catalogue]
) -> None:
    space = built[1].embeddings
    assert space is not None
    found = {user: stage.rank(user_id=user, slots=10) for user in ("young", "old", "stranger")}

    for decision in found.values():
        assert not decision.fallbacks
    assert len(found["young"].items) == len(found["old"].items) == 10
    assert found["young"].items != found["old"].items
    assert found["young"].sources[0] == ("learned_embeddings",)
    assert found["stranger"].items == stage.rank(slots=10).items == ()
    access = feature_access(settings_in(built[0]))
    user = access.user("young")
    columns = dict(zip(user.names, user.values.tolist(), strict=True))
    assert (columns["user_age"], user.history) == (13, ())


def test_a_history_and_a_profile_count_together(stage: Stage) -> None:
    alone = stage.rank(user_id="young", slots=10)
    session = stage.rank(user_id="young", slots=10, context={"history": ["sea-1", "sea-2"]})
    anonymous = stage.rank(slots=10, context={"history": ["sea-1", "sea-2"]})

    assert len({alone.items, session.items, anonymous.items}) == 3
    assert not {"sea-1", "sea-2"} & {*session.items}


def test_the_rankers_column_is_the_same_in_training_and_serving(
    stage: Stage, spy: Any, built: tuple[Path, Catalogue]
) -> None:
    events = past_interactions(pd.read_parquet(built[0] / "interactions.parquet"))
    settings, catalogue = settings_in(built[0]), built[1]
    liked = events[events["value"] >= 4.0]
    asked = events["timestamp"].max() + pd.Timedelta(seconds=1)
    own = tuple(liked[liked["user_id"] == "reader-7"]["item_id"])
    queries = pd.DataFrame(
        {
            "user_id": ["reader-7"] * 2,
            "liked": [own, ("sea-3",)],
            "event_timestamp": [asked] * 2,
            "about_user": [True, False],
        }
    )
    spy.seen.clear()
    stage.rank(user_id="reader-7", slots=5)
    stage.rank(user_id="reader-7", similar_to="sea-3", slots=5)
    stage.rank(user_id="young", slots=5)
    (_, candidates, served), (_, alike, anchored), (_, _, of_newcomer) = spy.seen
    item_ids, alike = candidates.item_ids.tolist(), alike.item_ids.tolist()
    rows = pd.DataFrame(
        {"query": np.repeat([0, 1], [len(item_ids), len(alike)]), "item_id": item_ids + alike}
    )

    use = PastUse.of(
        settings.retrieval,
        lambda _: liked,
        catalogue,
        queries,
        np.array([0]),
        access=feature_access(settings),
    )

    trained = use.columns(catalogue, queries, rows)["similarity_learned"]
    np.testing.assert_allclose(served.column("similarity_learned"), trained[: len(item_ids)], rtol=1e-5)
    np.testing.assert_allclose(anchored.column("similarity_learned"), trained[len(item_ids) :], rtol=1e-5)
    assert np.isfinite(of_newcomer.column("similarity_learned")).all()
    explained = stage.explain(stage.rank(user_id="reader-7", slots=5).decision_id)
    assert explained.items


# ---- what is asked for, and what is there ---------------------------------------------------------------


def test_checks_compare_the_space_with_settings_and_features(built: tuple[Path, Catalogue]) -> None:
    folder = built[0]
    assert checked(settings_in(folder)) == [
        ("ok", "the space reads user_age, user_events of users, as served")
    ]
    ((verdict, detail),) = checked(settings_in(folder, reads=["user_age"]))
    assert verdict == "warning"
    assert "reads user_age, user_events of users, and the settings ask for user_age; run" in detail
    other = {"features": {"positive_from": 4.0, "user_service": "user_history_v1"}}
    ((verdict, detail),) = checked(settings_in(folder, **other))
    assert verdict == "wrong"
    assert "user_age was 'number' and is 'not served'" in detail


def test_features_that_are_served_no_more_are_missing_and_named(built: tuple[Path, Catalogue]) -> None:
    other = {"features": {"positive_from": 4.0, "user_service": "user_history_v1"}}
    with load(settings_in(built[0], **other)) as stage:
        known, newcomer = (stage.rank(user_id=user, slots=5) for user in ("reader-7", "young"))
    # The ranker misses its columns, too, and says so itself.
    (fallback,) = (one for one in known.fallbacks if one.plugin == "learned_embeddings")
    assert (fallback.step, fallback.plugin, fallback.action) == (
        "retrieve", "learned_embeddings", "missing values"
    )  # fmt: skip
    assert "['user_age', 'user_events'] of the learnt space are not served" in fallback.reason
    assert len(known.items) == 5
    assert newcomer.items == ()


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        ({"model": "als", "user_features": ["user_age"]}, r"user_features: .*`als` reads histories alone"),
        ({"model": "two_tower", "user_features": ["a", "a"]}, r"user_features: .*names a column twice"),
        ({"model": "two_tower", "user_features": ["a"]}, r"user_features: .*without a `features` section"),
    ],
)
def test_settings_that_could_tell_nothing_are_refused(
    learned: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings({"version": 1, "retrieval": {"learned_embeddings": learned}}, tmp_path)
