"""The catalogue as of a time: nothing that came later is in it. Texts are embedded already, so no model runs."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest

from explorank.artefacts import ArtefactStore
from explorank.catalogues import catalogue_loader
from explorank.errors import DataError, RetrievalError, SettingsError
from explorank.pipeline.build import build_catalogue
from explorank.retrieval import Catalogue
from explorank.settings import Settings, load_settings, parse_settings
from explorank.settings.sections import TrendingSettings

HALF = pd.Timestamp("2026-01-31", tz="UTC")
Column: TypeAlias = Callable[[Catalogue], dict[str, float]]


@pytest.fixture
def settings(installation: Path) -> Settings:
    return load_settings(installation / "explorank.yaml")


@pytest.fixture
def events(installation: Path) -> pd.DataFrame:
    return pd.read_parquet(installation / "interactions.parquet")


def popularity(catalogue: Catalogue) -> dict[str, float]:
    return dict(zip(catalogue.item_ids.tolist(), catalogue.popularity.tolist(), strict=True))


def first_seen(catalogue: Catalogue) -> dict[str, float]:
    return dict(zip(catalogue.item_ids.tolist(), catalogue.first_seen.tolist(), strict=True))


def test_popularity_counts_all_events_and_first_seen_is_the_first(
    settings: Settings, events: pd.DataFrame
) -> None:
    _, catalogue = build_catalogue(settings)

    assert (
        popularity(catalogue)
        == dict.fromkeys(catalogue.item_ids.tolist(), 0) | events["item_id"].value_counts().to_dict()
    )
    first = events.groupby("item_id")["timestamp"].min().map(pd.Timestamp.timestamp)
    seen = first_seen(catalogue)
    assert {item: seen[item] for item in first.index} == pytest.approx(first.to_dict(), abs=1e-5)


def test_nothing_later_than_until_leaks(settings: Settings, events: pd.DataFrame) -> None:
    past = events[events["timestamp"] < HALF]
    late = set(events["item_id"]) - set(past["item_id"])

    _, catalogue = build_catalogue(settings, until=HALF.to_pydatetime())

    counts = past["item_id"].value_counts()
    assert popularity(catalogue) == {item: float(counts.get(item, 0)) for item in catalogue.item_ids.tolist()}
    assert max(first_seen(catalogue).values()) <= HALF.timestamp()
    assert late <= set(catalogue.item_ids.tolist())  # described from the start, and taken up by nobody yet


def trending(settings: Settings, days: int) -> Settings:
    retrieval = settings.retrieval.model_copy(update={"trending": TrendingSettings(days=days)})
    return settings.model_copy(update={"retrieval": retrieval})


@pytest.mark.parametrize("days", [7, 30])
def test_recent_popularity_counts_the_last_days_before_until(
    settings: Settings, events: pd.DataFrame, days: int
) -> None:
    _, catalogue = build_catalogue(trending(settings, days), until=HALF.to_pydatetime())

    lately = (events["timestamp"] < HALF) & (events["timestamp"] >= HALF - pd.Timedelta(days=days))
    counts = events.loc[lately, "item_id"].value_counts()
    assert catalogue.recent_popularity is not None
    assert catalogue.recent_popularity.tolist() == [counts.get(item, 0) for item in catalogue.item_ids]
    assert build_catalogue(settings, until=HALF.to_pydatetime())[1].recent_popularity is None


def test_where_nobody_counts_what_is_popular_lately_a_build_is_refused(
    settings: Settings, installation: Path
) -> None:
    with pytest.raises(DataError, match=r"no column 'item_events_8d'.* item_events_7d, item_events_30d"):
        build_catalogue(trending(settings, 8))
    table = pd.read_parquet(installation / "items.parquet").head(2)
    table.to_parquet(installation / "own.parquet")
    with pytest.raises(DataError, match="lacks `recent_popularity`"):
        build_catalogue(trending(settings, 7), items=installation / "own.parquet")
    table.assign(recent_popularity=[3, 1]).to_parquet(installation / "own.parquet")
    _, catalogue = build_catalogue(trending(settings, 7), items=installation / "own.parquet")
    assert catalogue.recent_popularity is not None
    assert catalogue.recent_popularity.tolist() == [3, 1]


def test_trending_without_its_section_is_refused(installation: Path) -> None:
    with pytest.raises(SettingsError, match=r"Set `retrieval\.trending: \{days: 7\}`"):
        parse_settings({"version": 1, "retrieval": {"retrievers": [{"use": "trending"}]}}, installation)


def test_an_item_that_was_not_there_yet_is_left_out(settings: Settings, installation: Path) -> None:
    path = installation / "feature_repo" / "data" / "item_content.parquet"
    content = pd.read_parquet(path)
    later = HALF + pd.Timedelta(days=1)
    content.loc[content["item_id"] == "sea-0", "event_timestamp"] = later.as_unit("us")
    content.to_parquet(path)

    _, before = build_catalogue(settings, until=HALF.to_pydatetime())
    _, after = build_catalogue(settings)

    assert set(after.item_ids) - set(before.item_ids) == {"sea-0"}


def test_of_two_descriptions_the_newest_counts(settings: Settings, installation: Path) -> None:
    path = installation / "feature_repo" / "data" / "item_content.parquet"
    content = pd.read_parquet(path)
    texts = dict(zip(content["item_id"], content["item_text"], strict=True))
    old = content[content["item_id"] == "sea-0"].assign(item_text=texts["chess-0"])
    old["event_timestamp"] -= pd.Timedelta(days=1)
    pd.concat([content, old]).to_parquet(path)

    _, catalogue = build_catalogue(settings)

    assert len(catalogue) == 60
    same = catalogue.vectors[catalogue.rows(["sea-0", "chess-0"])]
    assert float(same[0] @ same[1]) < 0.99


def test_a_table_of_items_is_built_and_published(settings: Settings, installation: Path) -> None:
    described = pd.read_parquet(installation / "items.parquet").head(3)
    table = pd.DataFrame(
        {
            "item_id": [1, 2, 3],
            "title": described["text"],
            "popularity": [5, 0, 2],
            "first_seen": [10.0, None, 7.0],
        }
    )
    table.to_csv(installation / "own.csv", index=False)

    version, catalogue = build_catalogue(settings, items=installation / "own.csv")

    assert popularity(catalogue) == {"1": 5.0, "2": 0.0, "3": 2.0}
    np.testing.assert_equal(catalogue.first_seen, [10.0, np.nan, 7.0])
    current = ArtefactStore(settings.folder_path / "artefacts").current("catalogue")
    assert current is not None
    assert current[0] == version
    assert Catalogue.load(current[1]).version == catalogue.version


def test_the_index_is_tuned_for_what_requests_ask(settings: Settings) -> None:
    said: list[str] = []

    _, catalogue = build_catalogue(settings, recall=0.9, begins=said.append)

    tuning = catalogue.index.tuning
    assert tuning is not None
    asked = {retriever.use: retriever.k for retriever in settings.retrieval.retrievers}["similar_to_history"]
    assert tuning.neighbours == min(asked, settings.retrieval.candidates, len(catalogue))
    assert tuning.wanted_recall == 0.9
    assert said[-1] == "trying flat"


def test_vectors_are_written_once_and_to_where_they_are_published(settings: Settings) -> None:
    version, catalogue = build_catalogue(settings)

    folder = ArtefactStore(settings.folder_path / "artefacts").verify("catalogue", version)
    assert isinstance(catalogue.vectors, np.memmap)
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), catalogue.vectors)
    loaded = catalogue_loader(settings)(folder)
    assert loaded.version == catalogue.version
    assert loaded.index.is_mapped


def test_a_build_that_fails_leaves_nothing_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtefactStore(settings.folder_path / "artefacts")
    before = store.versions("catalogue")
    monkeypatch.setattr(Catalogue, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))

    with pytest.raises(OSError, match="disk full"):
        build_catalogue(settings)

    assert store.versions("catalogue") == before
    assert list(store.pointer("catalogue").parent.glob(".draft-*")) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            pd.DataFrame({"item_id": ["a"], "name": ["b"]}),
            r"lacks `item_id`, or `text` .* it has item_id, name",
        ),
        (pd.DataFrame({"text": ["a"]}), "lacks `item_id`"),
        (pd.DataFrame({"item_id": ["a", None], "text": ["b", "c"]}), "row 1"),
        (pd.DataFrame({"item_id": ["a", "a"], "text": ["b", "c"]}), "'a'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    settings: Settings, installation: Path, table: pd.DataFrame, message: str
) -> None:
    path = installation / "own.parquet"
    if table["text" if "text" in table else "name"].tolist() == ["b", "c"]:
        table = table.assign(text=pd.read_parquet(installation / "items.parquet")["text"].head(2))
    table.to_parquet(path)

    with pytest.raises((DataError, RetrievalError), match=message):
        build_catalogue(settings, items=path)
