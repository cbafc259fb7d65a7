"""What only a CUDA device can show of models of interactions: the same each time, and as good as on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from explorank.retrieval import TwoTower
from explorank.retrieval.collaborative import Interactions, SASRec, SASRecOptions, TwoTowerOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]

ITEMS = 40
MODELS: list[tuple[Any, Any]] = [
    (
        TwoTower,
        TwoTowerOptions(dim=8, hidden=16, batch_size=128, epochs=20, learning_rate=0.02, device="cuda"),
    ),
    (SASRec, SASRecOptions(dim=16, history=8, batch_size=32, epochs=20, learning_rate=0.01, device="cuda")),
]


def rounds(users: int = 120) -> Interactions:
    """Everybody begins somewhere and takes up ten items: after n comes n + 1."""
    starts = np.random.default_rng(0).integers(ITEMS, size=users)
    who = np.repeat([f"u{user:03}" for user in range(users)], 10)
    what = np.array([f"i{item:02}" for item in range(ITEMS)])[
        (starts[:, None] + np.arange(10)).ravel() % ITEMS
    ]
    return Interactions.of(who, what, times=np.tile(np.arange(10.0), users))


@pytest.mark.parametrize(("kind", "options"), MODELS)
def test_a_seed_decides_all_and_the_callers_generator_is_left_alone(kind: Any, options: Any) -> None:
    torch.manual_seed(7)
    drawn = torch.rand(3, device="cuda")
    torch.manual_seed(7)
    first, second = (kind.fit(rounds(), options=options, seed=3) for _ in range(2))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name], err_msg=name)
    assert torch.equal(torch.rand(3, device="cuda"), drawn)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("kind", "options"), MODELS)
def test_it_finds_as_much_as_one_trained_on_the_cpu(kind: Any, options: Any) -> None:
    found = [
        kind.fit(rounds(), options=replace(options, device=device)).metrics for device in ("cuda", "cpu")
    ]
    assert found[0]["recall@100"] == pytest.approx(found[1]["recall@100"], abs=0.1)
