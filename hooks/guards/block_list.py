"""A block list: ids that are never shown, given in the settings or kept in a file."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal, TypeAlias

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.guards.membership import among
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest

_log: Final = logging.getLogger(__name__)
_COMMENT: Final = re.compile(r"(^|\s)#.*")

_Stamp: TypeAlias = tuple[int, int, int]


@dataclass(slots=True)
class _Listed:
    """What is blocked after the last good reading; replaced as a whole, so that readers need no lock."""

    stamp: _Stamp | None = None
    ids: frozenset[str] = frozenset()
    problem: str | None = None
    version: str = ""

    def __post_init__(self) -> None:
        """Name the list by its content."""
        text = "\n".join(sorted(self.ids))
        self.version = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class BlockList:
    """Never show the listed items.

    Raises `InvalidPolicy` where `path` cannot be read at the start. A file that vanishes or becomes
    unreadable later keeps its last good list, is logged once as a warning, and is named by `problem`.
    """

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    name: ClassVar[str] = "block_list"
    static: ClassVar[bool] = True
    fails: ClassVar[Literal["closed", "open"]] = "closed"

    items: Sequence[str] = ()
    """Item ids to block."""
    path: str | Path | None = None
    """A UTF-8 file of more ids to block, one per line; `#` begins a comment. It is read again as soon as it
    changes; replace it atomically, since half a file is half a list."""
    _listed: _Listed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the items and read the file for the first time."""
        if isinstance(self.items, str):
            raise InvalidPolicy(
                f"`items` of {self.name} is the text {self.items!r}; its letters would be blocked instead of "
                "the item. Write a list, even of one id."
            )
        object.__setattr__(self, "_listed", _Listed(ids=frozenset(map(str, self.items))))
        self._refresh()
        if self.problem is not None:
            raise InvalidPolicy(
                f"`path` of {self.name} cannot be read: {self.problem}. Starting without it would show "
                "blocked items. Create the file (it may be empty), or remove the option."
            )

    @property
    def problem(self) -> str | None:
        """What is wrong with the file, or `None`; the last good list is in force meanwhile."""
        return self._listed.problem

    @property
    def version(self) -> str:
        """A hash of the ids in force, for the record of a decision."""
        return self._listed.version

    @property
    def blocked(self) -> frozenset[str]:
        """The ids that are blocked right now."""
        self._refresh()
        return self._listed.ids

    def eligible(
        self,
        request: RankingRequest,  # noqa: ARG002 - the list holds for every request
        batch: RankingBatch,
        placed: IndexArray,  # noqa: ARG002 - static
        slot: int,  # noqa: ARG002 - static
    ) -> BoolArray:
        """Return True for every candidate that is not listed, (n,) bool."""
        return ~among(batch, self.blocked)

    def _refresh(self) -> None:
        if self.path is None:
            return
        last = self._listed
        try:
            if last.problem is None and last.stamp == _stamp(os.stat(self.path)):  # noqa: PTH116 - per request
                return
            with Path(self.path).open(encoding="utf-8-sig") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                read = filter(None, (_COMMENT.sub("", line).strip() for line in file))
                ids = frozenset((*map(str, self.items), *read))
        except (OSError, UnicodeDecodeError) as error:
            problem = f"{type(error).__name__}: {error}"
            # Without a stamp there was no good list yet, and whoever begins hears it as an error.
            if problem != last.problem and last.stamp is not None:
                _log.warning("Block list %s: %s. The last good list stays in force.", self.path, problem)
            object.__setattr__(self, "_listed", _Listed(last.stamp, last.ids, problem))
        else:
            object.__setattr__(self, "_listed", _Listed(stamp, ids))


def _stamp(status: os.stat_result) -> _Stamp:
    # The inode and the size tell apart two writes within one tick of the file system's clock.
    return status.st_mtime_ns, status.st_size, status.st_ino
