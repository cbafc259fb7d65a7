"""Somebody's own Feast repository, with names of its own, carries the whole path as the README says."""

import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

import explorank
from explorank.cli.app import app
from explorank.retrieval.features import FeatureAccess

DEFINITIONS = """
    from datetime import timedelta
    from pathlib import Path

    from feast import Entity, FeatureService, FeatureView, Field, FileSource
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    FOLDER = Path(__file__).resolve().parent


    def view(name, entity, fields):
        return FeatureView(
            name=name,
            entities=[entity],
            schema=fields,
            source=FileSource(path=str(FOLDER / f"{name}.parquet"), timestamp_field="known_from"),
            ttl=timedelta(days=3650),
        )


    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.STRING)
    product = Entity(name="product", join_keys=["sku"], value_type=ValueType.STRING)
    people = view("people", customer, [Field(name="age", dtype=Int64)])
    books = view("books", product, [Field(name="pages", dtype=Float64), Field(name="sold", dtype=Int64)])
    whoever_buys = FeatureService(name="whoever_buys", features=[people])
    what_is_sold = FeatureService(name="what_is_sold", features=[books])
"""

SETTINGS = """
    version: 1
    features:
      repository: their_repository
      user_service: whoever_buys
      item_service: what_is_sold
      history_service: null
      positive_from: 4.0
    exploration:
      mode: live
      policy: {use: linear_thompson}
      features: [score, pages]
      holdout: 0.0
"""


@pytest.fixture
def theirs(installation: Path, feast_repository: Callable[[Path, str], Path]) -> Path:
    """The prepared folder with another repository and other settings; nothing built for them yet."""
    repository = feast_repository(installation / "their_repository", DEFINITIONS)
    known_from = pd.Timestamp("2025-12-01", tz="UTC").as_unit("us")
    items, users = (pd.read_parquet(installation / f"{name}.parquet") for name in ("items", "users"))
    sold = pd.read_parquet(installation / "interactions.parquet")["item_id"].value_counts()
    pd.DataFrame(
        {
            "sku": items["item_id"],
            "pages": items["pages"].astype(float),
            "sold": sold.reindex(items["item_id"]).to_numpy(),
            "known_from": known_from,
        }
    ).to_parquet(repository / "books.parquet")
    pd.DataFrame({"customer": users["user_id"], "age": users["age"], "known_from": known_from}).to_parquet(
        repository / "people.parquet"
    )
    access = FeatureAccess(
        repository, user_service="whoever_buys", item_service="what_is_sold", history_service=None
    )
    access.apply()
    access.materialize(datetime(2026, 4, 1, tzinfo=UTC))
    (installation / "explorank.yaml").write_text(textwrap.dedent(SETTINGS))
    return installation


def test_it_is_built_trained_checked_and_served(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(theirs)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in ("build --items items.parquet", "train --interactions interactions.parquet", "check"):
        assert not app(command.split(), standalone_mode=False), command
    with explorank.load("explorank.yaml") as stage:
        ranker = stage.installation.ranker.get()
        assert ranker is not None
        assert ranker.manifest.feature_names == ("pages", "sold", "age", "similarity")
        decision = stage.rank(user_id="reader-0", slots=5, context={"history": ["sea-1"]})
        record = stage.decision(decision.decision_id)
    assert decision.fallbacks == ()
    assert len(decision.items) == 5
    assert record.feature_names == ("constant", "score", "pages")
