"""Teaches an encoder from pairs of what users had liked and what they liked next."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explorank.retrieval._torch import as_array, seeded
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
from explorank.retrieval.encoding.fusion import side_by_side
from explorank.retrieval.encoding.gradient_cache import cached_backward
from explorank.retrieval.encoding.heads import make_head
from explorank.retrieval.encoding.losses import contrastive_loss, margin_loss
from explorank.retrieval.encoding.options import FineTuning, Progress
from explorank.retrieval.errors import InvalidOption, InvalidTable

if TYPE_CHECKING:
    from explorank.retrieval.encoder import Encoder

Noise: TypeAlias = Callable[[Tensor], Tensor]
"""Adds something to what a head reads."""


def fine_tune_encoder(
    encoder: Encoder,
    behaviour: Behaviour,
    folder: str | Path,
    *,
    valid: Behaviour | None = None,
    lessons: Lessons | None = None,
    others: Mapping[str, NDArray[np.float32]] | None = None,
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
    of the pairs, to be learnt beside them. `others` (n, d_i), by name, are what `head="gated"` joins with the texts of
    the n items, zeros or NaN where nothing is known; the adapter remembers names and lengths, and encoding asks for
    the same again. With `checkpoint`, a folder, a run that was cut off goes on where it was last saved.

    Raises `InvalidOption` for options that do not fit the model or one another, `InvalidTable` where `valid` is over
    other items or `lessons` on other pairs, `InvalidVectors` for `others` of other items, and `CorruptArtefact` for a
    checkpoint that is damaged.
    """
    options = options or FineTuning()
    if (options.head == "gated") != bool(others):
        raise InvalidOption(
            f"head={options.head!r} with {sorted(others or {}) or 'nothing'} beside the texts: a gate needs vectors to "
            "join, and no other head reads any. Set head='gated' and pass `others`, or neither."
        )
    if valid is not None and valid.item_ids != behaviour.item_ids:
        raise InvalidTable(
            "The validation pairs are over other items than the training pairs, so their rows would mean other items. "
            "Make both from the same `texts`."
        )
    if lessons is not None:
        lessons.check(behaviour)
    began = time.monotonic()
    beside = None if not others else side_by_side(others, len(behaviour.item_ids))
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
            else make_head(
                options.head,
                vectors.shape[1],
                hidden=options.hidden,
                other_dim=0 if beside is None else beside.shape[1],
            )
        )
        body = None if options.body == "frozen" else _Body(encoder, behaviour.texts, options)
        if head is not None and body is not None:
            head.to(body.model.device)
        mapping = _Mapping(head, beside)
        trained = train(
            _parameters(body, head),
            _step(batches, vectors, body, mapping, options, seed, taught),
            _schedule(options),
            judge=None if valid is None else _judge(valid, vectors, body, mapping, options.decay),
            checkpoint=checkpoint,
            run={
                "base": encoder.layers_fingerprint,
                "data": behaviour.digest,
                "valid": None if valid is None else valid.digest,
                "options": asdict(options),
                "seed": seed,
                "lessons": None if lessons is None else lessons.digest,
                "others": None if beside is None else _digest(beside),
            },
            progress=progress,
        )
        facts = {"seconds": round(time.monotonic() - began, 1)}
        if lessons is not None:
            facts["lessons"] = float(len(lessons))
        if valid is not None and beside is not None:
            # A gate begins near the texts; what they say by themselves is what it is compared with.
            untouched = unit_rows(vectors, behaviour.item_ids)
            facts["valid_recall_before"] = recall_at(
                untouched, valid, decay=options.decay, k=judged_at(len(untouched))
            )
        modalities = tuple((name, others[name].shape[1]) for name in sorted(others)) if others else ()
        saved = _Facts(encoder, behaviour, valid, options, seed, modalities, facts)
        return _saved(folder, saved, trained, body, head)


