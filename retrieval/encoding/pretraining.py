"""Lets an encoder read the catalogue's own texts: masked words are guessed from what stands around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from explorank.retrieval._torch import seeded
from explorank.retrieval.encoding._loop import Schedule, train
from explorank.retrieval.encoding.adapter import (
    Adapter,
    LoraSpec,
    body_of,
    inject_lora,
    lora_weights,
    save_adapter,
)
from explorank.retrieval.encoding.options import Pretraining, Progress
from explorank.retrieval.errors import InvalidTable

if TYPE_CHECKING:
    from explorank.retrieval.encoder import Encoder

_IGNORED: Final = -100


def pretrain_encoder(
    encoder: Encoder,
    texts: Sequence[str],
    folder: str | Path,
    *,
    options: Pretraining | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Adapter:
    """Train an adapter for `encoder` as a masked language model of `texts`, write it to `folder` and return it.

    Domain-adaptive pretraining (Gururangan et al., 2020) with BERT's masking (Devlin et al., 2019). The layer that
    guesses words from the body's hidden states begins untrained and is thrown away; its last step reuses the model's
    word embeddings. What stays are low-rank changes to the body, from which `fine_tune_encoder` goes on:
    `Encoder(model, adapter=folder)`. On its own the adapter seldom makes better vectors, because pooling was trained
    for the untouched body.

    Raises `InvalidTable` where there is no text with a word to guess, `InvalidOption` for another run's checkpoint.
    """
    options = options or Pretraining()
    distinct = sorted({text for text in texts if text.strip()})
    if not distinct:
        raise InvalidTable("No item has a text, so there is nothing to read. Pass the items' texts.")
    began = time.monotonic()
    spec = LoraSpec(
        rank=options.rank, alpha=options.alpha, target_modules=options.target_modules, dropout=options.dropout
    )
    with seeded(seed):
        model = encoder.load_base()
        body: Any = body_of(model)
        inject_lora(body, spec)
        for name, parameter in body.named_parameters():
            parameter.requires_grad_("lora_" in name)
        head = _WordHead(body).to(model.device)
        parameters = {
            f"{part}.{name}": parameter
            for part, module in (("body", body), ("head", head))
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        body.train()
        trained = train(
            parameters,
            _step(body, head, model.tokenizer, distinct, options, seed),
            Schedule(
                steps=options.steps,
                learning_rate=options.learning_rate,
                weight_decay=options.weight_decay,
                looks=options.looks,
            ),
            checkpoint=checkpoint,
            run={
                "base": encoder.base_fingerprint,
                "texts": distinct,
                "options": asdict(options),
                "seed": seed,
            },
            progress=progress,
        )
        return save_adapter(
            folder,
            base_name=encoder.model,
            base_fingerprint=encoder.base_fingerprint,
            lora=(spec, lora_weights(body)),
            options={**asdict(options), "seed": seed},
            metrics={
                "texts": float(len(distinct)),
                **trained.ends,
                "seconds": round(time.monotonic() - began, 1),
            },
        )


class _WordHead(nn.Module):
    """From hidden states to words: a dense layer, and the word embeddings of the body, which stay as they are."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        words: Tensor = body.get_input_embeddings().weight
        self.dense = nn.Linear(body.config.hidden_size, words.shape[1])
        self.norm = nn.LayerNorm(words.shape[1])
        self.bias = nn.Parameter(torch.zeros(words.shape[0]))
        self.register_buffer("words", words.detach(), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (m, words) for hidden states (m, d)."""
        logits: Tensor = self.norm(gelu(self.dense(hidden))) @ self.get_buffer("words").T + self.bias
        return logits


def _step(
    body: Any, head: _WordHead, tokenizer: Any, texts: Sequence[str], options: Pretraining, seed: int
) -> Callable[[int], float]:
    size = min(options.batch_size, len(texts))
    per_epoch = len(texts) // size

    def backward(step: int) -> float:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(texts))
        chosen = [texts[row] for row in order[place * size : (place + 1) * size]]
        features = tokenizer(
            chosen, padding=True, truncation=True, max_length=options.max_tokens, return_tensors="pt"
        )
        torch.manual_seed(seed * 1_000_003 + step)
        read, wanted = mask_tokens(
            features["input_ids"], features["attention_mask"], tokenizer, options.masked
        )
        hidden = body(
            input_ids=read.to(body.device), attention_mask=features["attention_mask"].to(body.device)
        ).last_hidden_state
        guessed = wanted != _IGNORED
        if not guessed.any():
            return 0.0
        loss = cross_entropy(head(hidden[guessed]), wanted[guessed].to(body.device))
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return backward


def mask_tokens(ids: Tensor, attention: Tensor, tokenizer: Any, share: float) -> tuple[Tensor, Tensor]:
    """Return what is read (b, t), and what is to be guessed (b, t), -100 where nothing is.

    Of the tokens to be guessed 80 % are masked, 10 % replaced by any, and 10 % left; special ones never. Draws from
    torch's own generator.
    """
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids)) | (attention == 0)
    chosen = (torch.rand(ids.shape) < share) & ~special
    kind = torch.rand(ids.shape)
    anything = torch.randint(len(tokenizer), ids.shape)
    read = torch.where(chosen & (kind < 0.8), torch.tensor(tokenizer.mask_token_id), ids)
    read = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), anything, read)
    return read, torch.where(chosen, ids, torch.tensor(_IGNORED))
