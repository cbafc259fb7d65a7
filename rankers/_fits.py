"""Many fits for one ranker: a seed for each, folds, one line of progress, and a checkpoint after each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._checkpoint import run_identity
from explorank.rankers._folds import folds_of
from explorank.rankers._training import check_all_labelled
from explorank.rankers.applying import score_data
from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining, RankerError
from explorank.rankers.members import Member, Plan
from explorank.rankers.ranker import Progress

_STEPS: Final = 100
"""Into how many steps of progress each fit is divided."""


class Fits:
    """Trains members one after another; the same data, options and seed give the same ones.

    With a checkpoint folder, members that were trained before a run was cut off are loaded from it. A folder that
    belongs to another run is refused, by `InvalidTraining`.
    """

    def __init__(
        self,
        data: RankingData,
        valid: RankingData | None,
        *,
        options: object,
        seed: int,
        total: int,
        progress: Progress | None,
        checkpoint: Path | None,
    ) -> None:
        check_all_labelled(data)
        self.data: Final = data
        self._valid = valid
        self._seed = seed
        self._total = total * _STEPS
        self._progress = progress
        self._checkpoint = checkpoint
        self._done = 0
        if valid is not None:
            data.check_same_features(valid)
        if checkpoint is not None:
            _claim(checkpoint, run_identity(data, valid, options, seed))

    def randomness(self, *purpose: int) -> np.random.Generator:
        """Return a generator of this run for one purpose, whatever else is drawn."""
        return np.random.default_rng([self._seed, *purpose])

    def fit(self, plan: Plan, data: RankingData | None = None) -> Member:
        """Return the next member, trained on `data`, by default all of it, and stopped on the later slice."""
        number, self._done = self._done, self._done + 1
        home = None if self._checkpoint is None else self._checkpoint / f"{number:03d}"
        member = self._resumed(plan, home)
        if member is None:
            rows = plan.columns_of(self.data if data is None else data)
            ranker = plan.trainable.fit(
                rows,
                valid=None if self._valid is None else plan.columns_of(self._valid),
                options=plan.options,
                seed=int(self.randomness(1, number).integers(2**31)),
                progress=None if self._progress is None else self._step_of(number),
                checkpoint=None if home is None else home / "running",
            )
            member = Member(plan.use or ranker.manifest.name, ranker)
            if home is not None:
                ranker.save(home / "draft")
                (home / "draft").replace(home / "trained")
        if self._progress is not None:
            self._progress(self._done * _STEPS, self._total)
        return member

    def out_of_fold(self, plans: Sequence[Plan], folds: int) -> NDArray[np.float64]:
        """Return scores (n, members) of each row by members that were trained without its request, or its user."""
        scores = np.empty((len(self.data), len(plans)))
        for rows, of_fold in self.each_fold(plans, folds):
            scores[rows] = of_fold
        return scores

    def each_fold(
        self, plans: Sequence[Plan], folds: int, learnt: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
        """Yield which rows are of a fold, (n,), and their scores (rows, members), fold by fold.

        Members learn from the rows of the other folds that `learnt` (n,) is true of, by default all.
        """
        for plan in plans:
            plan.check_columns(self.data)
        fold_of = folds_of(self.data, folds, self.randomness(2))
        row_fold = fold_of[self.data.request_of]
        for fold in range(folds):
            held_out = row_fold == fold
            rest = self.data.take_rows(~held_out if learnt is None else ~held_out & learnt)
            asked = self.data.take_rows(held_out)
            scores = [score_data(self._without(fold, folds, plan, rest).ranker, asked) for plan in plans]
            yield held_out, np.column_stack(scores)

    def _without(self, fold: int, folds: int, plan: Plan, rest: RankingData) -> Member:
        """Return a member that was trained on `rest`, all folds but one; say so where it cannot be."""
        try:
            return self.fit(plan, rest)
        except InvalidTraining as error:
            raise InvalidTraining(
                f"Fold {fold + 1} of {folds} is judged by a {plan.use or plan.trainable.__name__!r} that has not seen "
                f"it, trained on the other folds, and that cannot be: {error}"
            ) from error

    def _resumed(self, plan: Plan, home: Path | None) -> Member | None:
        if home is None or not (home / "trained").is_dir():
            if home is not None:
                shutil.rmtree(home / "draft", ignore_errors=True)
            return None
        try:
            ranker = plan.trainable.load(home / "trained")
        except RankerError:
            shutil.rmtree(home / "trained")  # cut off while it was written: trained once more
            return None
        return Member(plan.use or ranker.manifest.name, ranker)

    def _step_of(self, number: int) -> Progress:
        def tell(done: int, of: int) -> None:
            if self._progress is not None:
                self._progress(number * _STEPS + min(_STEPS * done // max(of, 1), _STEPS - 1), self._total)

        return tell


def _claim(folder: Path, fingerprint: str) -> None:
    """Begin a run in `folder`, or go on with the same one."""
    file = folder / "run.json"
    try:
        before = json.loads(file.read_bytes())["fingerprint"]
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")
        draft.replace(file)  # at once: a run may be cut off here too
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidTraining(
            f"{file} cannot be read ({error}), so it is unknown which run it belongs to. Remove {folder}; training "
            "starts anew then."
        ) from error
    if before != fingerprint:
        raise InvalidTraining(
            f"{folder} holds the checkpoint of a run with other data, options or seed; going on would mix the two. "
            "Remove it, or name another folder."
        )
