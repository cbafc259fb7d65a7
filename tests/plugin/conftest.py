"""Stages for these tests: one for a host that brings its own candidates, one on the prepared installation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
import yaml

from explorank import Decision, Stage, load
from explorank.artefacts import ArtefactStore
from explorank.checks import run_checks
from explorank.hooks import hookimpl
from explorank.hooks.types import Candidates, Features, RankingRequest
from explorank.retrieval import Catalogue
from explorank.settings import parse_settings

OpenStage: TypeAlias = Callable[..., Stage]
OpenSearch: TypeAlias = Callable[[str, "dict[str, Any]", Catalogue], "Search"]

# The learner steps when a test says so, or when a reward wakes it.
EXPLORE_ONLY: dict[str, Any] = {
    "version": 1,
    "ranker": None,
    "retrieval": {"retrievers": []},
    "exploration": {"mode": "live", "holdout": 0.0, "policy": {"use": "epsilon_greedy", "epsilon": 0.5}},
    "feedback": {"learn_every_s": 3600.0},
}


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` with `changes` laid over them; a component is replaced as a whole."""
    result = dict(settings)
    for key, value in changes.items():
        old = result.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping) and "use" not in value
        result[key] = merged(old, value) if nested else value
    return result


@pytest.fixture
def open_stage(tmp_path: Path) -> Iterator[OpenStage]:
    """Open a stage without retrieval, ranker and Feast; closed after the test."""
    with ExitStack() as stages:

        def open_(changes: Mapping[str, Any] | None = None, *, plugins: Sequence[object] = ()) -> Stage:
            settings = parse_settings(merged(EXPLORE_ONLY, changes or {}), tmp_path)
            return stages.enter_context(load(settings, plugins=plugins))

        yield open_


@pytest.fixture
def open_books(installation: Path) -> Iterator[OpenStage]:
    """Open a stage on a copy of the prepared installation; closed after the test."""
    written = yaml.safe_load((installation / "explorank.yaml").read_text(encoding="utf-8"))
    with ExitStack() as stages:

        def open_(changes: Mapping[str, Any] | None = None, *, plugins: Sequence[object] = ()) -> Stage:
            base = merged(written, {"feedback": {"learn_every_s": 3600.0}})
            settings = parse_settings(merged(base, changes or {}), installation)
            return stages.enter_context(load(settings, plugins=plugins))

        yield open_


class Scoring(NamedTuple):
    """What a ranker is given for one request."""

    request: RankingRequest
    candidates: Candidates
    features: Features

    @property
    def similarities(self) -> dict[str, float]:
        """The similarity of each candidate, by item."""
        column = self.features.column("similarity").tolist()
        return dict(zip(self.candidates.id_list, column, strict=True))


class Spy:
    """A plugin that notes what reaches the scoring step, and leaves the scoring to others."""

    def __init__(self) -> None:
        self.seen: list[Scoring] = []

    @property
    def last(self) -> Scoring:
        """What the latest request had."""
        return self.seen[-1]

    @hookimpl(tryfirst=True)
    def ranking_score(self, request: RankingRequest, candidates: Candidates, features: Features) -> None:
        self.seen.append(Scoring(request, candidates, features))


@pytest.fixture(scope="session")
def make_spy() -> Callable[[], Spy]:
    """Make one for whatever lives longer than a test, or beside another."""
    return Spy


@pytest.fixture
def spy(make_spy: Callable[[], Spy]) -> Spy:
    """Note what reaches the scoring step of the stages that it is a plugin of."""
    return make_spy()


@dataclass(frozen=True)
class Search:
    """A stage that shows what one retriever finds in what a catalogue has learnt from interactions."""

    stage: Stage
    learnt: str
    """The section of `retrieval` that asks for it."""

    @property
    def store(self) -> ArtefactStore:
        """Where catalogues are published."""
        return self.stage.installation.artefacts

    def rank(self, *history: str, **request: Any) -> Decision:
        """Return what a visitor with this history is shown."""
        return self.stage.rank(context={"history": history}, slots=8, **request)

    def publish(self, catalogue: Catalogue, damaged: str | None = None) -> None:
        """Let the stage look at a newer catalogue, of which one file may have lost its last byte."""
        version = self.store.publish("catalogue", catalogue.save, promote=False)
        if damaged is not None:
            file = self.store.pointer("catalogue").parent / version / damaged
            file.write_bytes(file.read_bytes()[:-1])
        self.store.set_current("catalogue", version)  # not before, or the stage may see it whole
        self.stage.installation.refresh()

    def checked(self) -> tuple[str, str]:
        """Return what `explorank check` says of what was learnt."""
        found = run_checks(self.stage.installation.settings)
        return next((one.verdict, one.detail) for one in found if one.name == f"retrieval.{self.learnt}")


@pytest.fixture
def open_search(tmp_path: Path) -> Iterator[OpenSearch]:
    """Open a stage with one retriever on a catalogue; closed after the test."""
    with ExitStack() as stages:

        def open_(learnt: str, retriever: dict[str, Any], catalogue: Catalogue) -> Search:
            settings = parse_settings(
                {
                    "version": 1,
                    "ranker": None,
                    "retrieval": {learnt: {"log": True}, "retrievers": [retriever]},
                    "exploration": {"mode": "off", "policy": {"use": "uniform"}},
                },
                tmp_path,
            )
            ArtefactStore(settings.folder_path / "artefacts").publish("catalogue", catalogue.save)
            return Search(stages.enter_context(load(settings)), learnt)

        yield open_
