"""A tiny encoder, and past requests whose candidates are liked for what their texts say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank.rankers import RankingData

APPEAL = {"sea": 3.0, "crime": 2.0, "bread": 1.0, "space": 0.0}
WORDS = {
    "sea": ["harbour", "storm", "tide", "diver"],
    "crime": ["murder", "alibi", "poison", "witness"],
    "bread": ["oven", "rye", "yeast", "flour"],
    "space": ["orbit", "comet", "moon", "launch"],
}
_FILLERS = {"a", "story", "of", "and", "|"}


def requests(seed: int, count: int = 80, rows: int = 10) -> RankingData:
    """Return requests of ten of 40 items; the three of the most appealing kinds are liked, up to noise."""
    rng = np.random.default_rng([7, seed])
    kinds = np.array(list(APPEAL))
    items = np.array([f"{kind}-{number}" for kind in kinds for number in range(10)], np.str_)
    words = np.random.default_rng(3)
    texts = {
        item: f"a story of {' and '.join(words.choice(WORDS[item.split('-')[0]], 2, replace=False))}"
        for item in items.tolist()
    }
    shown = rng.choice(items, count * rows)
    appeal = np.array([APPEAL[item.split("-")[0]] for item in shown.tolist()])
    ranks = (
        (appeal + 0.3 * rng.standard_normal(count * rows))
        .reshape(count, rows)
        .argsort(axis=1)
        .argsort(axis=1)
    )
    return RankingData(
        features=rng.standard_normal((count * rows, 2)),
        feature_names=("first", "second"),
        labels=(ranks >= rows - 3).ravel(),
        groups=np.full(count, rows),
        item_ids=shown,
        histories=tuple(tuple(rng.choice(items, rng.integers(4)).tolist()) for _ in range(count)),
        item_texts=texts,
        window=(1_700_000_000.0, 1_700_086_400.0),
    )


@pytest.fixture(scope="session")
def past() -> Callable[..., RankingData]:
    return requests


@pytest.fixture(scope="session")
def tiny(write_tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = _FILLERS.union(*WORDS.values())
    return write_tiny_bert(tmp_path_factory.mktemp("tiny"), words, seed=1)


@pytest.fixture(scope="session", autouse=True)
def exported_once() -> Iterator[None]:
    """Export networks of equal weights once: an export takes far longer than such a training.

    That equal weights give equal graphs, a test shows without this.
    """
    import torch

    from explorank.cross_encoder import training
    from explorank.rankers.neural.export import to_onnx

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    graphs: dict[str, bytes] = {}

    def export(network: Any) -> bytes:
        seen = hashlib.sha256()
        for name, value in network.state_dict().items():
            seen.update(name.encode() + value.numpy().tobytes())
        if seen.hexdigest() not in graphs:
            graphs[seen.hexdigest()] = to_onnx(network)
        return graphs[seen.hexdigest()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "to_onnx", export)
        yield
    torch.set_num_threads(before)
