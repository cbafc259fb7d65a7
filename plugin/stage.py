"""The ranking stage: one request in, one decision out, and the feedback that follows it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from explorank.arguments import Id, id_texts, request_of
from explorank.assembly import Installation, assemble
from explorank.decision import Decision
from explorank.effort import WHOLE, Effort
from explorank.errors import InvalidRequest
from explorank.fallbacks import collecting_fallbacks, note_guard_error
from explorank.health import readiness, status
from explorank.hooks.errors import InvalidBatch, InvalidFeedback
from explorank.hooks.feedback import KillSwitch
from explorank.hooks.guards import with_snapshots
from explorank.hooks.types import (
    Candidates,
    Columns,
    DecisionRecord,
    Fallback,
    FeatureArray,
    Features,
    Impression,
    RankingBatch,
    RankingRequest,
    Reward,
    Scores,
)
from explorank.seeds import seed_of
from explorank.settings import Settings, load_settings
from explorank.timings import StepClock

if TYPE_CHECKING:
    from explorank.explanation import DecisionExplanation


class Stage:
    """A running installation. Safe to call from many threads; what waits has an awaitable twin: `arank` and so on.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    # ---- ranking ----------------------------------------------------------------------------------

    def rank(
        self,
        *,
        user_id: Id | None = None,
        slots: int = 10,
        surface: str = "default",
        context: Mapping[str, Any] | None = None,
        exclude: Iterable[Id] = (),
        similar_to: Id | None = None,
        effort: Effort = WHOLE,
    ) -> Decision:
        """Return a slate of at most `slots` items for the user.

        `user_id=None` is an anonymous visitor; `context["history"]` may hold their session, oldest first, and
        `context["session_id"]` keeps them in one experiment group. `similar_to` asks for items like that one.
        `effort` is for a host with more requests than time: the whole effort by default.
        Whatever fails on the way is replaced and named in the decision's `fallbacks`. Raises `InvalidRequest`
        for arguments that no answer could fit.
        """
        clock = StepClock()
        request = self._request(user_id, slots, surface, context, exclude, similar_to)
        installation, fallbacks = self.installation, list[Fallback]()
        with collecting_fallbacks(fallbacks):
            request = self._enriched(request, fallbacks)
            clock.end("enrich_request")
            limit = self._candidates(effort, fallbacks)
            found = installation.engine.retrieve(request, limit, limit, fallbacks)
            clock.end("retrieve")
            candidates = found.take(installation.engine.filter(request, found, fallbacks))
            clock.end("filter")
            features = installation.engine.enrich(request, candidates, fallbacks)
            clock.end("enrich")
            scores = self._scores(request, candidates, features, effort, fallbacks)
            clock.end("score")
            matrix = self._policy_features(features, scores, fallbacks)
            return self._decide(request, candidates, features, scores, matrix, effort, fallbacks, clock)

    def explore(
        self,
        item_ids: Sequence[Id],
        scores: ArrayLike,
        features: ArrayLike | None = None,
        *,
        user_id: Id | None = None,
        slots: int = 10,
        surface: str = "default",
        context: Mapping[str, Any] | None = None,
        exclude: Iterable[Id] = (),
        effort: Effort = WHOLE,
    ) -> Decision:
        """Return a slate of the host's own candidates: only the exploration, guards included.

        `item_ids` (n,) are distinct, `scores` (n,) finite, higher is better. `features` (n, d) is what the
        policy sees, as it is; without it, the columns that `exploration.features` names are looked up. Of
        `effort`, only whether the request may explore matters here.
        Raises `InvalidRequest` naming the item whose score or feature is not finite or whose id repeats.
        """
        clock = StepClock()
        request = self._request(user_id, slots, surface, context, exclude, None)
        batch = self._host_batch(item_ids, scores, features)
        installation, fallbacks = self.installation, list[Fallback]()
        with collecting_fallbacks(fallbacks):
            request = self._enriched(request, fallbacks)
            clock.end("enrich_request")
            found = Candidates.of(batch.item_ids, "host")
            allowed = installation.engine.filter(request, found, fallbacks)
            candidates, kept = found.take(allowed), batch.score_values[allowed]
            clock.end("filter")
            columns, scored = Features.empty(len(candidates)), Scores(kept)
            matrix: FeatureArray | None = None
            if batch.features is not None:
                matrix = batch.features[allowed]
            elif installation.exploration_features.dim:
                columns = installation.engine.enrich(request, candidates, fallbacks)
                clock.end("enrich")
                matrix = self._policy_features(columns, scored, fallbacks)
            return self._decide(request, candidates, columns, scored, matrix, effort, fallbacks, clock)

    # ---- feedback ---------------------------------------------------------------------------------

    def shown(self, decision_id: str, items_in_order: Sequence[Id]) -> None:
        """Tell what was really displayed for a decision, in order; durable when this returns.

        Items left out were not shown and earn no default reward. A changed order is recorded and kept out of
        learning. Raises `UnknownDecision`, `InvalidRequest` where a text stands for the list of items, and
        `LogUnavailable` where it could not be made durable.
        """
        installation, displayed = self.installation, id_texts(items_in_order, "items_in_order")
        installation.recorder.answered(decision_id)
        impression = Impression(
            decision_id=decision_id,
            items_in_order=tuple(displayed),
            time=installation.clock(),
        )
        installation.log.append_impression(impression)
        installation.learner.notify()
        installation.engine.observe_impressions([impression])

    def reward(
        self,
        decision_id: str,
        *,
        item_id: Id | None = None,
        slot: int | None = None,
        kind: str = "click",
        value: float = 1.0,
        reward_id: str | None = None,
        time: float | None = None,
    ) -> bool:
        """Record a reward for one slot of a decision, named by item or slot; durable when this returns.

        Returns False where a reward of the same `reward_id` is known already; a missing id is derived from
        decision, slot and kind. `time` is when it happened, in Unix seconds. Raises `UnknownDecision`,
        `InvalidFeedback` (no such item, slot or kind; a value out of range) and `LogUnavailable`.
        """
        installation = self.installation
        answered = installation.recorder.answered(decision_id)
        slot = answered.slot_of(decision_id, None if item_id is None else str(item_id), slot)
        self.check_reward(kind, value)
        reward = Reward(
            decision_id=decision_id,
            slot=slot,
            item_id=answered.items[slot],
            kind=kind,
            value=float(value),
            reward_id=reward_id or f"{decision_id}:{slot}:{kind}",
            time=installation.clock() if time is None else float(time),
            user_id=answered.user_id,
        )
        (new,) = installation.log.append_rewards([reward])
        # Known ones too: the process may have died between the two.
        installation.budgets.observe(reward, answered.visitor)
        if new:
            installation.learner.notify()
            installation.engine.observe_rewards([reward])
        return new

    def decision(self, decision_id: str) -> DecisionRecord:
        """Return the logged record of a decision; raise `UnknownDecision` where no log holds it."""
        return self.installation.log.decision(decision_id)

    def explain(self, decision_id: str, item_ids: Sequence[Id] | None = None) -> DecisionExplanation:
        """Return why a decision came out as it did, for some of its candidates or for the answered items.

        What each feature added to the ranker's score, the items of the history that are most like the candidate,
        where the baseline had it, and what exploration did. The answer says what is as logged and what had to be read
        anew. Raises `UnknownDecision`, and `InvalidRequest` for an item that was no candidate.
        """
        from explorank.explanation import explain_decision  # noqa: PLC0415 - brings pandas; no request needs it

        wanted = None if item_ids is None else id_texts(item_ids, "item_ids")
        return explain_decision(self.installation, self.decision(decision_id), wanted)

    # ---- running it -------------------------------------------------------------------------------

    @property
    def kill_switch(self) -> KillSwitch:
        """Stops all exploration at once, in every process of this installation."""
        return self.installation.kill_switch

    def readiness(self) -> dict[str, str]:
        """Return what keeps the stage from answering as configured, by part; empty when it is ready."""
        return readiness(self.installation)

    def status(self) -> dict[str, Any]:
        """Return plugins, versions, artefacts and the learner's figures, as JSON-ready plain types."""
        return status(self.installation)

    def close(self) -> None:
        """Stop the background work and close the log; what was acknowledged is already durable."""
        self.installation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- awaitable twins --------------------------------------------------------------------------

    async def arank(self, **arguments: Any) -> Decision:
        """Await `rank`, on another thread."""
        return await asyncio.to_thread(self.rank, **arguments)

    async def aexplore(self, *arguments: Any, **named: Any) -> Decision:
        """Await `explore`, on another thread."""
        return await asyncio.to_thread(self.explore, *arguments, **named)

    async def ashown(self, decision_id: str, items_in_order: Sequence[Id]) -> None:
        """Await `shown`, on another thread."""
        await asyncio.to_thread(self.shown, decision_id, items_in_order)

    async def areward(self, decision_id: str, **arguments: Any) -> bool:
        """Await `reward`, on another thread."""
        return await asyncio.to_thread(self.reward, decision_id, **arguments)

    async def aexplain(self, decision_id: str, item_ids: Sequence[Id] | None = None) -> DecisionExplanation:
        """Await `explain`, on another thread."""
        return await asyncio.to_thread(self.explain, decision_id, item_ids)

    async def aclose(self) -> None:
        """Await `close`, on another thread."""
        await asyncio.to_thread(self.close)

    # ---- the parts of a decision ------------------------------------------------------------------

    def _request(
        self,
        user_id: Id | None,
        slots: int,
        surface: str,
        context: Mapping[str, Any] | None,
        exclude: Iterable[Id],
        similar_to: Id | None,
    ) -> RankingRequest:
        return request_of(
            user_id=user_id,
            slots=slots,
            most_slots=self.installation.settings.limits.slots,
            surface=surface,
            time=self.installation.clock(),
            context=context,
            exclude=exclude,
            similar_to=similar_to,
        )

    def _enriched(self, request: RankingRequest, fallbacks: list[Fallback]) -> RankingRequest:
        """Return the request with what plugins know of it and what guards read, once for all steps."""
        request = self.installation.engine.enrich_request(request, fallbacks)
        return with_snapshots(self.installation.guards, request, note_guard_error)

    def _host_batch(
        self, item_ids: Sequence[Id], scores: ArrayLike, features: ArrayLike | None
    ) -> RankingBatch:
        limit = self.installation.settings.limits.candidates
        if len(item_ids) > limit:
            raise InvalidRequest(
                f"{len(item_ids)} candidates: a request brings at most {limit}. Send the best ones, or raise "
                "`limits.candidates`."
            )
        try:
            batch = RankingBatch(
                item_ids=np.array(id_texts(item_ids, "item_ids"), dtype=np.str_),
                scores=np.asarray(scores, dtype=np.float64),
                features=None if features is None else np.asarray(features, dtype=np.float32),
            )
        except (InvalidBatch, TypeError, ValueError) as error:
            raise InvalidRequest(str(error)) from error
        dim = getattr(self.installation.policy, "dim", None)
        if batch.features is not None and dim is not None and batch.features.shape[1] != dim:
            raise InvalidRequest(
                f"`features` has {batch.features.shape[1]} columns and {self.installation.policy.name} was set up "
                f"for {dim}. Send those columns, or set the policy's `dim`."
            )
        return batch

    def _candidates(self, effort: Effort, fallbacks: list[Fallback]) -> int:
        """Return how many candidates are ranked at most."""
        limit = self.installation.settings.retrieval.candidates
        if effort.candidates is None or effort.candidates >= limit:
            return limit
        action = f"at most {effort.candidates} candidates instead of {limit}"
        fallbacks.append(Fallback("retrieve", "explorank", effort.reason, action))
        return effort.candidates

    def _scores(
        self,
        request: RankingRequest,
        candidates: Candidates,
        features: Features,
        effort: Effort,
        fallbacks: list[Fallback],
    ) -> Scores:
        """Return the ranker's scores, or falling numbers in retrieval order, which no ranker's version stands for."""
        ranked = self.installation.settings.ranker is not None and len(candidates) > 0
        if ranked and effort.ranker == "none":
            fallbacks.append(Fallback("score", "explorank", effort.reason, "retrieval order"))
        elif ranked:
            if effort.ranker == "cheaper":
                request = replace(request, hurried=effort.reason)
            scores = self.installation.engine.score(request, candidates, features, fallbacks)
            if scores is not None:
                return scores
            if not any(fallback.step == "score" for fallback in fallbacks):
                fallbacks.append(Fallback("score", "explorank", "no trained ranker", "retrieval order"))
        return Scores(np.arange(len(candidates), 0, -1, dtype=np.float64))

    def _policy_features(
        self, features: Features, scores: Scores, fallbacks: list[Fallback]
    ) -> FeatureArray | None:
        try:
            return self.installation.exploration_features.matrix(features, scores, self.installation.scale)
        except InvalidBatch as error:
            fallbacks.append(Fallback("explore", "explorank", str(error), "the policy sees no features"))
            return None

    def _decide(
        self,
        request: RankingRequest,
        candidates: Candidates,
        columns: Features,
        scores: Scores,
        matrix: FeatureArray | None,
        effort: Effort,
        fallbacks: list[Fallback],
        clock: StepClock,
    ) -> Decision:
        """Explore, make the record durable, answer. Guards read `columns` and the sources by name."""
        installation = self.installation
        ranking = RankingBatch(
            item_ids=candidates.item_ids,
            scores=scores.values,
            uncertainty=scores.uncertainty,
            features=matrix,
            columns=Columns(columns, {"source_bits": candidates.source_bits}),
            feature_names=installation.exploration_features.names_of(matrix),
            candidates=candidates,
            representation="" if scores.representation is None else scores.version,
        )
        decided = installation.decider.decide(
            request,
            ranking,
            request.slots,
            seed_of(request.decision_id),
            fallbacks,
            candidates,
            scores.version,
            held_back="" if effort.explores else effort.reason,
            clock=clock,
        )
        return Decision.of(
            decided.record,
            logged=decided.logged,
            repeated=decided.repeated,
            timings_us=clock.spent_us(),
        )

    def check_reward(self, kind: str, value: float) -> None:
        """Raise `InvalidFeedback` for a kind that is not configured or a value out of its range."""
        kinds = self.installation.settings.feedback.rewards
        rule = kinds.get(kind)
        if rule is None:
            raise InvalidFeedback(
                f"Reward kind {kind!r} is not configured, so nothing says what it is worth; known kinds: "
                f"{sorted(kinds)}. Add it under `feedback.rewards`."
            )
        if not math.isfinite(value) or not rule.minimum <= value <= rule.maximum:
            raise InvalidFeedback(
                f"A reward of kind {kind!r} lies between {rule.minimum} and {rule.maximum}, not at {value}; "
                f"the policy's posterior would be meaningless. Widen `feedback.rewards.{kind}` if it is meant."
            )


def load(settings: str | Path | Settings, *, plugins: Sequence[object] = ()) -> Stage:
    """Return the stage that `explorank.yaml` (or loaded settings) describes.

    `plugins` are registered beside the installed ones. Raises `SettingsError` with file and line.
    """
    loaded = settings if isinstance(settings, Settings) else load_settings(settings)
    return Stage(assemble(loaded, plugins=plugins))
