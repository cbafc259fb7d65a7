"""Rankers by the names that settings use, so that one ranker's options can name another."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any, Final

from explorank.rankers.errors import InvalidTraining
from explorank.rankers.ranker import TrainableRanker

RANKERS: Final[dict[str, str | type[TrainableRanker]]] = {
    "bagging": "Bagging",
    "blend": "Blend",
    "calibrated": "Calibrated",
    "dcn": "DCNRanker",
    "lightgbm": "LightGBMRanker",
    "reciprocal_rank": "ReciprocalRank",
    "rerank": "Rerank",
    "sequence": "SequenceRanker",
    "stack": "Stack",
}
"""Classes, or names of `explorank.rankers` that are imported when they are first asked for."""


def register_ranker(name: str, ranker_class: type[TrainableRanker]) -> None:
    """Let options and saved folders name `ranker_class`; a name that is taken gets the new class."""
    RANKERS[name] = ranker_class


def ranker_class(use: object) -> type[TrainableRanker]:
    """Return the class that `use` names, or `use` itself where it is one.

    Raises `InvalidTraining` for a name that nobody registered, with the nearest one that somebody did.
    """
    if isinstance(use, type):
        return use
    known: Any = RANKERS.get(str(use))
    if known is None:
        near = difflib.get_close_matches(str(use), RANKERS, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(sorted(RANKERS))}."
        raise InvalidTraining(
            f"No ranker is called {use!r}, so nothing can be trained or loaded under that name. {hint} "
            "`register_ranker` adds one of your own."
        )
    if isinstance(known, str):
        known = getattr(import_module("explorank.rankers"), known)
    trainable: type[TrainableRanker] = known
    return trainable
