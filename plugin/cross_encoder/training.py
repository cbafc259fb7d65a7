"""From rows of past requests and texts to a trained cross-encoder, and to the graph that serves it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from explorank.cross_encoder.artefact import Artefact, pack_texts
from explorank.cross_encoder.options import CrossEncoderOptions
from explorank.cross_encoder.ranker import columns_of, newest_first
from explorank.cross_encoder.texts import KnownTexts
from explorank.rankers import (
    CorruptRanker,
    InvalidTraining,
    Progress,
    RankerManifest,
    RankingData,
    feature_hash,
    features_for,
    run_identity,
    score_data,
)
from explorank.rankers.neural.checks import check_target
from explorank.rankers.neural.export import Precision, choose_precision, to_onnx
from explorank.rankers.neural.items import check_free
from explorank.rankers.neural.metrics import ndcg
from explorank.rankers.neural.networks import ExportableNetwork, Interface
from explorank.retrieval import CorruptArtefact, Encoder, InvalidOption
from explorank.retrieval.encoding import PairTokenizer, train_cross_encoder

if TYPE_CHECKING:
    from explorank.cross_encoder.ranker import CrossEncoderRanker

_FEWEST_ROWS: Final = 40
_CALIBRATION_REQUESTS: Final = 32
"""Those that int8 takes the range of activations from."""
_JUDGED_REQUESTS: Final = 100
"""Those that int8 is judged on: a row costs a pass of the model."""


class PairNetwork(ExportableNetwork):
    """A transformer that says how probable it is that the second text is liked by whom the first one is about."""

    def __init__(self, model: Any, max_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.max_tokens = max_tokens
        self.tells_kinds = "token_type_ids" in inspect.signature(model.forward).parameters

    def forward(self, tokens: Tensor, present: Tensor, kinds: Tensor) -> Tensor:
        """Return log-odds (n,) for tokens, what is there and which text it is of, (n, length) int64 each."""
        told = {"token_type_ids": kinds} if self.tells_kinds else {}
        log_odds: Tensor = self.model(input_ids=tokens, attention_mask=present, **told).logits[:, 0]
        return log_odds

    def interface(self) -> Interface:
        """Describe `forward`."""
        axes = {0: "rows", 1: "length"}
        present = torch.ones(2, 3, dtype=torch.int64)
        present[0, 2] = 0
        return Interface(
            # A tensor of its own for each: the exporter would take one that comes twice for one input.
            inputs={
                "tokens": torch.zeros_like(present),
                "present": present,
                "kinds": torch.zeros_like(present),
            },
            axes={"tokens": axes, "present": axes, "kinds": axes},
            longest={"length": self.max_tokens},
            outputs=["log_odds"],
        )


def train_artefact(
    data: RankingData,
    valid: RankingData | None,
    name: str,
    options: CrossEncoderOptions,
    *,
    seed: int,
    progress: Progress | None,
    checkpoint: Path | None,
) -> Artefact:
    """Return a cross-encoder trained on `data`; `CrossEncoderRanker.fit` says what it raises."""
    columns = columns_of(options.history)
    _check(data, columns)
    if valid is not None:
        data.check_same_features(valid)
        check_target(valid, "binary")
    encoder = Encoder(options.model, device=options.device)
    lessons = _Lessons(data, options, seed)
    try:
        _, metrics = train_cross_encoder(
            encoder,
            lessons.begin,
            options=options,
            run={"data": run_identity(data)},
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
        )
    except InvalidOption as error:
        raise InvalidTraining(str(error)) from error
    except CorruptArtefact as error:
        raise CorruptRanker(str(error)) from error
    liked = int((data.labels == 1).sum())
    manifest = RankerManifest(
        name=name,
        version="",
        objective="binary",
        feature_names=columns,
        feature_hash=feature_hash(columns),
        model_sha256="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        feature_mean=(0.0,) * len(columns),
        feature_std=(1.0,) * len(columns),
        training_window=data.window,
        metrics={
            "rows": float(len(data)),
            "liked": float(liked),
            "texts": float(len(lessons.texts.table)),
            "weights": float(sum(parameter.numel() for parameter in lessons.network.parameters())),
            **metrics,
        },
        details={
            "options": asdict(options),
            "base": encoder.base_fingerprint,
            "padding": lessons.tokenizer.padding,
            # It learnt from `negatives` rows to each liked one, and serves rows as they come (King and Zeng 2001).
            "shift": float(np.log(liked / (len(data) - liked)) + np.log(options.negatives)),
            "precision": asdict(Precision(kind="float32", reason="int8 was not asked for")),
        },
    )
    return Artefact(
        manifest=manifest,
        model=to_onnx(lessons.network),
        tokenizer=lessons.tokenizer.definition.encode(),
        texts=pack_texts(lessons.texts),
    ).sealed()


def in_best_precision(
    ranker_class: type[CrossEncoderRanker],
    artefact: Artefact,
    data: RankingData,
    valid: RankingData | None,
    options: CrossEncoderOptions,
    seed: int,
) -> Artefact:
    """Return the artefact with an int8 graph where that is asked for and keeps its accuracy, with the reason."""
    if not options.quantize:
        return artefact
    random = np.random.default_rng(seed)
    some = data.take(random.permutation(data.requests)[:_CALIBRATION_REQUESTS])
    ranker = ranker_class(artefact)
    feeds = ranker.pairs(features_for(ranker, some))
    accuracy = None
    if valid is not None and valid.groups is not None:
        judged = valid.take(np.sort(random.permutation(valid.requests)[:_JUDGED_REQUESTS]))
        groups = judged.groups if judged.groups is not None else np.zeros(0, np.int64)

        def accuracy(model: bytes) -> float:
            scores = score_data(ranker_class(replace(artefact, model=model)), judged)
            return ndcg(scores, judged.labels, groups)

    model, precision = choose_precision(artefact.model, feeds, accuracy, options.quantize_tolerance)
    details = {**artefact.manifest.details, "precision": asdict(precision)}
    return replace(artefact, model=model, manifest=replace(artefact.manifest, details=details)).sealed()


class _Lessons:
    """What each step learns from: some rows that were taken up, each with some of its request that were not."""

    network: PairNetwork
    tokenizer: PairTokenizer
    texts: KnownTexts

    def __init__(self, data: RankingData, options: CrossEncoderOptions, seed: int) -> None:
        self._data = data
        self._options = options
        self._labels = data.labels.astype(np.float32)
        weights = np.ones(len(data)) if data.weights is None else data.weights / data.weights.mean()
        self._weights = weights.astype(np.float32)
        self._draws = RowDraws(
            data.labels == 1, data.request_of, options.batch_size, options.negatives, seed=seed
        )

    def begin(self, model: Any) -> Callable[[int], Tensor]:
        """Return the loss of each step for an untrained sentence-transformers `CrossEncoder`."""
        data, options = self._data, self._options
        _check_length(model, options)
        self.network = network = PairNetwork(model.model, options.max_tokens)
        self.tokenizer = PairTokenizer.of(model.tokenizer, options.max_tokens)
        self.texts = KnownTexts.of(_read(data), self.tokenizer)
        reader = self.tokenizer.reader(self.texts.table)
        candidates = self.texts.items.codes(_ids(data))
        histories = newest_first(self.texts, data.histories or (), options.history)
        request_of = data.request_of

        def loss(step: int) -> Tensor:
            rows = self._draws[step]
            pairs = reader.pairs(histories[request_of[rows]], candidates[rows])
            device = next(network.parameters()).device

            def on_device(array: NDArray[Any]) -> Tensor:
                return torch.from_numpy(array).to(device)

            log_odds = network(on_device(pairs.tokens), on_device(pairs.present), on_device(pairs.kinds))
            return binary_cross_entropy_with_logits(
                log_odds, on_device(self._labels[rows]), weight=on_device(self._weights[rows])
            )

        return loss


class RowDraws:
    """Draws the rows of each step; which ones follows from the seed and the step alone."""

    def __init__(
        self,
        liked: NDArray[np.bool_],
        request_of: NDArray[np.int64],
        batch_size: int,
        negatives: int,
        *,
        seed: int,
    ) -> None:
        """Take which rows (n,) were taken up, some of each kind, and whose they are, (n,) rising."""
        self._liked, self._others = np.flatnonzero(liked), np.flatnonzero(~liked)
        self._request_of = request_of
        self._counts = np.bincount(request_of[self._others], minlength=int(request_of[-1]) + 1)
        self._starts = np.cumsum(self._counts) - self._counts
        self._size = min(batch_size, len(self._liked))
        self._negatives = negatives
        self._seed = seed

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        """Return rows (b,) of a step: liked ones, each once an epoch, and `negatives` times as many that were not.

        Those come from the liked row's request, and from anywhere where that has none; one may come twice.
        """
        epoch, place = divmod(step, len(self._liked) // self._size)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._liked))
        liked = self._liked[order[place * self._size : (place + 1) * self._size]]
        request = self._request_of[liked]
        alone = self._counts[request] == 0
        starts = np.where(alone, 0, self._starts[request])
        counts = np.where(alone, len(self._others), self._counts[request])
        drawn = np.random.default_rng([self._seed, step, 1]).random((len(liked), self._negatives))
        places = starts[:, None] + (drawn * counts[:, None]).astype(np.int64)
        return np.concatenate([liked, self._others[places].ravel()])


def _check(data: RankingData, columns: tuple[str, ...]) -> None:
    """Raise `InvalidTraining` where no useful cross-encoder can be trained from the data."""
    check_free(data.feature_names, columns)
    check_target(data, "binary")
    if np.isnan(data.labels).any():
        raise InvalidTraining(
            f"{int(np.isnan(data.labels).sum())} rows of the {data.called} data have no label but what a teacher says "
            "of it, and a cross_encoder learns from labels alone. Leave them out, or train `dcn` or `sequence`."
        )
    if len(data) < _FEWEST_ROWS:
        raise InvalidTraining(
            f"{len(data)} training rows, and a transformer would learn them by heart. Gather at least {_FEWEST_ROWS}; "
            "thousands are better."
        )
    for part, what in ((data.item_ids, "item_ids"), (data.histories, "histories")):
        if part is None:
            raise InvalidTraining(
                f"The {data.called} data has no {what}, and a cross_encoder reads the texts of the candidate and of "
                "what the user liked before. Pass `item_ids`, one per row, and `histories`, one per request."
            )
    texts = _read(data)
    if len({texts.get(item, "") for item in _ids(data).tolist()}) < 2:
        raise InvalidTraining(
            f"The items of the {data.called} data have no texts in `item_texts`, or all the same one, so nothing tells "
            "them apart by reading. Say what items are called: `explorank build` keeps the texts that it is given."
        )


def _check_length(model: Any, options: CrossEncoderOptions) -> None:
    longest = getattr(model.model.config, "max_position_embeddings", None)
    if isinstance(longest, int) and options.max_tokens > longest:
        raise InvalidTraining(
            f"max_tokens={options.max_tokens}, and {options.model!r} reads {longest} tokens at the most. Set that, or "
            "less."
        )


def _read(data: RankingData) -> dict[str, str]:
    """Return the texts of the items that the data names."""
    named = {*_ids(data).tolist(), *(item for history in data.histories or () for item in history)}
    return {item: data.item_texts[item] for item in named if item in data.item_texts}


def _ids(data: RankingData) -> NDArray[np.str_]:
    assert data.item_ids is not None  # noqa: S101 - checked before, for the type checker
    return data.item_ids
