"""The rounds of a LightGBM training: when they stop, what is saved of them, and how one that was cut off goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import lightgbm
from lightgbm.callback import CallbackEnv, EarlyStopException

from explorank.rankers._checkpoint import Checkpoint, Saved
from explorank.rankers.ranker import Progress, report_metrics

_FORMAT: Final = "explorank.lightgbm-checkpoint/1"
_SAVED_EVERY: Final = 20
"""Rounds between two states that are saved."""
_REMEMBERS_NOTHING: Final = frozenset(
    {
        "metric", "eval_at", "first_metric_only", "learning_rate", "num_leaves", "min_data_in_leaf",
        "min_sum_hessian_in_leaf", "feature_fraction", "lambda_l1", "lambda_l2", "max_bin", "max_depth",
        "max_delta_step", "min_data_in_bin", "min_gain_to_split", "cat_l2", "cat_smooth", "max_cat_threshold",
        "max_cat_to_onehot", "min_data_per_group", "path_smooth", "scale_pos_weight", "is_unbalance", "sigmoid",
        "lambdarank_norm", "lambdarank_truncation_level", "label_gain", "tweedie_variance_power",
    }
)  # fmt: skip
"""Parameters under which a tree follows from the scores before it, and from which features it was offered."""


def can_go_on(params: Mapping[str, Any], *, position_bias: bool) -> bool:
    """Return whether a training that was cut off can end in the very trees that it would have grown.

    Bagging, GOSS, DART, extra trees and quantised gradients draw from generators that LightGBM's model text does not
    hold, and the bias of slots is learnt beside the trees; whatever is not known to be without such a memory counts as
    one that has it.
    """
    return not position_bias and params.keys() <= _REMEMBERS_NOTHING


@dataclass(slots=True)
class Best:
    """The best round so far on the later slice, by the first metric."""

    round: int = 0
    """From 1; 0 where none was judged."""
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics of that round."""


def checkpoint_of(folder: Path, run: str) -> Checkpoint:
    """Return where a training's model text is saved in `folder`; `run` is its identity."""
    return Checkpoint(folder, run, format=_FORMAT, unit="round", suffix=".txt")


def train(
    params: Mapping[str, Any],
    training: lightgbm.Dataset,
    rounds: int,
    *,
    valid: lightgbm.Dataset | None,
    patience: int,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> tuple[str, Best]:
    """Return the text of the model, cut at its best round where there is a later slice, and that round.

    Training stops after `patience` rounds without a better first metric on `valid`. With a checkpoint, the state is
    saved every 20 rounds, and at the end; a run that finds one goes on from it, and its text is that of a run which was
    never cut off, where `can_go_on`.
    """
    saved = None if checkpoint is None else checkpoint.load()
    best = Best() if saved is None else Best(**saved.facts)
    if saved is not None and saved.finished:
        return saved.content.decode(), best
    done, former = (0, None) if saved is None else (saved.done, saved.content.decode())

    def save(text: str, after: int, *, finished: bool) -> None:
        if checkpoint is not None:
            facts = {"round": best.round, "value": best.value, "metrics": best.metrics}
            checkpoint.save(Saved(done=after, finished=finished, facts=facts, content=text.encode()))

    def after_round(env: CallbackEnv) -> None:
        this = env.iteration + 1
        measured = {str(one[1]): float(one[2]) for one in env.evaluation_result_list or ()}
        if progress is not None:
            progress(this, rounds)
            if measured:
                report_metrics(progress, this, {f"valid/{name}": value for name, value in measured.items()})
        if env.evaluation_result_list:
            value, more_is_better = float(env.evaluation_result_list[0][2]), env.evaluation_result_list[0][3]
            if best.value is None or (value > best.value if more_is_better else value < best.value):
                best.round, best.value, best.metrics = this, value, measured
            elif this - best.round >= patience:
                raise EarlyStopException(best.round - 1, [])
        if checkpoint is not None and this % _SAVED_EVERY == 0 and this < rounds:
            save(_text_of(env.model, rounds), this, finished=False)

    callbacks: list[Callable[[CallbackEnv], None]] = [after_round]
    if former is not None:
        callbacks.append(_AsIfAfter(done))
    booster = lightgbm.train(
        dict(params), training, rounds - done,
        valid_sets=[] if valid is None else [valid], valid_names=[] if valid is None else ["valid"],
        init_model=None if former is None else lightgbm.Booster(model_str=former), callbacks=callbacks,
    )  # fmt: skip
    text = _text_of(booster, rounds, best.round or booster.current_iteration())
    save(text, booster.current_iteration(), finished=True)
    return text, best


@dataclass(eq=False)  # LightGBM keeps callbacks in a set, and writes on them
class _AsIfAfter:
    """Moves the generator of offered features to where it stood after some rounds.

    LightGBM's sampler of columns draws once for each tree, and once whenever its configuration is set; that of a fresh
    booster stands where a training begins. Nothing else that `can_go_on` allows draws.
    """

    rounds: int
    before_iteration: bool = True
    """Read by LightGBM: when to call."""

    def __call__(self, env: CallbackEnv) -> None:
        if env.iteration == env.begin_iteration:
            for _ in range(self.rounds):
                env.model.reset_parameter({"feature_fraction": env.params["feature_fraction"]})


def _text_of(booster: lightgbm.Booster, rounds: int, up_to: int = -1) -> str:
    """Return the model's text, which says how many rounds were wanted in all, not since the run last went on."""
    text = booster.model_to_string(num_iteration=up_to)
    return re.sub(
        r"^\[num_iterations: \d+\]$", f"[num_iterations: {rounds}]", text, count=1, flags=re.MULTILINE
    )
