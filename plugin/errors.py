"""Everything Explorank raises on purpose, importable from one place.

    ExplorankError
    ├── SettingsError           (ValueError)   an explorank.yaml that cannot be used, with all its problems
    ├── UnknownArtefact         (LookupError)  a kind or version of artefact that is not there
    ├── DamagedArtefact         (ValueError)   a built index or trained model that is not as published
    ├── InvalidRequest          (ValueError)   a question to the stage that no answer could fit
    └── DataError               (ValueError)   tables or artefacts that a job cannot work with

The libraries raise their own, under `ExplorationError`, `RetrievalError` and `RankerError`, each hierarchy
drawn in its `errors` module. `USER_ERRORS` holds all four bases: whatever a user can mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from explorank.hooks.errors import (
    CorruptState,
    ExplorationError,
    InvalidBatch,
    InvalidFeedback,
    InvalidPolicy,
    LogUnavailable,
    UnknownComponent,
    UnknownDecision,
)
from explorank.rankers.errors import RankerError
from explorank.retrieval.errors import RetrievalError

__all__ = [
    "USER_ERRORS",
    "CorruptState",
    "DamagedArtefact",
    "DataError",
    "ExplorankError",
    "ExplorationError",
    "InvalidBatch",
    "InvalidFeedback",
    "InvalidPolicy",
    "InvalidRequest",
    "LogUnavailable",
    "Problem",
    "RankerError",
    "RetrievalError",
    "SettingsError",
    "UnknownArtefact",
    "UnknownComponent",
    "UnknownDecision",
]


class ExplorankError(Exception):
    """The base of the errors of the stage, its settings, its host and its command line."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the settings, and where."""

    message: str
    """What was given, what is accepted, and the way out. Never holds a secret."""
    key: str = ""
    """The dotted path of the key, such as `exploration.policy`; empty for the file as a whole."""
    source: Path | None = None
    """The file, or `None` for settings that came from Python."""
    line: int | None = None
    """Counted from 1."""

    def __str__(self) -> str:
        place = str(self.source) if self.source else "settings"
        parts = [place if self.line is None else f"{place}:{self.line}", self.key, self.message]
        return ": ".join(part for part in parts if part)


class SettingsError(ExplorankError, ValueError):
    """Settings that cannot be used; `problems` holds all that is wrong with them, in the file's order.

    A plugin that finds its own settings wanting may raise one with a plain message.
    """

    problems: tuple[Problem, ...]

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            self.problems = (Problem(problems),)
            super().__init__(problems)
            return
        ordered = sorted(problems, key=lambda problem: problem.line or 0)
        self.problems = tuple(dict.fromkeys(ordered))
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(
            "\n".join(
                [
                    f"The settings have {count}; nothing was started, because a guess could show the "
                    "wrong items to real users.",
                    *(f"  {problem}" for problem in self.problems),
                    "`explorank schema` prints every key with its meaning.",
                ]
            )
        )


class InvalidRequest(ExplorankError, ValueError):
    """A question to the stage that no answer could fit."""


class DataError(ExplorankError, ValueError):
    """Tables or artefacts that a job cannot work with."""


class UnknownArtefact(ExplorankError, LookupError):
    """A kind or version of artefact that is not there."""


class DamagedArtefact(ExplorankError, ValueError):
    """A built index or trained model that is not as it was published."""


USER_ERRORS = (ExplorankError, ExplorationError, RetrievalError, RankerError)
"""What is told in a sentence instead of a traceback."""
