"""The stage that people run, among the contenders: features, catalogue and ranker of what came before the split.

Everything is what `explorank features`, `build` and `train` run, on tables that end at the split. Then a running stage,
whose clock stands there, is asked for ten slots for each user, exploration off, with what the user has in training
excluded. A split without a moment cannot be served: features are as of one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.accuracy.contenders import Entry
from benchmarks.accuracy.meter import measured
from benchmarks.accuracy.protocols import Split
from explorank import load
from explorank.demo.data import DemoData
from explorank.errors import DataError
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.features import prepare_features
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.tables import past_interactions
from explorank.pipeline.train import train_ranker
from explorank.pipeline.train_options import TrainOptions
from explorank.retrieval.collaborative import Interactions
from explorank.retrieval.features import copy_repository
from explorank.settings import Settings, parse_settings

SERVED: Final = "served stage"
_SLOTS: Final = 10
# One thread, as all contenders have, and time enough on a busy machine: a late score would fall back.
_LIGHTGBM: Final[Mapping[str, Any]] = {"use": "lightgbm", "num_threads": 1, "budget_ms": 10_000.0}


@dataclass(frozen=True, slots=True)
class Variant:
    """A stage as somebody would set it up."""

    name: str
    retrieval: Mapping[str, Any] = field(default_factory=dict)
    """The section of the settings; all others are the defaults."""
    ranker: Mapping[str, Any] | None = field(default_factory=lambda: dict(_LIGHTGBM))
    """None shows the order of retrieval."""

    @property
    def learns(self) -> bool:
        """Whether its catalogue learns from interactions."""
        return bool({"by_use", "learned_embeddings"} & set(self.retrieval))


VARIANTS: Final = (
    Variant(f"{SERVED}, default settings"),
    Variant(
        f"{SERVED}, by use and learnt",
        {
            "by_use": {},
            "learned_embeddings": {"column": True},
            "retrievers": [
                {"use": "learned_embeddings", "k": 100},
                {"use": "similar_by_use", "k": 100},
                {"use": "similar_to_history", "k": 200},
                {"use": "popular", "k": 100},
                {"use": "new_items", "k": 50},
            ],
        },
    ),
    Variant(
        f"{SERVED}, `trending` without a ranker",
        {"trending": {}, "retrievers": [{"use": "trending", "k": 100}]},
        ranker=None,
    ),
)


@dataclass(frozen=True, slots=True)
class Served:
    """What a stage is made of beside the interactions of a split."""

    items: pd.DataFrame
    users: pd.DataFrame | None
    cache: Path
    """Keeps the texts' embeddings."""
    folder: Path
    """Where installations are set up, each in a folder of its own; they are read from as long as the process lives."""

    @classmethod
    def of(cls, data: DemoData, cache: Path, folder: Path) -> Served:
        """Return the tables of `data`; of an item or user that stands in them twice, the first row counts."""
        users = None if data.users is None else data.users.drop_duplicates("user_id")
        return cls(data.items.drop_duplicates("item_id"), users, cache, folder)

    def contenders(self, split: Split, seed: int) -> Iterator[Entry]:
        """Yield each variant; nothing for a split without a moment to ask at. `seed` is that of all training."""
        if split.now is None:
            return
        past, asked_at = _table(split.train), datetime.fromtimestamp(split.now, UTC)
        folder = self._installation()
        with measured() as preparing:
            settings = _settings(VARIANTS[0], past, asked_at, seed, folder)
            prepare_features(settings, past, self.items, self.users, until=asked_at)
        for variant in VARIANTS:
            settings = _settings(variant, past, asked_at, seed, folder)
            with measured() as effort:
                build_catalogue(settings, interactions=past if variant.learns else None, until=asked_at)
                if variant.ranker is not None:
                    train_ranker(settings, past, options=_options(settings, seed))
            effort.seconds += preparing.seconds
            effort.mib = max(effort.mib, preparing.mib)
            yield Entry(variant.name, _scores(settings, split), effort)

    def _installation(self) -> Path:
        """Return a folder with a Feast repository and the embeddings that are known already."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        copy_repository(folder / "feature_repo")
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        self.cache.touch()
        (folder / ".explorank").mkdir()
        (folder / ".explorank" / "embeddings.db").symlink_to(self.cache.absolute())
        return folder


def _table(known: Interactions) -> pd.DataFrame:
    """Return interactions as `explorank train` reads them."""
    return past_interactions(
        pd.DataFrame(
            {
                "user_id": known.user_ids[known.users],
                "item_id": known.item_ids[known.items],
                "timestamp": known.times,
                "value": known.values,
            }
        )
    )


def _settings(variant: Variant, past: pd.DataFrame, asked_at: datetime, seed: int, folder: Path) -> Settings:
    """Return settings by which every interaction is liked, as the protocols have it."""
    retrieval = dict(variant.retrieval)
    if "learned_embeddings" in retrieval:
        retrieval["learned_embeddings"] = {**retrieval["learned_embeddings"], "seed": seed}
    return parse_settings(
        {
            "version": 1,
            "features": {"as_of": asked_at.isoformat(), "positive_from": float(past["value"].min())},
            "retrieval": retrieval,
            "ranker": variant.ranker,
            "exploration": {"mode": "off", "policy": {"use": "uniform"}},
        },
        folder,
    )


def _options(settings: Settings, seed: int) -> TrainOptions:
    assert settings.features is not None  # noqa: S101 - `_settings` has them, for the type checker
    queries = QueryOptions(positive_from=settings.features.positive_from)
    # What serves is the variant's own ranker, whatever the one before it is worth.
    return TrainOptions(queries=queries, seed=seed, promote="always")


def _scores(settings: Settings, split: Split) -> NDArray[np.float64]:
    """Return (m, n) the greater the further in front a user of the split was shown an item, -inf for all others."""
    train = split.train
    columns = {item: column for column, item in enumerate(train.item_ids.tolist())}
    scores = np.full((len(split.users), len(columns)), -np.inf)
    with load(settings) as stage:
        for row, user in enumerate(split.users):
            taken = train.item_ids[train.matrix[user].indices].tolist()
            decision = stage.rank(user_id=str(train.user_ids[user]), slots=_SLOTS, exclude=taken)
            if decision.fallbacks:
                raise DataError(
                    f"The stage answered without a part of it, so that no figure would be its own: "
                    f"{decision.fallbacks[0]}. Mend that part, or leave the stage out by --no-stage."
                )
            shown = [columns[item] for item in decision.items]
            scores[row, shown] = -np.arange(len(shown))
    return scores
