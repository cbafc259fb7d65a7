"""Explorank on the same data: index, model and features published as its commands would, and its steps timed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
import orjson
import yaml
from numpy.typing import NDArray

from benchmarks.request_path.laps import Laps
from benchmarks.request_path.repository import write_repository
from benchmarks.request_path.settling import until_idle
from benchmarks.request_path.world import World
from explorank import Stage
from explorank.artefacts import ArtefactStore
from explorank.assembly import CATALOGUE, RANKER
from explorank.catalogues import neighbours
from explorank.rankers import CorruptRanker, LightGBMRanker, TrainableRanker
from explorank.retrieval import Catalogue, CorruptArtefact
from explorank.settings import Settings, load_settings

EXPLORED: Final = (2, 5, 8)
_BLOCKED: Final = 1_000
_INTERESTS: Final = 128
"""So many users' interests tune the index; those that requests come from are drawn from all."""
_LEAST_APART: Final = 100
"""A small catalogue has fewer blocked items: one in a hundred."""
_STEPS: Final = {
    "enrich_request": "features",
    "retrieve": "retrieve",
    "filter": "guards",
    "enrich": "features",
    "score": "score",
    "explore": "explore",
    "log": "log",
}
"""What the steps of a stage are called in the tables: the user's features and the items' are one."""


def policy_columns(world: World) -> list[str]:
    """Return the columns that the policy sees: the score, and up to 31 features."""
    return ["score", *world.item_names, *world.user_names][:32]


def folder_of(world: World, kind: str) -> Path:
    """Return where an installation with an index of `kind` lies, which is tuned for so many candidates."""
    return world.folder / f"explorank-{kind}-{world.size.candidates}"


def prepare(
    world: World,
    folder: Path,
    online_store: Mapping[str, Any],
    *,
    kind: str,
    ranker: TrainableRanker | None = None,
    catalogue_of: Path | None = None,
) -> Path:
    """Publish everything in `folder`, with an index of `kind`, and return the settings file.

    Artefacts that are there already are kept, unless this version of Explorank cannot read them. A `ranker` takes the
    place of the world's own model; `catalogue_of` is a prepared folder whose index is copied rather than built again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "explorank.yaml"
    written = _settings(world, kind)
    if ranker is not None:
        written["ranker"] = {"use": ranker.manifest.name}
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    blocked = world.item_ids[:: max(_LEAST_APART, world.size.items // _BLOCKED)]
    (folder / "blocked.txt").write_text("\n".join(blocked), encoding="utf-8")
    write_repository(world, folder / "feature_repo", online_store)
    settings = load_settings(path)
    store = ArtefactStore(settings.folder_path / "artefacts")
    if ranker is not None:
        store.publish(RANKER, ranker.save)
    elif not _readable(store, RANKER, LightGBMRanker.load):
        booster = lightgbm.Booster(model_str=world.model)
        store.publish(RANKER, LightGBMRanker.from_booster(booster, features=world.training_rows).save)
    if not _readable(store, CATALOGUE, Catalogue.load):
        store.publish(CATALOGUE, _copied(catalogue_of) or _catalogue(world, settings).save)
    return path


def _copied(folder: Path | None) -> Callable[[Path], object] | None:
    if folder is None:
        return None
    settings = load_settings(folder / "explorank.yaml")
    current = ArtefactStore(settings.folder_path / "artefacts").current(CATALOGUE)
    if current is None:
        return None
    return partial(
        shutil.copytree, current[1], dirs_exist_ok=True, ignore=shutil.ignore_patterns("checksums.json")
    )


def _readable(store: ArtefactStore, kind: str, load: Callable[[Path], object]) -> bool:
    current = store.current(kind)
    if current is None:
        return False
    try:
        load(current[1])
    except (CorruptArtefact, CorruptRanker):
        return False
    return True


def _settings(world: World, kind: str) -> dict[str, Any]:
    candidates = world.size.candidates
    return {
        "version": 1,
        "features": {"repository": "feature_repo"},
        "retrieval": {
            "candidates": candidates,
            "index": {"kind": kind, "device": "cpu"},
            "retrievers": [{"use": "similar_to_history", "k": candidates}],
        },
        "exploration": {
            "mode": "live",
            "holdout": 0.0,
            "policy": {"use": "linear_thompson", "floor": 0.02},
            "features": policy_columns(world),
            "slots": list(EXPLORED),
        },
        "guards": [{"use": "block_list", "path": "blocked.txt"}, {"use": "already_seen"}],
    }


def _catalogue(world: World, settings: Settings) -> Catalogue:
    return Catalogue.build(
        world.item_ids,
        world.vectors,
        kind=settings.retrieval.index.kind,
        device=settings.retrieval.index.device,
        neighbours=neighbours(settings),
        interests=world.user_vectors[-_INTERESTS:],
    )


class TimedStage:
    """A stage whose requests tell how long each step took."""

    def __init__(self, stage: Stage, slots: int) -> None:
        """Take the stage and how many slots a request asks for."""
        self._stage, self._slots = stage, slots
        catalogue = stage.installation.catalogue.get()
        if catalogue is None:
            raise RuntimeError("No catalogue is published, so that nothing can be retrieved.")
        self._catalogue = catalogue

    def rank(self, user_id: str, laps: Laps) -> bytes:
        """Answer one request; raise `RuntimeError` where something was fallen back to or left out."""
        decision = self._stage.rank(user_id=user_id, slots=self._slots)
        laps.split(((_STEPS[step], us) for step, us in decision.timings_us.items()), "rest")
        answer = orjson.dumps(decision.to_dict())
        laps.lap("serialise")
        if decision.fallbacks or not decision.logged or len(decision.items) < self._slots:
            raise RuntimeError(
                f"A request did less than it should: {decision.fallbacks}, {len(decision.items)} items"
            )
        return answer

    def settle(self, user_id: str) -> None:
        """Ask once, and wait until nothing works in the background."""
        self._stage.rank(user_id=user_id, slots=self._slots)
        until_idle(time.process_time)

    @property
    def index(self) -> str:
        """The kind of index that it searches."""
        return self._catalogue.index.kind

    def nearest(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return the rows of the `k` items that its index finds for each query, (q, k)."""
        found = [self._catalogue.index.search(query, k)[0] for query in queries]
        return np.stack([self._catalogue.rows(np.ravel(ids)) for ids in found])

    def learn(self, user_ids: list[str]) -> None:
        """Let the policy learn something: one click for each user."""
        for user_id in user_ids:
            decision = self._stage.rank(user_id=user_id, slots=self._slots)
            self._stage.reward(decision.decision_id, slot=EXPLORED[0])
