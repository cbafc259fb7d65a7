"""From the decision log to how likely each slot is looked at."""

from __future__ import annotations

from collections.abc import Callable

from explorank.assembly import clock_of
from explorank.errors import DataError
from explorank.hooks.errors import InvalidBatch
from explorank.hooks.evaluation import AdjacentSlots, ExaminationCurve
from explorank.pipeline.logged_outcomes import settled_outcomes
from explorank.settings import Settings


def estimate_examination(
    settings: Settings,
    *,
    now: float | None = None,
    resamples: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ExaminationCurve:
    """Return the curve by all decisions that explored two slots, one below the other; see `AdjacentSlots`.

    A slot counts as taken up where its item was liked. Raises `DataError` where the log cannot tell.
    """
    slots = AdjacentSlots()
    at = clock_of(settings)() if now is None else now
    for record, outcomes, liked in settled_outcomes(settings, at, examined_only=False, progress=progress):
        slots.add(record, {outcome.slot: float(str(outcome.item_id) in liked) for outcome in outcomes})
    try:
        return slots.curve(resamples=resamples, seed=seed)
    except InvalidBatch as error:
        raise DataError(str(error)) from error
