"""The teacher of a ranker: trained and asked so that it never saw the users of the rows that it speaks of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from explorank.errors import SettingsError
from explorank.hooks.registry import Registry
from explorank.model_card import Teaching
from explorank.pipeline.card import options_as_json
from explorank.pipeline.evidence import accuracy
from explorank.pipeline.metrics import bootstrap
from explorank.pipeline.past_data import PastData
from explorank.pipeline.results import estimate
from explorank.rankers import RankingData, learns_from_teacher, taught_out_of_fold
from explorank.rankers.members import Plan
from explorank.settings import RankerComponent, resolve_ranker


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a ranker is trained on, and who spoke of it."""

    data: RankingData
    teaching: Teaching | None = None


@dataclass(frozen=True, slots=True)
class Teacher:
    """A ranker that is trained only to be learnt from."""

    plan: Plan
    cross_fit: int
    """Into how many parts users are cut; 2 or more."""
    pseudo_labels: int
    """How many rows without a label each past request has at most."""

    @classmethod
    def of(cls, student: RankerComponent, registry: Registry) -> Self | None:
        """Return the teacher that a ranker's settings name; `None` where they name none.

        Raises `SettingsError` for a teacher that nobody registers, that cannot be trained or whose options do not fit,
        and for a ranker that would not listen to it.
        """
        named = student.taught_by
        if named is None:
            return None
        document, at = named.origin
        if not learns_from_teacher(resolve_ranker(student, registry)[0]):
            raise SettingsError(
                [
                    document.problem(
                        at,
                        f"{student.use} learns from what came of its rows alone, so that nobody would listen to the "
                        "teacher. Leave it out, or train `dcn` or `sequence`.",
                    )
                ]
            )
        ranker_class, options = resolve_ranker(named, registry)
        if not hasattr(ranker_class, "fit"):
            raise SettingsError(
                [
                    document.problem(
                        at,
                        f"{named.use} cannot be trained here, because its class has no `fit`, and a teacher is trained "
                        "without the users whose rows it speaks of. Name another one.",
                    )
                ]
            )
        return cls(
            Plan(use=named.use, trainable=ranker_class, options=options), named.cross_fit, named.pseudo_labels
        )

    def taught(
        self, past: PastData, seed: int, progress: Callable[[int, int], None] | None, checkpoint: Path
    ) -> Lessons:
        """Return the training rows with what the teacher says of them; the later ones stop its training alone.

        A run that was cut off goes on with what lies in `checkpoint`. Raises `InvalidTraining` where the teacher
        refuses the data, or its scores are no probabilities.
        """
        data = taught_out_of_fold(
            self.plan,
            past.training,
            valid=past.later,
            unlabelled=past.unlabelled,
            folds=self.cross_fit,
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
        )
        said = data.teacher["label"]
        labelled = np.isfinite(data.labels)
        ndcg = accuracy(said[labelled], past.training.take_rows(labelled))["ndcg@10"]
        teaching = Teaching(
            teacher=self.plan.use,
            options=options_as_json(self.plan.options),
            cross_fit=self.cross_fit,
            rows=len(data),
            pseudo_labels=int((~labelled).sum()),
            ndcg_at_10=estimate(bootstrap(ndcg, seed=seed, users=past.training_users)),
        )
        return Lessons(data, teaching)
