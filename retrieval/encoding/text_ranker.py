"""A cross-encoder: reads a user's history and a candidate together, and foresees whether it will be liked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from explorank.retrieval._files import read_manifest, write_manifest
from explorank.retrieval.encoding.behaviour import NO_ITEM, Behaviour
from explorank.retrieval.encoding.cross_encoder import train_cross_encoder
from explorank.retrieval.encoding.options import Progress, TextRanking

if TYPE_CHECKING:
    from explorank.retrieval.encoder import Encoder

_FORMAT: Final = "explorank.text-ranker/1"
_MANIFEST: Final = "text_ranker.json"
_MODEL: Final = "model"


class TextRanker:
    """Probabilities from texts alone, for pools of some dozen candidates: each is read anew with every history.

    It sees what two vectors cannot: which words of the one meet which of the other. It costs a pass of the model for
    each candidate, some 10 ms on a CPU, so it stands after retrieval and beside no tight budget. Its probabilities are
    those of a pool with `negatives` other items to each liked one; calibrate them before they are read as rates.
    """

    def __init__(self, model: Any, options: TextRanking, metrics: Mapping[str, float]) -> None:
        """Take a sentence-transformers `CrossEncoder`; use `fit` or `load`."""
        self.options: Final = options
        self.metrics: Final = dict(metrics)
        """Numbers of the training."""
        self._model = model

    @classmethod
    def fit(
        cls,
        encoder: Encoder,
        behaviour: Behaviour,
        *,
        options: TextRanking | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Return a cross-encoder that begins as `encoder`'s model, trained on `behaviour` by cross-entropy.

        The encoder's adapter is passed over. Raises `EncoderUnavailable` where the model is missing, and
        `InvalidOption` for another run's checkpoint.
        """
        options = options or TextRanking()
        model, metrics = train_cross_encoder(
            encoder,
            lambda untrained: cls(untrained, options, {})._losses(behaviour, seed),
            options=options,
            run={"data": behaviour.digest},
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
        )
        return cls(model, options, metrics)

    def score(self, history: Sequence[str], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return the probability that each candidate is liked, (n,), for texts of a history, oldest first."""
        with np.errstate(over="ignore"):  # infinity for a probability that rounds to 0 is right
            probabilities: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-self.log_odds(history, candidates)))
        return probabilities

    def log_odds(self, history: Sequence[str], candidates: Sequence[str]) -> NDArray[np.float64]:
        """Return the log-odds of what `score` returns, (n,)."""
        read = history_text(history[-self.options.history :])
        found = np.empty(len(candidates))
        with torch.inference_mode():
            for start in range(0, len(candidates), 64):
                part = candidates[start : start + 64]
                found[start : start + len(part)] = (
                    self._logits([read] * len(part), part).double().cpu().numpy()
                )
        return found

    def save(self, folder: str | Path) -> None:
        """Write the model as safetensors, and a manifest with the SHA-256 of each file, into `folder`."""
        folder = Path(folder)
        self._model.save_pretrained(str(folder / _MODEL), create_model_card=False)
        files = sorted(
            path.relative_to(folder).as_posix() for path in (folder / _MODEL).rglob("*") if path.is_file()
        )
        facts = {"format": _FORMAT, "options": asdict(self.options), "metrics": self.metrics}
        write_manifest(folder / _MANIFEST, facts, files)

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Self:
        """Return what `save` wrote; raise `CorruptArtefact`, naming the file, where one is damaged or missing."""
        from sentence_transformers import CrossEncoder  # noqa: PLC0415 - seconds to import

        facts = read_manifest(Path(folder) / _MANIFEST, _FORMAT)
        options = TextRanking(**facts["options"])
        model = CrossEncoder(
            str(Path(folder) / _MODEL), max_length=options.max_tokens, device=device, local_files_only=True
        )
        model.model.eval()
        return cls(model, options, facts["metrics"])

    def _losses(self, behaviour: Behaviour, seed: int) -> Callable[[int], Tensor]:
        size = min(self.options.batch_size, len(behaviour))
        per_epoch = len(behaviour) // size
        # What nobody at all liked may never have been offered; pushed away by every step it would teach that new items
        # are bad ones.
        liked_by_somebody = np.bincount(behaviour.liked.indices, minlength=len(behaviour.item_ids)) > 0

        def loss(step: int) -> Tensor:
            epoch, place = divmod(step, per_epoch)
            order = np.random.default_rng([seed, epoch]).permutation(len(behaviour))
            pairs = order[place * size : (place + 1) * size]
            rows, items, labels = draw_negatives(
                behaviour,
                pairs,
                self.options.negatives,
                np.random.default_rng([seed, step, 1]),
                liked_by_somebody,
            )
            reads = [self._history(behaviour, pair) for pair in rows]
            logits = self._logits(reads, [behaviour.texts[item] for item in items])
            wanted = torch.from_numpy(labels).to(logits.device)
            return binary_cross_entropy_with_logits(logits, wanted)

        return loss

    def _history(self, behaviour: Behaviour, pair: int) -> str:
        rows = behaviour.histories[pair]
        known = rows[rows != NO_ITEM][-self.options.history :]
        return history_text([behaviour.texts[row] for row in known])

    def _logits(self, histories: Sequence[str], candidates: Sequence[str]) -> Tensor:
        features = self._model.tokenizer(
            list(histories),
            list(candidates),
            padding=True,
            truncation="only_first",
            max_length=self.options.max_tokens,
            return_tensors="pt",
        )
        on_device = {name: value.to(self._model.model.device) for name, value in features.items()}
        logits: Tensor = self._model.model(**on_device).logits[:, 0]
        return logits


def history_text(texts: Sequence[str]) -> str:
    """Return the texts of a history, oldest first, as what the model reads: the newest first, which is cut last."""
    return " | ".join(reversed(texts))


def draw_negatives(
    behaviour: Behaviour,
    pairs: NDArray[np.int64],
    count: int,
    generator: np.random.Generator,
    among: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return pairs (m,), items (m,) and labels (m,): each pair with its liked item and with at most `count` others.

    Others are drawn evenly from the items `among` (n,) all that the user does not like; there are fewer where the user
    likes most.
    """
    liked = behaviour.liked[behaviour.users[pairs]].toarray()
    rows, items, labels = [pairs], [behaviour.positives[pairs]], [np.ones(len(pairs), np.float32)]
    for pair, unlike in zip(pairs, ~liked & among, strict=True):
        free = np.flatnonzero(unlike)
        drawn = generator.choice(free, min(count, len(free)), replace=False)
        rows.append(np.full(len(drawn), pair))
        items.append(drawn)
        labels.append(np.zeros(len(drawn), np.float32))
    return np.concatenate(rows), np.concatenate(items), np.concatenate(labels)
