"""The contract between a ranking stage and its plugins: what is called, when, and what an answer does.

Every hook is columnar: it is called once per request, over arrays. Unless a hook says otherwise, all
implementations are called, each on its own: one that raises or is late loses only its own result.
A wrapper (`hookimpl(wrapper=True)`) returns the result of its `yield`, or another in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from explorank.hooks.markers import hookspec

if TYPE_CHECKING:
    from explorank.hooks.registry import Registry
    from explorank.hooks.types import (
        BoolArray,
        Candidates,
        DecisionRecord,
        Features,
        Impression,
        RankingBatch,
        RankingRequest,
        Reward,
        Scores,
        Slate,
    )


@hookspec(historic=True)
def ranking_startup(settings: Any, services: Any) -> None:
    """Fire once when the stage is ready, and for a plugin registered later at its registration."""


@hookspec
def ranking_shutdown() -> None:
    """Fire once when the stage closes; release what `ranking_startup` acquired."""


@hookspec
def ranking_register_components(registry: Registry) -> None:
    """Fire before settings are checked; add policies, guards, retrievers and rankers under YAML names."""


@hookspec
def ranking_enrich_request(request: RankingRequest) -> Mapping[str, Any] | None:
    """Fire first; the answers' keys are added to `request.context` and must not overlap."""


@hookspec
def ranking_retrieve(request: RankingRequest, k: int) -> Candidates | None:
    """Fire for candidates, about `k` per implementation; answers are unioned by item id, sources kept."""


@hookspec
def ranking_enrich(request: RankingRequest, candidates: Candidates) -> Features | None:
    """Fire for feature columns, one row per candidate; answers stand side by side, names must not overlap."""


@hookspec
def ranking_filter(request: RankingRequest, candidates: Candidates) -> BoolArray | None:
    """Fire for a mask (n,), True keeps; answers are AND-ed. One that fails removes all unless it fails open.

    So does one that is skipped. A plugin fails open by an attribute `ranking_filter_fails = "open"`; else it
    fails closed.
    """


@hookspec(firstresult=True)
def ranking_score(request: RankingRequest, candidates: Candidates, features: Features) -> Scores | None:
    """Fire for one score per candidate; the first answer that is not None is used."""


@hookspec(firstresult=True)
def ranking_explore(request: RankingRequest, ranking: RankingBatch, n_slots: int, seed: int) -> Slate | None:
    """Fire for the slate; the first answer that is not None is shown, once checked against the guards."""


@hookspec
def ranking_log_decision(decision: DecisionRecord) -> None:
    """Fire once the decision is durable and before the answer leaves; for copies to other places."""


@hookspec
def ranking_observe_impressions(impressions: Sequence[Impression]) -> None:
    """Fire when the host says what it displayed."""


@hookspec
def ranking_observe_rewards(rewards: Sequence[Reward]) -> None:
    """Fire for rewards that were accepted and made durable, each once."""


@hookspec
def ranking_stage_error(
    error: BaseException, stage: str, plugin: str, request: RankingRequest | None
) -> None:
    """Fire when a hook implementation failed or was late; for alerting, the stage has already moved on.

    A plugin is not told of its own failures, nor anyone of calls that its open circuit breaker skips.
    """
