"""What the benchmark asks of a stage can be asked, and it compares what it says it does."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from explorank.demo.data import movielens


def test_each_mix_is_a_stage_and_compared_with_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    by_use = importlib.import_module("benchmarks.by_use")
    data, mixes = movielens(), by_use.MIXES
    for place, mix in enumerate(mixes):
        retrievers = [{"use": name, "k": k} for name, k in mix.retrievers]
        for model in by_use.MODELS:
            settings = by_use.settings_of(
                data, tmp_path, by_use={"model": model}, candidates=mix.candidates, retrievers=retrievers
            )
            assert settings.features.as_of == data.split
            assert sum(k for _, k in mix.retrievers) >= settings.retrieval.candidates
        assert mix.beyond in {"", *(other.name for other in mixes[:place])}
        assert all(other.candidates == mix.candidates for other in mixes if other.name == mix.beyond)
