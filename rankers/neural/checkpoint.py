"""Where a run stands, as tensors and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors.torch import load, save
from torch import Tensor

from explorank.rankers._checkpoint import Checkpoint, Saved

_FORMAT: Final = "explorank.neural-checkpoint/2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """What a run has come to."""

    tensors: Mapping[str, Tensor]
    """Weights, the optimiser's moments, the best weights so far, and the state of the generator."""
    epoch: int
    """Epochs done."""
    step: int
    """Steps of the optimiser done, which the learning rate follows from."""
    best: float | None
    """The best metric so far, more is better; None without a later slice."""
    best_epoch: int
    finished: bool
    """Whether the run has ended: stopped early, or no epoch is left."""


class NetworkCheckpoint:
    """The last complete state of a network's training, tensors as safetensors; see `Checkpoint`."""

    def __init__(self, folder: Path, run: str) -> None:
        """Take a folder, and what tells this run from others: see `run_identity`."""
        self._checkpoint = Checkpoint(folder, run, format=_FORMAT, unit="epoch", suffix=".safetensors")

    def save(self, state: Progressed) -> None:
        """Keep a state in place of the former one."""
        content = save({key: tensor.detach().cpu().contiguous() for key, tensor in state.tensors.items()})
        facts = {"step": state.step, "best": state.best, "best_epoch": state.best_epoch}
        self._checkpoint.save(Saved(done=state.epoch, finished=state.finished, facts=facts, content=content))

    def load(self) -> Progressed | None:
        """Return the state to go on from, None where a run begins; raise `CorruptRanker` as `Checkpoint` does."""
        saved = self._checkpoint.load()
        if saved is None:
            return None
        return Progressed(
            tensors=load(saved.content), epoch=saved.done, finished=saved.finished, **saved.facts
        )
