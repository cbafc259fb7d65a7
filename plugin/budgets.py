"""Holds exploration to its budget, and visitors to what they were shown: the settings' side of `hooks.limits`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np

from explorank.fallbacks import note_fallback
from explorank.hooks.errors import CorruptState, ExplorationError, LogUnavailable, UnknownDecision
from explorank.hooks.feedback import DecisionLog
from explorank.hooks.guards import Guard, SnapshotFailed
from explorank.hooks.guards.membership import among
from explorank.hooks.limits import (
    Explorable,
    Exposures,
    Kept,
    Rejected,
    Rule,
    SqliteExposures,
    question_of,
    visitor_of,
)
from explorank.hooks.types import (
    Allowance,
    DecisionRecord,
    Fallback,
    RankingBatch,
    RankingRequest,
    Reward,
    Slate,
)
from explorank.liking import Liking, is_liked
from explorank.settings import Settings

logger = logging.getLogger("explorank")

_CAP: Final = "the cap per user and day"


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a request may explore, and what was taken from the visitor's day for it."""

    allowance: Allowance | None = None
    """`None`: whatever the settings' slots allow."""
    held_back: str = ""
    """Why slots do not explore that otherwise would; empty where all do."""
    granted: int = 0
    """How many slots were taken from the visitor's day."""

    @property
    def explores(self) -> bool:
        """Whether any slot may explore."""
        return self.allowance is None or bool(self.allowance.slots)


NOTHING: Final = Reserved()
"""Without limits, nothing is reserved."""


def explored_slots(slate: Slate) -> list[int]:
    """Return the slots that were left to chance, whatever their explorer calls them."""
    chances = slate.propensities.tolist()
    return [slot for slot, method in enumerate(slate.method) if method == "explore" or chances[slot] < 1.0]


def needs_ledger(settings: Settings) -> bool:
    """Return whether any limit asks for what visitors met before."""
    budget, stability = settings.exploration.budget, settings.exploration.stability
    return (
        budget.per_user_per_day is not None
        or counts_impressions(settings)
        or stability.keep_s is not None
        or stability.rest_s is not None
        or bool(stability.rejections)
    )


def counts_impressions(settings: Settings) -> bool:
    """Return whether any rule asks how often an item was shown."""
    return any(rule.impressions_below is not None for rule in settings.exploration.budget.candidates or ())


def columns_of(settings: Settings) -> tuple[str, ...]:
    """Return the columns that `exploration.budget.candidates` reads."""
    budget = settings.exploration.budget
    rules = [Rule(**rule.model_dump()) for rule in budget.candidates or ()]
    return tuple(dict.fromkeys(name for rule in rules for name in rule.columns_read(budget.age_column)))


def explorable_of(settings: Settings, exposures: Exposures | None = None) -> Explorable:
    """Return the rules that `exploration.budget.candidates` states."""
    budget = settings.exploration.budget
    return Explorable(
        [Rule(**rule.model_dump()) for rule in budget.candidates or ()],
        age_column=budget.age_column,
        impressions=exposures,
        on_missing=_note_missing,
    )


def ledger_path(settings: Settings) -> Path:
    """Return where the ledger of what visitors met lies."""
    return settings.folder_path / "exposures.db"


def forget_visitor(settings: Settings, user_id: str) -> None:
    """Erase a user from the ledger, where there is one; what a process gathered this second may come after.

    Raises `LogUnavailable` where the ledger cannot be written.
    """
    path = ledger_path(settings)
    visitor = visitor_of(RankingRequest(decision_id="", slots=0, user_id=user_id))
    if visitor is None or not path.exists():
        return
    exposures = SqliteExposures(path)
    try:
        exposures.forget(visitor)
    finally:
        exposures.close()


