"""Teaches an encoder from pairs of what users had liked and what they liked next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explorank.retrieval._torch import seeded
from explorank.retrieval._vectors import unit_rows
from explorank.retrieval.encoding._loop import Schedule, Trained, train
from explorank.retrieval.encoding.adapter import (
    Adapter,
    HeadSpec,
    LoraSpec,
    body_of,
    inject_lora,
    lora_weights,
    save_adapter,
)
from explorank.retrieval.encoding.batches import Batches, HardNegatives
from explorank.retrieval.encoding.behaviour import Behaviour, judged_at, recall_at
from explorank.retrieval.encoding.distillation import LessonBatches, Lessons
from explorank.retrieval.encoding.gradient_cache import cached_backward
from explorank.retrieval.encoding.heads import make_head
from explorank.retrieval.encoding.losses import contrastive_loss, margin_loss
from explorank.retrieval.encoding.options import FineTuning, Progress
from explorank.retrieval.errors import InvalidOption, InvalidTable

if TYPE_CHECKING:
    from explorank.retrieval.encoder import Encoder


def fine_tune_encoder(
    encoder: Encoder,
    behaviour: Behaviour,
    folder: str | Path,
    *,
    valid: Behaviour | None = None,
    lessons: Lessons | None = None,
    options: FineTuning | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Adapter:
    """Train an adapter for `encoder` on `behaviour`, write it to `folder` and return it.

    The same data, options and seed give the same adapter on the same machine with the same number of threads. `valid`
    are later pairs over the same items; the adapter is as it was when most of them were among the 100 nearest items (of
    a small catalogue, among its nearest tenth), which may be the beginning. An encoder that has an adapter already, a
    pretrained one say, goes on from it; only its head is trained anew. `lessons` are what a cross-encoder says of some
    of the pairs, to be learnt beside them. With `checkpoint`, a folder, a run that was cut
    off goes on where it was last saved.

    Raises `InvalidOption` for options that do not fit the model or one another, `InvalidTable` where `valid` is over
    other items or `lessons` on other pairs, and `CorruptArtefact` for a checkpoint that is damaged.
    """
    options = options or FineTuning()
    if valid is not None and valid.item_ids != behaviour.item_ids:
        raise InvalidTable(
            "The validation pairs are over other items than the training pairs, so their rows would mean other items. "
            "Make both from the same `texts`."
        )
    if lessons is not None:
        lessons.check(behaviour)
    began = time.monotonic()
    vectors = encoder.encode_layers(behaviour.texts)
    if any(size > vectors.shape[1] for size in options.dims):
        raise InvalidOption(
            f"dims={options.dims} asks for more dimensions than the {vectors.shape[1]} of {encoder.model!r}."
        )
    hard = None
    if options.hard_negatives:
        hard = HardNegatives(vectors, behaviour, decay=options.decay, after=options.hard_after)
    batches = Batches(
        behaviour, options.batch_size, seed=seed, hard=hard, hard_negatives=options.hard_negatives
    )
    taught = None if lessons is None else LessonBatches(lessons, behaviour, options.lessons, seed=seed)
    with seeded(seed):
        head = (
            None
            if options.head == "none"
            else make_head(options.head, vectors.shape[1], hidden=options.hidden)
        )
        body = None if options.body == "frozen" else _Body(encoder, behaviour.texts, options)
        if head is not None and body is not None:
            head.to(body.model.device)
        parameters = _parameters(body, head)
        trained = train(
            parameters,
            _step(batches, vectors, body, head, options, seed, taught),
            _schedule(options),
            judge=None if valid is None else _judge(valid, vectors, body, head, options.decay),
            checkpoint=checkpoint,
            run={
                "base": encoder.layers_fingerprint,
                "data": behaviour.digest,
                "valid": None if valid is None else valid.digest,
                "options": asdict(options),
                "seed": seed,
                "lessons": None if lessons is None else lessons.digest,
            },
            progress=progress,
        )
        facts = {"seconds": round(time.monotonic() - began, 1)}
        if lessons is not None:
            facts["lessons"] = float(len(lessons))
        return _saved(folder, encoder, behaviour, options, seed, trained, body, head, facts)


def train_head(
    head: nn.Module,
    vectors: NDArray[np.float32],
    behaviour: Behaviour,
    *,
    valid: Behaviour | None = None,
    options: FineTuning | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], Trained]:
    """Train `head` in place over given vectors (n, d) of the items; return what it maps them to, as unit rows.

    The vectors may hold more than text: see `explorank.retrieval.encoding.fusion`. The options that speak of the model
    itself are passed over.
    """
    options = options or FineTuning()
    inputs = np.ascontiguousarray(vectors, np.float32)
    batches = Batches(behaviour, options.batch_size, seed=seed)
    with seeded(seed):
        trained = train(
            _parameters(None, head),
            _step(batches, inputs, None, head, options, seed),
            _schedule(options),
            judge=None if valid is None else _judge(valid, inputs, None, head, options.decay),
            progress=progress,
        )
    return unit_rows(_mapped(head, inputs), behaviour.item_ids), trained


def _schedule(options: FineTuning) -> Schedule:
    return Schedule(
        steps=options.steps,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup=options.warmup,
        looks=options.looks,
    )


class _Body:
    """A transformer whose layers take low-rank changes, and the texts that it reads."""

    def __init__(self, encoder: Encoder, texts: Sequence[str], options: FineTuning) -> None:
        self.model = encoder.load_base()
        self.start = encoder.adapter
        if self.start is not None and self.start.lora is not None:
            self.spec = self.start.lora
            self.start.attach(body_of(self.model))
        else:
            self.spec = LoraSpec(
                rank=options.rank,
                alpha=options.alpha,
                target_modules=options.target_modules,
                dropout=options.dropout,
            )
            inject_lora(body_of(self.model), self.spec)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        self.model.max_seq_length = min(options.max_tokens, self.model.max_seq_length or options.max_tokens)
        self._tokenise = getattr(self.model, "preprocess", None) or self.model.tokenize
        self._texts = texts
        self._mini_batch = options.mini_batch

    def embed(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the vectors (m, d) of some texts, with gradients where they are on."""
        features = self._tokenise([self._texts[row] for row in rows.tolist()])
        on_device = {
            name: value.to(self.model.device) if isinstance(value, Tensor) else value
            for name, value in features.items()
        }
        vectors: Tensor = self.model(on_device)["sentence_embedding"]
        return vectors

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors (n, d) of all texts as they would be served now."""
        was_training = self.model.training
        self.model.eval()
        order = np.argsort([len(text) for text in self._texts], kind="stable")
        size = 2 * self._mini_batch
        with torch.inference_mode():
            found = [
                self.embed(order[start : start + size]).cpu().numpy() for start in range(0, len(order), size)
            ]
        self.model.train(was_training)
        vectors = np.empty((len(order), found[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(found)
        return vectors


def _parameters(body: _Body | None, head: nn.Module | None) -> dict[str, nn.Parameter]:
    parts: dict[str, nn.Module | None] = {"body": None if body is None else body.model, "head": head}
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        if module is not None
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _step(
    batches: Batches,
    vectors: NDArray[np.float32],
    body: _Body | None,
    head: nn.Module | None,
    options: FineTuning,
    seed: int,
    taught: LessonBatches | None = None,
) -> Callable[[int], float]:
    """Return what adds the gradients of a step to the parameters, and returns its loss."""
    if body is not None:
        body.model.train()
    known = torch.from_numpy(vectors)

    def backward(step: int) -> float:
        batch = batches[step]
        lesson = None if taught is None else taught[step]
        read = batch.items if lesson is None else np.concatenate([batch.items, lesson.items])

        def loss_of(found: Tensor) -> Tensor:
            mapped = found if head is None else head(_noisy(found, options.noise, seed, step))
            loss = contrastive_loss(
                mapped[: len(batch.items)],
                batch,
                scale=options.scale,
                decay=options.decay,
                dims=options.dims,
                popularity_correction=options.popularity_correction,
            )
            if lesson is None:
                return loss
            learnt = margin_loss(mapped[len(batch.items) :], lesson, scale=options.scale, decay=options.decay)
            return loss + options.distillation * learnt

        if body is None:
            loss = loss_of(known[torch.from_numpy(read)])
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())
        return cached_backward(
            lambda places: body.embed(read[places.start : places.stop]),
            len(read),
            loss_of,
            at_once=options.mini_batch,
            seed=seed * 1_000_003 + step,
        )

    return backward


def _noisy(vectors: Tensor, noise: float, seed: int, step: int) -> Tensor:
    """Return the vectors (u, d) with random ones of about that length added."""
    if not noise:
        return vectors
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    length = noise / float(vectors.shape[1]) ** 0.5
    noisy: Tensor = vectors + length * torch.randn(vectors.shape, generator=generator).to(vectors.device)
    return noisy


def _judge(
    valid: Behaviour, vectors: NDArray[np.float32], body: _Body | None, head: nn.Module | None, decay: float
) -> Callable[[], float]:
    def judge() -> float:
        found = vectors if body is None else body.vectors()
        if head is not None:
            found = _mapped(head, found)
        return recall_at(unit_rows(found, valid.item_ids), valid, decay=decay, k=judged_at(len(found)))

    return judge


def _mapped(head: nn.Module, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors (n, d) as the head maps them, wherever it lies."""
    device = next(head.parameters()).device
    with torch.inference_mode():
        mapped: NDArray[np.float32] = head(torch.from_numpy(vectors).to(device)).cpu().numpy()
    return mapped


