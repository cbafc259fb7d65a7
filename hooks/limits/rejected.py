"""Hide from a visitor what they rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from explorank.hooks.guards.membership import among
from explorank.hooks.limits.exposures import Exposures
from explorank.hooks.limits.visitor import visitor_of
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest


@dataclass(frozen=True)
class Rejected:
    """A guard: an item that the visitor rejected stands in no slot of any surface, the baseline's included.

    The ledger is read once per request. Where it cannot be read nothing is hidden: an item seen once more
    harms less than an empty page, and the request does not explore anyway.
    """

    exposures: Exposures

    name: ClassVar[str] = "rejected_by_visitor"
    static: ClassVar[bool] = True
    fails: ClassVar[Literal["closed", "open"]] = "open"

    def snapshot(self, request: RankingRequest) -> frozenset[str]:
        """Return what is hidden from whoever asks; raise `LogUnavailable` where the ledger cannot tell."""
        visitor = visitor_of(request)
        return frozenset() if visitor is None else self.exposures.rejected(visitor, request.time)

    def eligible(
        self,
        request: RankingRequest,
        batch: RankingBatch,
        placed: IndexArray,  # noqa: ARG002 - static
        slot: int,  # noqa: ARG002 - static
    ) -> BoolArray:
        """Return True for every candidate that was not rejected, (n,) bool."""
        return ~among(batch, request.guard_state[self.name])
