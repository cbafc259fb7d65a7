"""The command line, as somebody types it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import lightgbm
import numpy as np
import orjson
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from explorank.artefacts import ArtefactStore
from explorank.hooks.feedback import KillSwitch
from explorank.model_card import ModelCard
from explorank.pipeline.features import feature_access
from explorank.rankers import Blend, BlendOptions, LightGBMRanker, RankingData
from explorank.retrieval import Catalogue
from explorank.settings import load_settings

Ran: TypeAlias = Any  # `Ran` of conftest.py
Run: TypeAlias = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Run) -> Run:
    """Run a command in this process, in the test's folder, on a wide screen."""
    monkeypatch.chdir(tmp_path)
    return run_command


@pytest.fixture
def books(installation: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prepared installation, as the folder that commands run in."""
    monkeypatch.chdir(installation)
    return installation


def assert_told(ran: Ran, *said: str) -> None:
    """Check that a user was told in a sentence, on standard error, with an exit code of 1."""
    assert ran.code == 1
    assert ran.err.startswith("error ")
    assert "Traceback" not in ran.err
    for part in said:
        assert part in ran.err


def change(config: Path, old: str, new: str) -> None:
    text = config.read_text(encoding="utf-8")
    assert old in text
    config.write_text(text.replace(old, new), encoding="utf-8")


# ---- what it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["-m", "explorank"], ["-c", "from explorank.cli import main; main()"]])
def test_the_version(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--version"], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == f"explorank {version('explorank')}\n"
    assert done.stderr == ""


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for command in (
        "demo", "init", "check", "plugins", "schema", "features", "build", "adapt", "train", "rank", "serve",
        "kill-switch",
    ):  # fmt: skip
        assert re.search(rf"\b{command}\b", ran.out)


@pytest.mark.parametrize("arguments", [["rnak"], ["rank", "--slot", "3"], ["rank", "--slots", "three"]])
def test_a_misspelt_command_is_a_usage_error(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert "Traceback" not in ran.err


# ---- init -----------------------------------------------------------------------------------------------


def test_init_writes_settings_and_a_feature_repository(run: Run, tmp_path: Path) -> None:
    ran = run("init", "shop")
    assert ran.code == 0
    assert "explorank features" in ran.out
    assert (tmp_path / "shop" / "explorank.yaml").read_text(encoding="utf-8").startswith("#")
    assert (tmp_path / "shop" / "feature_repo" / "feature_store.yaml").is_file()
    assert (tmp_path / "shop" / "feature_repo" / "features.py").is_file()


def test_init_keeps_what_is_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "explorank.yaml").write_text("mine", encoding="utf-8")
    assert_told(run("init"), "explorank.yaml exists already and is kept")
    assert (tmp_path / "explorank.yaml").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "feature_repo").exists()


def test_init_keeps_a_feature_repository_too(run: Run, tmp_path: Path) -> None:
    repository = tmp_path / "feature_repo"
    repository.mkdir()
    (repository / "features.py").write_text("mine", encoding="utf-8")
    assert_told(run("init"), "feature_repo")
    assert (repository / "features.py").read_text(encoding="utf-8") == "mine"


# ---- check ----------------------------------------------------------------------------------------------


def test_check_finds_nothing_wrong_with_a_prepared_installation(run: Run, books: Path) -> None:
    ran = run("check")
    assert ran.code == 0
    assert not re.search(r"\bwrong ", ran.out)
    # Nobody goes live first; this installation does.
    assert re.search(r"^ *mode +warning +live without a decision in shadow mode", ran.out, re.MULTILINE)
    for part in ("settings", "plugins", "policy", "guards", "features", "catalogue", "ranker", "log"):
        assert re.search(rf"^ *{part}\b.*\bok\b", ran.out, re.MULTILINE)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def artefact(folder: Path, kind: str) -> Path:
    current = ArtefactStore(folder / ".explorank" / "artefacts").current(kind)
    assert current is not None
    return current[1]


WRONG: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no ranker": (
        lambda folder: shutil.rmtree(folder / ".explorank/artefacts/ranker"), "ranker", "explorank train",
    ),
    "no catalogue": (
        lambda folder: shutil.rmtree(folder / ".explorank/artefacts/catalogue"),
        "catalogue",
        "explorank build",
    ),
    "damaged model": (
        lambda folder: damage(artefact(folder, "ranker") / "model.txt"), "ranker", "model.txt",
    ),
    "damaged index": (
        lambda folder: damage(artefact(folder, "catalogue") / "index" / "index.faiss"),
        "catalogue",
        "index.faiss",
    ),
    "no feature repository": (
        lambda folder: shutil.rmtree(folder / "feature_repo"), "features", "feature_store.yaml",
    ),
    "an unknown service": (
        lambda folder: change(
            folder / "explorank.yaml", "positive_from: 4.0", "positive_from: 4.0\n  item_service: item_v9"
        ),
        "features",
        "item_v9",
    ),
    "an unknown policy": (
        lambda folder: change(folder / "explorank.yaml", "use: linear_thompson", "use: linear_tompson"),
        "components",
        "linear_thompson",
    ),
    "an unknown column": (
        lambda folder: change(folder / "explorank.yaml", "[score, similarity]", "[score, colour]"),
        "exploration.features",
        "colour",
    ),
    "no block list": (lambda folder: (folder / "blocked.txt").unlink(), "components", "blocked.txt"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_check_names_what_is_wrong(run: Run, books: Path, case: str) -> None:
    break_it, part, told = WRONG[case]
    break_it(books)
    ran = run("check")
    assert ran.code == 1
    (row,) = re.findall(rf"^ *{re.escape(part)} +wrong\b.*$", ran.out, re.MULTILINE)
    assert told in ran.out
    assert row
    # The rest is looked at nevertheless.
    assert re.search(r"^ *log +ok\b", ran.out, re.MULTILINE)


def test_check_warns_of_items_that_are_not_indexed(run: Run, books: Path) -> None:
    old = Catalogue.load(artefact(books, "catalogue"))
    smaller = Catalogue.build(
        old.item_ids[:-2].tolist(),
        old.vectors[:-2],
        encoder_name=old.encoder_name,
        encoder_fingerprint=old.encoder_fingerprint,
    )
    ArtefactStore(books / ".explorank" / "artefacts").publish("catalogue", smaller.save)
    ran = run("check")
    assert ran.code == 0
    assert re.search(r"warning +2 of 60 items are not indexed", ran.out)


def test_check_warns_of_a_ranker_that_lightgbm_scores_itself(run: Run, books: Path) -> None:
    names = LightGBMRanker.load(artefact(books, "ranker")).manifest.feature_names
    features = np.random.default_rng(0).standard_normal((200, len(names))).astype(np.float32)
    options = {"objective": "regression", "linear_tree": True, "verbosity": -1, "num_threads": 1}
    rows = lightgbm.Dataset(features, features[:, 0].copy(), feature_name=list(names), params=options)
    linear = LightGBMRanker.from_booster(lightgbm.train(options, rows, 3))
    ArtefactStore(books / ".explorank" / "artefacts").publish("ranker", linear.save)
    ran = run("check")
    assert ran.code == 0
    assert re.search(r"ranker speed +warning +scored by LightGBM itself: .*linear trees", ran.out)


def test_check_looks_through_a_blend_and_names_the_member(run: Run, books: Path) -> None:
    names = LightGBMRanker.load(artefact(books, "ranker")).manifest.feature_names
    features = np.random.default_rng(0).standard_normal((300, len(names))).astype(np.float32)
    data = RankingData(features=features, feature_names=names, labels=features[:, 0] > 0, groups=[10] * 30)
    trees: dict[str, Any] = {"use": "lightgbm", "rounds": 3, "num_threads": 1}
    members = (trees, {**trees, "objective": "regression", "params": {"linear_tree": True}})
    blend = Blend.fit(data, options=BlendOptions(members=members, weights=(1.0, 1.0)))
    folder = ArtefactStore(books / ".explorank" / "artefacts")
    folder.publish("ranker", lambda to: (blend.save(to), card_of(books, ranker="blend").write(to)))
    ran = run("check")
    assert ran.code == 0
    assert re.search(r"ranker speed +warning +scored by LightGBM itself: member 1: .*linear trees", ran.out)


def card_of(folder: Path, **changes: Any) -> ModelCard:
    card = ModelCard.read(artefact(folder, "ranker"))
    assert card is not None
    return replace(card, **changes)


def test_check_warns_of_a_ranker_that_read_similarities_of_another_encoder(run: Run, books: Path) -> None:
    store = ArtefactStore(books / ".explorank" / "artefacts")
    ranker, own = LightGBMRanker.load(artefact(books, "ranker")), card_of(books)
    assert own.encoder_fingerprint == Catalogue.load(artefact(books, "catalogue")).encoder_fingerprint
    assert "ranker encoder" not in run("check").out

    def publish(card: ModelCard) -> None:
        store.publish("ranker", lambda to: (ranker.save(to), card.write(to)))

    publish(replace(own, encoder_fingerprint="of last year"))
    ran = run("check")
    assert ran.code == 0
    assert re.search(r"ranker encoder +warning +the catalogue's vectors are of another encoder", ran.out)
    assert "run `explorank train`" in " ".join(ran.out.split())
    publish(replace(own, encoder_fingerprint=""))
    assert "ranker encoder" not in run("check").out, "a card that does not say proves nothing"


# ---- settings that cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "rank", "plugins", "build", "kill-switch"])
def test_a_misspelt_key_is_named_with_file_and_line(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "explorank.yaml").write_text(
        "version: 1\nexploration:\n  mode: live\n  holdot: 0.1\n", encoding="utf-8"
    )
    assert_told(run(command), "explorank.yaml:4", "holdot", "holdout")


def test_an_option_of_a_component_is_named_with_file_and_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "explorank.yaml").write_text(
        "version: 1\nranker: null\nretrieval: {retrievers: []}\nexploration:\n  policy:\n"
        "    use: epsilon_greedy\n    epsilom: 0.2\n",
        encoding="utf-8",
    )
    assert_told(run("rank"), "explorank.yaml:7", "epsilom", "epsilon")


@pytest.mark.parametrize("command", ["check", "rank", "build", "serve"])
def test_a_missing_file_is_named(run: Run, command: str) -> None:
    assert_told(run(command, "--config", "nowhere.yaml"), "nowhere.yaml", "explorank init")


# ---- plugins and schema ---------------------------------------------------------------------------------


def test_plugins_are_listed_with_version_hooks_and_status(run: Run) -> None:
    ran = run("plugins")
    assert ran.code == 0
    for line in ("explorank-retrieval", "explorank-rankers", "explorank-policies"):
        (row,) = [row for row in ran.out.splitlines() if line in row]
        assert f"explorank {version('explorank')}" in row
        assert "active" in row
        assert "ranking_" in row


def test_a_plugin_that_is_switched_off_is_listed_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "explorank.yaml").write_text(
        "version: 1\nplugins:\n  explorank-features: {enabled: false}\n", encoding="utf-8"
    )
    (row,) = [row for row in run("plugins").out.splitlines() if "explorank-features" in row]
    assert "disabled" in row


def test_an_unknown_plugin_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "explorank.yaml").write_text(
        "version: 1\nplugins:\n  explorank-feature: {enabled: false}\n", encoding="utf-8"
    )
    assert_told(run("plugins"), "explorank-feature'", "explorank-features")


def test_the_schema_is_a_json_schema(run: Run) -> None:
    ran = run("schema")
    assert ran.code == 0
    schema = orjson.loads(ran.out)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"version": 1, "exploration": {"policy": {"use": "epsilon_greedy"}}})
    assert not validator.is_valid({"version": 1, "exploraton": {}})


# ---- features, build, train -----------------------------------------------------------------------------


def test_the_whole_preparation(run: Run, books: Path) -> None:
    # A copied registry belongs to the folder it was made in.
    for file in ("registry.db", "online_store.db"):
        (books / "feature_repo" / "data" / file).unlink()
    before = {kind: artefact(books, kind).name for kind in ("catalogue", "ranker")}
    ran = run(
        "features", "--interactions", "interactions.parquet", "--items", "items.parquet",
        "--users", "users.parquet",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "1,200 interactions of 40 users with 60 items, 2026-01-01 to 2026-03-01" in ran.out
    change(
        books / "explorank.yaml", "version: 1", "version: 1\nretrieval: {by_use: {}, learned_embeddings: {}}"
    )
    # The texts' embeddings are remembered.
    ran = run("build", "--items", "items.parquet", "--interactions", "interactions.parquet")
    assert ran.code == 0, ran.err
    assert "60 items, index flat, packaged" in ran.out
    assert "60 items have others of the same users" in ran.out
    assert "60 items have a place in the space of als, searched by scan" in ran.out
    ran = run("train", "--interactions", "interactions.parquet", "--until", "2026-02-20")
    assert ran.code == 0, ran.err
    assert re.search(r"ranker \S+: lightgbm, \d+ queries .* NDCG@10 0\.\d+", ran.out)
    assert {kind: artefact(books, kind).name for kind in before}.keys() == before.keys()
    assert all(artefact(books, kind).name != name for kind, name in before.items())
    assert run("check").code == 0


def test_a_ranker_is_taught_by_another_one(run: Run, books: Path) -> None:
    options = (
        "objective=binary", "training.epochs=1", "taught_by.use=lightgbm", "taught_by.rounds=5",
        "taught_by.objective=binary", "taught_by.cross_fit=2", "taught_by.pseudo_labels=3",
    )  # fmt: skip
    asked = ("train", "--interactions", "interactions.parquet", "--ranker", "dcn", "--no-promote")
    ran = run(*asked, "--tracker", "none", *(part for option in options for part in ("-o", option)))
    assert ran.code == 0, ran.err
    assert re.search(r"taught by lightgbm, in 2 parts: NDCG@10 0\.\d+ .* users that it had not seen", ran.out)
    (trained,) = re.findall(r"ranker (\S+): dcn", ran.out)
    card = ModelCard.read(artefact(books, "ranker").parent / trained)
    assert card is not None
    assert card.teaching is not None
    assert card.sampling is not None
    # Of what was retrieved and never chosen between the teacher speaks alone.
    assert card.training.requests < card.teaching.pseudo_labels <= 3 * card.training.requests
    assert card.teaching.rows == card.training.rows
    drawn = card.sampling.drawn_evenly + card.sampling.drawn_from_retrieval
    liked = card.training.positives + card.validation.positives
    assert drawn + liked + card.teaching.pseudo_labels == card.training.rows + card.validation.rows
    ran = run(*asked, "-o", "taught_by.use=lightgbm", "-o", "taught_by.cross_fit=1")
    assert_told(ran, "ranker.taught_by.cross_fit", "at least 2")


def test_an_encoder_is_adapted_and_used(run: Run, books: Path) -> None:
    before = Catalogue.load(artefact(books, "catalogue"))
    ran = run("adapt", "--interactions", "interactions.parquet", "--steps", "20", "--head", "linear")
    assert ran.code == 0, ran.err
    assert re.search(r"encoder \S+: \d+ pairs in \d+ s; .* among the 6 nearest items before and", ran.out)
    assert "next: set `retrieval.adapter: published`" in ran.out or "nothing that was tried" in ran.out
    change(books / "explorank.yaml", "version: 1", "version: 1\nretrieval: {adapter: published}")
    ran = run("build")
    assert ran.code == 0, ran.err
    assert "packaged + adapter" in ran.out
    after = Catalogue.load(artefact(books, "catalogue"))
    assert after.encoder_fingerprint != before.encoder_fingerprint


ITEM_IMAGES = """\
from feast import FeatureView, Field
from feast.types import Array, Float32
from features import CATALOGUE_TTL, item, source

item_images = FeatureView(
    name="item_images",
    entities=[item],
    schema=[Field(name="vector", dtype=Array(Float32))],
    source=source("item_images", "One row per item and image."),
    ttl=CATALOGUE_TTL,
    online=False,
)
"""


def test_a_gate_is_learnt_and_used(run: Run, books: Path) -> None:
    """From an array feature of the repository to a ranker whose card knows what the gate has seen."""
    repository, began = books / "feature_repo", pd.Timestamp("2026-01-01", tz="UTC").as_unit("us")
    (repository / "item_images.py").write_text(ITEM_IMAGES, encoding="utf-8")
    ids = pd.read_parquet(books / "items.parquet")["item_id"]
    subjects = ids.str.partition("-")[0].astype("category").cat.codes
    images = pd.DataFrame({"item_id": ids, "vector": list(np.eye(6, dtype=np.float32)[subjects])})
    images = images.assign(event_timestamp=began, created_timestamp=began)
    images.to_parquet(repository / "data" / "item_images.parquet")
    feature_access(load_settings(books / "explorank.yaml")).apply()
    gated = "{adapter: published, fusion: gated, modalities: [{feature: 'item_images:vector'}]}"
    change(books / "explorank.yaml", "version: 1", f"version: 1\nretrieval: {gated}")

    assert_told(run("build"), "no adapter was published yet", "explorank adapt")
    asked = ("adapt", "--interactions", "interactions.parquet", "--steps", "20", "--until", "2026-02-01")
    assert_told(run(*asked, "--head", "mlp"), "`--head mlp` reads texts alone", "the head is the gate")
    ran = run(*asked)
    assert ran.code == 0, ran.err
    assert "its gate joins texts with item_images:vector" in ran.out
    ran = run("build")
    assert ran.code == 0, ran.err
    assert re.search(r"packaged \+ adapter \w{16} \+ item_images:vector \(gated\)", " ".join(ran.out.split()))
    assert "vectors of texts and item_images:vector (gated)" in run("check").out

    for since, seen in (("2026-01-15", True), ("2026-02-01", False)):
        ran = run("train", "--interactions", "interactions.parquet", "--since", since, "-o", "rounds=2")
        assert ran.code == 0, ran.err
        (trained,) = re.findall(r"ranker (\S+): lightgbm", ran.out)
        card = ModelCard.read(artefact(books, "ranker").parent / trained)
        assert card is not None
        assert card.training.first > since
        assert card.sampling is not None
        assert card.sampling.requests["since"] == f"{since}T00:00:00+00:00"
        assert any("learnt from likes until 2026-01-31" in note for note in card.notes) == seen


def test_a_table_without_its_columns_is_named(run: Run, books: Path) -> None:
    pd.DataFrame({"user": ["u"], "item_id": ["i"]}).to_csv(books / "wrong.csv", index=False)
    ran = run("features", "--interactions", "wrong.csv", "--items", "items.parquet")
    assert_told(ran, "user_id", "timestamp")
    assert_told(run("train", "--interactions", "wrong.csv"), "user_id")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.parquet", None, "absent.parquet could not be read"),
        ("scribble.parquet", b"scribbled over", "scribble.parquet could not be read"),
        ("empty.csv", b"", "empty.csv could not be read"),
        ("table.xlsx", b"", "table.xlsx is neither .parquet nor .csv"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(
    run: Run, books: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (books / name).write_bytes(content)
    assert_told(run("train", "--interactions", name), told)


def test_training_without_a_catalogue_says_what_comes_first(run: Run, books: Path) -> None:
    shutil.rmtree(books / ".explorank" / "artefacts")
    assert_told(run("train", "--interactions", "interactions.parquet"), "explorank build")


def test_the_log_is_trained_from_once_it_tells_something(run: Run, books: Path) -> None:
    assert_told(run("train"), "--from-log")
    assert_told(run("train", "--from-log", "--interactions", "interactions.parquet"), "Name either")
    assert_told(run("train", "--from-log"), "displayed slates of known users")
    assert_told(run("examination"), "exploration.slots")


def test_training_on_too_little_says_so(run: Run, books: Path) -> None:
    pd.read_parquet("interactions.parquet").head(3).to_csv("few.csv", index=False)
    assert_told(run("train", "--interactions", "few.csv"), "5 interactions")


def test_commands_that_need_feast_say_that_none_is_configured(run: Run, books: Path) -> None:
    (books / "explorank.yaml").write_text("version: 1\n", encoding="utf-8")
    ran = run("features", "--interactions", "interactions.parquet", "--items", "items.parquet")
    assert_told(ran, "features", "explorank init")


# ---- rank -----------------------------------------------------------------------------------------------


def test_rank_prints_a_table(run: Run, books: Path) -> None:
    ran = run("rank", "--user", "reader-1", "--slots", "4", "--exclude", "sea-1", "--exclude", "sea-2")
    assert ran.code == 0, ran.err
    rows = re.findall(r"^ *(\d) +(\S+) +-?\d\.\d{4} +(\d\.\d{4}) +(score|explore) +(.*\S) *$", ran.out, re.M)
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert [row[3] for row in rows] == ["score", "score", "explore", "score"]
    assert {"sea-1", "sea-2"}.isdisjoint(row[1] for row in rows)
    assert re.search(r"decision \w+, policy linear_thompson version 0, mode live, arm explore", ran.out)
    assert "fallback" not in ran.out


def test_rank_says_what_its_steps_take(run: Run, books: Path) -> None:
    steps = ["enrich_request", "retrieve", "filter", "enrich", "score", "explore", "log", "total"]
    once = run("rank", "--user", "reader-1", "--profile")
    assert once.code == 0, once.err
    rows = re.findall(r"^ *(\w+) +(\d+\.\d{3}) +(\d+)% *$", once.out, re.M)
    assert [row[0] for row in rows] == steps
    ms = [float(row[1]) for row in rows]
    assert sum(ms[:-1]) == pytest.approx(ms[-1], abs=0.01)
    assert rows[-1][2] == "100"
    often = run("rank", "--user", "reader-1", "--profile", "--repeat", "5")
    rows = re.findall(r"^ *(\w+) +(\d+\.\d{3}) +(\d+\.\d{3}) +(\d+)% *$", often.out, re.M)
    assert [row[0] for row in rows] == steps
    assert all(float(row[1]) <= float(row[2]) for row in rows)
    assert "p50 ms" in often.out
    assert "retrieve" not in run("rank", "--user", "reader-1").out.partition("decision")[2]


def test_rank_prints_json(run: Run, books: Path) -> None:
    ran = run("rank", "--similar-to", "sea-1", "--slots", "3", "--json")
    assert ran.code == 0, ran.err
    told = orjson.loads(ran.out)
    assert len(told["items"]) == 3
    assert told["logged"] is True
    assert "sea-1" not in [item["item_id"] for item in told["items"]]


def test_rank_says_what_it_fell_back_to(run: Run, books: Path) -> None:
    shutil.rmtree(books / ".explorank" / "artefacts" / "ranker")
    ran = run("rank", "--user", "reader-1")
    assert ran.code == 0
    assert re.search(r"fallback score of explorank: retrieval order \(no trained ranker\)", ran.out)


def test_rank_refuses_what_no_answer_could_fit(run: Run, books: Path) -> None:
    ran = run("rank", "--slots", "10000")
    assert_told(ran, "limits.slots")
    assert ran.err.count("\n") == 1


# ---- the kill switch ------------------------------------------------------------------------------------


def test_the_kill_switch(run: Run, tmp_path: Path) -> None:
    (tmp_path / "explorank.yaml").write_text("version: 1\n", encoding="utf-8")
    switch = KillSwitch(tmp_path / ".explorank" / "exploration.off")
    assert run("kill-switch").out == "released\n"
    assert run("kill-switch", "engage", "--reason", "sale [red]ends").out == "engaged: sale [red]ends\n"
    assert switch.engaged
    assert run("kill-switch", "status").out == "engaged: sale [red]ends\n"
    assert run("kill-switch", "release").out == "released\n"
    assert not switch.engaged
    assert run("kill-switch", "release").code == 0


# ---- serve ----------------------------------------------------------------------------------------------


@pytest.fixture
def server(installation: Path) -> Iterator[httpx.Client]:
    """`explorank serve` in a process of its own, on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "explorank", "serve", "--port", "0"],
        cwd=installation,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
    )
    assert process.stderr is not None
    said = []
    with process:
        try:
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    break
            else:
                pytest.fail("".join(said))
            with httpx.Client(base_url=found[1], timeout=120.0) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            said += process.stderr.readlines()
    assert "Traceback" not in "".join(said), "".join(said)
    assert process.returncode in {0, -signal.SIGTERM}


