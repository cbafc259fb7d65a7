"""The one path to an answer: explore, make the record durable, and only then answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from explorank.budgets import Budgets
from explorank.engine import Engine
from explorank.explorer import Explored, Explorer
from explorank.fallbacks import collecting_fallbacks
from explorank.hooks.types import (
    REPRESENTATION,
    Candidates,
    DecisionRecord,
    Fallback,
    RankingBatch,
    RankingRequest,
    Slate,
)
from explorank.recorder import Recorder, record_of
from explorank.timings import StepClock
from explorank.warm_start import WarmStart


@dataclass(frozen=True, slots=True)
class Decided:
    """What to show."""

    record: DecisionRecord
    """The decision; an earlier one where it is `repeated`."""
    slate: Slate
    """Its slate, in rows of the candidates of the request at hand."""
    logged: bool
    """Whether the log holds it."""
    repeated: bool = False
    """Whether an earlier decision is served again."""


class Decider:
    """Shared by the stage and the host plugin, so that neither can answer what the log does not hold."""

    def __init__(
        self,
        explorer: Explorer,
        recorder: Recorder,
        engine: Engine,
        versions: Callable[[], Mapping[str, str]],
        budgets: Budgets,
        warm_start: WarmStart | None = None,
    ) -> None:
        self._explorer = explorer
        self._recorder = recorder
        self._engine = engine
        self.versions = versions
        self._budgets = budgets
        self._warm_start = warm_start

    def decide(
        self,
        request: RankingRequest,
        ranking: RankingBatch,
        n_slots: int,
        seed: int,
        fallbacks: list[Fallback],
        candidates: Candidates | None = None,
        ranker_version: str | None = None,
        *,
        held_back: str = "",
        clock: StepClock | None = None,
    ) -> Decided:
        """Return what to show and whether it is durable.

        A decision that is served again is neither logged nor told to plugins a second time.
        `candidates`, in the order of `ranking`, adds the sources; `ranker_version` names what gave the scores,
        where the caller knows better than that it was the newest ranker. `held_back` says why the request must
        not explore; empty where it may. Where the log fails, the answer is the
        baseline: an exploration whose propensities nobody can ever read would be wasted. The time of the two
        steps `explore` and `log` goes to `clock`.
        """
        clock = clock or StepClock()
        versions = self.versions()
        if ranker_version is not None:
            versions = {**versions, "ranker": ranker_version}
        if ranking.representation:
            versions = {**versions, REPRESENTATION: ranking.representation}
        if self._warm_start is not None:
            ranking, calibration = self._warm_start.expecting(ranking, versions["ranker"])
            versions = {**versions, "calibration": calibration}
        with collecting_fallbacks(fallbacks):
            explored = self._explorer.explore(request, ranking, n_slots, seed, fallbacks, held_back=held_back)
        clock.end("explore")
        if explored.repeats is not None:
            self._budgets.repeated()
            return Decided(explored.repeats, explored.slate, logged=True, repeated=True)

        def record(shown: Explored) -> DecisionRecord:
            return record_of(request, ranking, shown, fallbacks, versions, candidates)

        answer, logged = self._recorder.write(record(explored), lambda: record(explored.kept_back()))
        self._budgets.settle(explored.reserved, answer, logged=logged)
        if logged:
            self._engine.decided(answer)
        clock.end("log")
        return Decided(answer, answer.slate, logged)
