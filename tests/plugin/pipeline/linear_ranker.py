"""Rankers of a third party: logistic regression by full gradient steps, saved after each, and one that reads ids.

Run as a program, it trains in the installation that it is given and says each step: something to kill.
"""

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from explorank.hooks import hookimpl
from explorank.hooks.registry import Registry
from explorank.rankers import (
    Explanation,
    InvalidTraining,
    RankerManifest,
    RankingData,
    feature_hash,
    report_metrics,
)


@dataclass(frozen=True)
class LinearOptions:
    """How the weights are found."""

    steps: int = 20
    """Gradient steps."""
    rate: float = 0.5
    """How far each goes."""


class LinearRanker:
    """The logistic function of a weighted sum."""

    Options: ClassVar = LinearOptions
    name: ClassVar = "linear"

    def __init__(self, arrays: dict[str, np.ndarray], manifest: RankerManifest) -> None:
        self.arrays = arrays
        self.manifest = manifest

    @classmethod
    def own_columns(cls, data: RankingData) -> tuple[tuple[str, ...], np.ndarray]:
        return (), data.features[:, :0]

    @classmethod
    def fit(
        cls,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: LinearOptions | None = None,
        seed: int = 0,
        progress: Any = None,
        checkpoint: Path | None = None,
    ) -> Self:
        options = options or LinearOptions()
        if options.steps < 1:
            raise InvalidTraining(f"`steps` is {options.steps}; nothing would be learnt.")
        own, columns = cls.own_columns(data)
        names = (*data.feature_names, *own)
        features = np.hstack([data.features, columns]).astype(np.float64)
        mean = np.nan_to_num(np.nanmean(np.where(np.isfinite(features), features, np.nan), axis=0))
        std = np.nanstd(features, axis=0)
        std = np.where(np.isfinite(std) & (std > 0), std, 1.0)
        x = np.nan_to_num((features - mean) / std)
        weights, begin = np.random.default_rng(seed).normal(0, 0.01, len(names)), 0
        saved = None if checkpoint is None else checkpoint / "step.npz"
        if saved is not None and saved.exists():
            with np.load(saved) as state:
                weights, begin = state["weights"], int(state["step"])
        for step in range(begin, options.steps):
            said = 1 / (1 + np.exp(-(x @ weights)))
            weights = weights - options.rate * (x.T @ (said - data.labels)) / len(x)
            report_metrics(progress, step + 1, {"train/error": float(np.mean((said - data.labels) ** 2))})
            if saved is not None:
                saved.parent.mkdir(parents=True, exist_ok=True)
                draft = saved.with_name("draft.npz")
                np.savez(draft, weights=weights, step=step + 1)
                draft.replace(saved)
            if progress is not None:
                progress(step + 1, options.steps)
            time.sleep(float(os.environ.get("LINEAR_PAUSE_S", "0")))
        arrays = {"weights": weights, "mean": mean, "std": std}
        digest = hashlib.sha256(weights.tobytes()).hexdigest()
        return cls(
            arrays,
            RankerManifest(
                name=cls.name, version=digest[:12], objective="logistic", feature_names=names,
                feature_hash=feature_hash(names), model_sha256=digest, training_window=data.window,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )  # fmt: skip

    def check(self, names: Sequence[str]) -> None:
        self.manifest.check(names)

    def _parts(self, features: np.ndarray) -> np.ndarray:
        return np.nan_to_num((features - self.arrays["mean"]) / self.arrays["std"]) * self.arrays["weights"]

    def score(self, features: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-self._parts(features).sum(axis=1)))

    def explain(self, features: np.ndarray) -> Explanation:
        return Explanation(
            feature_names=self.manifest.feature_names, attributions=self._parts(features),
            base=np.zeros(len(features)), method="linear", link="logistic",
        )  # fmt: skip

    def save(self, folder: str | Path) -> None:
        np.savez(Path(folder) / "linear.npz", **self.arrays)
        (Path(folder) / "manifest.json").write_text(self.manifest.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        with np.load(Path(folder) / "linear.npz") as arrays:
            return cls(dict(arrays), RankerManifest.read(Path(folder) / "manifest.json"))


class SubjectRanker(LinearRanker):
    """Also knows the subject of each book by its id, and which share of the history is of that subject."""

    name: ClassVar = "by_subject"
    id_columns: ClassVar = ("subject_share",)

    @staticmethod
    def read_ids(item_ids: Sequence[str], history: Sequence[str]) -> np.ndarray:
        subjects = [item.partition("-")[0] for item in history]
        shares = [subjects.count(item.partition("-")[0]) / max(len(subjects), 1) for item in item_ids]
        return np.array(shares, np.float32)[:, None]

    @classmethod
    def own_columns(cls, data: RankingData) -> tuple[tuple[str, ...], np.ndarray]:
        assert data.item_ids is not None
        assert data.histories is not None
        assert data.groups is not None
        ends = np.cumsum(data.groups)
        parts = [
            cls.read_ids(data.item_ids[end - size : end].tolist(), history)
            for end, size, history in zip(ends, data.groups, data.histories, strict=True)
        ]
        return cls.id_columns, np.concatenate(parts)


class Shop:
    """The plugin that registers both."""

    @hookimpl
    def ranking_register_components(self, registry: Registry) -> None:
        registry.ranker("linear", LinearRanker)
        registry.ranker("by_subject", SubjectRanker)


def train(folder: Path, **arguments: Any) -> Any:
    """Train the linear ranker in an installation of books, as each of the tests and the program do."""
    import pandas as pd

    from explorank.pipeline.queries import QueryOptions
    from explorank.pipeline.tables import past_interactions
    from explorank.pipeline.train import TrainOptions, train_ranker
    from explorank.settings import RankerComponent, load_settings

    return train_ranker(
        load_settings(folder / "explorank.yaml"),
        past_interactions(pd.read_parquet(folder / "interactions.parquet")),
        component=RankerComponent(use="linear"),
        options=TrainOptions(queries=QueryOptions(positive_from=4.0), max_queries=60, negatives=20),
        plugins=[Shop()],
        **arguments,
    )


if __name__ == "__main__":
    train(Path(sys.argv[1]), progress=lambda done, total: print(done, flush=True))  # noqa: T201 - heard by the test
