"""LightGBM models of every kind, trained on small random data; what two scorers are compared on."""

from __future__ import annotations

from typing import Any, Final

import lightgbm
import numpy as np

OBJECTIVES: Final = (
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "poisson",
    "quantile",
    "mape",
    "gamma",
    "tweedie",
    "binary",
    "multiclass",
    "multiclassova",
    "cross_entropy",
    "cross_entropy_lambda",
    "lambdarank",
    "rank_xendcg",
    "custom",
)
BOOSTINGS: Final = ("gbdt", "dart", "goss", "rf")


def random_features(rng: np.random.Generator) -> np.ndarray:
    """Return (n, d) float32: columns of any scale, some with missing values, zeros, whole numbers or codes."""
    n, d = int(rng.integers(80, 500)), int(rng.integers(1, 9))
    features = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-37, 30, d)
    for column in range(d):
        kind = rng.integers(0, 8)
        if kind == 0:
            features[rng.random(n) < 0.3, column] = np.nan
        elif kind == 1:
            features[rng.random(n) < 0.5, column] = 0.0
        elif kind == 2:
            features[:, column] = rng.integers(-3, 4, n)
        elif kind == 3:
            features[:, column] = rng.integers(0, 300, n)
        elif kind == 4:
            features[:, column] = rng.integers(0, 70, n) * 1_000
        elif kind == 5:
            features[:, column] = np.where(rng.random(n) < 0.3, np.nan, rng.integers(0, 40, n))
    return features.astype(np.float32)


def random_model(seed: int, objective: str, boosting: str) -> tuple[str, np.ndarray]:
    """Return a model's text and the rows it was trained on."""
    rng = np.random.default_rng(seed)
    features = random_features(rng)
    n = len(features)
    # `nanmax` warns of columns without any value; a column with so few rows missing always has one.
    codes = [
        column
        for column in range(features.shape[1])
        if np.nanmin(features[:, column]) >= 0
        and np.nanmax(features[:, column]) < 1e6
        and not np.nansum(features[:, column] % 1)
        and rng.random() < 0.8
    ]
    target = rng.random(n) + (np.nan_to_num(features[:, 0]) > 0)
    options: dict[str, Any] = {
        "objective": objective,
        "boosting": boosting,
        "verbosity": -1,
        "num_threads": 1,
        "seed": seed,
        "num_leaves": int(rng.integers(2, 40)),
        "max_bin": int(rng.choice([15, 63, 255, 1_000])),
        "min_data_in_leaf": int(rng.integers(1, 6)),
        "min_data_in_bin": 1,
        "min_sum_hessian_in_leaf": 1e-6,
        "zero_as_missing": bool(rng.random() < 0.3),
        "use_missing": bool(rng.random() < 0.85),
        "max_cat_to_onehot": int(rng.integers(1, 6)),
        "min_data_per_group": 1,
        "cat_smooth": 1.0,
        "reg_sqrt": objective.startswith("regression") and bool(rng.random() < 0.5),
        "sigmoid": float(rng.choice([0.7, 1.0, 2.3])),
    }
    labels, groups = target, None
    if objective == "custom":
        options["objective"] = lambda scores, _: (scores - target, np.ones(n))
        options["boosting"] = "gbdt"
    elif objective == "binary":
        labels = (target > 1.0).astype(float)
    elif objective.startswith("cross_entropy"):
        labels = target / 2.0
    elif objective.startswith("multiclass"):
        options["num_class"] = int(rng.integers(2, 5))
        labels = rng.integers(0, options["num_class"], n)
    elif objective in {"lambdarank", "rank_xendcg"}:
        labels, groups = (1.5 * target).astype(int), [n]
    elif objective in {"regression", "regression_l1", "huber", "fair", "quantile"}:
        labels = target - 1.0
    if options["boosting"] == "goss":
        options |= {"boosting": "gbdt", "data_sample_strategy": "goss"}
    elif options["boosting"] == "rf":
        options |= {"bagging_fraction": 0.6, "bagging_freq": 1, "feature_fraction": 0.8}
    booster = lightgbm.train(
        options,
        lightgbm.Dataset(features, labels, group=groups, categorical_feature=codes),
        int(rng.integers(1, 25)),
    )
    rounds = None if rng.random() < 0.7 else max(1, booster.current_iteration() // 2)
    return booster.model_to_string(num_iteration=rounds), features
