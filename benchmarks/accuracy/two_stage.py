"""The full system: candidates of several models, ranked by a trained ranker; and what each part of it adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.protocols import Split
from explorank.builtin.rankers import RankersPlugin
from explorank.hooks.registry import Registry
from explorank.rankers import InvalidTraining, Ranker, RankingData, TrainableRanker, score_data
from explorank.retrieval.collaborative import (
    FirstStage,
    FirstStageOptions,
    Fold,
    Interactions,
    RankingRows,
    SideInformation,
    cuts_in_time,
    folds_by_user,
    training_rows,
)
from explorank.settings import RankerComponent, resolve_ranker

VALUE: Final = "value"
"""The outcome that says what an interaction was worth, NaN where there was none."""
_CUTS: Final = (0.4, 0.5, 0.6, 0.7, 0.8)
_HORIZON: Final = 0.25
_STOPPING_USERS: Final = 0.2
"""The share of the users by whom training stops, under random protocols."""
_LIGHTGBM: Final[Mapping[str, Any]] = {
    "rounds": 400,
    "early_stopping_rounds": 40,
    "num_threads": 1,
    # `benchmarks.accuracy.tuning` compares sizes of trees. Scores of models that saw less are a little different from
    # those of the models that serve, and large trees learn the difference.
    "params": {
        "num_leaves": 7,
        "learning_rate": 0.05,
        "min_data_in_leaf": 200,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "lambdarank_truncation_level": 30,
    },
}
_DCN: Final[Mapping[str, Any]] = {}
_SEQUENCE: Final[Mapping[str, Any]] = {}
_THREE: Final[Mapping[str, Any]] = {
    "members": [
        {"use": "lightgbm", **_LIGHTGBM}, {"use": "dcn", **_DCN}, {"use": "sequence", **_SEQUENCE},
    ],
    "folds": 2,
}  # fmt: skip
OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lightgbm": _LIGHTGBM,
    "dcn": _DCN,
    "sequence": _SEQUENCE,
    "blend": _THREE,
    "stack": _THREE,
}
"""What the rankers that take part by default are trained with; any other has its own defaults."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows to train on, the last fold's to stop by, and those to rank."""

    train: RankingData
    valid: RankingData
    asked: RankingRows
    asked_data: RankingData
    """The same, with ids for rankers that read them."""

    def with_columns(self, columns: Sequence[str]) -> Rows:
        """Return the rows with some of their columns alone."""
        train, valid, asked = (_some(data, columns) for data in (self.train, self.valid, self.asked_data))
        return replace(self, train=train, valid=valid, asked_data=asked)

    def scored(self, ranker: Ranker, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return (users, items) scores, -inf for what was no candidate."""
        scores = np.full(shape, -np.inf)
        scores[self.asked.users, self.asked.items] = score_data(ranker, self.asked_data)
        return scores


def rankers() -> tuple[str, ...]:
    """Return the names of the rankers there are."""
    return _registry().names("ranker")


def gather(split: Split, side: SideInformation, options: FirstStageOptions, seed: int) -> Rows:
    """Return rows to train on from folds within the training part, and those to rank by all of it."""
    folds = list(_folds(split, seed))
    labelled = training_rows(folds, side=side, options=options, seed=seed)
    parts = [(fold, rows) for fold, rows in zip(folds, labelled, strict=True) if len(rows.labels)]
    if len(parts) < 2:
        raise InvalidTraining(
            f"{len(parts)} folds of the training part have a user with a test item among the candidates, and 2 are "
            "needed to train and to stop. Bring more interactions."
        )
    stage = FirstStage.fit(split.train, side=side, options=options, seed=seed, now=split.now)
    asked = stage.rows(split.users)
    train, valid = _to_train_and_to_stop(parts, np.random.default_rng(seed), in_time=split.now is not None)
    return Rows(train, valid, asked, _data([(Fold(split.train, split.test), asked)]))


def ranked(
    name: str, rows: Rows, columns: Sequence[str], shape: tuple[int, int], seed: int
) -> NDArray[np.float64]:
    """Return (users, items) scores by ranker `name` trained on `columns`, -inf for what was no candidate."""
    some = rows.with_columns(columns)
    return some.scored(trained(name, OPTIONS.get(name, {}), some.train, some.valid, seed), shape)


def trained(
    name: str, options: Mapping[str, Any], train: RankingData, valid: RankingData | None, seed: int
) -> TrainableRanker:
    """Return ranker `name` with `options` as YAML has them."""
    kind, checked = resolve_ranker(RankerComponent(use=name, **options), _registry())
    ranker: TrainableRanker = kind.fit(train, valid=valid, options=checked, seed=seed)
    return ranker


def blended(rows: Rows, columns: Sequence[str], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return (users, items) means of the standardised scores in `columns`, -inf for what was no candidate."""
    places = [rows.asked.names.index(name) for name in columns]
    scores = np.full(shape, -np.inf)
    scores[rows.asked.users, rows.asked.items] = rows.asked.features[:, places].mean(axis=1)
    return scores


def column_groups(
    rows: RankingRows, options: FirstStageOptions, side: SideInformation
) -> dict[str, list[str]]:
    """Return what each group of columns holds, in the order in which the ablation adds them."""
    groups = {
        "collaborative scores": set(options.models),
        "counts and mean values": {"popularity", "item_mean_value", "activity", "user_mean_value"},
        "content and item columns": {"content_similarity", "tag_taste", *side.item_numbers}
        | {f"{name}_beyond_usual" for name in side.item_numbers},
        "user columns": {*side.user_numbers, *(f"{name}_taste" for name in side.user_groups)},
    }
    groups["times"] = set(rows.names) - set().union(*groups.values())
    found = {group: [name for name in rows.names if name in names] for group, names in groups.items()}
    return {group: names for group, names in found.items() if names}


def _to_train_and_to_stop(
    parts: Sequence[tuple[Fold, RankingRows]], generator: np.random.Generator, *, in_time: bool
) -> tuple[RankingData, RankingData]:
    """Return the rows to train on, and those of the last fold that training stops by.

    Folds at random hold out the same users' interactions in turn, so that a ranker which reads ids or histories knows
    from the other folds whom of the last one it never saw as a negative. It is therefore stopped by users who are in
    no row that it trains on.
    """
    if in_time:
        return _data(parts[:-1]), _data(parts[-1:], "validation")
    users = np.unique(np.concatenate([rows.users for _, rows in parts]))
    apart = generator.choice(users, max(round(_STOPPING_USERS * len(users)), 1), replace=False)
    whose = [np.isin(np.unique(rows.users), apart) for _, rows in parts]
    kept = np.flatnonzero(~np.concatenate(whose))
    valid = _data(parts[-1:], "validation").take(np.flatnonzero(whose[-1]))
    return _data(parts).take(kept), valid


def _folds(split: Split, seed: int) -> Iterator[Fold]:
    if split.now is not None:
        *earlier, last = cuts_in_time(split.train, _CUTS, _HORIZON)
        for fold in earlier:
            # What training stops by must not be among the labels that it learns from.
            before = np.flatnonzero(np.asarray(fold.held_out.times) < last.now)
            yield replace(fold, held_out=fold.held_out.take(before))
        yield last
        return
    # As large a share as the test's is held out, so that scores lean on as much history.
    count = round(len(split.train) / max(len(split.test), 1)) + 1
    yield from folds_by_user(split.train, min(max(count, 2), 5), seed)


def _data(parts: Sequence[tuple[Fold, RankingRows]], called: str = "training") -> RankingData:
    rows = [part for _, part in parts]
    ids = parts[0][0].known.item_ids
    labels = [part.labels if len(part.labels) else np.zeros(len(part.users)) for part in rows]
    values = [
        np.where(liked > 0, np.asarray(fold.held_out.valued[part.users, part.items]).ravel(), np.nan)
        for (fold, part), liked in zip(parts, labels, strict=True)
    ]
    return RankingData(
        features=np.concatenate([part.features for part in rows]),
        feature_names=rows[0].names,
        labels=np.concatenate(labels),
        outcomes={VALUE: np.concatenate(values)},
        groups=np.concatenate([part.groups for part in rows]),
        item_ids=np.concatenate([ids[part.items] for part in rows]),
        histories=tuple(
            history for fold, part in parts for history in _histories(fold.known, np.unique(part.users))
        ),
        # Folds at random ask about each user several times; what a member learns of one is no foresight in another.
        user_ids=np.concatenate([fold.known.user_ids[np.unique(part.users)] for fold, part in parts]),
        called=called,
    )


def _histories(known: Interactions, users: NDArray[np.int64]) -> list[tuple[str, ...]]:
    starts = np.searchsorted(known.users, users, side="left")
    ends = np.searchsorted(known.users, users, side="right")
    return [
        tuple(known.item_ids[known.items[start:end]].tolist())
        for start, end in zip(starts, ends, strict=True)
    ]


def _some(data: RankingData, columns: Sequence[str]) -> RankingData:
    places = [data.feature_names.index(name) for name in columns]
    return replace(data, features=data.features[:, places], feature_names=tuple(columns))


def _registry() -> Registry:
    registry = Registry()
    RankersPlugin().ranking_register_components(registry)
    return registry
