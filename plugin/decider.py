"""The one path to an answer: explore, make the record durable, and only then answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from explorank.engine import Engine
from explorank.explorer import Explored, Explorer
from explorank.fallbacks import collecting_fallbacks
from explorank.hooks.types import Candidates, DecisionRecord, Fallback, RankingBatch, RankingRequest
from explorank.recorder import Recorder, record_of
from explorank.warm_start import WarmStart


class Decider:
    """Shared by the stage and the host plugin, so that neither can answer what the log does not hold."""

    def __init__(
        self,
        explorer: Explorer,
        recorder: Recorder,
        engine: Engine,
        versions: Callable[[], Mapping[str, str]],
        warm_start: WarmStart | None = None,
    ) -> None:
        self._explorer = explorer
        self._recorder = recorder
        self._engine = engine
        self.versions = versions
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
    ) -> tuple[DecisionRecord, bool]:
        """Return what to show and whether it is durable.

        `candidates`, in the order of `ranking`, adds the sources; `ranker_version` names what gave the scores,
        where the caller knows better than that it was the newest ranker. Where the log fails, the answer is the
        baseline: an exploration whose propensities nobody can ever read would be wasted.
        """
        versions = self.versions()
        if ranker_version is not None:
            versions = {**versions, "ranker": ranker_version}
        if self._warm_start is not None:
            ranking, calibration = self._warm_start.expecting(ranking, versions["ranker"])
            versions = {**versions, "calibration": calibration}
        with collecting_fallbacks(fallbacks):
            explored = self._explorer.explore(request, ranking, n_slots, seed, fallbacks)

        def record(shown: Explored) -> DecisionRecord:
            return record_of(request, ranking, shown, fallbacks, versions, candidates)

        answer, logged = self._recorder.write(record(explored), lambda: record(explored.kept_back()))
        if logged:
            self._engine.decided(answer)
        return answer, logged
