"""Vectors of images beside those of texts. The texts are embedded already, so no model runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explorank.artefacts import ArtefactStore
from explorank.checks import run_checks
from explorank.errors import DataError, RetrievalError, SettingsError
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.encoders import configured_encoder, items_to_adapt_to
from explorank.pipeline.modalities import modalities_of
from explorank.retrieval import Catalogue
from explorank.retrieval.features import FeatureAccess
from explorank.retrieval.provenance import Provenance
from explorank.settings import Settings, load_settings, parse_settings

IMAGES: list[list[float] | None] = [[3.0, 0.0], [0.0, 2.0], [1.0, 0.0], None]
EARLY, LATE = (datetime.fromisoformat(f"2026-0{month}-01T00:00:00+00:00") for month in (1, 2))
Configure: TypeAlias = Callable[..., Settings]


@pytest.fixture
def configure(installation: Path) -> Configure:
    """Return settings with modalities, in an installation with or without a feature repository."""

    def configure(modalities: dict[str, float], features: str | None = None) -> Settings:
        listed = "".join(
            f"\n    - {{feature: '{name}', weight: {weight}}}" for name, weight in modalities.items()
        )
        told = f"version: 1\nretrieval:\n  modalities: {listed or '[]'}\n"
        if features is not None:
            told += f"features: {features}\n"
        path = installation / "explorank.yaml"
        path.write_text(told, encoding="utf-8")
        return load_settings(path)

    return configure


@pytest.fixture
def table(installation: Path) -> pd.DataFrame:
    """Two books on the sea with one text, two on chess with another."""
    sea, chess = pd.read_parquet(installation / "items.parquet")["text"].iloc[[0, -1]]
    return pd.DataFrame({"item_id": list("abcd"), "text": [sea, sea, chess, chess], "image": IMAGES})


def saved(table: pd.DataFrame, folder: Path) -> Path:
    path = folder / "own.parquet"
    table.to_parquet(path)
    return path


def text_vectors(settings: Settings, table: pd.DataFrame) -> np.ndarray:
    return configured_encoder(settings).encode(table["text"].tolist())


def test_a_cosine_is_the_weighted_mean_of_text_and_image(
    configure: Configure, table: pd.DataFrame, tmp_path: Path
) -> None:
    settings = configure({"image": 0.25})
    version, catalogue = build_catalogue(settings, items=saved(table, tmp_path))

    text = text_vectors(settings, table)
    found = catalogue.vectors @ catalogue.vectors.T
    between = float(text[0] @ text[2])  # of the two texts
    known = [
        [1, 0.75, 0.75 * between + 0.25],
        [0.75, 1, 0.75 * between],
        [0.75 * between + 0.25, 0.75 * between, 1],
    ]
    np.testing.assert_allclose(found[:3, :3], known, atol=1e-5)
    # Of the last nothing but the text is known, and it speaks for all of it.
    np.testing.assert_allclose(catalogue.vectors[3], [*text[3], 0, 0], atol=1e-6)
    # Written once, to where it is published, and searched there.
    folder = ArtefactStore(settings.folder_path / "artefacts").verify("catalogue", version)
    assert isinstance(catalogue.vectors, np.memmap)
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), catalogue.vectors)
    assert Catalogue.load(folder).index.search(catalogue.vectors[0], 2)[0].tolist()[0] == "a"


def test_many_items_are_joined_in_parts_as_at_once(
    configure: Configure, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = configure({"image": 0.3, "sound": 0.2})
    path = saved(table.assign(sound=[None, [1, 2, 3], [3, 2, 1], []]), tmp_path)
    _, at_once = build_catalogue(settings, items=path)
    monkeypatch.setattr("explorank.pipeline.item_encoders._ROWS_AT_ONCE", 3)
    _, in_parts = build_catalogue(settings, items=path)
    np.testing.assert_array_equal(in_parts.vectors, at_once.vectors)
    assert at_once.vectors.shape == (4, 384 + 2 + 3)


def test_other_modalities_make_another_space(
    configure: Configure, table: pd.DataFrame, tmp_path: Path
) -> None:
    path = saved(table.assign(sound=IMAGES), tmp_path)
    wanted: list[dict[str, float]] = [
        {},
        {"image": 0.25},
        {"image": 0.5},
        {"sound": 0.25},
        {"image": 0.25, "sound": 0.25},
    ]
    catalogues = [build_catalogue(configure(one), items=path)[1] for one in wanted]
    assert len({catalogue.encoder_fingerprint for catalogue in catalogues}) == len(wanted)
    assert catalogues[0].encoder_fingerprint == configured_encoder(configure({})).fingerprint
    assert catalogues[4].encoder_name == "packaged + image (0.25) + sound (0.25)"
    _, turned = build_catalogue(configure({"sound": 0.25, "image": 0.25}), items=path)
    assert turned.version == catalogues[4].version


def test_other_values_make_another_space_and_other_items_do_not(
    configure: Configure, table: pd.DataFrame, tmp_path: Path
) -> None:
    settings = configure({"image": 0.25})

    def fingerprint(table: pd.DataFrame) -> str:
        return build_catalogue(settings, items=saved(table, tmp_path))[1].encoder_fingerprint

    first = fingerprint(table)
    more = pd.concat([table, table.tail(1).assign(item_id="e", image=[[5.0, 1.0]])])
    assert fingerprint(more) == fingerprint(more.head(2)) == first
    # The image of one item of three is a new one, the others' were computed anew elsewhere.
    assert fingerprint(more.assign(image=[[3.0, 0.01], [0.0, 2.0], [0.0, 1.0], None, [5.0, 1.0]])) == first
    replaced = fingerprint(more.assign(image=[[0.0, 3.0], [2.0, 0.0], [0.0, 1.0], None, [1.0, 5.0]]))
    assert replaced != first
    assert fingerprint(table.assign(image=[[0.0, 3.0], [2.0, 0.0], [0.0, 1.0], None])) == replaced
    # Of other items nothing tells whether the model is the same.
    others = table.assign(item_id=list("vwxy"), image=[[1.0, 1.0], [1.0, 2.0], None, [2.0, 1.0]])
    assert fingerprint(others) not in {first, replaced}


def test_a_damaged_former_catalogue_is_compared_with_nothing(
    configure: Configure, table: pd.DataFrame, tmp_path: Path
) -> None:
    settings, path = configure({"image": 0.25}), saved(table, tmp_path)
    version, first = build_catalogue(settings, items=path)
    folder = ArtefactStore(settings.folder_path / "artefacts").verify("catalogue", version)
    (folder / "item_ids.npy").write_bytes(b"?")
    assert build_catalogue(settings, items=path)[1].encoder_fingerprint == first.encoder_fingerprint


def test_check_compares_the_settings_with_the_catalogue(
    configure: Configure, table: pd.DataFrame, tmp_path: Path
) -> None:
    def checked(modalities: dict[str, float]) -> tuple[str, str] | None:
        found = [one for one in run_checks(configure(modalities)) if one.name == "retrieval.modalities"]
        return (found[0].verdict, found[0].detail) if found else None

    build_catalogue(configure({"image": 0.25}), items=saved(table, tmp_path))
    assert checked({"image": 0.25}) == ("ok", "vectors of texts and image (0.25)")
    for others, told in (({"image": 0.5}, "texts and image (0.5)"), ({}, "texts;")):
        found = checked(others)
        assert found is not None
        assert found[0] == "warning"
        assert f"made of texts and image (0.25), and the settings ask for {told}" in found[1]
        assert "run `explorank build`" in found[1]
    build_catalogue(configure({}), items=saved(table, tmp_path))
    assert checked({}) is None


def test_a_catalogue_that_says_not_what_it_is_made_of_is_to_be_built_again(
    configure: Configure, table: pd.DataFrame, tmp_path: Path
) -> None:
    """Those of earlier versions do not; what the rankers that read them have to do is told after that."""
    settings = configure({"image": 0.25})
    _, catalogue = build_catalogue(settings, items=saved(table, tmp_path))
    catalogue.made = Provenance()

    ArtefactStore(settings.folder_path / "artefacts").publish("catalogue", catalogue.save)

    (found,) = [one for one in run_checks(settings) if one.name == "retrieval.modalities"]
    assert found.verdict == "warning"
    assert "run `explorank build`" in found.detail


@pytest.mark.parametrize("unknown", [None, [], [0.0, 0.0], [np.nan, 1.0]])
def test_items_without_a_vector_are_counted(
    configure: Configure, table: pd.DataFrame, tmp_path: Path, unknown: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings, path = (
        configure({"image": 0.25}),
        saved(table.assign(image=[[1.0, 1.0], unknown, unknown, [2.0, 0.0]]), tmp_path),
    )
    with caplog.at_level(logging.WARNING):
        _, catalogue = build_catalogue(settings, items=path)
    assert "2 of 4 items have no vector in 'image'" in caplog.text
    assert not catalogue.vectors[1:3, 384:].any()


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float64()), pa.large_list(pa.float16()), pa.list_(pa.float32(), 2), pa.list_(pa.int32())],
)
def test_any_kind_of_list_of_numbers_is_read(
    configure: Configure, table: pd.DataFrame, tmp_path: Path, kind: pa.DataType
) -> None:
    images = [None, [0, 2], None, [-3, 4]]
    written = pa.Table.from_pandas(table.drop(columns="image")).append_column("image", pa.array(images, kind))
    pq.write_table(written, tmp_path / "own.parquet", row_group_size=2)
    _, catalogue = build_catalogue(configure({"image": 0.25}), items=tmp_path / "own.parquet")
    expected = [[0, 0], [0, 0.5], [0, 0], [-0.3, 0.4]]
    np.testing.assert_allclose(catalogue.vectors[:, 384:], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0, 2.0], None, [1.0], None], r"item 'c' has 1 numbers and that of 'a' has 2.*different models"),
        ([None, [], [0.0], None], r"None of the 4 items has a vector in `image`"),
        ([["red"], ["blue"], None, None], r"`image` holds lists of string"),
        ([1.0, 2.0, 3.0, 4.0], r"`image` .* no column of lists in .*own\.parquet, which has other\."),
    ],
)
def test_columns_that_are_no_vectors_are_refused(
    configure: Configure, table: pd.DataFrame, tmp_path: Path, column: list[Any], message: str
) -> None:
    path = saved(table.assign(image=column, other=IMAGES), tmp_path)
    with pytest.raises(DataError, match=message):
        build_catalogue(configure({"image": 0.25}), items=path)


def test_a_csv_file_can_hold_no_vectors(configure: Configure, table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "own.csv")
    with pytest.raises(DataError, match="only parquet can hold them"):
        build_catalogue(configure({"image": 0.25}), items=tmp_path / "own.csv")


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ([("a:b", 0.6), ("c:d", 0.4)], "leave the text no share"),
        ([("a:b", 0.1), ("a:b", 0.2)], "names a feature twice"),
        ([("a:b", 0.0)], "above 0"),
        ([("a:b", 0.1), ("c:d", None)], "gives `c:d` no weight.*or `fusion: gated`"),
    ],
)
def test_settings_that_cannot_hold_are_refused(
    modalities: list[tuple[str, float | None]], message: str
) -> None:
    listed = [{"feature": feature, "weight": weight} for feature, weight in modalities]
    with pytest.raises(SettingsError, match=message):
        parse_settings({"version": 1, "retrieval": {"modalities": listed}})


DEFINITIONS = """
    from datetime import timedelta
    from pathlib import Path

    from feast import Entity, FeatureService, FeatureView, Field, FileSource
    from feast.types import Array, Float32, Int64

    FOLDER = Path(__file__).resolve().parent


    def view(name, entity, field, **more):
        source = FileSource(path=str(FOLDER / f"{name}.parquet"), timestamp_field="at", **more)
        return FeatureView(name=name, entities=[entity], schema=[field], source=source, ttl=timedelta(days=50))


    customer = Entity(name="customer", join_keys=["customer"])
    product = Entity(name="product", join_keys=["sku"])
    people = view("people", customer, Field(name="age", dtype=Int64))
    tastes = view("tastes", customer, Field(name="taste", dtype=Array(Float32)))
    images = view("images", product, Field(name="vector", dtype=Array(Float32)), created_timestamp_column="made")
    prices = view("prices", product, Field(name="price", dtype=Int64))
    services = [FeatureService(name="users", features=[people]), FeatureService(name="items", features=[prices])]
    users, items = services
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, feast_repository: Callable[[Path, str], Path]) -> Path:
    """Somebody's own repository, with images as an array feature: corrected, renewed, and one gone long ago."""
    folder = feast_repository(tmp_path_factory.mktemp("shop"), DEFINITIONS)
    long_ago = EARLY - pd.Timedelta(days=100)
    rows = [
        ("a", [1.0, 0.0], EARLY, EARLY),
        ("a", [0.0, 1.0], LATE, LATE),
        ("b", [9.0, 9.0], EARLY, EARLY),
        ("b", [1.0, 0.0], EARLY, LATE),
        ("c", [1.0, 0.0], long_ago, long_ago),
        ("another", [1.0, 0.0], EARLY, EARLY),
    ]
    images = pd.DataFrame(rows, columns=["sku", "vector", "at", "made"])
    for column in ("at", "made"):
        images[column] = pd.to_datetime(images[column], utc=True).dt.as_unit("us")
    images["vector"] = [np.float32(vector) for vector in images["vector"]]
    images.to_parquet(folder / "images.parquet")
    images[["sku", "at"]].assign(price=1).to_parquet(folder / "prices.parquet")
    people = images[["at"]].assign(customer="x", age=1, taste=images["vector"])
    for view in ("people", "tastes"):
        people.to_parquet(folder / f"{view}.parquet")
    FeatureAccess(folder, user_service="users", item_service="items", history_service=None).apply()
    return folder


