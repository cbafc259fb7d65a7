"""Small data whose truth is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from explorank.rankers import (
    DCNOptions,
    DCNRanker,
    RankingData,
    SequenceOptions,
    SequenceRanker,
    TrainingOptions,
)

NAMES = ("a", "b", "noise", "kind")


def crossed(rows: int, seed: int) -> RankingData:
    """Labels follow from the sign of a · b and, rarely, from the kind: no sum of functions of one column knows them."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, 4)).astype(np.float32)
    features[:, 3] = rng.integers(0, 5, rows) * 10
    labels = ((features[:, 0] * features[:, 1] > 0) | (features[:, 3] == 40)).astype(np.float64)
    return RankingData(features=features, feature_names=NAMES, categorical=("kind",), labels=labels)


def stepping(
    requests: int, seed: int, *, items: int = 10, length: int = 5, candidates: int = 5
) -> RankingData:
    """Draw histories of distinct items; the item that follows in a circle after the newest one is taken up.

    The circle is over the digits, and the item after an older one is among the candidates as often, so that a bag of
    items cannot tell which one it is.
    """
    rng = np.random.default_rng(seed)
    histories, ids, labels = [], [], []
    for _ in range(requests):
        history = rng.permutation(items)[:length]
        options = rng.permutation((history[-candidates:] + 1) % items)
        histories.append(tuple(f"item-{one}" for one in history))
        ids += [f"item-{one}" for one in options]
        labels += [float(one == (history[-1] + 1) % items) for one in options]
    return RankingData(
        features=np.empty((len(ids), 0), np.float32),
        feature_names=(),
        labels=np.array(labels),
        groups=np.full(requests, candidates),
        item_ids=np.array(ids),
        histories=tuple(histories),
    )


@pytest.fixture(scope="session")
def crossed_data() -> Callable[..., RankingData]:
    return crossed


@pytest.fixture(scope="session")
def stepping_data() -> Callable[..., RankingData]:
    return stepping


@pytest.fixture(scope="session")
def dcn() -> DCNRanker:
    """Trained on 3,000 rows with missing values, seldom kinds and item ids."""
    data = crossed(3_000, seed=1)
    rng = np.random.default_rng(2)
    data.features[rng.random(3_000) < 0.1, 2] = np.nan
    data.features[0, 3] = 990
    return DCNRanker.fit(
        RankingData(
            features=data.features,
            feature_names=NAMES,
            categorical=("kind",),
            labels=data.labels,
            item_ids=np.array([f"item-{one}" for one in rng.integers(0, 30, 3_000)]),
            window=(100.0, 200.0),
        ),
        options=DCNOptions(
            objective="binary",
            item_ids=True,
            hidden=(32, 16),
            training=TrainingOptions(epochs=12, batch_rows=128, learning_rate=5e-3),
        ),
    )


@pytest.fixture(scope="session")
def sequence() -> SequenceRanker:
    """Trained for a moment on requests with two dense columns, a category and content."""
    return SequenceRanker.fit(dense_stepping(80, seed=3), options=small_sequence())


def dense_stepping(requests: int, seed: int) -> RankingData:
    data = stepping(requests, seed)
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((len(data), 3)).astype(np.float32)
    features[:, 2] = rng.integers(0, 3, len(data))
    features[rng.random(len(data)) < 0.2, 1] = np.nan
    return RankingData(
        features=features,
        feature_names=("size", "price", "kind"),
        categorical=("kind",),
        labels=data.labels,
        groups=data.groups,
        item_ids=data.item_ids,
        histories=data.histories,
    )


@pytest.fixture(scope="session")
def dense_stepping_data() -> Callable[..., RankingData]:
    return dense_stepping


def small_sequence(**changes: Any) -> SequenceOptions:
    training = TrainingOptions(**{"epochs": 2, "batch_rows": 100, **changes.pop("training", {})})
    plain: dict[str, Any] = {
        "history": 8, "width": 8, "attention_width": 4, "hidden": (16, 8), "content": ("size",), "training": training,
    }  # fmt: skip
    return SequenceOptions(**{**plain, **changes})


@pytest.fixture(scope="session")
def small_sequence_options() -> Callable[..., SequenceOptions]:
    return small_sequence
