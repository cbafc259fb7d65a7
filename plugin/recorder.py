"""Turns what was decided into the record that evaluation, learning and replay need, and makes it durable."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

import numpy as np

from explorank.explorer import Explored
from explorank.hooks.errors import InvalidBatch, InvalidFeedback, LogUnavailable
from explorank.hooks.feedback import DecisionLog
from explorank.hooks.limits import visitor_of
from explorank.hooks.types import (
    OFFSETS,
    Candidates,
    DecisionRecord,
    Fallback,
    RankingBatch,
    RankingRequest,
)

logger = logging.getLogger("explorank")

_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Answered:
    """What feedback must know of a decision: whose it was and what stood in which slot."""

    user_id: str | None
    items: tuple[str, ...]
    visitor: bytes | None = None
    """Whose it was as limits know them (`visitor_of`)."""

    @classmethod
    def of(cls, record: DecisionRecord) -> Answered:
        """Return what feedback must know of `record`."""
        request = record.request
        return cls(request.user_id, tuple(record.shown_ids), visitor_of(request))

    def slot_of(self, decision_id: str, item_id: str | None, slot: int | None) -> int:
        """Return the slot that `item_id` or `slot` names; raise `InvalidFeedback` where there is none."""
        if item_id is None and slot is None:
            raise InvalidFeedback(
                f"A reward for decision {decision_id} names neither item nor slot; give one of them."
            )
        if slot is not None and not 0 <= slot < len(self.items):
            raise InvalidFeedback(
                f"Decision {decision_id} has no slot {slot}: it answered {len(self.items)} items, slots count from 0."
            )
        if item_id is None:
            assert slot is not None  # noqa: S101 - one of the two is given
            return slot
        if item_id not in self.items:
            raise InvalidFeedback(
                f"Decision {decision_id} did not answer item {item_id!r}, so it cannot be rewarded for it. "
                "Send the decision id that came with the item."
            )
        found = self.items.index(item_id)
        if slot not in {None, found}:
            raise InvalidFeedback(
                f"Decision {decision_id} answered item {item_id!r} in slot {found}, not {slot}. Send either one."
            )
        return found


class Recorder:
    """Writes decisions to the log and remembers the latest, so that feedback need not read them back."""

    def __init__(self, log: DecisionLog) -> None:
        self._log = log
        self._recent: OrderedDict[str, Answered] = OrderedDict()
        self._lock = Lock()
        self.trouble: str | None = None
        """Why the latest decision could not be logged; None while the log works."""

    def write(
        self, record: DecisionRecord, baseline: Callable[[], DecisionRecord]
    ) -> tuple[DecisionRecord, bool]:
        """Return what may be answered and whether it is durable.

        `record` where it could be written; else `baseline()`, which explores nothing: an answer whose
        propensities nobody can ever read must not be one that explored.
        """
        try:
            self._append(record)
        except (InvalidBatch, LogUnavailable) as error:
            # What cannot be stored is this one request's trouble (a context that is no JSON, say), not the log's.
            self.trouble = str(error) if isinstance(error, LogUnavailable) else None
            logger.warning("decision %s could not be logged: %s", record.decision_id, error)
            fallback = Fallback("log", "explorank", str(error), "baseline without exploration, not logged")
            unlogged = baseline()
            return replace(unlogged, fallbacks=(*unlogged.fallbacks, fallback)), False
        self.trouble = None
        with self._lock:
            self._recent[record.decision_id] = Answered.of(record)
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        return record, True

    def _append(self, record: DecisionRecord) -> None:
        if not self._log.append_decision(record):
            raise InvalidBatch(
                f"The log holds a decision {record.decision_id} already, and rewards could not tell the two apart. "
                "Give each request an id of its own (`explorank.seeds.new_decision_id`)."
            )

    def answered(self, decision_id: str) -> Answered:
        """Return what a decision answered; raise `UnknownDecision` where no log holds it."""
        if (known := self._recent.get(decision_id)) is not None:
            return known
        return Answered.of(self._log.decision(decision_id))


def record_of(
    request: RankingRequest,
    ranking: RankingBatch,
    explored: Explored,
    fallbacks: Sequence[Fallback],
    versions: Mapping[str, str],
    candidates: Candidates | None = None,
) -> DecisionRecord:
    """Return the record of a decision over `ranking`; `candidates` adds the sources, in the same order.

    Features, and the columns that a policy read, are kept for every item that could have been shown, since
    nobody else remembers them as served.
    """
    slate, shadow = explored.slate, explored.shadow
    kept = np.zeros(len(ranking), np.bool_)
    read: set[str] = set()
    for drawn in (slate, shadow):
        if drawn is not None:
            kept |= drawn.support.any(axis=0)
            kept[drawn.order] = True
            read.update(drawn.reads)
    rows = np.flatnonzero(kept)
    columns = {name: ranking.column(name)[rows] for name in sorted(read - {"features", OFFSETS})}
    if ranking.offsets is not None:
        # Whether or not the policy read them: what was expected of an item is part of what it teaches.
        columns[OFFSETS] = ranking.offsets[rows]
    no_features = np.zeros((len(rows), 0), np.float32)
    return DecisionRecord(
        request=request,
        mode=explored.mode,
        arm=explored.arm,
        item_ids=ranking.item_ids,
        scores=ranking.score_values,
        slate=slate,
        baseline_order=explored.baseline.order,
        feature_names=ranking.feature_names,
        feature_rows=rows,
        features=no_features if ranking.features is None else ranking.features[rows],
        columns=columns,
        shadow=shadow,
        sources=((),) * len(slate) if candidates is None else candidates.sources_of(slate.order),
        fallbacks=tuple(fallbacks),
        versions=versions,
        propensity_known=explored.propensity_known,
        held_back=explored.held_back,
    )
