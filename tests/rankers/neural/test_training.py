"""The same data, options and seed give the same weights, also where a run was cut off in between."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from explorank.rankers import (
    CorruptRanker,
    DCNOptions,
    DCNRanker,
    InvalidTraining,
    RankingData,
    TrainingOptions,
)
from explorank.rankers.neural.fitting import new_training
from explorank.rankers.neural.training import rate

Data = Callable[..., RankingData]


class CutOffError(Exception):
    pass


def options(**training: Any) -> DCNOptions:
    # Dropout and unknown codes draw numbers, so that a generator which is not restored shows.
    plain = {"epochs": 5, "batch_rows": 64, "learning_rate": 5e-3, "dropout": 0.2}
    return DCNOptions(objective="binary", hidden=(8,), training=TrainingOptions(**{**plain, **training}))


def weights(data: RankingData, *, valid: RankingData | None = None, **more: Any) -> bytes:
    """Train without exporting; return the weights."""
    seed, progress, folder = more.pop("seed", 0), more.pop("progress", None), more.pop("checkpoint", None)
    plan, read = DCNRanker._plan(data, options(**more))
    training = new_training(plan, read, data, valid, seed=seed, checkpoint=folder)
    training.run(progress)
    return b"".join(value.numpy().tobytes() for value in training.network.state_dict().values())


@pytest.fixture(scope="module")
def data(crossed_data: Data) -> RankingData:
    return crossed_data(400, seed=5)


@pytest.fixture(scope="module")
def valid(crossed_data: Data) -> RankingData:
    return replace(crossed_data(200, seed=6), called="validation")


@pytest.fixture(scope="module")
def whole(data: RankingData, valid: RankingData) -> bytes:
    return weights(data, valid=valid)


def test_a_seed_decides_all_and_the_callers_generator_is_left_alone(
    data: RankingData, valid: RankingData, whole: bytes
) -> None:
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert weights(data, valid=valid) == whole
    assert torch.equal(torch.rand(3), drawn)
    assert weights(data, valid=valid, seed=1) != whole


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_that_was_cut_off_ends_as_it_would_have(
    after: int, data: RankingData, valid: RankingData, whole: bytes, tmp_path: Path
) -> None:
    def cut(done: int, _: int) -> None:
        if done == after:
            raise CutOffError

    with pytest.raises(CutOffError):
        weights(data, valid=valid, checkpoint=tmp_path, progress=cut)
    seen: list[tuple[int, int]] = []
    resumed = weights(data, valid=valid, checkpoint=tmp_path, progress=lambda *done: seen.append(done))
    assert resumed == whole
    assert seen == [(epoch, 5) for epoch in range(after + 1, 6)]
    # One that has ended takes no epoch more.
    assert weights(data, valid=valid, checkpoint=tmp_path, progress=cut) == whole


def test_a_damaged_or_foreign_checkpoint_is_refused_by_name(data: RankingData, tmp_path: Path) -> None:
    def cut(*_: int) -> None:
        raise CutOffError

    with pytest.raises(CutOffError):
        weights(data, checkpoint=tmp_path, progress=cut)
    facts, tensors = tmp_path / "checkpoint.json", tmp_path / "epoch-1.safetensors"
    kept = {file: file.read_bytes() for file in (facts, tensors)}
    with pytest.raises(CorruptRanker, match=r"cut off after epoch 1.*delete it to train from the beginning"):
        weights(data, checkpoint=tmp_path, seed=1)
    with pytest.raises(CorruptRanker, match=r"other data, options or seed"):
        weights(replace(data, labels=1 - data.labels), checkpoint=tmp_path)
    tensors.write_bytes(kept[tensors][:-10])
    with pytest.raises(CorruptRanker, match=r"epoch-1\.safetensors is damaged.*Restore"):
        weights(data, checkpoint=tmp_path)
    tensors.unlink()
    with pytest.raises(CorruptRanker, match=r"epoch-1\.safetensors cannot be read"):
        weights(data, checkpoint=tmp_path)
    tensors.write_bytes(kept[tensors])
    changed = json.loads(kept[facts])
    changed["content"]["epoch"] = 4
    facts.write_text(json.dumps(changed))
    with pytest.raises(CorruptRanker, match=r"checkpoint\.json was changed"):
        weights(data, checkpoint=tmp_path)
    facts.write_text("{")
    with pytest.raises(CorruptRanker, match=r"checkpoint\.json cannot be read"):
        weights(data, checkpoint=tmp_path)


def test_a_finished_run_makes_room_for_one_over_other_data(data: RankingData, tmp_path: Path) -> None:
    weights(data, checkpoint=tmp_path, epochs=1)
    other = replace(data, labels=1 - data.labels)
    assert weights(other, checkpoint=tmp_path, epochs=2) == weights(other, epochs=2)


def test_training_stops_when_the_later_slice_gets_no_better(data: RankingData, valid: RankingData) -> None:
    # What is to be learnt from the training data is wrong for the later one.
    misleading = replace(valid, labels=1 - valid.labels)
    plan, read = DCNRanker._plan(data, options(epochs=50, patience=2))
    trained = new_training(plan, read, data, misleading, seed=0, checkpoint=None).run()
    assert trained.epochs == trained.best_epoch + 2 < 10
    assert trained.metrics["log_loss"] > 0.6


def test_gradients_of_several_batches_make_one_step(crossed_data: Data) -> None:
    data = crossed_data(256, seed=5)
    steady = {"dropout": 0.0, "unknown_rate": 0.0, "epochs": 2, "clip_norm": 0.0}
    once = np.frombuffer(weights(data, batch_rows=128, **steady)[-400:], np.float32)
    summed = np.frombuffer(weights(data, batch_rows=64, accumulate=2, **steady)[-400:], np.float32)
    assert summed == pytest.approx(once, abs=1e-4)


@pytest.mark.parametrize(
    "change", [{"noise": 0.3}, {"adversarial": 0.5}, {"weight_decay": 1.0}, {"clip_norm": 0.1}]
)
def test_each_option_has_an_effect_and_keeps_the_seed_in_charge(
    change: dict[str, float], data: RankingData
) -> None:
    changed = weights(data, epochs=2, **change)
    assert changed == weights(data, epochs=2, **change)
    assert changed != weights(data, epochs=2)


def test_a_run_that_diverges_says_so(data: RankingData) -> None:
    with pytest.raises(InvalidTraining, match=r"The loss of epoch \d+ is .*Lower learning_rate"):
        weights(data, learning_rate=1e30, clip_norm=0.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(data: RankingData) -> None:
    with pytest.raises(InvalidTraining, match="device='cuda'"):
        weights(data, device="cuda")


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert rate(0, 10, 0.0) == 1.0
