"""How well a network foresees what its score stands for, on rows that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.metrics import log_loss, ndcg
from explorank.rankers.neural.tasks import Tasks, outcome_of


@dataclass(frozen=True, slots=True)
class Judge:
    """What came of held-out rows, as the score weighs it: of the heads that serve, and no others.

    Rows of which a head that serves does not know what came (NaN) are left out. Within requests the figure is NDCG@10.
    Where the label alone serves, it is a grade with gain 2^label - 1; an amount that heads add up to is the gain
    itself, 0 where it is below (Järvelin and Kekäläinen 2002). Without requests it is the log loss of a probability,
    or else the mean squared error of the amount.
    """

    tasks: Tasks
    rows: NDArray[np.int64]
    """Those of which everything is known, (m,)."""
    truth: NDArray[np.float64]
    """(m,) the weighted sum of what came, by the weights of the score; with the label alone, the label."""
    groups: NDArray[np.int64] | None
    """(g,) how many of the rows belong to each request that has any."""
    weights: NDArray[np.float64] | None
    """(m,)"""

    @classmethod
    def of(cls, tasks: Tasks, data: RankingData) -> Self:
        """Return the judge by some data; raise `InvalidTraining` where it knows nothing of what serves."""
        truth = np.zeros(len(data))
        for place in tasks.serving:
            truth += (1.0 if tasks.serving == (0,) else tasks.score_weights[place]) * _came(
                tasks, place, data
            )
        rows = np.flatnonzero(np.isfinite(truth))
        if not len(rows):
            names = ", ".join(repr(tasks.heads[place].name) for place in tasks.serving)
            raise InvalidTraining(
                f"No row of the {data.called} data knows all of {names}, which the score is made of, so that nothing "
                "says when to stop. Gather rows that do, or train without such data."
            )
        groups = None
        if data.groups is not None:
            groups = np.bincount(data.request_of[rows])
            groups = groups[groups > 0]
        return cls(tasks, rows, truth[rows], groups, None if data.weights is None else data.weights[rows])

    def figure(self, outputs: NDArray[np.float32]) -> tuple[float, dict[str, float]]:
        """Return a number of which more is better, and the same as a metric by name, for outputs (n, t) of all rows."""
        known = outputs[self.rows]
        if self.groups is not None:
            reached = self.ndcg_at_10(self.tasks.score(known))
            return reached, {"ndcg@10": reached}
        if len(self.tasks.serving) == 1 and self.tasks.heads[self.tasks.serving[0]].kind == "binary":
            (place,) = self.tasks.serving
            came = self.truth if place == 0 else self.truth / self.tasks.score_weights[place]
            loss = log_loss(self.tasks.values(known)[:, place], came, self.weights)
            return -loss, {"log_loss": loss}
        error = float(np.average((self.tasks.score(known) - self.truth) ** 2, weights=self.weights))
        return -error, {"squared_error": error}

    def ndcg_at_10(self, scores: NDArray[np.float64]) -> float:
        """Return how well `scores` (m,) of the known rows order them within requests; NaN where nothing came."""
        assert self.groups is not None  # noqa: S101 - asked where there are requests
        grades = self.truth if self.tasks.serving == (0,) else np.log2(1.0 + np.maximum(self.truth, 0.0))
        return ndcg(scores, grades, self.groups)


def _came(tasks: Tasks, place: int, data: RankingData) -> NDArray[np.float64]:
    if place == 0:
        return data.labels
    values = outcome_of(data, tasks.heads[place].name)
    # Nothing follows on a label of 0, whether or not the log says so.
    return np.where(data.labels == 0, 0.0, values) if tasks.heads[place].entire_space else values
