"""Where a training saves how far it is, so that one which was cut off goes on as if it had not been."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from explorank.rankers.data import RankingData
from explorank.rankers.errors import CorruptRanker
from explorank.rankers.manifest import seal

_FILE: Final = "checkpoint.json"


def run_identity(*parts: Any) -> str:
    """Return 32 hex digits that are the same for the same parts: data, options, a seed, versions of libraries."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, RankingData):
            arrays = (part.features, part.labels, part.groups, part.weights, part.positions)
            named = (*part.outcomes.values(), *part.teacher.values())
            for array in (*arrays, part.item_ids, part.user_ids, *named):
                digest.update(repr(None if array is None else (array.shape, array.dtype.str)).encode())
                digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
            digest.update(
                repr(
                    (part.feature_names, part.categorical, [*part.outcomes], [*part.teacher], part.histories)
                ).encode()
            )
            for item, text in sorted(part.item_texts.items()):
                digest.update(repr((item, text)).encode())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a run had come to."""

    done: int
    """Steps, in the checkpoint's own unit."""
    finished: bool
    """Whether the run has ended: stopped early, or no step is left."""
    facts: Mapping[str, Any]
    content: bytes


class Checkpoint:
    """A folder with the last complete state of a run: a file of content, and JSON that names and seals it.

    The JSON takes the old one's place at once and only when the content is on the disk, so a run that dies while it
    saves leaves the state before.
    """

    def __init__(self, folder: Path, run: str, *, format: str, unit: str, suffix: str) -> None:  # noqa: A002 - its name in the file
        """Take a folder, and what tells this run from others (see `run_identity`); `unit` is what steps are called."""
        self._folder = folder
        self._run = run
        self._format = format
        self._unit = unit
        self._suffix = suffix

    def save(self, state: Saved) -> None:
        """Keep a state in place of the former one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{self._unit}-{state.done}{self._suffix}"
        self._write(name, state.content)
        facts = {
            "format": self._format,
            "run": self._run,
            "file": name,
            "sha256": hashlib.sha256(state.content).hexdigest(),
            "done": state.done,
            "finished": state.finished,
            "facts": dict(state.facts),
        }
        self._write(_FILE, json.dumps({"content": facts, "seal": seal(facts)}, indent=1).encode())
        for former in self._folder.glob(f"{self._unit}-*{self._suffix}"):
            if former.name != name:
                former.unlink()

    def load(self) -> Saved | None:
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
            intact = envelope["seal"] == seal(facts) and facts["format"] == self._format
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
                f"{path} is of a run over other data, options or seed, cut off after {self._unit} {facts['done']}; "
                f"going on from it would mix the two. Train that one to its end, or: {self._way_out}"
            )
        file = self._folder / str(facts["file"])
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CorruptRanker(f"{file} cannot be read ({error}). {self._way_out}") from error
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise CorruptRanker(
                f"{file} is damaged: its SHA-256 is not the one in {path.name}. {self._way_out}"
            )
        return Saved(done=facts["done"], finished=facts["finished"], facts=facts["facts"], content=content)

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
