"""The ranker that reads texts is held to what third parties are held to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from explorank.cross_encoder import CrossEncoderOptions, CrossEncoderRanker
from explorank.rankers import RankingData
from explorank.testing import RankerTests


class TestCrossEncoder(RankerTests):
    ranker_class = CrossEncoderRanker
    row_tolerance = 1e-5  # products of matrices are summed in another order in other batches
    explanation_tolerance = 1e-5
    resumes = True
    invalid_options = (
        {"steps": 0},
        {"history": 0},
        {"history": 9},
        {"max_tokens": 33},  # more than the model reads
        {"learning_rate": 0.0},
        {"quantize_tolerance": -0.1},
    )
    make: ClassVar[Callable[..., RankingData]]

    @pytest.fixture(autouse=True)
    def _model(self, tiny: Path, past: Callable[..., RankingData]) -> None:
        suite: Any = type(self)
        suite.options = CrossEncoderOptions(
            model=str(tiny),
            steps=60,
            batch_size=16,
            learning_rate=1e-2,
            history=2,
            max_tokens=24,
            device="cpu",
        )
        suite.make = staticmethod(past)

    def make_data(self, seed: int) -> RankingData:
        return type(self).make(seed)
