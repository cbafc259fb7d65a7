"""The ranker that serves, on what a new one is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.artefacts import ArtefactStore
from explorank.assembly import RANKER, load_ranker
from explorank.errors import USER_ERRORS
from explorank.hooks.registry import Registry
from explorank.model_card import Comparison, Estimate
from explorank.pipeline.evidence import accuracy, compared
from explorank.pipeline.metrics import Interval, bootstrap
from explorank.pipeline.past_data import PastData
from explorank.pipeline.results import estimate
from explorank.rankers import Ranker, score_data
from explorank.settings import Settings


@dataclass(frozen=True, slots=True)
class Former:
    """The ranker that was current, on the new one's later slice."""

    ranker: Ranker | None = None
    scores: NDArray[np.float64] | None = None
    comparison: Comparison | None = None
    difference: Interval | None = None
    why_not: str = ""
    """Why there is nothing to compare with; empty where there is."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        registry: Registry,
        store: ArtefactStore,
        past: PastData,
        ndcg: NDArray[np.float64],
        seed: int,
    ) -> Former:
        """Score the later slice with the current ranker; whatever keeps it from that is a reason, no error."""
        try:
            current = store.current(RANKER)
            if current is None:
                return cls(why_not="the first one")
            version, folder = current[0], store.verify(RANKER, current[0])
            ranker = load_ranker(settings, registry)(folder)
            scores = score_data(ranker, past.later)
        except (*USER_ERRORS, OSError) as error:
            return cls(why_not=f"not compared: {error}")
        own = accuracy(scores, past.later)["ndcg@10"]
        difference = compared(ndcg, own, past.later_users, seed=seed)
        seen = ranker.manifest.training_window
        first = (past.later.window or (0.0, 0.0))[0]
        note = (
            "It was trained on requests of this slice, which favours it." if seen and seen[1] >= first else ""
        )
        comparison = Comparison(
            former=version,
            former_ndcg_at_10=_estimated(own, past.later_users, seed),
            difference=estimate(difference),
            note=note,
        )
        return cls(ranker, scores, comparison, difference)


def _estimated(values: NDArray[np.float64], users: NDArray[Any], seed: int) -> Estimate:
    return estimate(bootstrap(values, seed=seed, users=users))
