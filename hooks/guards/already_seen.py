"""Hide what the user has seen already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.guards.membership import among
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest


@dataclass(frozen=True)
class AlreadySeen:
    """Hide what the user met before: `seen` and `history` of the context, their stored history, recent rewards.

    The keys of `request.context` are `seen`, `history`, `stored_history`, `recent` and `recent_disliked`, each a
    sequence of item ids that may be absent; the host sets the first two. It fails open: an item seen twice harms
    less than an empty slate.
    """

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    name: ClassVar[str] = "already_seen"
    static: ClassVar[bool] = True
    fails: ClassVar[Literal["closed", "open"]] = "open"

    def eligible(
        self,
        request: RankingRequest,
        batch: RankingBatch,
        placed: IndexArray,  # noqa: ARG002 - static
        slot: int,  # noqa: ARG002 - static
    ) -> BoolArray:
        """Return True for every candidate that was not seen, (n,) bool."""
        seen: set[str] = set()
        for key in ("seen", "history", "stored_history", "recent", "recent_disliked"):
            ids = request.context.get(key)
            if ids is None:
                continue
            if isinstance(ids, str):
                raise InvalidBatch(
                    f"`context[{key!r}]` is the text {ids!r}; its letters would be taken for item ids. Pass "
                    "a list of ids."
                )
            seen.update(map(str, ids))
        return ~among(batch, seen)
