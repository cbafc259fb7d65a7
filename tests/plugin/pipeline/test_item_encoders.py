"""A gate from interactions to the catalogue: books whose pictures tell who likes them, which no text says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest

from explorank.checks import run_checks
from explorank.errors import DamagedArtefact, DataError, RetrievalError, SettingsError
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.encoders import AdaptOptions, adapt_encoder, items_to_adapt_to
from explorank.retrieval.encoding import Adapter, FineTuning
from explorank.settings import Settings, load_settings, parse_settings

SUBJECTS = ["sea", "crime", "baking", "space", "garden", "chess"]
OPTIONS = AdaptOptions(fine_tuning=FineTuning(steps=60, batch_size=64, learning_rate=1e-2), positive_from=4.0)
Configure: TypeAlias = Callable[..., Settings]


@pytest.fixture
def configure(installation: Path) -> Configure:
    """Return settings with a gate for these modalities, or with weights."""

    def configure(*features: str, adapter: str | None = "published", **more: Any) -> Settings:
        path = installation / "explorank.yaml"
        written = {"fusion": "gated", "modalities": [{"feature": name} for name in features]} | more
        told = {"version": 1, "retrieval": {"adapter": adapter} | written}
        path.write_text(json.dumps(told), encoding="utf-8")  # which is YAML too
        return load_settings(path)

    return configure


def subject(item: str) -> str:
    return item.partition("-")[0]


@pytest.fixture
def items(installation: Path) -> Path:
    """The books with one text for all, and a picture of each subject."""
    table = pd.read_parquet(installation / "items.parquet")[["item_id"]]
    pictures = np.eye(6)[[SUBJECTS.index(subject(item)) for item in table["item_id"]]]
    path = installation / "pictured.parquet"
    table.assign(text="A book.", picture=list(pictures)).to_parquet(path)
    return path


def changed(items: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    path = items.with_name("changed.parquet")
    change(pd.read_parquet(items)).to_parquet(path)
    return path


def adapt(
    settings: Settings, events: pd.DataFrame, items: Path, options: AdaptOptions = OPTIONS, **more: Any
) -> Adapter:
    texts, modalities = items_to_adapt_to(settings, items)
    return adapt_encoder(settings, events, texts, modalities=modalities, options=options, **more)[1]


def checked(settings: Settings, name: str) -> tuple[str, str] | None:
    found = [(one.verdict, one.detail) for one in run_checks(settings) if one.name == name]
    return found[0] if found else None


def other_pictures(table: pd.DataFrame) -> pd.DataFrame:
    """Return the same names with what another model would say."""
    return table.assign(picture=[np.roll(one, 1) for one in table["picture"]])


def test_the_catalogue_has_what_the_gate_learnt(
    configure: Configure, events: pd.DataFrame, items: Path
) -> None:
    settings = configure("picture")
    adapter = adapt(settings, events, items)
    assert dict(adapter.modalities) == {"picture": 6}
    likes = events[events["value"] >= 4.0]
    assert adapter.learnt_until == pytest.approx(likes["timestamp"].max().timestamp())

    _, catalogue = build_catalogue(settings, items=items)
    assert catalogue.vectors.shape == (60, 384)
    assert catalogue.made.modalities == {"picture": None}
    assert catalogue.made.adapter == adapter.version
    assert catalogue.made.learnt_until == adapter.learnt_until
    assert catalogue.encoder_name == f"packaged + adapter {adapter.version} + picture (gated)"
    subjects = np.array([subject(item) for item in catalogue.item_ids])
    same = subjects[:, None] == subjects
    likeness = catalogue.vectors @ catalogue.vectors.T
    assert likeness[same].min() > likeness[~same].max() + 0.01
    assert checked(settings, "retrieval.modalities") == ("ok", "vectors of texts and picture (gated)")
    assert checked(settings, "retrieval.adapter") == ("ok", f"vectors of adapter {adapter.version}")

    # New books were in no training: one with a picture lies with its subject, one without is there all the same.
    more = pd.DataFrame(
        {"item_id": ["new-0", "new-1"], "text": ["A book."] * 2, "picture": [np.eye(6)[2] * 4, None]}
    )
    _, grown = build_catalogue(settings, items=changed(items, lambda table: pd.concat([table, more])))
    new = grown.vectors[-2:] @ catalogue.vectors.T
    assert set(subjects[np.argsort(-new[0])[:10]]) == {"baking"}
    assert np.isfinite(new).all()
    assert grown.encoder_fingerprint == catalogue.encoder_fingerprint


def test_other_vectors_and_another_gate_make_other_spaces(
    configure: Configure, events: pd.DataFrame, items: Path
) -> None:
    settings = configure("picture")
    adapter = adapt(settings, events, items)
    _, catalogue = build_catalogue(settings, items=items)
    _, replaced = build_catalogue(settings, items=changed(items, other_pictures))
    again = adapt(settings, events, items, replace(OPTIONS, seed=1))
    verdict, detail = checked(settings, "retrieval.adapter") or ("", "")
    assert verdict == "warning"
    assert f"made with adapter {adapter.version}, and the settings ask for adapter {again.version}" in detail
    _, regated = build_catalogue(settings, items=items)
    assert len({one.encoder_fingerprint for one in (catalogue, replaced, regated)}) == 3
    assert adapt(settings, events, items).version == adapter.version  # by the same data and seed


def test_the_modalities_are_in_the_order_of_the_texts(configure: Configure, items: Path) -> None:
    twice = changed(items, lambda table: pd.concat([table.iloc[::-1], table.head(1)]))
    texts, (pictures,) = items_to_adapt_to(configure("picture"), twice)
    expected = np.eye(6)[[SUBJECTS.index(subject(item)) for item in texts]]
    assert len(texts) == 60
    np.testing.assert_array_equal(pictures[:], expected)
    # Without a gate they are none of the adapter's business.
    weighted = configure(fusion="weighted", modalities=[{"feature": "no such", "weight": 0.5}])
    assert items_to_adapt_to(weighted, twice) == (texts, ())


def test_what_does_not_fit_the_gate_is_refused(
    configure: Configure, events: pd.DataFrame, items: Path
) -> None:
    few = replace(OPTIONS, fine_tuning=replace(OPTIONS.fine_tuning, steps=1))
    settings = configure("picture")
    adapter = adapt(settings, events, items, few)
    short = changed(items, lambda table: table.assign(picture=[one[:5] for one in table["picture"]]))
    with pytest.raises(RetrievalError, match=r"'picture' \(6 values\) by a gate, and 'picture' \(5 values\)"):
        build_catalogue(settings, items=short)
    renamed = changed(items, lambda table: table.rename(columns={"picture": "cover"}))
    with pytest.raises(RetrievalError, match=r"'picture' \(6 values\) by a gate, and 'cover' \(6 values\)"):
        build_catalogue(configure("cover"), items=renamed)
    weighted = configure(fusion="weighted", modalities=[{"feature": "picture", "weight": 0.5}])
    with pytest.raises(DataError, match=r"joins texts with `picture` by a gate.*`fusion: gated`"):
        build_catalogue(weighted, items=items)

    build_catalogue(configure("picture"), items=items)
    verdict, detail = checked(weighted, "retrieval.modalities") or ("", "")
    assert verdict == "warning"
    assert "texts and picture (gated), and the settings ask for texts and picture (0.5)" in detail
    file = adapter.folder / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    settings = configure("picture")
    with pytest.raises(DamagedArtefact, match=r"head\.safetensors is damaged"):
        build_catalogue(settings, items=items)
    verdict, detail = checked(settings, "retrieval.adapter") or ("", "")
    assert verdict == "warning"  # what serves goes on
    assert "the next `explorank build` is refused" in detail
    assert "head.safetensors is damaged" in detail


def test_an_adapter_of_texts_alone_has_no_gate(
    configure: Configure, events: pd.DataFrame, items: Path
) -> None:
    plain = configure(fusion="weighted", modalities=[])
    few = replace(OPTIONS, fine_tuning=FineTuning(steps=1))
    adapter = adapt(plain, events, items, few)
    assert not adapter.modalities
    with pytest.raises(DataError, match=r"`gated`, and .* has no gate.*Run `explorank adapt`"):
        build_catalogue(configure("picture"), items=items)
    # Weights are about vectors of an adapted text too.
    weighted = configure(fusion="weighted", modalities=[{"feature": "picture", "weight": 0.5}])
    _, catalogue = build_catalogue(weighted, items=items)
    assert catalogue.vectors.shape == (60, 384 + 6)
    verdict, detail = checked(
        configure(adapter=None, fusion="weighted", modalities=[]), "retrieval.adapter"
    ) or ("", "")
    assert verdict == "warning"
    assert f"made with adapter {adapter.version}, and the settings ask for no adapter" in detail


class CutOff(Exception):
    """Ends a training in the middle."""


def test_a_gate_that_was_cut_off_goes_on_with_the_same_vectors_only(
    configure: Configure, events: pd.DataFrame, items: Path
) -> None:
    steps = 20
    options = replace(OPTIONS, fine_tuning=replace(OPTIONS.fine_tuning, steps=steps))
    settings, told = configure("picture"), list[int]()

    def end_late(done: int, total: int) -> None:
        if total == steps and done >= steps - 1:
            raise CutOff

    def tell(done: int, total: int) -> None:
        if total == steps:
            told.append(done)

    with pytest.raises(CutOff):
        adapt(settings, events, items, options, progress=end_late)
    others = changed(items, lambda table: table.assign(picture=[np.roll(one, 1) for one in table["picture"]]))
    adapt(settings, events, others, options, progress=tell)
    assert told[0] == 1
    told.clear()
    adapt(settings, events, items, options, progress=tell)
    assert told[0] > 1
    assert list((settings.folder_path / "adapting").iterdir()) == []


@pytest.mark.parametrize(
    ("retrieval", "message"),
    [
        ({"modalities": [{"feature": "a"}]}, r"reads its gate from an adapter.*`adapter: published`"),
        ({"adapter": "published"}, "joins texts with modalities, and none is named"),
        (
            {"adapter": "published", "modalities": [{"feature": "a"}, {"feature": "b", "weight": 0.2}]},
            "gives `b` a weight, which means nothing to a gate",
        ),
    ],
)
def test_settings_of_a_gate_that_cannot_hold_are_refused(retrieval: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings({"version": 1, "retrieval": {"fusion": "gated", **retrieval}})