def test_serve_answers_over_a_socket(server: httpx.Client, installation: Path) -> None:
    assert server.get("/healthz").status_code == 200
    assert server.get("/readyz").status_code == 200
    answer = server.post("/v1/rank", json={"user_id": "reader-1", "slots": 5})
    assert answer.status_code == 200
    decision = answer.json()
    assert len(decision["items"]) == 5
    item = decision["items"][2]["item_id"]
    shown = {
        "decision_id": decision["decision_id"], "items_in_order": [entry["item_id"] for entry in decision["items"]],
    }  # fmt: skip
    assert server.post("/v1/shown", json=shown).is_success
    reward = {"decision_id": decision["decision_id"], "item_id": item}
    assert server.post("/v1/rewards", json=reward).is_success
    logged = server.get(f"/v1/decisions/{decision['decision_id']}")
    assert logged.status_code == 200
    assert server.post("/v1/rank", json={"slots": 10_000}).status_code == 422
    assert server.post("/v1/rank", json={"user_id": "u", "slots": "five"}).status_code == 422
    # Exploration stops at once when another process says so.
    KillSwitch(installation / ".explorank" / "exploration.off").engage("test")
    assert server.post("/v1/rank", json={"user_id": "reader-1"}).json()["mode"] == "off"
    assert "explorank" in server.get("/metrics").text


def test_serve_refuses_to_be_open_to_the_network(run: Run, books: Path) -> None:
    assert_told(run("serve", "--host", "0.0.0.0"), "token")  # noqa: S104 - that it is refused is the test


def test_serve_refuses_a_port_that_is_taken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "explorank.yaml").write_text("version: 1\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for workers in ("1", "2"):
            assert_told(run("serve", "--port", port, "--workers", workers), "127.0.0.1", port, "server.port")
    # Beyond 65,535 the system would count on from 0, and another port would answer.
    assert run("serve", "--port", "99999").code == 2
