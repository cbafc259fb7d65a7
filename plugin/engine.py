"""Calls the hooks and turns many plugins' answers into one, whatever some of them do.

pluggy neither pipes results nor isolates a failing plugin. The manager isolates; this module aggregates:
it unions candidates, ANDs masks, joins columns, checks what comes back, and notes each fallback it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from explorank.crosses import Crosses
from explorank.hooks.errors import InvalidBatch
from explorank.hooks.manager import RankingManager
from explorank.hooks.types import (
    BoolArray,
    Candidates,
    DecisionRecord,
    Fallback,
    Features,
    Impression,
    RankingBatch,
    RankingRequest,
    Reward,
    Scores,
    Slate,
)

T = TypeVar("T")


class Engine:
    """One set of plugins, called as one.

    Every method appends to `fallbacks` what went wrong and never raises for a plugin's fault.
    """

    def __init__(self, manager: RankingManager, crosses: Crosses | None = None) -> None:
        self.manager = manager
        self.crosses = crosses or Crosses()
        """What is made of two columns."""
        self.enriched: frozenset[str] = frozenset()
        """The context keys that plugins have added so far."""

    def enrich_request(self, request: RankingRequest, fallbacks: list[Fallback]) -> RankingRequest:
        """Return the request with the plugins' context columns added; what the host said wins."""
        added: dict[str, Any] = {}

        def check(answer: Any) -> dict[str, Any]:
            columns = dict(answer)
            if taken := sorted(added.keys() & columns.keys()):
                raise InvalidBatch(
                    f"context keys {taken} were already set by another plugin; keys have one owner"
                )
            return columns

        for columns in self._answers("ranking_enrich_request", check, "skipped", fallbacks, request=request):
            added |= columns
        if not added:
            return request
        if not self.enriched.issuperset(added):
            self.enriched = self.enriched.union(added)
        return replace(request, context=MappingProxyType({**added, **request.context}))

    def retrieve(self, request: RankingRequest, k: int, limit: int, fallbacks: list[Fallback]) -> Candidates:
        """Return at most `limit` distinct candidates, in order of first appearance."""
        found = Candidates.union([])

        def check(answer: Any) -> Candidates:
            return Candidates.union([found, _with_text_ids(_instance_of(Candidates)(answer))])

        for more in self._answers("ranking_retrieve", check, "skipped", fallbacks, request=request, k=k):
            found = more
        return found.head(limit)

    def filter(self, request: RankingRequest, candidates: Candidates, fallbacks: list[Fallback]) -> BoolArray:
        """Return who may be shown, (n,) bool; a filter that fails closed removes everybody."""
        n = len(candidates)
        allowed = np.ones(n, np.bool_)

        def check(answer: Any) -> BoolArray:
            mask = np.asarray(answer)
            if mask.shape != (n,) or mask.dtype != np.bool_:
                raise InvalidBatch(f"a filter returned {mask.dtype} {mask.shape}; it must return bool ({n},)")
            return mask

        failed_before = len(fallbacks)
        for mask in self._answers(
            "ranking_filter", check, "nothing is eligible", fallbacks, request=request, candidates=candidates
        ):
            allowed &= mask
        for position in range(failed_before, len(fallbacks)):
            if fallbacks[position].step != "filter":
                continue  # a guard that failed inside a filter has said in its mask what holds
            if self._fails_open(fallbacks[position].plugin):
                fallbacks[position] = replace(fallbacks[position], action="ignored: it fails open")
            else:
                allowed[:] = False
        return allowed

    def enrich(self, request: RankingRequest, candidates: Candidates, fallbacks: list[Fallback]) -> Features:
        """Return the plugins' feature columns side by side and, behind them, their crosses, (n, d) float32."""
        n = len(candidates)
        fitting: list[Features] = []

        def check(answer: Any) -> Features:
            features = _instance_of(Features)(answer)
            Features.check_joinable([*fitting, features], n)
            fitting.append(features)
            return features

        hook, arguments = "ranking_enrich", {"request": request, "candidates": candidates}
        joined = Features.join(list(self._answers(hook, check, "columns missing", fallbacks, **arguments)), n)
        return self.crosses.extend(joined)

    def score(
        self, request: RankingRequest, candidates: Candidates, features: Features, fallbacks: list[Fallback]
    ) -> Scores | None:
        """Return finite scores, (n,) float64, or None where no ranker gave any."""
        n = len(candidates)

        def check(answer: Any) -> Scores:
            scores = _instance_of(Scores)(answer)
            values = np.asarray(scores.values, dtype=np.float64)
            if values.shape != (n,):
                raise InvalidBatch(f"the ranker returned {values.shape} scores for {n} candidates")
            if not np.isfinite(values).all():
                item = str(candidates.item_ids[int(np.argmin(np.isfinite(values)))])
                raise InvalidBatch(f"the ranker's score of item {item!r} is not finite")
            if scores.uncertainty is not None and np.shape(scores.uncertainty) != (n,):
                raise InvalidBatch(
                    f"the ranker returned {np.shape(scores.uncertainty)} uncertainties for {n} candidates"
                )
            hidden = scores.representation
            if hidden is not None and (hidden.ndim != 2 or len(hidden) != n):
                raise InvalidBatch(f"the ranker returned a representation {hidden.shape} of {n} candidates")
            return scores if values is scores.values else replace(scores, values=values)

        return self._first(
            "ranking_score",
            check,
            "retrieval order",
            fallbacks,
            request=request,
            candidates=candidates,
            features=features,
        )

    def explore(
        self,
        request: RankingRequest,
        ranking: RankingBatch,
        n_slots: int,
        seed: int,
        check: Callable[[Slate], None],
        fallbacks: list[Fallback],
    ) -> Slate | None:
        """Return the first slate that `check` lets pass, or None where exploration failed."""

        def checked(answer: Any) -> Slate:
            slate = _instance_of(Slate)(answer)
            check(slate)
            return slate

        return self._first(
            "ranking_explore",
            checked,
            "score order",
            fallbacks,
            request=request,
            ranking=ranking,
            n_slots=n_slots,
            seed=seed,
        )

    def decided(self, record: DecisionRecord) -> None:
        """Tell the plugins of a durable decision."""
        self.manager.call_each("ranking_log_decision", decision=record)

    def observe_impressions(self, impressions: Sequence[Impression]) -> None:
        """Tell the plugins what was displayed."""
        self.manager.call_each("ranking_observe_impressions", impressions=impressions)

    def observe_rewards(self, rewards: Sequence[Reward]) -> None:
        """Tell the plugins of new, durable rewards."""
        self.manager.call_each("ranking_observe_rewards", rewards=rewards)

    def _fails_open(self, plugin: str) -> bool:
        return getattr(self.manager.get_plugin(plugin), "ranking_filter_fails", "closed") == "open"

    def _first(
        self, hook: str, check: Callable[[Any], T], action: str, fallbacks: list[Fallback], **arguments: Any
    ) -> T | None:
        """Return the first checked answer of `hook`, None without any; say where another made a failure good."""
        failed_before = len(fallbacks)
        answer = next(self._answers(hook, check, action, fallbacks, **arguments), None)
        if answer is not None:
            for position in range(failed_before, len(fallbacks)):
                if fallbacks[position].action == action:
                    fallbacks[position] = replace(fallbacks[position], action="the next plugin answered")
        return answer

    def _answers(
        self,
        hook: str,
        check: Callable[[Any], T],
        action: str,
        fallbacks: list[Fallback],
        **arguments: Any,
    ) -> Iterator[T]:
        """Yield the checked answers of `hook`; a failure or a bad answer becomes a fallback."""
        step = hook.removeprefix("ranking_")
        for result in self.manager.call_each(hook, **arguments):
            if result.failure is not None:
                fallbacks.append(
                    Fallback(step, result.plugin, f"{result.failure.kind}: {result.failure.error}", action)
                )
            elif result.value is not None:
                try:
                    yield check(result.value)
                except Exception as error:  # an answer may be anything, and fail in any way when looked at
                    fallbacks.append(Fallback(step, result.plugin, str(error), action))


def _with_text_ids(found: Candidates) -> Candidates:
    """Return the candidates with the ids as the stage knows them, whatever a plugin calls them by."""
    return (
        found if found.item_ids.dtype.kind == "U" else replace(found, item_ids=found.item_ids.astype(np.str_))
    )


def _instance_of(expected: type[T]) -> Callable[[Any], T]:
    def check(answer: Any) -> T:
        if not isinstance(answer, expected):
            raise InvalidBatch(f"returned a {type(answer).__name__}; the hook returns {expected.__name__}")
        return answer

    return check
