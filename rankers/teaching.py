"""What one ranker says, for another to learn from."""

from __future__ import annotations

from dataclasses import replace

from explorank.rankers.applying import score_data
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.ranker import Ranker


def taught_by(teacher: Ranker, data: RankingData, *, head: str = "label") -> RankingData:
    """Return `data` with how probable `teacher` finds each row's label, or the outcome that `head` names.

    A teacher that was trained on the same rows is surer of them than of others; ask one that was not. Raises
    `InvalidTraining` where a score is no probability, and `FeatureMismatch` for columns that `data` lacks.
    """
    scores = score_data(teacher, data)
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise InvalidTraining(
            f"Ranker {teacher.manifest.name!r} scores the {data.called} data from {scores.min():g} to "
            f"{scores.max():g}, which are no probabilities. Train the teacher with objective 'binary', or wrap it in "
            "`Calibrated`."
        )
    return replace(data, teacher={**data.teacher, head: scores})
