"""The full system: candidates of several models, ranked by a trained ranker; and what each part of it adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.protocols import Split
from explorank.builtin.rankers import RankersPlugin
from explorank.hooks.registry import Registry
from explorank.rankers import IdReadingRanker, InvalidTraining, RankingData
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

_CUTS: Final = (0.4, 0.5, 0.6, 0.7, 0.8)
_HORIZON: Final = 0.25
LIGHTGBM: Final[Mapping[str, Any]] = {
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


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows to train on, the last fold's to stop by, and those to rank."""

    train: RankingData
    valid: RankingData
    asked: RankingRows
    asked_data: RankingData
    """The same, with ids for rankers that read them."""


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
    return Rows(
        _data(parts[:-1]),
        _data(parts[-1:], "validation"),
        asked,
        _data([(Fold(split.train, split.test), asked)]),
    )


def ranked(
    name: str, rows: Rows, columns: Sequence[str], shape: tuple[int, int], seed: int
) -> NDArray[np.float64]:
    """Return (users, items) scores by ranker `name` trained on `columns`, -inf for what was no candidate."""
    train, valid, asked = (_some(data, columns) for data in (rows.train, rows.valid, rows.asked_data))
    kind: Any = _registry().get("ranker", name)
    options = kind.Options(**LIGHTGBM) if name == "lightgbm" else kind.Options()
    ranker = kind.fit(train, valid=valid, options=options, seed=seed)
    scores = np.full(shape, -np.inf)
    scores[rows.asked.users, rows.asked.items] = _scored(ranker, asked)
    return scores


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


def _folds(split: Split, seed: int) -> Iterator[Fold]:
    if split.now is not None:
        return cuts_in_time(split.train, _CUTS, _HORIZON)
    # As large a share as the test's is held out, so that scores lean on as much history.
    count = round(len(split.train) / max(len(split.test), 1)) + 1
    return folds_by_user(split.train, min(max(count, 2), 5), seed)


def _data(parts: Sequence[tuple[Fold, RankingRows]], called: str = "training") -> RankingData:
    rows = [part for _, part in parts]
    ids = parts[0][0].known.item_ids
    return RankingData(
        features=np.concatenate([part.features for part in rows]),
        feature_names=rows[0].names,
        labels=np.concatenate(
            [part.labels if len(part.labels) else np.zeros(len(part.users)) for part in rows]
        ),
        groups=np.concatenate([part.groups for part in rows]),
        item_ids=np.concatenate([ids[part.items] for part in rows]),
        histories=tuple(
            history for fold, part in parts for history in _histories(fold.known, np.unique(part.users))
        ),
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
    return RankingData(
        features=data.features[:, places],
        feature_names=tuple(columns),
        labels=data.labels,
        groups=data.groups,
        item_ids=data.item_ids,
        histories=data.histories,
        called=data.called,
    )


def _scored(ranker: Any, asked: RankingData) -> NDArray[np.float64]:
    """Return the scores (r,), request by request where the ranker reads ids."""
    if not isinstance(ranker, IdReadingRanker) or asked.groups is None:
        plain: NDArray[np.float64] = ranker.score(asked.features)
        return plain
    ids, histories = asked.item_ids, asked.histories
    assert ids is not None  # noqa: S101 - `_data` gives both
    assert histories is not None  # noqa: S101
    names = (*asked.feature_names, *ranker.id_columns)
    places = [names.index(name) for name in ranker.manifest.feature_names]
    ends = np.cumsum(asked.groups)
    parts = []
    for start, end, history in zip(ends - asked.groups, ends, histories, strict=True):
        read = ranker.read_ids(ids[start:end].tolist(), history)
        parts.append(ranker.score(np.concatenate([asked.features[start:end], read], axis=1)[:, places]))
    return np.concatenate(parts)


def _registry() -> Registry:
    registry = Registry()
    RankersPlugin().ranking_register_components(registry)
    return registry
