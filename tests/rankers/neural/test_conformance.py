"""The neural rankers are held to what third parties are held to, alone and as members of others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from explorank.rankers import (
    Blend,
    BlendOptions,
    DCNOptions,
    DCNRanker,
    SequenceOptions,
    SequenceRanker,
    TrainingOptions,
)
from explorank.testing import RankerTests

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from explorank.rankers.neural import export, fitting  # noqa: E402 - they import torch

SMALL: dict[str, Any] = {"epochs": 6, "batch_rows": 128, "learning_rate": 0.01}
TRAINING = TrainingOptions(**SMALL)


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """Export networks of equal weights once: an export takes far longer than such a training.

    That equal weights give equal graphs, the tests of each ranker show without this.
    """
    graphs: dict[str, bytes] = {}

    def to_onnx(network: Any) -> bytes:
        seen = hashlib.sha256(repr((network, network.sizes)).encode())
        for name, value in network.state_dict().items():
            seen.update(name.encode() + value.numpy().tobytes())
        if seen.hexdigest() not in graphs:
            graphs[seen.hexdigest()] = export.to_onnx(network)
        return graphs[seen.hexdigest()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "to_onnx", to_onnx)
        yield


class NeuralTests(RankerTests):
    row_tolerance = 1e-5  # products of matrices are summed in another order in other batches
    explanation_tolerance = 1e-4
    resumes = True


class TestDCN(NeuralTests):
    ranker_class = DCNRanker
    options = DCNOptions(hidden=(16,), training=TRAINING)


class TestSequence(NeuralTests):
    ranker_class = SequenceRanker
    options = SequenceOptions(history=3, width=4, layers=1, heads=1, hidden=(8,), training=TRAINING)


class TestBlendOfTreesAndNetwork(NeuralTests):
    ranker_class = Blend
    options = BlendOptions(
        members=(
            {"use": "lightgbm", "rounds": 15, "num_threads": 1},
            {"use": "dcn", "hidden": (16,), "item_ids": True, "embedding_width": 4, "training": SMALL},
        ),
        weights=(1.0, 1.0),
    )
