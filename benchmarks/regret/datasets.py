"""Writes the packaged classification sets to one file; runs where river and scikit-learn are.

<its python> -m benchmarks.regret.datasets PATH
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from river import datasets
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine


def _streamed(stream: Any) -> tuple[Any, Any]:
    rows = [(list(features.values()), label) for features, label in stream]
    labels = [str(label) for _, label in rows]
    return np.array([features for features, _ in rows], np.float64), np.unique(labels, return_inverse=True)[1]


def main(path: str) -> None:
    """Write features `name/x` and labels `name/y` of each set."""
    sets = {
        "digits": load_digits(return_X_y=True),
        "wine": load_wine(return_X_y=True),
        "iris": load_iris(return_X_y=True),
        "breast_cancer": load_breast_cancer(return_X_y=True),
        "image_segments": _streamed(datasets.ImageSegments()),
        "phishing": _streamed(datasets.Phishing()),
        "bananas": _streamed(datasets.Bananas()),
    }
    arrays = {}
    for name, (features, labels) in sets.items():
        arrays[f"{name}/x"], arrays[f"{name}/y"] = features.astype(np.float64), labels.astype(np.int64)
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
