"""What the neural rankers have in common once they are trained. Nothing here imports torch to serve."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.applying import features_for, score_data
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.explanation import Explanation
from explorank.rankers.manifest import RankerManifest, column_scales
from explorank.rankers.neural.artefact import Artefact, unpack_vocabulary
from explorank.rankers.neural.checks import check_data, check_target
from explorank.rankers.neural.items import ITEM_CODE
from explorank.rankers.neural.judging import Judge
from explorank.rankers.neural.plan import NeuralOptions, Plan, Readings, options_from_json
from explorank.rankers.neural.session import Session
from explorank.rankers.neural.start import Start
from explorank.rankers.neural.tasks import Tasks
from explorank.rankers.ranker import Progress

Rows: TypeAlias = slice | NDArray[np.int64]
Feed: TypeAlias = dict[str, NDArray[Any]]

_CALIBRATION_REQUESTS: Final = 1_024
"""Those that int8 takes the range of activations from."""
_SCALE_ROWS: Final = 8_192
"""About as many as the scale of the representation is taken from."""


class NeuralRanker(ABC):
    """Scores a trained network on the calling thread; immutable, and safe for use from many threads."""

    kind: ClassVar[str]
    Options: ClassVar[type[Any]]
    learns_from_teacher: ClassVar[bool] = True
    """It reads `RankingData.teacher`."""

    def __init__(self, artefact: Artefact) -> None:
        """Take what `Artefact.load` returns; use `fit` or `load`."""
        self._artefact = artefact
        self._manifest = artefact.manifest
        self._layout, self._vocabulary = unpack_vocabulary(artefact.vocabulary)
        self._tasks = Tasks.from_json(artefact.manifest.details["tasks"])
        self._session = Session(artefact.model)

    @property
    def manifest(self) -> RankerManifest:
        """What the ranker says of itself."""
        return self._manifest

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The last of its columns, which `read_ids` makes from ids; none for a ranker without item embeddings."""
        return tuple(self._manifest.details["id_columns"])

    def check(self, names: Sequence[str]) -> None:
        """Raise `FeatureMismatch`, listing every difference, unless `names` are this ranker's features."""
        self._manifest.check(names)

    @property
    def prompt(self) -> bool:
        """True, unless a subclass scores in a way of its own."""
        return type(self).score is NeuralRanker.score

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return one score per row, (n,) float64, for features (n, d), NaN for missing; more is better.

        With objective `binary` and one head a score is a probability. Raises `FeatureMismatch` where d is not the
        number of features.
        """
        return self._tasks.score(self._run(["outputs"], features)[0])

    def foresee(self, features: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """Return what each head foresees, (n,) by its name, for features (n, d): `label`, and the outcomes.

        Probabilities for what is 0 or 1, an outcome's own unit otherwise. An outcome in the entire space comes as
        P(label) P(outcome | label).
        """
        values = self._tasks.values(self._run(["outputs"], features)[0])
        return {head.name: values[:, place].copy() for place, head in enumerate(self._tasks.heads)}

    def representation(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the heads read, (n, h) float32, for features (n, d): each head is linear in it."""
        return self._run(["representation"], features)[0]

    def score_with_representation(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return what `score` and `representation` do, from one pass through the network."""
        outputs, representation = self._run(["outputs", "representation"], features)
        return self._tasks.score(outputs), representation

    @property
    def representation_scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mean and the standard deviation of each column of `representation` over training, (h,) each.

        A column that did not vary has deviation 1.
        """
        scale = self._manifest.details["representation"]
        return np.array(scale["mean"], np.float32), np.array(scale["std"], np.float32)

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return what each feature adds to each row's raw score; for `binary` that is the log-odds.

        Integrated gradients (Sundararajan et al. 2017) from the training mean, no missing values, and unknown
        categories and items. Needs torch and captum: the extra `train`.
        """
        from explorank.rankers.neural.explaining import integrated_gradients  # noqa: PLC0415 - torch

        features = self._manifest.check_matrix(features)
        attributions, base = integrated_gradients(
            self._artefact, self._layout, self._tasks, self._read(features)
        )
        return Explanation(
            feature_names=self._manifest.feature_names,
            attributions=attributions,
            base=base,
            method="integrated_gradients",
            link=self._tasks.link,
        )

    def adapt(
        self,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: Any = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Return a ranker for another domain, such as another surface or catalogue, that begins as this one.

        It has this one's layers, tuned or frozen by `options.transfer`, its own heads, which begin as this one's
        where they foresee the same, and its own embeddings but for `shared_codes`. `data` has this one's columns.
        `options` are this one's own unless given; otherwise it is as `fit`. This ranker stays as it is. Raises
        `InvalidTraining` too where data or options would need other layers.
        """
        if options is None:
            options = options_from_json(self.Options, self._manifest.details["options"])
        self._check_kind(options)
        start = Start.of(self._artefact, options)
        return type(self)._fit(data, valid, options, seed, progress, checkpoint, start)

    def save(self, folder: str | Path) -> None:
        """Write `model.onnx`, `manifest.json`, `vocabulary.npz` and `weights.safetensors` into `folder`."""
        self._artefact.save(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the ranker that `save` wrote; raise `CorruptRanker` naming the file that is not intact."""
        return cls(Artefact.load(folder, cls.kind))

    @classmethod
    def _check_kind(cls, options: object) -> None:
        if not isinstance(options, cls.Options):
            raise InvalidTraining(
                f"{type(options).__name__} are no options of {cls.__name__}, which is built by others. Pass "
                f"{cls.Options.__name__}."
            )

    @classmethod
    @abstractmethod
    def _plan(
        cls, data: RankingData, options: Any, start: Start | None = None
    ) -> tuple[Plan, Callable[[RankingData], Readings]]:
        """Return what is read of the data, and how; raise `InvalidTraining` for data that cannot be read so.

        Codes that `start` shares are known however seldom they occur.
        """

    @abstractmethod
    def _read(self, features: NDArray[np.float32]) -> Readings:
        """Return the columns of features (n, d) as the network reads them, one history per row."""

    @abstractmethod
    def _feeds(self, features: NDArray[np.float32]) -> Iterator[tuple[Rows, Feed]]:
        """Yield parts of features (n, d), one at least: which rows they are, and the inputs of the graph for them."""

    @classmethod
    def _fit(
        cls,
        data: RankingData,
        valid: RankingData | None,
        options: NeuralOptions,
        seed: int,
        progress: Progress | None,
        checkpoint: Path | None,
        start: Start | None = None,
    ) -> Self:
        from explorank.rankers.neural.fitting import fit_network, in_best_precision  # noqa: PLC0415 - torch

        cls._check_kind(options)
        plan, read = cls._plan(data, options, start)
        if start is not None:
            start.check_columns(plan, data.called)
        check_data(
            data,
            options.objective,
            reads_items=ITEM_CODE in plan.id_columns,
            reads_histories=len(plan.id_columns) > 1,
        )
        if valid is not None:
            data.check_same_features(valid)
            check_target(valid, options.objective)
        artefact = fit_network(
            plan, read, data, valid, seed=seed, progress=progress, checkpoint=checkpoint, start=start
        )
        if options.training.quantize:
            some = data.take(np.random.default_rng(seed).permutation(data.requests)[:_CALIBRATION_REQUESTS])
            ranker = cls(artefact)
            feeds = [feed for _, feed in ranker._feeds(features_for(ranker, some))]
            accuracy = None if valid is None or valid.groups is None else _accuracy(cls, valid)
            artefact = in_best_precision(artefact, feeds, accuracy, options.training.quantize_tolerance)
        return cls(_with_scale(cls(artefact), data, seed))

    def _run(self, outputs: Sequence[str], features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return outputs of the graph, one row per row of features (n, d) each."""
        features = self._manifest.check_matrix(features)
        if not len(features):  # ONNX Runtime multiplies no matrices without rows before 1.32
            return [part[:0] for part in self._run(outputs, np.zeros((1, features.shape[1]), np.float32))]
        results: list[NDArray[np.float32]] = []
        for rows, feed in self._feeds(features):
            parts = [part.reshape(-1, part.shape[-1]) for part in self._session.run(outputs, feed)]
            if len(parts[0]) == len(features):
                return parts
            if not results:
                results = [np.empty((len(features), part.shape[1]), np.float32) for part in parts]
            for result, part in zip(results, parts, strict=True):
                result[rows] = part
        if not results:
            raise AssertionError("there is always one part")
        return results


def _with_scale(ranker: NeuralRanker, data: RankingData, seed: int) -> Artefact:
    """Return the ranker's artefact with the scale of its representation over some of the training requests."""
    requests = math.ceil(data.requests * min(1.0, _SCALE_ROWS / len(data)))
    some = data.take(np.random.default_rng(seed).permutation(data.requests)[:requests])
    mean, std = column_scales(ranker.representation(features_for(ranker, some)))
    manifest = ranker.manifest
    details = {**manifest.details, "representation": {"mean": list(mean), "std": list(std)}}
    return replace(ranker._artefact, manifest=replace(manifest, details=details))


def _accuracy(kind: type[NeuralRanker], valid: RankingData) -> Callable[[Artefact], float]:
    def accuracy(artefact: Artefact) -> float:
        judge = Judge.of(Tasks.from_json(artefact.manifest.details["tasks"]), valid)
        return judge.ndcg_at_10(score_data(kind(artefact), valid)[judge.rows])

    return accuracy
