"""Explorank as one plugin in someone else's host: all its hooks, isolated, behind a single registration."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from explorank.fallbacks import collecting_fallbacks
from explorank.hooks import hookimpl
from explorank.hooks.errors import InvalidFeedback, LogUnavailable, UnknownDecision
from explorank.hooks.types import (
    BoolArray,
    Candidates,
    Fallback,
    Features,
    Impression,
    RankingBatch,
    RankingRequest,
    Reward,
    Scores,
    Slate,
)
from explorank.settings import Settings
from explorank.stage import Stage, load

logger = logging.getLogger("explorank")


class ExplorankPlugin:
    """What a host registers. Each hook stands for all the plugins that Explorank itself has loaded.

    A failure inside costs that plugin's part of the answer, never the host's call. `stage` offers the same
    installation as plain methods, which raise.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @hookimpl
    def ranking_shutdown(self) -> None:
        """Close the installation."""
        self.stage.close()

    @hookimpl
    def ranking_enrich_request(self, request: RankingRequest) -> Mapping[str, Any]:
        """Return the context columns that are new."""
        enriched = self.stage.installation.engine.enrich_request(request, [])
        return {key: value for key, value in enriched.context.items() if key not in request.context}

    @hookimpl
    def ranking_retrieve(self, request: RankingRequest, k: int) -> Candidates:
        """Return the union of all retrievers' candidates."""
        limit = self.stage.installation.settings.limits.candidates
        return self.stage.installation.engine.retrieve(request, k, limit, [])

    @hookimpl
    def ranking_filter(self, request: RankingRequest, candidates: Candidates) -> BoolArray:
        """Return who every filter and static guard allows; one that fails closed allows nobody."""
        with collecting_fallbacks([]):
            return self.stage.installation.engine.filter(request, candidates, [])

    @hookimpl
    def ranking_enrich(self, request: RankingRequest, candidates: Candidates) -> Features:
        """Return all feature columns."""
        return self.stage.installation.engine.enrich(request, candidates, [])

    @hookimpl
    def ranking_score(
        self, request: RankingRequest, candidates: Candidates, features: Features
    ) -> Scores | None:
        """Return the ranker's scores, or None, so that the host's next ranker is asked."""
        return self.stage.installation.engine.score(request, candidates, features, [])

    @hookimpl
    def ranking_explore(
        self, request: RankingRequest, ranking: RankingBatch, n_slots: int, seed: int
    ) -> Slate:
        """Return the slate to show, already durable in the log under the request's decision id.

        Whether it explores is up to mode, traffic share, budget and kill switch; where the log fails it does
        not. Where the visitor gets an earlier decision again, `Slate.decision_id` names it; feedback under the
        request's own id is taken for it too.
        """
        fallbacks: list[Fallback] = []
        installation = self.stage.installation
        decided = installation.decider.decide(request, ranking, n_slots, seed, fallbacks)
        if decided.repeated:
            installation.budgets.answered_with(decided.record.decision_id, request)
        return decided.slate

    @hookimpl
    def ranking_observe_impressions(self, impressions: Sequence[Impression]) -> None:
        """Make the impressions durable and learn from them; what could not be written is logged as lost."""
        installation = self.stage.installation
        original = installation.budgets.original
        impressions = [replace(each, decision_id=original(each.decision_id)) for each in impressions]
        for impression in impressions:
            try:
                installation.log.append_impression(impression)
            except (InvalidFeedback, LogUnavailable):
                logger.exception("the impression of decision %s is lost", impression.decision_id)
        installation.learner.notify()
        installation.engine.observe_impressions(impressions)

    @hookimpl
    def ranking_observe_rewards(self, rewards: Sequence[Reward]) -> None:
        """Make the rewards durable, each once, and learn from them; what could not be written is logged as lost."""
        installation = self.stage.installation
        original = installation.budgets.original
        fitting = [
            replace(reward, decision_id=original(reward.decision_id))
            for reward in rewards
            if self._fits(reward)
        ]
        new = self._stored(fitting)
        for reward in fitting:
            self._limit(reward)
        if new:
            installation.learner.notify()
            installation.engine.observe_rewards(new)

    def _limit(self, reward: Reward) -> None:
        """Let a reward hide its item from its visitor, where it is known whose decision it was."""
        installation = self.stage.installation
        if not installation.budgets.concerns(reward.kind):
            return
        try:
            visitor = installation.recorder.answered(reward.decision_id).visitor
        except (LogUnavailable, UnknownDecision):
            logger.exception("the reward %s hides nothing: its decision cannot be read", reward.reward_id)
            return
        installation.budgets.observe(reward, visitor)

    def _fits(self, reward: Reward) -> bool:
        try:
            self.stage.check_reward(reward.kind, reward.value)
        except InvalidFeedback:
            logger.exception("the reward %s is refused", reward.reward_id)
            return False
        return True

    def _stored(self, rewards: Sequence[Reward]) -> list[Reward]:
        """Return those that are new and durable now."""
        try:
            accepted = self.stage.installation.log.append_rewards(rewards)
        except (InvalidFeedback, LogUnavailable) as error:
            if isinstance(error, InvalidFeedback) and len(rewards) > 1:
                # One that no log could store must not take the others with it.
                return [new for reward in rewards for new in self._stored([reward])]
            logger.exception("the rewards %s are lost", [reward.reward_id for reward in rewards])
            return []
        return [reward for reward, is_new in zip(rewards, accepted, strict=True) if is_new]


def plugin(settings: str | Path | Settings, *, plugins: Sequence[object] = ()) -> ExplorankPlugin:
    """Return the plugin to register in a host's own pluggy manager.

    The manager's project name is `explorank`; for a manager of another name, add
    `explorank.hooks.manager.specs_for(name)` and register `implementations_for(plugin(...), name)`.
    """
    return ExplorankPlugin(load(settings, plugins=plugins))
