"""What a ranker's scores stand for in the reward's unit, so that exploration begins from what is known."""

from __future__ import annotations

from dataclasses import replace

from explorank.artefacts import Watched
from explorank.hooks.exploration import Calibration
from explorank.hooks.types import RankingBatch


class WarmStart:
    """Adds to a ranking what is expected of each candidate, by the newest map for the ranker that scored it."""

    def __init__(self, calibration: Watched[Calibration]) -> None:
        self._calibration = calibration

    def expecting(self, ranking: RankingBatch, ranker_version: str) -> tuple[RankingBatch, str]:
        """Return the ranking with its offsets, and the version of the map; both as they are without one that fits.

        What a host has expected itself stays, under the version `host`.
        """
        if ranking.offsets is not None:
            return ranking, "host"
        calibration = self._calibration.get()
        if calibration is None or calibration.ranker != ranker_version:
            return ranking, ""
        return replace(ranking, offsets=calibration(ranking.score_values)), calibration.version
