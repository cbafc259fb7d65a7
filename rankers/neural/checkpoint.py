"""Where a run stands, so that one which was cut off goes on as if it had not been."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from explorank.rankers.data import RankingData
from explorank.rankers.errors import CorruptRanker
from explorank.rankers.manifest import seal

_FORMAT: Final = "explorank.neural-checkpoint/1"
_FILE: Final = "checkpoint.json"


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


class Checkpoint:
    """A folder with the last complete state: tensors as safetensors, and JSON that names and seals them.

    The JSON takes the old one's place at once and only when the tensors are on the disk, so a run that dies while it
    saves leaves the state before.
    """

    def __init__(self, folder: Path, run: str) -> None:
        """Take a folder, and what tells this run from others: see `fingerprint`."""
        self._folder = folder
        self._run = run

    def save(self, state: Progressed) -> None:
        """Keep a state in place of the former one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"epoch-{state.epoch}.safetensors"
        content = save({key: tensor.detach().cpu().contiguous() for key, tensor in state.tensors.items()})
        self._write(name, content)
        facts = {
            "format": _FORMAT,
            "run": self._run,
            "tensors": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            **{key: getattr(state, key) for key in ("epoch", "step", "best", "best_epoch", "finished")},
        }
        self._write(_FILE, json.dumps({"content": facts, "seal": seal(facts)}, indent=1).encode())
        for former in self._folder.glob("epoch-*.safetensors"):
            if former.name != name:
                former.unlink()

    def load(self) -> Progressed | None:
        """Return the state to go on from, None where a run begins.

        Raises `CorruptRanker` for files that are damaged, and for the state of a run over other data, options or seed
        that has not ended: to go on from it would be wrong, and to begin anew would lose it.
        """
        path = self._folder / _FILE
        if not path.exists():
            return None
        try:
            envelope = json.loads(path.read_bytes())
            facts: dict[str, Any] = envelope["content"]
            intact = envelope["seal"] == seal(facts) and facts["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptRanker(
                f"{path} cannot be read as a checkpoint ({error}). {self._way_out}"
            ) from error
        if not intact:
            raise CorruptRanker(
                f"{path} was changed after it was written, or by another version: its seal or format does not fit. "
                f"{self._way_out}"
            )
        if facts["run"] != self._run:
            if facts["finished"]:
                return None
            raise CorruptRanker(
                f"{path} is of a run over other data, options or seed, cut off after epoch {facts['epoch']}; going on "
                f"from it would mix the two. Train that one to its end, or: {self._way_out}"
            )
        file = self._folder / str(facts["tensors"])
        try:
            content = file.read_bytes()
            tensors = load(content) if hashlib.sha256(content).hexdigest() == facts["sha256"] else None
        except (OSError, SafetensorError) as error:
            raise CorruptRanker(f"{file} cannot be read ({error}). {self._way_out}") from error
        if tensors is None:
            raise CorruptRanker(
                f"{file} is damaged: its SHA-256 is not the one in {path.name}. {self._way_out}"
            )
        return Progressed(
            tensors=tensors,
            **{key: facts[key] for key in ("epoch", "step", "best", "best_epoch", "finished")},
        )

    @property
    def _way_out(self) -> str:
        return f"Restore an older copy of {self._folder}, or delete it to train from the beginning."

    def _write(self, name: str, content: bytes) -> None:
        draft = self._folder / f".{name}"
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / name)


def fingerprint(
    data: RankingData, valid: RankingData | None, options: Any, seed: int, start: str | None = None
) -> str:
    """Return the SHA-256, in hex, of all that a run follows from; `start` is the version of what it begins as."""
    digest = hashlib.sha256()
    for part in (data, valid):
        if part is None:
            continue
        arrays = [
            part.features,
            part.labels,
            part.groups,
            part.weights,
            part.item_ids,
            *part.outcomes.values(),
        ]
        for array in arrays:
            digest.update(b"-" if array is None else repr((array.dtype.str, array.shape)).encode())
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        told = (part.feature_names, part.categorical, sorted(part.outcomes), part.histories)
        digest.update(json.dumps(told).encode())
    settings = asdict(options) if is_dataclass(options) and not isinstance(options, type) else options
    digest.update(
        json.dumps([torch.__version__, settings, seed, start], sort_keys=True, default=str).encode()
    )
    return digest.hexdigest()
