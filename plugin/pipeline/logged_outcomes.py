"""What the log says was earned, once nothing more can come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from typing import NamedTuple

from explorank.assembly import examination_model
from explorank.hooks.feedback import OpenDecision, RewardRules, count_decisions, read_log
from explorank.hooks.feedback.outcomes import Outcome
from explorank.hooks.types import DecisionRecord
from explorank.liking import Liking
from explorank.settings import Settings


class Settled(NamedTuple):
    """A decision for which nothing more can come."""

    record: DecisionRecord
    outcomes: list[Outcome]
    """What its displayed slots earned."""
    liked: Set[str]
    """The items that were liked, by all that came for them within the horizon."""


def reward_rules(settings: Settings) -> RewardRules:
    """Return how an installation makes rewards of several kinds one number for each slot."""
    feedback = settings.feedback
    return RewardRules(
        weights=feedback.weights,
        horizon_s=feedback.horizon_s,
        default_reward=feedback.default_reward,
        examination=examination_model(settings),
    )


def settled_outcomes(
    settings: Settings,
    now: float,
    *,
    wanted: Callable[[DecisionRecord], bool] = lambda _: True,
    examined_only: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Settled]:
    """Yield the `wanted` decisions whose horizon has passed at `now`, with what their displayed slots earned.

    A decision that was displayed in another order has no outcomes and is left out. With `examined_only`, so are slots
    that nobody can have looked at by the settings' cascade.
    """
    rules, liking = reward_rules(settings), Liking.of(settings)
    if not examined_only:
        rules = replace(rules, examination=None)
    folder = settings.folder_path / "log"
    total = count_decisions(folder)
    for done, entry in enumerate(read_log(folder), start=1):
        if progress is not None and done % 100 == 0:
            progress(done, max(total, done))
        record = entry.record
        if record.request.time + rules.horizon_s > now or not wanted(record):
            continue
        decision = OpenDecision.of(record)
        for impression in entry.impressions:
            decision.observe_impression(impression)
        outcomes = [outcome for reward in entry.rewards for outcome in decision.take(reward, rules)[1]]
        outcomes += decision.close(rules)
        examined = [outcome for outcome in outcomes if outcome.examined]
        if examined:
            in_time = (
                reward for reward in entry.rewards if reward.time <= record.request.time + rules.horizon_s
            )
            yield Settled(record, examined, liking.liked(in_time).keys())
