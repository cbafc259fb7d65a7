"""What only a CUDA device can show of encoders: they learn there, and a run that was cut off goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from explorank.retrieval import Encoder
from explorank.retrieval.encoding import (
    Behaviour,
    FineTuning,
    Pretraining,
    TextRanker,
    TextRanking,
    fine_tune_encoder,
    pretrain_encoder,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]


class CutOffError(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def on_gpu(model: Path) -> Encoder:
    return Encoder(model, device="cuda")


@pytest.mark.parametrize("head", ["none", "linear"])
def test_layers_and_heads_learn_and_go_on(
    head: str, on_gpu: Encoder, behaviour: Behaviour, valid: Behaviour, tmp_path: Path
) -> None:
    options = FineTuning(
        body="lora", head=head, batch_size=32, mini_batch=8, steps=12, looks=4, learning_rate=5e-3
    )

    def cut(done: int, _: int) -> None:
        if done == 6:
            raise CutOffError

    with pytest.raises(CutOffError):
        fine_tune_encoder(
            on_gpu,
            behaviour,
            tmp_path / "a",
            valid=valid,
            options=options,
            checkpoint=tmp_path / "c",
            progress=cut,
        )
    adapter = fine_tune_encoder(
        on_gpu, behaviour, tmp_path / "a", valid=valid, options=options, checkpoint=tmp_path / "c"
    )
    assert adapter.metrics["valid_recall"] >= adapter.metrics["valid_recall_before"]
    assert adapter.metrics["loss_at_last"] < adapter.metrics["loss_at_first"]
    here = Encoder(on_gpu.model, adapter=adapter.folder, device="cpu").encode(behaviour.texts)
    there = Encoder(on_gpu.model, adapter=adapter.folder, device="cuda").encode(behaviour.texts)
    assert abs(here - there).max() < 1e-3


def test_guessing_words(on_gpu: Encoder, texts: dict[str, str], tmp_path: Path) -> None:
    options = Pretraining(steps=20, batch_size=8, learning_rate=5e-3)
    adapter = pretrain_encoder(on_gpu, list(texts.values()), tmp_path, options=options)
    assert adapter.metrics["loss_at_last"] < adapter.metrics["loss_at_first"]


def test_a_cross_encoder(on_gpu: Encoder, behaviour: Behaviour, tmp_path: Path) -> None:
    options = TextRanking(steps=6, history=2)
    ranker = TextRanker.fit(on_gpu, behaviour, options=options)
    ranker.save(tmp_path)
    history, candidates = behaviour.texts[:2], behaviour.texts[:5]
    served = TextRanker.load(tmp_path, device="cpu").score(history, candidates)
    assert abs(served - ranker.score(history, candidates)).max() < 1e-3