def train_gate(
    head: nn.Module,
    text: NDArray[np.float32],
    beside: NDArray[np.float32],
    behaviour: Behaviour,
    *,
    valid: Behaviour | None = None,
    options: FineTuning | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Train a gate in place over given vectors of the items: `text` (n, d), and `beside` (n, e) as it reads them.

    The options that speak of a model's layers are passed over. The rest is as `fine_tune_encoder` has it.
    """
    options = options or FineTuning()
    batches = Batches(behaviour, options.batch_size, seed=seed)
    mapping = _Mapping(head, beside)
    with seeded(seed):
        return train(
            _parameters(None, head),
            _step(batches, text, None, mapping, options, seed),
            _schedule(options),
            judge=None if valid is None else _judge(valid, text, None, mapping, options.decay),
            checkpoint=checkpoint,
            run={
                "data": behaviour.digest,
                "valid": None if valid is None else valid.digest,
                "options": asdict(options),
                "seed": seed,
                "text": _digest(text),
                "others": _digest(beside),
            },
            progress=progress,
        )


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


class _Mapping:
    """What makes vectors of what the layers say of the items: a head, which may read more than that."""

    def __init__(self, head: nn.Module | None, beside: NDArray[np.float32] | None = None) -> None:
        self._head = head
        self._beside = None if beside is None else torch.from_numpy(beside)

    def of(self, text: Tensor, rows: NDArray[np.int64] | slice, noise: Noise | None = None) -> Tensor:
        """Return (m, d) of what the layers say of the items in `rows` (m,), with gradients where they are on."""
        if self._head is None:
            return text
        read = text
        if self._beside is not None:
            known = self._beside[rows if isinstance(rows, slice) else torch.from_numpy(rows)]
            read = torch.cat([text, known.to(text.device)], dim=1)
        mapped: Tensor = self._head(read if noise is None else noise(read))
        return mapped

    def of_all(self, text: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, d) of what the layers say of all items, wherever the head lies."""
        if self._head is None:
            return text
        device = next(self._head.parameters()).device
        with torch.inference_mode():
            return as_array(self.of(torch.from_numpy(text).to(device), slice(None)))


def _step(
    batches: Batches,
    vectors: NDArray[np.float32],
    body: _Body | None,
    mapping: _Mapping,
    options: FineTuning,
    seed: int,
    taught: LessonBatches | None = None,
) -> Callable[[int], float]:
    """Return what adds the gradients of a step to the parameters, and returns its loss."""
    if body is not None:
        body.model.train()
    known = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))

    def backward(step: int) -> float:
        batch = batches[step]
        lesson = None if taught is None else taught[step]
        read = batch.items if lesson is None else np.concatenate([batch.items, lesson.items])

        def loss_of(found: Tensor) -> Tensor:
            mapped = mapping.of(found, read, partial(_noisy, noise=options.noise, seed=seed, step=step))
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


def _noisy(vectors: Tensor, *, noise: float, seed: int, step: int) -> Tensor:
    """Return the vectors (u, d) with random ones of about that length added."""
    if not noise:
        return vectors
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    length = noise / float(vectors.shape[1]) ** 0.5
    noisy: Tensor = vectors + length * torch.randn(vectors.shape, generator=generator).to(vectors.device)
    return noisy


def _judge(
    valid: Behaviour, vectors: NDArray[np.float32], body: _Body | None, mapping: _Mapping, decay: float
) -> Callable[[], float]:
    def judge() -> float:
        found = mapping.of_all(vectors if body is None else body.vectors())
        return recall_at(unit_rows(found, valid.item_ids), valid, decay=decay, k=judged_at(len(found)))

    return judge


def _digest(vectors: NDArray[np.float32]) -> str:
    return hashlib.sha256(f"{vectors.shape}\0".encode() + vectors.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Facts:
    """What an adapter says of its training."""

    encoder: Encoder
    behaviour: Behaviour
    valid: Behaviour | None
    options: FineTuning
    seed: int
    modalities: tuple[tuple[str, int], ...]
    metrics: Mapping[str, float]


def _saved(
    folder: str | Path, facts: _Facts, trained: Trained, body: _Body | None, head: nn.Module | None
) -> Adapter:
    start, behaviour, valid, options = facts.encoder.adapter, facts.behaviour, facts.valid, facts.options
    lora: tuple[LoraSpec, Mapping[str, Tensor]] | None = None
    if body is not None:
        lora = body.spec, lora_weights(body_of(body.model))
    elif start is not None and start.lora is not None:
        lora = start.lora, start.lora_weights()
    spec = None
    if head is not None and options.head != "none":
        dim = next(iter(head.parameters())).shape[-1]
        hidden = options.hidden if options.head == "mlp" else 0
        spec = HeadSpec(kind=options.head, dim=dim, hidden=hidden, modalities=facts.modalities)
    metrics: dict[str, Any] = {"pairs": float(len(behaviour)), **trained.ends}
    if trained.best is not None:
        metrics |= {
            "valid_recall_before": trained.judged[0],
            "valid_recall": trained.judged[trained.best],
            "valid_recall_at": float(judged_at(len(behaviour.item_ids))),
            "best_step": float(trained.best),
        }
    return save_adapter(
        folder,
        base_name=facts.encoder.model,
        base_fingerprint=facts.encoder.base_fingerprint,
        lora=lora,
        head=None if head is None or spec is None else (spec, head.state_dict()),
        dims=options.dims,
        options={**asdict(options), "seed": facts.seed},
        window=behaviour.window,
        validation_window=None if valid is None else valid.window,
        metrics=metrics | dict(facts.metrics),
        lineage=() if start is None else (*start.lineage, start.version),
    )
