"""What a ranker is, so that others than ours can stand in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.explanation import Explanation
from explorank.rankers.manifest import RankerManifest

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the steps done and the steps there are at most. It may be a `MeteredProgress` as well."""


@runtime_checkable
class MeteredProgress(Protocol):
    """A progress that also takes what was measured on the way."""

    def __call__(self, done: int, total: int, /) -> None:
        """Say how many steps are done and how many there are at most."""

    def measured(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take numbers of one step, counted from 1, by name, such as `valid/ndcg@10` or `train/loss`."""


def report_metrics(progress: Progress | None, step: int, metrics: Mapping[str, float]) -> None:
    """Tell `progress` what was measured at `step`, where it takes that; a plain callable, or None, does not."""
    if isinstance(progress, MeteredProgress):
        progress.measured(step, metrics)


class Ranker(Protocol):
    """Scores candidates from their features; immutable, and safe for use from many threads."""

    @property
    def manifest(self) -> RankerManifest:
        """What the ranker says of itself."""

    def check(self, names: Sequence[str]) -> None:
        """Raise `FeatureMismatch` unless `names` are the ranker's features, in its order."""

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return one score per row, (n,) float64, for features (n, d), NaN for missing; more is better.

        A row's score depends on that row alone, unless the ranker has a `listwise` that is true. Raises
        `FeatureMismatch` where d is another number.
        """


@runtime_checkable
class UncertainRanker(Ranker, Protocol):
    """A ranker that also says how sure it is."""

    def score_with_uncertainty(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what `score` does, and the standard deviation of each score, (n,) float64, 0 or more."""


@runtime_checkable
class HurriedRanker(Ranker, Protocol):
    """A ranker that can also answer sooner and less exactly, for when more is asked than it can score."""

    @property
    def cheaper_way(self) -> str:
        """What `score_cheaply` leaves out, in words: `the first 60 of 300 trees`; empty where there is no such way."""

    def score_cheaply(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return scores, (n,) float64, for features (n, d); more is better, on a scale of their own."""


@runtime_checkable
class IdReadingRanker(Ranker, Protocol):
    """A ranker some of whose columns follow from ids alone: the candidate's, and those of the user's history.

    They stand in its manifest among the other features, and are computed for each request instead of looked up.
    """

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The names of those columns, in the order of `read_ids`."""

    def read_ids(self, item_ids: Sequence[str], history: Sequence[str]) -> NDArray[np.float32]:
        """Return the columns (n, c) for candidates (n,) and a history, oldest first; codes of what it learnt."""


@runtime_checkable
class TextReadingRanker(Ranker, Protocol):
    """A ranker that reads what items are called; as it is loaded it knows the texts that it was trained with."""

    @property
    def reads_texts(self) -> bool:
        """Whether it does; a ranker made of others does where one of them does."""

    def with_item_texts(self, texts: Mapping[str, str]) -> Self:
        """Return this ranker knowing texts by item id too, which go before those of training; this one stays as it is.

        What it was told is not saved with it, and changes neither its manifest nor its version.
        """


@runtime_checkable
class RepresentingRanker(Ranker, Protocol):
    """A ranker that turns features into columns which a linear model can go on from: those of a last hidden layer."""

    def representation(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, h) float32 for features (n, d), h being the same for all."""

    def score_with_representation(
        self, features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return what `score` does and what `representation` does, for little more than the cost of the one."""

    @property
    def representation_scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mean and the standard deviation of each column over training, (h,) float32 each.

        A column that did not vary has deviation 1, so that one can divide by them.
        """


class ExplainingRanker(Ranker, Protocol):
    """A ranker that says what each feature added."""

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return the attributions of the scores of features (n, d)."""


class TrainableRanker(ExplainingRanker, Protocol):
    """A ranker that can be trained, saved and loaded: what a name in YAML stands for."""

    Options: ClassVar[type[Any]]
    """A frozen dataclass with defaults; its fields are the ranker's options in YAML."""

    @classmethod
    def fit(
        cls,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: Any = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Return a ranker trained on `data`; the same data, options and seed give the same ranker.

        `valid` is a later slice, on which training stops. `progress` hears of each step, and through `report_metrics`
        what was measured. With `checkpoint`, a folder that need not exist yet and is this run's alone, a run that was
        cut off goes on from where it was last saved, and ends as it would have; a ranker that trains in no time may
        leave it alone and start anew. Raises `InvalidTraining` for data or options that no useful ranker can come
        from.
        """

    def save(self, folder: str | Path) -> None:
        """Write the ranker and its manifest into `folder`."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the ranker that `save` wrote; raise `CorruptRanker` naming the file that is not intact."""


@runtime_checkable
class AdaptableRanker(TrainableRanker, Protocol):
    """A trained ranker that another one can begin as, for another surface or catalogue with the same columns."""

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
        """Return a ranker trained on `data`, the other domain's, that began as this one, which stays as it is.

        `options` are this one's own unless given; all else as for `fit`.
        """
