"""What the benchmark asks of a stage can be asked, and it compares what it says it does."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from explorank.demo.data import movielens


def test_each_mix_is_a_stage_and_compared_with_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    by_use = importlib.import_module("benchmarks.by_use")
    data = movielens()
    learnt: list[dict[str, Any]] = [{"by_use": {"model": model}} for model in by_use.MODELS]
    spaces = [{"by_use": {}, "learned_embeddings": {"model": model}} for model in by_use.EMBEDDING_MODELS]
    for mixes, models in ((by_use.MIXES, learnt), (by_use.EMBEDDING_MIXES, spaces)):
        for place, mix in enumerate(mixes):
            retrievers = [{"use": name, "k": k} for name, k in mix.retrievers]
            for model in models:
                settings = by_use.settings_of(
                    data, tmp_path, **model, candidates=mix.candidates, retrievers=retrievers
                )
                assert settings.features.as_of == data.split
                assert sum(k for _, k in mix.retrievers) >= settings.retrieval.candidates
            assert len({other.name for other in mixes}) == len(mixes)
            compared = mix.beyond if mixes is by_use.MIXES or by_use._reads_space(mix) else ""
            assert compared in {"", *(other.name for other in mixes[:place])}
            assert all(other.candidates == mix.candidates for other in mixes if other.name == compared)
