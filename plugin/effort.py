"""How much a stage spends on one request, and in what order it spends less when there is too much to do."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

from explorank.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What a request may cost; without arguments, whatever the settings say.

    What is left out is named in the decision's fallbacks with `reason`. Propensities stay true: a request that
    may not explore shows the best by score, with propensity 1.
    """

    name: str = "whole"
    """How metrics call it."""
    candidates: int | None = None
    """At most so many candidates are ranked; `None` is `retrieval.candidates`."""
    ranker: Literal["whole", "cheaper", "none"] = "whole"
    """`cheaper` asks the ranker for its cheaper way, if it has one; `none` leaves the order of retrieval."""
    explores: bool = True
    """Whether the request may explore."""
    reason: str = "the caller asked for less"
    """Why something is left out."""


WHOLE: Final = Effort()


def ladder(settings: Settings) -> tuple[Effort, ...]:
    """Return the efforts that the settings allow, each less than the one before.

    Half of the candidates, the fewest (`load.candidates`), the ranker's cheaper way, no ranker, no exploration: first
    goes what costs the answers least. A rung that would leave nothing out is not there.
    """
    most, fewest = settings.retrieval.candidates, min(settings.load.candidates, settings.retrieval.candidates)
    half = max(fewest, ceil(most / 2))
    rungs = [WHOLE]
    if settings.retrieval.retrievers:
        if half < most:
            rungs.append(Effort(name="fewer_candidates", candidates=half))
        if fewest < half:
            rungs.append(Effort(name="fewest_candidates", candidates=fewest))
        if settings.ranker is not None:
            rungs.append(Effort(name="cheaper_ranker", candidates=fewest, ranker="cheaper"))
            rungs.append(Effort(name="no_ranker", candidates=fewest, ranker="none"))
    if settings.exploration.mode != "off":
        rungs.append(Effort(name="no_exploration", candidates=fewest, ranker="none", explores=False))
    return tuple(rungs)