class Budgets:
    """What every request asks before it explores, and tells afterwards.

    Without a ledger no limit needs one, and none of the methods costs anything to speak of.
    """

    def __init__(
        self,
        settings: Settings,
        exposures: Exposures | None,
        log: DecisionLog,
        enriched: Callable[[], Collection[str]],
        clock: Callable[[], float],
    ) -> None:
        """Take what is needed of the installation; `enriched` names the context keys that plugins add."""
        exploration = settings.exploration
        self._slots = None if exploration.slots == "all" else tuple(sorted(exploration.slots))
        self._cap = exploration.budget.per_user_per_day
        self._stability = exploration.stability
        self._repeats_for_s = settings.feedback.horizon_s + (exploration.stability.keep_s or 0.0)
        self._liking = Liking.of(settings)
        self._counts = counts_impressions(settings)
        self._fingerprint = settings.fingerprint
        self._explorable = explorable_of(settings, exposures)
        self._exposures = exposures
        self._log = log
        self._clock = clock
        self._enriched = enriched
        self._figures = Counter[str](withheld_slots=0, repeats=0, rejections=0, unchecked=0)
        self._counting = Lock()

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The guards that the settings imply."""
        if self._exposures is None or not self._stability.rejections:
            return ()
        return (Rejected(self._exposures),)

    @property
    def figures(self) -> dict[str, int]:
        """What this process did since its start: slots withheld by the cap, repeats, rejections, unchecked limits."""
        with self._counting:
            return dict(self._figures)

    def restore(self) -> None:
        """Tell a ledger that began anew what the log knows of rejections; never raises.

        Called again and again, beside the requests: a ledger may begin anew at any time.
        """
        stability, exposures = self._stability, self._exposures
        if exposures is None or not stability.rejections or not exposures.lacks_rejections:
            return
        try:
            since = self._clock() - stability.rejected_s
            for decision_id, item_id, time in self._log.rewarded(stability.rejections, since):
                try:
                    visitor = visitor_of(self._log.decision(decision_id).request)
                except (UnknownDecision, CorruptState):
                    continue
                if visitor is not None:
                    exposures.reject(visitor, item_id, time, stability.rejected_s)
            exposures.knows_rejections()
        except LogUnavailable as error:
            logger.warning("what was rejected before is not known yet: %s", error)

    # ---- before the draw --------------------------------------------------------------------------

    def kept(self, request: RankingRequest, n_slots: int) -> DecisionRecord | None:
        """Return the explored decision that the visitor should get again, or `None` where there is none.

        Whether it still may be shown is for the caller to check. Raises `LogUnavailable` where that cannot be
        told; the request must not explore then.
        """
        try:
            return self._kept(request, n_slots)
        except Exception as error:  # whatever it was: a limit that cannot be checked must not be passed
            self._count("unchecked")
            raise LogUnavailable(f"what the visitor met before cannot be told: {error}") from error

    def _kept(self, request: RankingRequest, n_slots: int) -> DecisionRecord | None:
        if (
            self._exposures is None
            or self._stability.keep_s is None
            or (visitor := visitor_of(request)) is None
        ):
            return None
        _require_read(request)
        question = self._question(request)
        decision_id = self._exposures.kept(visitor, request.surface, n_slots, question, request.time)
        if decision_id is None:
            return None
        try:
            record = self._log.decision(decision_id)
        except UnknownDecision:
            return None  # it is being made right now, or could not be logged
        except ExplorationError as error:
            note_fallback(
                Fallback(
                    "explore", "explorank", f"the kept decision cannot be read: {error}", "a new decision"
                )
            )
            return None
        same_settings = record.versions.get("settings") == self._fingerprint
        explored = record.mode == "live" and explored_slots(record.slate)
        return record if same_settings and explored else None

    def reserve(
        self, request: RankingRequest, ranking: RankingBatch, n_slots: int, *, live: bool
    ) -> Reserved:
        """Return which slots may explore and what they may choose from; `live` ones are counted.

        Settled before anything is drawn, and from nothing that depends on the draw, so that propensities stay
        true. A limit that cannot be checked is not passed.
        """
        if self._exposures is None and not self._explorable.rules:
            return NOTHING
        length = min(n_slots, len(ranking))
        slots = tuple(range(length)) if self._slots is None else tuple(s for s in self._slots if s < length)
        try:
            return self._reserve(request, ranking, n_slots, slots, live=live)
        except Exception as error:  # whatever it was: a limit that cannot be checked must not be passed
            if not isinstance(error, LogUnavailable):
                logger.exception("the limits of decision %s could not be checked", request.decision_id)
            self._count("unchecked")
            return Reserved(Allowance(()), f"a limit could not be checked: {error}")

    def _reserve(
        self,
        request: RankingRequest,
        ranking: RankingBatch,
        n_slots: int,
        slots: tuple[int, ...],
        *,
        live: bool,
    ) -> Reserved:
        _require_read(request)
        explorable = self._explorable.mask(ranking, request) if self._explorable.rules else None
        visitor = visitor_of(request)
        exposures, stability = self._exposures, self._stability
        if exposures is not None and visitor is not None and stability.rest_s is not None:
            awake = ~among(ranking, exposures.resting(visitor, request.time))
            explorable = awake if explorable is None else explorable & awake
        if not slots:
            return Reserved(Allowance(()))
        wanted = len(slots)
        if explorable is not None:
            # A slot too many would only be given back.
            wanted = min(wanted, int(np.count_nonzero(explorable)))
        if not wanted:
            return Reserved(Allowance((), explorable), "no candidate is explorable by `exploration.budget`")
        open_to = Reserved(None if self._cap is None and explorable is None else Allowance(slots, explorable))
        if exposures is None or not live or (self._cap is None and stability.keep_s is None):
            return open_to
        if visitor is not None:
            granted = exposures.spend(
                visitor, request.time, wanted, self._cap, self._keeping(request, n_slots)
            )
            why = f"{_CAP} ({self._cap}) leaves {granted} of {wanted} slots to explore"
        else:
            granted = 0
            why = f"{_CAP} needs a user or a session to count by, and the request names neither"
        if self._cap is None:
            return open_to
        self._count("withheld_slots", wanted - granted)
        allowance = Allowance(slots[:granted], explorable)
        return Reserved(allowance, why if granted < wanted else "", granted)

    def _keeping(self, request: RankingRequest, n_slots: int) -> Kept | None:
        """Return the decision at hand as the one to serve again; none is found in the log until it is made."""
        keep_s = self._stability.keep_s
        if keep_s is None:
            return None
        until = request.time + keep_s
        return Kept(request.surface, n_slots, self._question(request), request.decision_id, until)

    def _question(self, request: RankingRequest) -> bytes:
        return question_of(request, {*self._stability.ignore_context, *self._enriched()})

    # ---- after it ---------------------------------------------------------------------------------

    def settle(self, reserved: Reserved, record: DecisionRecord, *, logged: bool) -> None:
        """Take note of what was answered: give back what did not explore, count what was shown; never raises."""
        exposures, request = self._exposures, record.request
        if exposures is None:
            return
        explored = explored_slots(record.slate)
        visitor = visitor_of(request)
        if visitor is not None:
            if reserved.granted > len(explored):
                exposures.give_back(visitor, request.time, reserved.granted - len(explored))
            if explored and (rest_s := self._stability.rest_s) is not None:
                items = map(str, record.item_ids[record.slate.order[explored]].tolist())
                exposures.rest(visitor, items, request.time, rest_s)
        if self._counts and logged:
            exposures.count_shown(map(str, record.shown_ids))

    def repeated(self) -> None:
        """Take note that an earlier decision is served again."""
        self._count("repeats")

    def answered_with(self, original: str, request: RankingRequest) -> None:
        """Remember that a host's request was answered with the `original` decision; never raises.

        The host may only know its own id, and give feedback under that.
        """
        if self._exposures is not None:
            self._exposures.repeat(request.decision_id, original, request.time, self._repeats_for_s)

    def original(self, decision_id: str) -> str:
        """Return the decision that a request of this id was answered with; its own where nobody can tell."""
        if self._exposures is None or self._stability.keep_s is None:
            return decision_id
        try:
            return self._exposures.original(decision_id)
        except LogUnavailable as error:
            logger.warning("whether decision %s is a repeat cannot be told: %s", decision_id, error)
            return decision_id

    def concerns(self, kind: str) -> bool:
        """Return whether rewards of this kind change what their visitor sees."""
        return self._exposures is not None and (
            kind in self._stability.rejections or self._stability.rest_s is not None
        )

    def observe(self, reward: Reward, visitor: bytes | None) -> None:
        """Let a reward hide its item from the visitor, or end its rest; never raises, and repeats are harmless."""
        if self._exposures is None or visitor is None:
            return
        if reward.kind in self._stability.rejections:
            self._exposures.reject(visitor, reward.item_id, reward.time, self._stability.rejected_s)
            self._count("rejections")
        elif self._stability.rest_s is not None and is_liked(self._liking.worth(reward)):
            self._exposures.wake(visitor, reward.item_id)

    def _count(self, figure: str, by: int = 1) -> None:
        with self._counting:
            self._figures[figure] += by


def _require_read(request: RankingRequest) -> None:
    """Raise where the visitor's rejections could not be read, so that the guard lets everything pass."""
    rejected = request.guard_state.get(Rejected.name)
    if isinstance(rejected, SnapshotFailed):
        raise LogUnavailable(f"what the visitor rejected is unknown: {rejected.error}")


def _note_missing(column: str) -> None:
    reason = f"no candidate has a column {column!r} of numbers, which `exploration.budget.candidates` reads"
    note_fallback(Fallback("explore", "explorank", reason, "its rule makes nobody explorable"))