def _saved(
    folder: str | Path,
    encoder: Encoder,
    behaviour: Behaviour,
    options: FineTuning,
    seed: int,
    trained: Trained,
    body: _Body | None,
    head: nn.Module | None,
    facts: Mapping[str, float],
) -> Adapter:
    start = encoder.adapter
    lora: tuple[LoraSpec, Mapping[str, Tensor]] | None = None
    if body is not None:
        lora = body.spec, lora_weights(body_of(body.model))
    elif start is not None and start.lora is not None:
        lora = start.lora, start.lora_weights()
    spec = None
    if head is not None:
        dim = next(iter(head.parameters())).shape[-1]
        spec = HeadSpec(kind=options.head, dim=dim, hidden=options.hidden if options.head == "mlp" else 0)
    metrics: dict[str, Any] = {
        "pairs": float(len(behaviour)),
        **trained.ends,
        **facts,
    }
    if trained.best is not None:
        metrics |= {
            "valid_recall_before": trained.judged[0],
            "valid_recall": trained.judged[trained.best],
            "valid_recall_at": float(judged_at(len(behaviour.item_ids))),
            "best_step": float(trained.best),
        }
    return save_adapter(
        folder,
        base_name=encoder.model,
        base_fingerprint=encoder.base_fingerprint,
        lora=lora,
        head=None if head is None or spec is None else (spec, head.state_dict()),
        dims=options.dims,
        options={**asdict(options), "seed": seed},
        window=behaviour.window,
        metrics=metrics,
        lineage=() if start is None else (*start.lineage, start.version),
    )
