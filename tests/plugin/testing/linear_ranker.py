"""The smallest ranker that keeps the contract: least squares. Others break it in one way each."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from explorank.rankers import CorruptRanker, Explanation, FeatureMismatch, InvalidTraining, RankerManifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearOptions:
    """How slopes are shrunk."""

    penalty: float = 1.0
    """What squared slopes cost; above 0."""
    steps: int = 6
    """How many passes a training makes."""

    def __post_init__(self):
        if not self.penalty > 0:
            raise InvalidTraining(f"penalty={self.penalty} is not above 0. Set 1.")


class Linear:
    """Scores by slopes, missing values counting as 0, values beyond 100 as 100."""

    Options: ClassVar = LinearOptions

    def __init__(self, slopes, manifest):
        self.slopes, self.manifest = np.asarray(slopes, np.float64), manifest

    @classmethod
    def fit(cls, data, *, valid=None, options=None, seed=0, progress=None, checkpoint=None):
        options = options or cls.Options()
        if len(data) < 50 or np.ptp(data.labels) == 0 or not (np.nanstd(data.features, axis=0) > 0).any():
            raise InvalidTraining("Too few rows, one label, or no feature that varies. Bring more.")
        done = cls._begin(checkpoint)
        for step in range(done, options.steps):
            if checkpoint is not None:
                checkpoint.mkdir(parents=True, exist_ok=True)
                (checkpoint / "step").write_text(str(step + 1))
            if progress is not None:
                progress(step + 1, options.steps)
        x, y = cls._columns(data.features), data.labels - data.labels.mean()
        slopes = np.linalg.solve(x.T @ x + options.penalty * np.eye(x.shape[1]), x.T @ y)
        return cls(slopes, cls._manifest(data, slopes))

    @classmethod
    def _begin(cls, checkpoint):
        file = None if checkpoint is None else checkpoint / "step"
        return int(file.read_text()) if file is not None and file.exists() else 0

    @staticmethod
    def _columns(features):
        return np.clip(np.nan_to_num(np.asarray(features, np.float64)), -100, 100)

    @staticmethod
    def _content(slopes):
        return json.dumps(list(map(float, slopes))).encode()

    @classmethod
    def _manifest(cls, data, slopes, **changes):
        facts = {
            "name": "linear",
            "objective": "least_squares",
            "feature_names": data.feature_names,
            "training_window": data.window,
            "metrics": {"rows": float(len(data))},
        }
        return RankerManifest.of(cls._content(slopes), **(facts | changes))

    def check(self, names):
        self.manifest.check(names)

    def score(self, features):
        if features.ndim != 2 or features.shape[1] != len(self.slopes):
            raise FeatureMismatch(f"{features.shape} features for {len(self.slopes)}. Pass those.")
        return self._sum(self._columns(features) * self.slopes)

    @staticmethod
    def _sum(parts):
        total = np.zeros(len(parts))
        for column in parts.T:
            total += column
        return total

    def explain(self, features):
        self.score(features)
        return Explanation(
            feature_names=self.manifest.feature_names,
            attributions=self._columns(features) * self.slopes,
            base=np.zeros(len(features)),
            method="product",
        )

    def save(self, folder):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "slopes.json").write_bytes(self._content(self.slopes))
        (folder / "manifest.json").write_text(self.manifest.to_json())

    @classmethod
    def load(cls, folder):
        file = Path(folder) / "slopes.json"
        manifest = RankerManifest.read(Path(folder) / "manifest.json")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CorruptRanker(f"{file} cannot be read ({error}). Restore it.") from error
        if hashlib.sha256(content).hexdigest() != manifest.model_sha256:
            raise CorruptRanker(f"{file} is not the model of its manifest. Restore it.")
        return cls(json.loads(content), manifest)
