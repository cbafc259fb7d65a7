"""Training: repeatable, later validation, and columns equal to those that serving builds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from explorank import load
from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION
from explorank.crosses import Crosses
from explorank.errors import DataError, RankerError
from explorank.hooks.exploration import Calibration
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.features import feature_access
from explorank.pipeline.past_data import feature_matrix
from explorank.pipeline.queries import QueryOptions, interest_vectors
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.retrieval import Catalogue
from explorank.settings import RankerComponent, Settings, parse_settings

SMALL = TrainOptions(queries=QueryOptions(positive_from=4.0), max_queries=40, negatives=20)
FEW = RankerComponent(use="lightgbm", rounds=15)


def catalogue_of(settings: Settings) -> Catalogue:
    with load(settings) as stage:
        catalogue = stage.installation.catalogue.get()
    assert catalogue is not None
    return catalogue


# ---- serving and training see the same ------------------------------------------------------------------


def liked_by(user: str, events: pd.DataFrame, before: pd.Timestamp) -> tuple[str, ...]:
    own = events[(events["user_id"] == user) & (events["timestamp"] < before) & (events["value"] >= 4.0)]
    return tuple(own["item_id"])


@pytest.mark.parametrize(
    "delay",
    [
        pytest.param(pd.Timedelta(seconds=1), id="just after the last event"),
        pytest.param(pd.Timedelta(days=400), id="after some features expired"),
    ],
)
def test_serving_builds_the_columns_that_training_saw(
    installation: Path, events: pd.DataFrame, delay: pd.Timedelta, spy: Any
) -> None:
    asked = events["timestamp"].max() + delay
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    written["features"]["as_of"] = asked.isoformat()
    written["features"]["crosses"] = [
        {"name": "usual_pages", "kind": "ratio", "of": ["item_pages", "user_events"]},
        {"name": "liking", "kind": "product", "of": ["usual_pages", "similarity"]},
    ]
    settings = parse_settings(written, installation)
    assert settings.features is not None
    crosses = Crosses.of(settings)
    users: Sequence[str] = ("reader-0", "reader-7", "reader-23", "nobody")

    with load(settings, plugins=[spy]) as stage:
        for user in users:
            assert not stage.rank(user_id=user, slots=5).fallbacks

    catalogue, access = catalogue_of(settings), feature_access(settings)
    assert len(spy.seen) == len(users)
    for user, (_, candidates, served) in zip(users, spy.seen, strict=True):
        queries = pd.DataFrame({"liked": [liked_by(user, events, asked)]})
        item_ids = candidates.item_ids.tolist()
        rows = pd.DataFrame({"query": 0, "user_id": user, "item_id": item_ids, "event_timestamp": asked})
        names, trained = feature_matrix(
            access, catalogue, rows, interest_vectors(queries, catalogue, settings.retrieval.decay), crosses
        )
        assert {"usual_pages", "liking"} <= set(names)
        assert set(names) <= set(served.names)
        assert len(item_ids) > 10
        for position, name in enumerate(names):
            np.testing.assert_allclose(
                served.column(name), trained[:, position], rtol=1e-5, atol=1e-6, err_msg=f"{name} of {user}"
            )
        if user != "nobody" and delay < pd.Timedelta(days=1):
            assert not np.isnan(trained).all(axis=0).any(), "a column without any value compares nothing"


def test_similarity_is_the_cosine_with_the_interest(settings: Settings, events: pd.DataFrame) -> None:
    catalogue, access = catalogue_of(settings), feature_access(settings)
    vectors = np.stack([catalogue.vectors[0] * 7.0, np.zeros_like(catalogue.vectors[0])])
    rows = pd.DataFrame(
        {
            "query": [0, 0, 1, 0],
            "user_id": "reader-1",
            "item_id": [*catalogue.item_ids[[0, 5, 5]], "gone"],
            "event_timestamp": events["timestamp"].max(),
        }
    )

    names, matrix = feature_matrix(access, catalogue, rows, vectors)

    cosine = float(catalogue.vectors[0] @ catalogue.vectors[5])
    np.testing.assert_allclose(matrix[:, names.index("similarity")], [1.0, cosine, np.nan, np.nan], rtol=1e-5)


# ---- training -------------------------------------------------------------------------------------------


def test_interactions_of_users_whom_no_feature_knows_are_refused(
    settings: Settings, events: pd.DataFrame
) -> None:
    strangers = events.assign(user_id="stranger-" + events["user_id"])
    serving = ArtefactStore(settings.folder_path / "artefacts").current("ranker")
    with pytest.raises(
        DataError, match=r"None of the \d+ users of these past requests is known.*`explorank feat"
    ):
        train_ranker(settings, strangers, component=FEW, options=SMALL)

    assert ArtefactStore(settings.folder_path / "artefacts").current("ranker") == serving


def test_training_repeats_for_a_seed_and_validates_on_what_is_later(
    settings: Settings, events: pd.DataFrame
) -> None:
    ranker, report = train_ranker(settings, events, component=FEW, options=SMALL)
    again, _ = train_ranker(settings, events, component=FEW, options=SMALL)

    assert ranker.manifest.version == again.manifest.version
    assert (report.queries, report.validation_queries) == (32, 8)
    assert report.features == ranker.manifest.feature_names
    assert report.features[-1] == "similarity"
    begin, end = ranker.manifest.training_window or (0.0, 0.0)
    assert events["timestamp"].min().timestamp() < begin < end <= events["timestamp"].max().timestamp()
    with load(settings) as stage:
        served = stage.installation.ranker.get()
    assert served is not None
    assert served.manifest.version == ranker.manifest.version


def test_the_latest_queries_are_kept(settings: Settings, events: pd.DataFrame) -> None:
    ranker, _ = train_ranker(settings, events, component=FEW, options=SMALL)

    begin, end = ranker.manifest.training_window or (0.0, 0.0)
    middle = events["timestamp"].median().timestamp()
    assert middle < begin < end


def test_progress_reaches_the_end(settings: Settings, events: pd.DataFrame) -> None:
    seen: list[tuple[int, int]] = []

    train_ranker(
        settings,
        events,
        component=FEW,
        options=SMALL,
        progress=lambda done, total: seen.append((done, total)),
    )

    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {15}


def test_too_few_queries_are_refused(settings: Settings, events: pd.DataFrame) -> None:
    one_user = events[events["user_id"] == "reader-3"].head(9)

    with pytest.raises(DataError, match="too few to train on the earlier"):
        train_ranker(settings, one_user, component=FEW, options=SMALL)


def test_queries_of_unknown_items_are_refused(settings: Settings, events: pd.DataFrame) -> None:
    elsewhere = events.assign(item_id=events["item_id"] + " of another shop")

    with pytest.raises(DataError, match="0 past requests after which items of the catalogue"):
        train_ranker(settings, elsewhere, component=FEW, options=SMALL)


def test_a_catalogue_of_one_item_is_refused(settings: Settings, events: pd.DataFrame) -> None:
    one = settings.source.parent / "one.parquet"
    pd.read_parquet(settings.source.parent / "items.parquet").head(1).to_parquet(one)
    build_catalogue(settings, items=one)

    with pytest.raises(RankerError, match="items that were taken up and items that were not"):
        train_ranker(settings, events, component=FEW, options=SMALL)


def test_without_a_catalogue_nothing_is_trained(tmp_path: Path, events: pd.DataFrame) -> None:
    settings = parse_settings({"version": 1, "features": {}}, tmp_path)

    with pytest.raises(DataError, match="Run `explorank build`"):
        train_ranker(settings, events)


def test_a_calibration_is_carried_over_to_the_next_ranker(settings: Settings, events: pd.DataFrame) -> None:
    """By rank: the share of later candidates expected to earn above the middle is the same under both."""
    store = ArtefactStore(settings.folder_path / "artefacts")
    former, first = train_ranker(settings, events, component=FEW, options=SMALL)
    assert first.calibration is None
    store.publish(CALIBRATION, Calibration([-1.0, 1.0], [0.1, 0.3], ranker=former.manifest.version).save)

    ranker, trained = train_ranker(
        settings, events, component=RankerComponent(use="lightgbm", rounds=25), options=replace(SMALL, seed=1)
    )

    current = store.current(CALIBRATION)
    assert current is not None
    assert current[0] == trained.calibration
    carried = Calibration.load(current[1])
    assert carried.ranker == ranker.manifest.version != former.manifest.version
    assert 0.1 <= carried.rewards[0] <= carried.rewards[-1] <= 0.3
    # That of yet another ranker is left as it is.
    store.publish(CALIBRATION, Calibration([-1.0, 1.0], [0.1, 0.3], ranker="another").save)
    assert train_ranker(settings, events, component=FEW, options=SMALL)[1].calibration is None
