"""The configured policy behind its hook."""

from __future__ import annotations

from explorank.hooks import hookimpl
from explorank.hooks.exploration import build_slate
from explorank.hooks.types import RankingBatch, RankingRequest, Slate
from explorank.services import Services
from explorank.settings import Settings


class ExplorationPlugin:
    """Draws the slate from the configured policy's newest state."""

    def __init__(self) -> None:
        self._services: Services | None = None
        self._slots: tuple[int, ...] | None = None

    @hookimpl
    def ranking_startup(self, settings: Settings, services: Services) -> None:
        """Take the policy and the slots that explore."""
        self._services = services
        self._slots = None if settings.exploration.slots == "all" else tuple(settings.exploration.slots)

    @hookimpl(trylast=True)
    def ranking_explore(
        self, request: RankingRequest, ranking: RankingBatch, n_slots: int, seed: int
    ) -> Slate | None:
        """Return the policy's slate; a third party's plugin may answer first."""
        services = self._services
        if services is None:
            return None
        allowance = request.allowance
        return build_slate(
            services.policy,
            services.state(),
            ranking,
            n_slots,
            explore_slots=self._slots if allowance is None else allowance.slots,
            guards=services.guards,
            request=request,
            seed=seed,
            explorable=None if allowance is None else allowance.explorable,
            on_guard_error=services.on_guard_error,
        )
