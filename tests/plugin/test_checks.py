"""`explorank check` reads what is published once, however many of its parts are about it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from explorank import load
from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION
from explorank.checks import run_checks
from explorank.errors import SettingsError
from explorank.hooks.exploration import Calibration
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.train import train_ranker
from explorank.rankers import LightGBMRanker
from explorank.retrieval import Catalogue
from explorank.retrieval.features import feast_access
from explorank.settings import load_settings, parse_settings


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a ranker and a catalogue were read, and a Feast repository opened."""
    counted: Counter[str] = Counter()
    for loaded in (LightGBMRanker, Catalogue):
        real = loaded.load

        def load(*given: Any, real: Any = real, name: str = loaded.__name__, **options: Any) -> Any:
            counted[name] += 1
            return real(*given, **options)

        monkeypatch.setattr(loaded, "load", load)
    real_open = feast_access.open_store

    def open_store(repository: Path) -> Any:
        counted["Feast repository"] += 1
        return real_open(repository)

    monkeypatch.setattr(feast_access, "open_store", open_store)
    return counted


def test_each_part_is_loaded_once(installation: Path, loads: Counter[str]) -> None:
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    written["exploration"] = {
        "warm_start": True,
        "features": ["score"],
        "policy": {"use": "linear_thompson"},
        "budget": {"candidates": [{"uncertainty_from": 0.1}]},
    }
    settings = parse_settings(written, installation)
    store = ArtefactStore(settings.folder_path / "artefacts")
    store.publish(CALIBRATION, Calibration([-2.0, 2.0], [0.0, 1.0], ranker="another").save)

    found = {result.name: result.verdict for result in run_checks(settings)}

    assert found["catalogue"] == found["ranker"] == "ok"
    assert found["calibration"] == "warning"  # which needs the ranker, too
    assert found["exploration.budget"] == "wrong"  # which reads the served columns, as the ranker does
    assert loads == {"LightGBMRanker": 1, "Catalogue": 1, "Feast repository": 1}


def test_an_encoder_that_built_nothing_yet_is_found(installation: Path) -> None:
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    assert "retrieval.encoder" not in {one.name for one in run_checks(parse_settings(written, installation))}
    written.setdefault("retrieval", {})["encoder"] = "another-model"
    (found,) = [
        one for one in run_checks(parse_settings(written, installation)) if one.name == "retrieval.encoder"
    ]
    assert found.verdict == "warning"
    assert "packaged" in found.detail
    assert "another-model" in found.detail


def test_a_catalogue_that_does_not_know_what_is_popular_lately_is_found(installation: Path) -> None:
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    written["retrieval"] = {"trending": {"days": 30}, "retrievers": [{"use": "trending"}]}
    settings = parse_settings(written, installation)

    def told() -> list[str]:
        return [one.detail for one in run_checks(settings) if one.name == "retrieval.trending"]

    (detail,) = told()
    assert detail.endswith("so `trending` finds nothing; run `explorank build`")
    build_catalogue(settings)
    assert not told()
    with load(settings) as stage:
        lists = [stage.rank(user_id=user, slots=3) for user in ("reader-1", "reader-2")]
    assert all(sources == ("trending",) for one in lists for sources in one.sources)


def test_the_online_store_is_asked_as_requests_will(installation: Path) -> None:
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))

    def online() -> tuple[str, str]:
        (found,) = [
            one for one in run_checks(parse_settings(written, installation)) if one.name == "online features"
        ]
        return found.verdict, found.detail

    assert online() == ("ok", "60 of 60 items that were asked for have features")
    written["features"]["as_of"] = "2050-01-01T00:00:00Z"
    verdict, detail = online()
    assert verdict == "warning"
    assert "0 rows are missing, 60 are older than their view's ttl" in detail
    assert "features.as_of" in detail
    for file in (installation / "feature_repo" / "data").glob("online_store.db*"):
        file.unlink()
    verdict, detail = online()
    assert verdict == "wrong"
    assert detail.startswith("0 of 60 items")
    assert "could not be read" in detail


def test_what_is_damaged_is_found_by_every_check_that_reads_it(installation: Path) -> None:
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    settings = parse_settings(written, installation)
    store = ArtefactStore(settings.folder_path / "artefacts")
    current = store.current("ranker")
    assert current is not None
    (current[1] / "model.txt").write_text("?", encoding="utf-8")

    found = {result.name: result for result in run_checks(settings)}

    assert found["ranker"].verdict == "wrong"
    assert "model.txt is damaged" in found["ranker"].detail
    assert found["catalogue"].verdict == "ok"


@pytest.mark.parametrize(
    ("ranker", "said"),
    [
        ("use: lihgtgbm", "explorank.yaml:3: ranker.use: .*Did you mean 'lightgbm'"),
        ("use: lightgbm\n  num_leafs: 3", "explorank.yaml:4: ranker.num_leafs: .*did you mean `num_leaves`"),
        ("use: lightgbm\n  rounds: many", "explorank.yaml:4: ranker.rounds: given the text 'many'"),
        ("use: dcn\n  training: {epochs: 0}", "explorank.yaml:4: ranker.training.*epochs"),
        (
            "use: bagging\n  member: {use: lightgbm, num_leafs: 3}",
            r"explorank.yaml:\d: ranker.*no option 'num_leafs'.*Did you mean 'num_leaves'",
        ),
        (
            "use: blend\n  members: [{use: lightgbm}, {use: calibrated, member: {use: lihgtgbm}}]",
            r"explorank.yaml:\d: ranker.*'lihgtgbm'.*Did you mean 'lightgbm'",
        ),
    ],
)
def test_what_training_would_refuse_of_the_settings_is_found_before(
    tmp_path: Path, ranker: str, said: str
) -> None:
    path = tmp_path / "explorank.yaml"
    path.write_text(f"version: 1\nranker:\n  {ranker}\n", encoding="utf-8")
    settings = load_settings(path)
    found = {result.name: result for result in run_checks(settings)}
    assert found["ranker"].verdict == "wrong"
    assert re.search(said, found["ranker"].detail), found["ranker"].detail
    with pytest.raises(SettingsError, match=said):
        train_ranker(settings, None)


def test_a_ranker_that_only_lacks_its_training_says_so(tmp_path: Path) -> None:
    path = tmp_path / "explorank.yaml"
    path.write_text("version: 1\nranker: {use: lightgbm, num_leaves: 3}\n", encoding="utf-8")
    found = {result.name: result for result in run_checks(load_settings(path))}
    assert found["ranker"].verdict == "wrong"
    assert found["ranker"].detail.startswith("not trained")
