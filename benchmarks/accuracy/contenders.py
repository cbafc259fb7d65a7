"""Everybody who ranks the catalogue, from counting to the full system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import two_stage
from benchmarks.accuracy.meter import Effort, measured
from benchmarks.accuracy.protocols import Split
from benchmarks.accuracy.worlds import known_of_items, known_of_users
from explorank.retrieval.collaborative import (
    EASE,
    FirstStageOptions,
    ImplicitALS,
    ItemKNN,
    SideInformation,
)
from explorank.retrieval.collaborative.two_tower import TwoTower, TwoTowerOptions

FULL: Final = "full system"
POPULAR: Final = "popularity"
LATELY: Final = "popularity of the last 14 days"
_FORTNIGHT_S: Final = 14 * 86_400.0
_MODELS: Final[tuple[tuple[str, Any], ...]] = (
    ("ItemKNN", ItemKNN),
    ("EASE", EASE),
    ("implicit ALS", ImplicitALS),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender under one split."""

    name: str
    scores: NDArray[np.floating[Any]]
    """(m, n) for the split's users; -inf for what it would not show."""
    effort: Effort
    """Of fitting, and of scoring these users where the two cannot be told apart."""
    ablation: bool = False
    """Whether it is a part of the full system, shown to tell what the next part adds."""


def simple(split: Split, side: SideInformation, seed: int) -> Iterator[Entry]:
    """Yield those that are one model each."""
    histories = split.train.matrix[split.users]
    shape = histories.shape
    with measured() as effort:
        popularity = split.train.popularity.astype(np.float64)
    yield Entry(POPULAR, np.broadcast_to(popularity, shape), effort)
    if split.now is not None and split.train.times is not None:
        with measured() as effort:
            lately = split.train.take(split.train.times >= split.now - _FORTNIGHT_S).popularity
        yield Entry(LATELY, np.broadcast_to(lately.astype(np.float64), shape), effort)
    if side.content is not None:
        with measured() as effort:
            scores = (histories @ side.content) @ side.content.T
        yield Entry("content similarity", scores, effort)
    for name, model in _MODELS:
        with measured() as effort:
            fitted = model.fit(split.train, seed=seed)
        yield Entry(name, fitted.scores_of_many(histories), effort)


def towers(split: Split, side: SideInformation, seed: int) -> Iterator[Entry]:
    """Yield the two towers, whose training takes more than all others' together."""
    histories = split.train.matrix[split.users]
    content, people = known_of_items(side), known_of_users(side)
    with measured() as effort:
        # All of these users have a history.
        options = TwoTowerOptions(history_dropout=0.0)
        fitted = TwoTower.fit(split.train, options=options, seed=seed, content=content, user_features=people)
    given = None if people is None else people[split.users]
    yield Entry("TwoTower", fitted.scores_of_many(histories, given), effort)


def staged(
    split: Split, side: SideInformation, seed: int, rankers: Sequence[str], *, ablation: bool
) -> Iterator[Entry]:
    """Yield the full system with each ranker; with `ablation`, first what comes of fewer parts and the first ranker."""
    options = FirstStageOptions()
    with measured() as gathering:
        rows = two_stage.gather(split, side, options, seed)
    groups = two_stage.column_groups(rows.asked, options, side)
    shape = split.train.matrix.shape
    if ablation:
        with measured() as effort:
            scores = two_stage.blended(rows, groups["collaborative scores"], shape)
        yield Entry("mean of the collaborative scores, no ranker", scores[split.users], effort, ablation=True)
        columns: list[str] = []
        for group, names in list(groups.items())[:-1]:
            columns += names
            told = f"ranker on {group}" if len(columns) == len(names) else f"… and {group}"
            with measured() as effort:
                scores = two_stage.ranked(rankers[0], rows, columns, shape, seed)
            yield Entry(told, scores[split.users], effort, ablation=True)
    for ranker in rankers:
        with measured() as effort:
            scores = two_stage.ranked(ranker, rows, list(rows.asked.names), shape, seed)
        effort.seconds += gathering.seconds
        effort.mib = max(effort.mib, gathering.mib)
        yield Entry(f"{FULL}, {ranker}", scores[split.users], effort)
