"""What can be set of the ranker that reads texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from explorank.rankers import InvalidTraining
from explorank.retrieval import InvalidOption
from explorank.retrieval.encoding import TextRanking

MOST_HISTORY: Final = 8
"""An explanation reads each choice of these texts and the candidate's: 512 at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderOptions(TextRanking):
    """How a cross-encoder learns from past requests, and in which numbers it serves."""

    model: str = "packaged"
    """The model that it begins as: `packaged`, a folder, or a name that sentence-transformers knows; as
    `retrieval.encoder`, and no adapter counts."""
    negatives: int = 3
    """How many rows of a request that were not taken up are drawn in a step for each one that was."""
    history: int = 5
    """How many of the latest liked items' texts are read beside the candidate's, the newest first; 8 at most."""
    batch_size: int = 16
    """Rows that were taken up, in a step; each comes with its negatives."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What it trains on; `auto` takes a CUDA device where torch finds one. It serves on the CPU."""
    quantize: bool = False
    """Serve in int8 where that keeps the accuracy on the later slice, which is asked of 100 of its requests."""
    quantize_tolerance: float = 0.002
    """How much NDCG@10 int8 may cost there."""

    def __post_init__(self) -> None:
        try:
            TextRanking.__post_init__(self)
        except InvalidOption as error:
            raise InvalidTraining(str(error)) from None
        if self.history > MOST_HISTORY:
            raise InvalidTraining(
                f"history={self.history} is more than {MOST_HISTORY}: an explanation reads every choice of the texts, "
                f"which are twice as many with each. Set {MOST_HISTORY} or less."
            )
        if not self.quantize_tolerance >= 0:
            raise InvalidTraining(
                f"quantize_tolerance={self.quantize_tolerance} is less than int8 could cost, so that it would never "
                "serve. Set 0 or more."
            )
