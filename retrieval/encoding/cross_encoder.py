"""Training of a cross-encoder: an encoder's layers, and one logit over two texts that are read together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from explorank.retrieval._torch import seeded
from explorank.retrieval.encoding._loop import Schedule, train
from explorank.retrieval.encoding.options import Progress, TextRanking

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from explorank.retrieval.encoder import Encoder


def train_cross_encoder(
    encoder: Encoder,
    losses: Callable[[CrossEncoder], Callable[[int], Tensor]],
    *,
    options: TextRanking,
    run: Mapping[str, Any],
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> tuple[CrossEncoder, dict[str, float]]:
    """Return a cross-encoder that began as `encoder`'s model, in evaluation mode, and numbers of its training.

    `losses` takes the untrained model and returns what gives the loss of each step, from 0. `run` says what is learnt
    from: the checkpoint of a run on something else is refused. The encoder's adapter is passed over. Raises
    `EncoderUnavailable` where the model is missing, `InvalidOption` for another run's checkpoint, and
    `CorruptArtefact` for one that is damaged.
    """
    with seeded(seed):
        model = encoder.load_cross_encoder(options.max_tokens)
        model.model.train()
        loss_of = losses(model)

        def backward(step: int) -> float:
            torch.manual_seed(seed * 1_000_003 + step)
            loss = loss_of(step)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        trained = train(
            dict(model.model.named_parameters()),
            backward,
            Schedule(
                steps=options.steps,
                learning_rate=options.learning_rate,
                weight_decay=options.weight_decay,
                looks=options.looks,
            ),
            checkpoint=checkpoint,
            run={"base": encoder.base_fingerprint, "options": asdict(options), "seed": seed, **run},
            progress=progress,
        )
        model.model.eval()
    return model, trained.ends
