"""A training loop that can be cut off at any step and ends as it would have."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from explorank.retrieval._files import read_manifest, replace_file, write_manifest
from explorank.retrieval.encoding.options import Progress
from explorank.retrieval.errors import InvalidOption

_FORMAT: Final = "explorank.encoding-checkpoint/1"
_MANIFEST: Final = "checkpoint.json"
_TENSORS: Final = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How many steps, how large, and how often somebody looks."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.0
    warmup: float = 0.1
    """The share of the steps in which the learning rate rises from 0; after it, it falls to 0 as a line."""
    clip: float = 1.0
    """The gradient's largest length."""
    looks: int = 10
    """How many times the run is saved and, where there is something to judge by, judged."""


@dataclass(slots=True)
class Trained:
    """What a run left."""

    losses: list[float] = field(default_factory=list)
    """One of each step."""
    judged: dict[int, float] = field(default_factory=dict)
    """What `judge` said after so many steps; more is better."""
    best: int | None = None
    """After how many steps it said the best; the parameters are as they were then."""

    @property
    def ends(self) -> dict[str, float]:
        """The mean losses of the first and of the last tenth of the steps."""
        tenth = max(1, len(self.losses) // 10)
        return {
            "loss_at_first": float(np.mean(self.losses[:tenth])),
            "loss_at_last": float(np.mean(self.losses[-tenth:])),
        }


def train(
    parameters: Mapping[str, torch.nn.Parameter],
    backward: Callable[[int], float],
    schedule: Schedule,
    *,
    judge: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    run: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train `parameters` in place with AdamW; `backward(step)` adds a step's gradients and returns its loss.

    With `judge` the parameters end as they were when it said the most, the beginning included. `run` says what run it
    is: `checkpoint`, a folder, is gone on with where it was left by the same one. Raises `InvalidOption` for another
    run's, and `CorruptArtefact` for one that is damaged.
    """
    optimiser = torch.optim.AdamW(
        list(parameters.values()), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    trained, best = Trained(), dict[str, Tensor]()
    identity = json.loads(json.dumps({"schedule": repr(schedule), **(run or {})}))
    if checkpoint is not None and (checkpoint / _MANIFEST).exists():
        trained, best = _resume(checkpoint, identity, parameters, optimiser)
    elif judge is not None:
        best = _judged(trained, judge, parameters, best)
    every = max(1, math.ceil(schedule.steps / schedule.looks))
    for step in range(len(trained.losses), schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * _rate(step, schedule)
        optimiser.zero_grad(set_to_none=True)
        trained.losses.append(backward(step))
        torch.nn.utils.clip_grad_norm_(parameters.values(), schedule.clip)
        optimiser.step()
        done = step + 1
        if done % every == 0 or done == schedule.steps:
            if judge is not None:
                best = _judged(trained, judge, parameters, best)
            if checkpoint is not None:
                _save(checkpoint, identity, parameters, optimiser, trained, best)
        if progress is not None:
            progress(done, schedule.steps)
    with torch.no_grad():
        for name, value in best.items():
            parameters[name].copy_(value)
    return trained


def _rate(step: int, schedule: Schedule) -> float:
    rising = max(1, round(schedule.steps * schedule.warmup))
    if step < rising:
        return (step + 1) / rising
    return (schedule.steps - step) / max(1, schedule.steps - rising)


def _judged(
    trained: Trained,
    judge: Callable[[], float],
    parameters: Mapping[str, torch.nn.Parameter],
    best: dict[str, Tensor],
) -> dict[str, Tensor]:
    done = len(trained.losses)
    trained.judged[done] = judge()
    if trained.best is not None and not trained.judged[done] > trained.judged[trained.best]:
        return best
    trained.best = done
    return {name: value.detach().clone() for name, value in parameters.items()}


def _save(
    folder: Path,
    identity: Mapping[str, Any],
    parameters: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.AdamW,
    trained: Trained,
    best: Mapping[str, Tensor],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"now/{name}": value.detach().clone() for name, value in parameters.items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for name, value in parameters.items():
        # A parameter that no gradient has reached has no moments.
        tensors |= {f"{moment}/{name}": kept for moment, kept in optimiser.state.get(value, {}).items()}
    with replace_file(folder / _TENSORS) as path:
        save_file(tensors, path)
    facts = {
        "format": _FORMAT,
        "run": identity,
        "losses": trained.losses,
        "judged": list(trained.judged.items()),
        "best": trained.best,
    }
    write_manifest(folder / _MANIFEST, facts, [_TENSORS])


def _resume(
    folder: Path,
    identity: Mapping[str, Any],
    parameters: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.AdamW,
) -> tuple[Trained, dict[str, Tensor]]:
    facts = read_manifest(folder / _MANIFEST, _FORMAT)
    if facts["run"] != identity:
        raise InvalidOption(
            f"{folder} holds the checkpoint of another run: other data, options, seed or model. Going on with it would "
            "give what neither run would have. Pass another folder, or delete it."
        )
    tensors = load_file(folder / _TENSORS)
    state: dict[Tensor, dict[str, Tensor]] = {}
    best = {}
    with torch.no_grad():
        for name, value in tensors.items():
            kind, _, parameter = name.partition("/")
            if kind == "now":
                parameters[parameter].copy_(value)
            elif kind == "best":
                best[parameter] = value
            else:  # the optimiser counts its steps on the CPU, and has its moments where the parameter is
                trained_one = parameters[parameter]
                kept = value if kind == "step" else value.to(trained_one.device)
                state.setdefault(trained_one, {})[kind] = kept
    optimiser.state.update(state)
    judged = {int(step): float(value) for step, value in facts["judged"]}
    return Trained(losses=list(facts["losses"]), judged=judged, best=facts["best"]), best
