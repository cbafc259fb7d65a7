"""The configured guards as filters: what can be ruled out before anything is scored."""

from __future__ import annotations

from explorank.hooks import hookimpl
from explorank.hooks.guards import static_mask, with_snapshots
from explorank.hooks.types import BoolArray, Candidates, RankingBatch, RankingRequest
from explorank.services import Services


class GuardsPlugin:
    """Runs the static guards; those that depend on the slate so far act slot by slot, before each draw."""

    def __init__(self) -> None:
        self._services: Services | None = None

    @hookimpl
    def ranking_startup(self, services: Services) -> None:
        """Take the configured guards."""
        self._services = services

    @hookimpl
    def ranking_filter(self, request: RankingRequest, candidates: Candidates) -> BoolArray | None:
        """Return who every static guard allows and the request does not exclude."""
        if self._services is None:
            return None
        guards, on_error = self._services.guards, self._services.on_guard_error
        request = with_snapshots(guards, request, on_error)
        batch = RankingBatch(candidates.item_ids, candidates=candidates)
        allowed = static_mask(guards, request, batch, on_error)
        candidates.settle(batch.settled)
        return allowed