def features_of(shop: Path) -> str:
    return f"{{repository: {shop}, user_service: users, item_service: items, history_service: null}}"


@pytest.mark.parametrize(("until", "like_b"), [(EARLY, True), (LATE, False)])
def test_an_array_feature_counts_as_it_was_known(
    configure: Configure, table: pd.DataFrame, shop: Path, tmp_path: Path, until: datetime, like_b: bool
) -> None:
    settings = configure({"images:vector": 0.25}, features_of(shop))
    path = saved(table.drop(columns="image"), tmp_path)
    _, catalogue = build_catalogue(settings, items=path, until=until)
    found = catalogue.vectors @ catalogue.vectors.T
    assert found[0, 1] == pytest.approx(1.0 if like_b else 0.75, abs=1e-5)
    assert not catalogue.vectors[2:, 384:].any()  # expired, and never known


def test_a_gate_learns_what_the_catalogue_is_built_of(
    configure: Configure, table: pd.DataFrame, shop: Path, tmp_path: Path
) -> None:
    path = saved(table.drop(columns="image"), tmp_path)
    told = configure({"images:vector": 0.25}, features_of(shop)).model_dump(
        mode="json", include={"version", "features"}
    )
    gated = {"adapter": "published", "fusion": "gated", "modalities": [{"feature": "images:vector"}]}
    settings = parse_settings({**told, "retrieval": gated}, shop)
    for until, first in ((EARLY, [1, 0]), (LATE, [0, 1])):
        texts, (images,) = items_to_adapt_to(settings, path, until=until)
        assert list(texts) == list("abcd")
        assert images[:][0].tolist() == first
        (built,) = modalities_of(settings, table["item_id"].to_numpy(np.str_), path, until=until)
        np.testing.assert_array_equal(images[:], built[:])


def test_a_column_of_the_table_stands_before_the_repository(
    configure: Configure, table: pd.DataFrame, shop: Path, tmp_path: Path
) -> None:
    settings = configure({"images:vector": 0.25}, features_of(shop))
    path = saved(table.rename(columns={"image": "vector"}), tmp_path)
    _, catalogue = build_catalogue(settings, items=path, until=LATE)
    assert catalogue.vectors[2, 384:].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("feature", ["images:vektor", "prices:price", "tastes:taste"])
def test_a_misspelt_feature_names_those_there_are(
    configure: Configure, table: pd.DataFrame, shop: Path, tmp_path: Path, feature: str
) -> None:
    settings = configure({feature: 0.25}, features_of(shop))
    with pytest.raises(
        RetrievalError, match=rf"no array of numbers '{feature}' by 'sku'.*are: images:vector\."
    ):
        build_catalogue(settings, items=saved(table, tmp_path))
