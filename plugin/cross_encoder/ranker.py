"""A cross-encoder as a ranker: how probable it is that a candidate is liked, from its text and those of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from explorank.cross_encoder.artefact import Artefact, unpack_texts
from explorank.cross_encoder.options import CrossEncoderOptions
from explorank.cross_encoder.shapley import coalitions, shapley_values
from explorank.cross_encoder.texts import KnownTexts
from explorank.rankers import Explanation, Progress, RankerManifest, RankingData
from explorank.rankers.neural.session import Session
from explorank.retrieval.encoding import PairTokenizer

CANDIDATE: Final = "candidate_text"
_ROWS_AT_ONCE: Final = 64
_EXPLAINED_AT_ONCE: Final = 64


class CrossEncoderRanker:
    """Reads the texts of the latest liked items and of one candidate at once (BERT as in Nogueira and Cho 2019).

    It sees which words of the one meet which of the other, knows items that came after its training by what they are
    called, and reads no feature. A score is a probability among rows like those of training. It costs a pass of the
    model for each row, so that few candidates fit into a request: `rerank` asks it about the best of another ranker.

    Its columns are codes of texts, made from ids: `candidate_text`, and `history_text_1`, the newest, and so on; 0 is
    no text. Served by ONNX Runtime, without torch. Immutable, and safe for use from many threads.
    """

    name: ClassVar[str] = "cross_encoder"
    Options: ClassVar = CrossEncoderOptions

    def __init__(self, artefact: Artefact) -> None:
        """Take what `Artefact.load` returns; use `fit` or `load`."""
        self._artefact: Final = artefact
        details = artefact.manifest.details
        self._history: Final = int(details["options"]["history"])
        self._shift: Final = float(details["shift"])
        self._tokenizer: Final = PairTokenizer(
            artefact.tokenizer.decode(),
            padding=int(details["padding"]),
            max_tokens=int(details["options"]["max_tokens"]),
        )
        self._session: Final = Session(artefact.model)
        self._know(unpack_texts(artefact.texts))

    @classmethod
    def fit(
        cls,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: CrossEncoderOptions | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Return a ranker trained on `data`, which has `item_ids`, `histories` and `item_texts`, by cross-entropy.

        It takes as many steps as the options say; `valid`, a later slice, judges int8 alone. With `checkpoint`, a run
        that was cut off goes on. Raises `InvalidTraining` for data that no useful ranker can come from, and
        `EncoderUnavailable` where the model that it should begin as is missing.
        """
        from explorank.cross_encoder.training import in_best_precision, train_artefact  # noqa: PLC0415 - torch

        options = options or cls.Options()
        artefact = train_artefact(
            data, valid, cls.name, options, seed=seed, progress=progress, checkpoint=checkpoint
        )
        return cls(in_best_precision(cls, artefact, data, valid, options, seed))

    @property
    def manifest(self) -> RankerManifest:
        """What the ranker says of itself."""
        return self._artefact.manifest

    @property
    def id_columns(self) -> tuple[str, ...]:
        """All of its columns."""
        return self.manifest.feature_names

    @property
    def reads_texts(self) -> bool:
        """True."""
        return True

    def with_item_texts(self, texts: Mapping[str, str]) -> Self:
        """Return this ranker knowing what items are called, by id, the texts of training behind these.

        Tokens are made now, some ten thousand texts a second. What it was told is not saved with it.
        """
        other = copy(self)
        other._know(unpack_texts(self._artefact.texts).overlaid(KnownTexts.of(texts, self._tokenizer)))
        return other

    def read_ids(self, item_ids: Sequence[str], history: Sequence[str]) -> NDArray[np.float32]:
        """Return the codes (n, 1 + h) of the candidates' texts and of the history's, which comes oldest first.

        A candidate without a text has code 0; items of the history without one are passed over.
        """
        columns = np.empty((len(item_ids), 1 + self._history), np.float32)
        columns[:, 0] = self._texts.items.codes(item_ids)
        columns[:, 1:] = newest_first(self._texts, [history], self._history)[0]
        return columns

    def check(self, names: Sequence[str]) -> None:
        """Raise `FeatureMismatch`, listing every difference, unless `names` are this ranker's columns."""
        self.manifest.check(names)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability that each row is liked, (n,) float64, for codes (n, 1 + h).

        Raises `FeatureMismatch` where there are more columns, or fewer.
        """
        probabilities: NDArray[np.float64] = expit(self.log_odds(features))
        return probabilities

    def log_odds(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log-odds of what `score` returns, (n,)."""
        return self._log_odds(self._codes(features))

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return what each text adds to the log-odds: Shapley values, exact up to rounding.

        The base is what it says of nothing: neither a candidate nor a history. Each choice of a row's texts is read,
        2^(1 + h) of them, choices without the candidate once for all rows with that history.
        """
        codes = self._codes(features)
        chosen = coalitions(codes.shape[1])
        worths = np.empty((len(codes), len(chosen)))
        for start in range(0, len(codes), _EXPLAINED_AT_ONCE):
            part = codes[start : start + _EXPLAINED_AT_ONCE]
            readings = np.where(chosen[None], part[:, None], 0).reshape(-1, codes.shape[1])
            distinct, place = np.unique(readings, axis=0, return_inverse=True)
            worths[start : start + len(part)] = self._log_odds(distinct)[place.reshape(len(part), -1)]
        return Explanation(
            feature_names=self.manifest.feature_names,
            attributions=shapley_values(worths),
            base=worths[:, 0].copy(),
            method="shapley",
            link="logistic",
        )

    def save(self, folder: str | Path) -> None:
        """Write `model.onnx`, `manifest.json`, `tokenizer.json` and `texts.npz` into `folder`."""
        self._artefact.save(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the ranker that `save` wrote; raise `CorruptRanker` naming the file that is not intact."""
        return cls(Artefact.load(folder, cls.name))

    def pairs(self, features: NDArray[np.float32]) -> list[dict[str, NDArray[np.int64]]]:
        """Return what the graph takes of rows (n, 1 + h), some at a time."""
        return self._pairs(self._codes(features))

    def _know(self, texts: KnownTexts) -> None:
        self._texts = texts
        self._reader = self._tokenizer.reader(texts.table)

    def _codes(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return codes of known texts, 0 for whatever is none."""
        features = self.manifest.check_matrix(features)
        known = (features >= 1) & (features <= len(self._texts.table))  # false for NaN
        return np.where(known, features, 0).astype(np.int64)

    def _pairs(self, codes: NDArray[np.int64]) -> list[dict[str, NDArray[np.int64]]]:
        feeds = []
        for start in range(0, len(codes), _ROWS_AT_ONCE):
            part = codes[start : start + _ROWS_AT_ONCE]
            pairs = self._reader.pairs(part[:, 1:], part[:, 0])
            feeds.append({"tokens": pairs.tokens, "present": pairs.present, "kinds": pairs.kinds})
        return feeds

    def _log_odds(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        parts = [self._session.run(["log_odds"], feed)[0] for feed in self._pairs(codes)]
        read = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return read.astype(np.float64) + self._shift


def newest_first(texts: KnownTexts, histories: Sequence[Sequence[str]], length: int) -> NDArray[np.int64]:
    """Return the codes (g, length) of the latest items of each history, oldest first, whose text is known."""
    return texts.items.histories(histories, length)[:, ::-1]


def columns_of(history: int) -> tuple[str, ...]:
    """Return the names of the columns for so many texts of the history."""
    return (CANDIDATE, *(f"history_text_{place}" for place in range(1, history + 1)))
