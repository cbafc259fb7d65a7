"""The smallest ranker that reads ids: how often each item was taken up, and whether the visitor took it up before."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from explorank.rankers import CorruptRanker, Explanation, FeatureMismatch, InvalidTraining, RankerManifest


@dataclass(frozen=True, kw_only=True)
class ItemRatesOptions:
    """How rates are shrunk."""

    prior: float = 2.0
    """Rows that count as none taken up."""


class ItemRates:
    """Scores by the item's rate plus the first feature; its codes are its own."""

    Options: ClassVar = ItemRatesOptions
    id_columns = ("code", "before")
    fits: ClassVar[list[Any]] = []
    """The data of each fit, for tests to look at."""

    def __init__(self, codes: dict[str, int], rates: list[float], manifest: RankerManifest) -> None:
        self.codes, self.rates, self.manifest = codes, np.array(rates), manifest

    @classmethod
    def fit(cls, data, *, valid=None, options=None, seed=0, progress=None, checkpoint=None):
        if data.item_ids is None or len(data) < 20 or np.ptp(data.labels) == 0 or len(set(data.item_ids)) < 2:
            raise InvalidTraining("Too few rows, one label, or no items to tell apart. Bring more.")
        cls.fits.append(data)
        options = options or cls.Options()
        order = np.random.default_rng(seed).permutation(np.unique(data.item_ids)).tolist()
        codes = {item: code for code, item in enumerate(order)}
        rows = np.array([codes[item] for item in data.item_ids.tolist()])
        rates = np.bincount(rows, data.labels) / (np.bincount(rows) + options.prior)
        if progress is not None:
            progress(1, 1)
        content = cls._content(codes, rates.tolist())
        names = (data.feature_names[0], "code", "before")
        facts = {"training_window": data.window, "metrics": {"rows": float(len(data))}}
        manifest = RankerManifest.of(
            content, name="item_rates", objective="rate", feature_names=names, **facts
        )
        return cls(codes, rates.tolist(), manifest)

    @staticmethod
    def _content(codes, rates):
        return json.dumps([codes, list(rates)]).encode()

    def check(self, names):
        self.manifest.check(names)

    def read_ids(self, item_ids, history):
        taken = set(history)
        rows = [(self.codes.get(item, -1), item in taken) for item in item_ids]
        return np.array(rows, np.float32).reshape(-1, 2)

    def _parts(self, features):
        if features.ndim != 2 or features.shape[1] != 3:
            raise FeatureMismatch(f"{features.shape} features for 3. Pass those.")
        features = np.clip(np.nan_to_num(features.astype(np.float64)), -1e3, 1e3)
        codes = features[:, 1].astype(int)
        known = (codes >= 0) & (codes < len(self.rates))
        rates = np.where(known, self.rates[np.where(known, codes, 0)], 0.0)
        return np.column_stack([0.2 * features[:, 0], rates, 0.1 * features[:, 2]])

    def score(self, features):
        parts = self._parts(features)
        return parts[:, 0] + parts[:, 1] + parts[:, 2]

    def explain(self, features):
        parts = self._parts(features)
        names = self.manifest.feature_names
        return Explanation(feature_names=names, attributions=parts, base=np.zeros(len(parts)), method="sum")

    def save(self, folder):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rates.json").write_bytes(self._content(self.codes, self.rates.tolist()))
        (folder / "manifest.json").write_text(self.manifest.to_json())

    @classmethod
    def load(cls, folder):
        file = Path(folder) / "rates.json"
        manifest = RankerManifest.read(Path(folder) / "manifest.json")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CorruptRanker(f"{file} cannot be read ({error}). Restore it.") from error
        if hashlib.sha256(content).hexdigest() != manifest.model_sha256:
            raise CorruptRanker(f"{file} is not the model of its manifest. Restore it.")
        return cls(*json.loads(content), manifest)
