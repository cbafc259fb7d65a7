"""What each head of a network foresees, and how the heads make one score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.options import NeuralObjective, TaskOptions

TaskKind: TypeAlias = Literal["binary", "listwise", "pairwise", "regression"]


@dataclass(frozen=True, slots=True)
class Task:
    """What one head foresees."""

    name: str
    kind: TaskKind
    center: float = 0.0
    """The training mean of a regression's values, which the head's output is added to."""
    scale: float = 1.0
    """Their standard deviation, which it is multiplied by."""
    entire_space: bool = False
    """Whether the head's probability holds given the label, and counts together with the label's."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """The heads in the order of a network's outputs, the label's first, and their weights in the score."""

    heads: tuple[Task, ...]
    score_weights: tuple[float, ...]

    @classmethod
    def of(cls, data: RankingData, objective: NeuralObjective, options: TaskOptions) -> Self:
        """Return the heads for some data; raise `InvalidTraining` for an outcome that cannot be learnt from it."""
        heads = [Task("label", objective)]
        for name in options.outcomes:
            values = outcome_of(data, name)
            known = values[np.isfinite(values)]
            if len(np.unique(known)) < 2:
                raise InvalidTraining(
                    f"Outcome {name!r} of the {data.called} data holds {np.unique(known).tolist()} alone, and nothing "
                    "can be told apart by that. Leave it out, or gather rows with other values."
                )
            binary = bool(np.isin(known, [0.0, 1.0]).all())
            entire_space = name == options.entire_space
            if entire_space and not binary:
                raise InvalidTraining(
                    f"entire_space={name!r} is to be foreseen as a probability, and its values are not 0 and 1 alone. "
                    "Set a threshold, or foresee it as a plain outcome."
                )
            if binary:
                heads.append(Task(name, "binary", entire_space=entire_space))
            elif name in data.teacher:
                raise InvalidTraining(
                    f"Outcome {name!r} of the {data.called} data is an amount, and the data's teacher speaks of its "
                    "probability, which says nothing of how much. Leave it out of `teacher`, or foresee whether there "
                    "is any."
                )
            else:
                heads.append(Task(name, "regression", float(known.mean()), float(known.std())))
        return cls(tuple(heads), tuple(float(options.score.get(head.name, 0.0)) for head in heads))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the tasks that `to_json` described."""
        return cls(
            tuple(Task(**head) for head in content["heads"]), tuple(map(float, content["score_weights"]))
        )

    def to_json(self) -> dict[str, Any]:
        """Describe the tasks for a manifest."""
        return {"heads": [asdict(head) for head in self.heads], "score_weights": list(self.score_weights)}

    @property
    def link(self) -> Literal["identity", "logistic"]:
        """From the raw score to the score."""
        return "logistic" if self._label_alone and self.heads[0].kind == "binary" else "identity"

    @property
    def serving(self) -> tuple[int, ...]:
        """The places of the heads that the score is made of."""
        return tuple(place for place, weight in enumerate(self.score_weights) if weight)

    @property
    def _label_alone(self) -> bool:
        return self.score_weights[0] == 1.0 and not any(self.score_weights[1:])

    def values(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what each head foresees, (n, t), from a network's outputs (n, t)."""
        values = outputs.astype(np.float64)
        for place, head in enumerate(self.heads):
            if head.kind == "binary":
                # exp overflows to infinity for a probability that rounds to 0; that is the right answer.
                with np.errstate(over="ignore"):
                    values[:, place] = 1.0 / (1.0 + np.exp(-values[:, place]))
            elif head.kind == "regression":
                values[:, place] = values[:, place] * head.scale + head.center
        for place, head in enumerate(self.heads):
            if head.entire_space:
                values[:, place] *= values[:, 0]
        return values

    def score(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the scores (n,) from a network's outputs (n, t)."""
        if self._label_alone:
            return np.ascontiguousarray(self.values(outputs)[:, 0])
        scores: NDArray[np.float64] = self.values(outputs) @ np.array(self.score_weights)
        return scores


def outcome_of(data: RankingData, name: str) -> NDArray[np.float64]:
    """Return an outcome (n,) of the data; raise `InvalidTraining` where it has none of that name."""
    if name not in data.outcomes:
        raise InvalidTraining(
            f"The {data.called} data has no outcome {name!r}, which a head is to foresee. It has "
            f"{', '.join(data.outcomes) or 'none'}. Correct the name, or pass the outcome."
        )
    return data.outcomes[name]
