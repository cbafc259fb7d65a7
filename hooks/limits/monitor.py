"""The monitor: keeps what the arms earned, exactly once and across restarts, for the limits that read it."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import orjson

from explorank.hooks.errors import CorruptState
from explorank.hooks.feedback import KillSwitch
from explorank.hooks.feedback.state_store import StateStore
from explorank.hooks.limits.automatic_stop import StopRule, Watch
from explorank.hooks.limits.earnings import GROUPS, EarningRules, Earnings, group_of
from explorank.hooks.limits.earnings_store import Earned, EarningsStore, Watched
from explorank.hooks.limits.visitors import bucket_of
from explorank.hooks.types import DecisionRecord, Reward

logger = logging.getLogger(__name__)

_DECISIONS_PER_TRANSACTION: Final = 1024
_EXPLORE: Final = frozenset({"explored", "held_back"})


@dataclass(frozen=True, slots=True)
class Monitored:
    """What is known after one of the learner's steps; immutable, read without a lock."""

    step: int
    """Rises by one with each step of the leading learner that brought something."""
    earnings: Earnings
    watch: Watch

    def dumps(self) -> bytes:
        """Return it as JSON."""
        packed = {"step": self.step, "earnings": self.earnings.packed(), "watch": self.watch.packed()}
        return orjson.dumps(packed)

    def loads(self, data: bytes) -> Monitored:
        """Return what `dumps` wrote, for the same bounds; raise `CorruptState` for anything else."""
        try:
            packed = orjson.loads(data)
            return Monitored(
                int(packed["step"]),
                self.earnings.unpacked(packed["earnings"]),
                self.watch.unpacked(packed["watch"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CorruptState):
                raise
            raise CorruptState(
                f"What the limits on exploration stand on cannot be read ({error!r}). The learner rebuilds its "
                "state from the log."
            ) from error


class Monitor:
    """An observer of the learner that counts each live decision of the log once, with what it earned.

    A decision is settled when its window has passed, not sooner, and in the order in which decisions were made:
    those that earn at once must not come before those that do not, or every mean would begin too high.

    Where `stop` is given and its rule fires, the kill switch is engaged, with the reason. It is engaged again
    should its file vanish; `KillSwitch.release` is what ends the stop, and then the comparison begins anew with
    the decisions after the release.
    """

    snapshot: Monitored
    """The newest state."""

    def __init__(self, rules: EarningRules, kill_switch: KillSwitch, *, stop: StopRule | None = None) -> None:
        self.rules = rules
        self.stop = stop
        self._kill_switch = kill_switch
        self._listeners: list[Callable[[Monitored], None]] = []
        self._told: Monitored | None = None
        self._stepping = False
        self._nothing = Monitored(
            0,
            Earnings.none(rules.minimum, rules.maximum),
            Watch.from_(None, rules.minimum, rules.maximum),
        )
        self._saved: bytes | None = None
        self.snapshot = self._nothing

    @property
    def fingerprint(self) -> str:
        """What the counted earnings depend on."""
        described = orjson.dumps(self.rules, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(described, digest_size=16).hexdigest()

    def subscribe(self, listener: Callable[[Monitored], None]) -> None:
        """Call `listener` with the newest state, now and after each step that brings another, on its thread."""
        self._listeners.append(listener)
        listener(self.snapshot)

    # ---- what the learner calls -----------------------------------------------------------------------

    def follow(self, store: StateStore) -> None:
        """Take up what was last saved."""
        saved = EarningsStore(store).load()
        if saved != self._saved:
            self.snapshot = self._nothing if saved is None else self._nothing.loads(saved)
            self._saved = saved
            self._tell()

    def observe(
        self, store: StateStore, decisions: Sequence[DecisionRecord], rewards: Sequence[Reward]
    ) -> Callable[[], None]:
        """Count live decisions as open, and add to them what they earned."""
        watched = [
            Watched(record.decision_id, group, record.request.time, bucket_of(record.request))
            for record in decisions
            if (group := group_of(record)) is not None
        ]
        earned = [
            Earned(reward.decision_id, reward.reward_id, amount, reward.time)
            for reward in rewards
            if (amount := self.rules.worth(reward)) is not None
        ]
        EarningsStore(store).watch(watched, earned, self.rules.window_s)
        if not watched:
            return _nothing
        opened = Counter(each.group for each in watched)
        next_ = replace(self.snapshot, step=self._step(), earnings=self.snapshot.earnings.opened(opened))
        return self._save(store, next_)

    def finish(self, store: StateStore, now: float, *, complete: bool) -> None:
        """Settle what is due, see whether exploration must stop, and tell the listeners."""
        if complete:
            self._heed_release(store)
            waiting = EarningsStore(store)
            while due := waiting.due(now, _DECISIONS_PER_TRANSACTION):
                with store.transaction():
                    waiting.forget(each.decision_id for each in due)
                    committed = self._save(store, self._settled(due))
                committed()
        self._enforce()
        self._stepping = False
        self._tell()

    # ---- how ------------------------------------------------------------------------------------------

    def _settled(self, due: Sequence[Watched]) -> Monitored:
        earned = np.array([each.earned for each in due])
        values = np.clip(earned, self.rules.minimum, self.rules.maximum)
        groups = np.array([each.group for each in due])
        by_group = {group: values[groups == group] for group in GROUPS if (groups == group).any()}
        earnings = self.snapshot.earnings.settled(by_group, int((values != earned).sum()))
        watch = self.snapshot.watch
        if self.stop is not None:
            counts = np.ones(len(due), np.bool_)
            if watch.since is not None:
                counts = np.array([each.time for each in due]) >= watch.since
            explore = np.isin(groups, list(_EXPLORE))
            buckets = np.array([each.bucket for each in due])
            watch = self.stop.observe(watch, values[counts], explore[counts], buckets[counts])
        return Monitored(self._step(), earnings, watch)

    def _heed_release(self, store: StateStore) -> None:
        """Begin the comparison anew if the kill switch was released since it began."""
        released_at = self._kill_switch.released_at
        if released_at is None or released_at == self.snapshot.watch.since:
            return
        if self.snapshot.watch.reason is not None:
            logger.warning("Exploration goes on after an automatic stop, which a release of the switch ended")
        watch = Watch.from_(released_at, self.rules.minimum, self.rules.maximum)
        with store.transaction():
            committed = self._save(store, replace(self.snapshot, step=self._step(), watch=watch))
        committed()

    def _enforce(self) -> None:
        reason = self.snapshot.watch.reason
        if self.stop is None or reason is None or self._kill_switch.engaged:
            return
        logger.error("%s", reason)
        try:
            self._kill_switch.engage(reason)
        except OSError:
            # The gate keeps exploration shut meanwhile, and the next step tries again.
            logger.exception("The kill switch could not be engaged for the automatic stop")

    def _step(self) -> int:
        return self.snapshot.step + (not self._stepping)

    def _save(self, store: StateStore, state: Monitored) -> Callable[[], None]:
        """Save `state` within the open transaction; return what makes it visible once that is committed."""
        saved = state.dumps()
        EarningsStore(store).save(saved)

        def committed() -> None:
            self.snapshot, self._saved, self._stepping = state, saved, True

        return committed

    def _tell(self) -> None:
        if self.snapshot is not self._told:
            self._told = self.snapshot
            for listener in self._listeners:
                listener(self.snapshot)


def _nothing() -> None:
    """Follow a commit that changed nothing here."""
