"""The demo's folder: a project like any other, which can be served afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import yaml

from explorank.demo.data import DemoData
from explorank.errors import DataError
from explorank.retrieval.features import copy_repository
from explorank.settings import Settings, load_settings

_MARK = ".explorank-demo"
_EXPLORATION_FEATURES = ["score", "similarity", "item_mean_value", "item_positive_rate", "item_events"]
_HEADER = """\
# Written by `explorank demo`. `as_of` lets the clock stand at the end of the past, so that features of
# historic data do not expire; leave it out with data of today.
"""


def prepare_folder(folder: Path) -> None:
    """Make `folder` ready for a run; raise `DataError` where it holds what an earlier run did not write."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, and the demo needs a folder to work in. Name another --folder.")
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise DataError(f"{folder} holds other files, which the demo would overwrite. Name another --folder.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    for name in ("feature_repo", ".explorank/artefacts", ".explorank/log"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for stale in (folder / ".explorank").glob("state.db*"):
        stale.unlink()
    copy_repository(folder / "feature_repo")


def write_settings(config: Path, data: DemoData, mode: Literal["shadow", "live"]) -> Settings:
    """Write the settings with the exploration mode, and return them."""
    content = {
        "version": 1,
        "project": "demo",
        "features": {
            "repository": "feature_repo",
            "as_of": data.split.isoformat(),
            "positive_from": data.positive_from,
        },
        "exploration": {
            "mode": mode,
            "policy": {"use": "linear_thompson", "floor": 0.02},
            "features": _EXPLORATION_FEATURES,
            "slots": [2, 5, 8],
            "holdout": 0.0,
        },
        "guards": [{"use": "block_list"}, {"use": "already_seen"}],
        "feedback": {"rewards": {"click": 1.0}},
    }
    config.write_text(_HEADER + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_settings(config)
