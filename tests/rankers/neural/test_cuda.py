"""What only a CUDA device can show of training there: the same each time, resumed too, and as good as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from explorank.rankers import (
    DCNOptions,
    DCNRanker,
    RankingData,
    SequenceOptions,
    SequenceRanker,
    TrainingOptions,
)
from explorank.rankers.neural.fitting import new_training
from explorank.rankers.neural.training import Trained, Training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]

BINARY = DCNOptions(objective="binary", hidden=(32,))
SEQUENCE = SequenceOptions(hidden=(16,))


class CutOffError(Exception):
    """Stands for the end of a process."""


@pytest.fixture(params=["dcn", "sequence"])
def work(
    request: pytest.FixtureRequest,
    crossed_data: Callable[..., RankingData],
    stepping_data: Callable[..., RankingData],
) -> tuple[Any, Any, RankingData, RankingData]:
    """Return a kind of ranker, its options, training data and later data."""
    if request.param == "dcn":
        return DCNRanker, BINARY, crossed_data(2_000, seed=1), crossed_data(500, seed=2)
    return SequenceRanker, SEQUENCE, stepping_data(400, seed=1), stepping_data(100, seed=2)


def prepared(work: tuple[Any, Any, RankingData, RankingData], *, seed: int = 0, **more: Any) -> Training:
    kind, options, data, valid = work
    folder = more.pop("checkpoint", None)
    training = TrainingOptions(**{"epochs": 8, "batch_rows": 128, "device": "cuda", "dropout": 0.2, **more})
    plan, read = kind._plan(data, replace(options, training=training))
    return new_training(plan, read, data, replace(valid, called="validation"), seed=seed, checkpoint=folder)


def weights(training: Training) -> bytes:
    return b"".join(value.numpy().tobytes() for value in training.network.state_dict().values())


@pytest.mark.parametrize("mixed", [True, False])
def test_a_seed_decides_all_and_the_callers_generator_is_left_alone(work: Any, mixed: bool) -> None:
    torch.manual_seed(7)
    drawn = torch.rand(3, device="cuda")
    torch.manual_seed(7)
    found = []
    for seed in (0, 0, 1):
        training = prepared(work, seed=seed, mixed_precision=mixed, adversarial=0.1)
        training.run()
        found.append(weights(training))
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.rand(3, device="cuda"), drawn)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_that_was_cut_off_ends_as_it_would_have(work: Any, tmp_path: Path) -> None:
    whole = prepared(work)
    whole.run()

    def cut(done: int, _: int) -> None:
        if done == 2:
            raise CutOffError

    with pytest.raises(CutOffError):
        prepared(work, checkpoint=tmp_path).run(cut)
    resumed = prepared(work, checkpoint=tmp_path)
    resumed.run()
    assert weights(resumed) == weights(whole)


def test_bfloat16_and_the_device_cost_no_quality(work: Any) -> None:
    on_gpu: Trained = prepared(work, epochs=15).run()
    on_cpu: Trained = prepared(work, epochs=15, device="cpu").run()
    for name, reached in on_cpu.metrics.items():
        assert on_gpu.metrics[name] == pytest.approx(reached, abs=0.05)
