"""The learner: folds what the log says was earned into a policy's state, each reward exactly once."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
import orjson

from explorank.hooks.errors import CorruptState, InvalidBatch, LogUnavailable, UnknownDecision
from explorank.hooks.exploration.examination import Examination, PositionBased, allowing_for
from explorank.hooks.exploration.policy import Policy, State
from explorank.hooks.feedback import _sqlite
from explorank.hooks.feedback.observer import Observer
from explorank.hooks.feedback.outcomes import OpenDecision, Outcome, RewardRules, is_learnt
from explorank.hooks.feedback.segments import Event, Segments
from explorank.hooks.feedback.state_store import Erasure, Saved, StateStore, is_damage
from explorank.hooks.types import DecisionRecord, Impression, Reward, RewardBatch

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=State)

_EVENTS_PER_TRANSACTION: Final = 1024
_REBUILDING: Final = "+rebuild"
_COUNTED: Final = (
    "folded",
    "unexamined",
    "late",
    "duplicates",
    "refused",
    "order_changed",
    "ignored",
    "unknown",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LearnerStats:
    """What a learner did with the log so far, restarts included."""

    folded: int
    """Outcomes that the policy learnt from."""
    unexamined: int
    """Outcomes of slots that nobody can have looked at, by the cascade; nothing is learnt from them."""
    late: int
    """Rewards that came after their slot had closed."""
    duplicates: int
    """Rewards that another segment had brought already."""
    refused: int
    """Outcomes the policy could not take, and rewards that contradict their decision or have no weight."""
    order_changed: int
    """Decisions that were displayed otherwise than decided; nothing is learnt from them."""
    ignored: int
    """Rewards for decisions that are not learnt from: shadow ones, other features, unknown propensities."""
    unknown: int
    """Rewards whose decision had not come when the horizon passed."""
    open: int
    """Decisions that wait for rewards."""
    version: int
    """Of the policy's state in `snapshot`."""
    lag_s: float
    """Seconds since the log was last read to its end; for a follower, since it last looked for news."""
    leads: bool
    """Whether this learner writes; others follow what it saves."""
    last_error: str | None
    """Why the last step did not succeed, or `None`."""


class Learner(Generic[S]):
    """Keeps a policy's state up to date with the log, and `snapshot` up to date with the state.

    One learner per fingerprint leads, by an advisory lock that the kernel frees however its process ends;
    all others follow what it saves, and one of them takes over at its next step. The fingerprint is that of
    the policy, its parameters, the feature version and the reward rules: change one of them, and the state
    is rebuilt from the log.

    The state, the log's cursors and what still waits for rewards are saved in one transaction, so a kill at
    any moment counts every acknowledged reward once. A damaged store is moved aside and rebuilt from the log.

    Decisions are learnt in modes `live` (every arm) and `apprentice`, where their propensities are known.
    An `observer` sees every decision and reward that is read, and saves in the same transactions.

    What a step finds closed it folds by the time at which it closed, so that a state that depends on the order of
    rewards is the same after a rebuild, as long as rewards come in before their horizon passes and in order.
    """

    snapshot: S
    """The newest state: immutable, read without a lock."""

    def __init__(
        self,
        folder: str | Path,
        policy: Policy[S],
        *,
        state_path: str | Path,
        reward_weights: Mapping[str, float],
        horizon_s: float,
        default_reward: float = 0.0,
        feature_version: str | None = None,
        observer: Observer | None = None,
        examination: Examination | None = None,
        warm_start: bool = False,
    ) -> None:
        """Load the saved state, if there is one; nothing is learnt before `step` or `start`.

        `feature_version`, where given, must stand in a decision's `versions["exploration_features"]` for it
        to be learnt. `examination` says which slots were looked at. With a `warm_start`, what is learnt is the
        reward less what the record says was expected of the item, and decisions whose record says nothing are
        not learnt from. Raises `InvalidFeedback` for reward rules that cannot work, `LogUnavailable` where the
        state file cannot be opened.
        """
        self.policy = policy
        self.rules = RewardRules(
            weights=dict(reward_weights),
            horizon_s=horizon_s,
            default_reward=default_reward,
            examination=examination,
        )
        self.feature_version = feature_version
        self.warm_start = warm_start
        self._observer = observer
        self._until: Mapping[str, int] | None = None
        self.fingerprint = self._named(
            _fingerprint(policy, self.rules, feature_version, observer, warm_start=warm_start)
        )
        self.snapshot = policy.initial_state()
        self.state_path = Path(state_path)
        self._segments = Segments(Path(folder))
        self._store: StateStore | None = None
        self._revision = 0
        self._counts: Counter[str] = Counter()
        self._lock_path = self.state_path.with_name(f"{self.state_path.name}.{self.fingerprint[:12]}.lock")
        self._lock_descriptor: int | None = None
        self._stepping = threading.RLock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._last_error: str | None = None
        self._open_decisions = 0
        self._current_at = time.monotonic()
        try:
            self._follow()
        except LogUnavailable:
            self.close()
            raise
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise _sqlite.unavailable(self.state_path, error) from error

    def step(self, now: float | None = None) -> int:
        """Read what is new in the log, close what is due at `now`, and fold it in; return how many outcomes.

        A learner that does not lead tries to, else refreshes `snapshot`, and returns 0. `now` is in seconds
        since the Unix epoch; without it, the clock's. Raises `LogUnavailable` where the state cannot be
        saved; nothing is then folded, and the next step tries again.
        """
        with self._stepping:
            try:
                folded = self._step(time.time() if now is None else now)
            except Exception as error:
                self._last_error = f"{type(error).__name__}: {error}"
                if isinstance(error, LogUnavailable) or not isinstance(error, (sqlite3.Error, OSError)):
                    raise
                raise _sqlite.unavailable(self.state_path, error) from error
            self._last_error = None
            self._current_at = time.monotonic()
            return folded

    def rebuild(self, now: float | None = None) -> int:
        """Learn the whole log anew and take the result up at once; return how many outcomes it holds.

        `snapshot` stays what it is meanwhile, and its version goes on rising. Only the learner that leads can do
        it: raises `LogUnavailable` for any other, or where the state cannot be saved.
        """
        with self._stepping:
            if not self._lead():
                raise LogUnavailable(
                    f"Another learner leads {self.state_path}, and two would write over each other. Stop it, or "
                    "rebuild there."
                )
            at = time.time() if now is None else now
            try:
                self._fold_log(at)
                return self._rebuild_aside(at)
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, LogUnavailable):
                    raise
                raise _sqlite.unavailable(self.state_path, error) from error

    def forget(self, user_id: str, now: float | None = None, *, wait_s: float = 30.0) -> int:
        """Erase a user's decisions, impressions and rewards from the log, and what was learnt from them.

        Returns how many decisions that were. Where the state is a sum over rewards, what the user's taught is
        taken out of it, else it is rebuilt from the log that is left. The deleted bytes are overwritten. Where
        another learner leads, it is asked to, and has `wait_s` seconds; the request stays if it takes longer.
        States of other fingerprints in the same file are dropped, and rebuilt when they are needed again.

        Raises `LogUnavailable` where it is not done yet; it is safe to call again.
        """
        at = time.time() if now is None else now
        with self._stepping:
            try:
                count = len({found[2] for found in self._segments.decisions_of(user_id)})
                store = self._ready_store()
                with store.transaction():
                    store.request_erasure(user_id)
                if self._lead():
                    self._refresh(store)
                    self._fold_log(at)
                    return count
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, LogUnavailable):
                    raise
                raise _sqlite.unavailable(self.state_path, error) from error
        self._await_erasure(user_id, at, wait_s)
        return count

    def start(self, interval_s: float = 1.0, *, clock: Callable[[], float] = time.time) -> None:
        """Step every `interval_s` seconds, and on `notify`, in a thread of its own until `stop`.

        `clock` says what time it is for horizons: that of the decisions, where they replay historic data.
        """
        if self._thread is not None:
            return
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, args=(interval_s, clock), name=f"learner {self.policy.name}", daemon=True
        )
        self._thread.start()

    def notify(self) -> None:
        """Say that there is something new in the log, so that the thread need not wait out its interval."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread after the step under way; what it has not read stays in the log."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._wake.set()
            thread.join()

    def close(self) -> None:
        """Stop, close the files, and let another learner lead."""
        self.stop()
        with self._stepping:
            self._segments.close()
            self._close_store()
            if self._lock_descriptor is not None:
                os.close(self._lock_descriptor)
                self._lock_descriptor = None

    @property
    def stats(self) -> LearnerStats:
        """What was learnt so far; costs no access to a file."""
        counts = self._counts
        return LearnerStats(
            **{name: counts[name] for name in _COUNTED},
            open=self._open_decisions,
            version=self.snapshot.version,
            lag_s=time.monotonic() - self._current_at,
            leads=self._lock_descriptor is not None,
            last_error=self._last_error,
        )

    def _run(self, interval_s: float, clock: Callable[[], float]) -> None:
        while not self._stopping:
            try:
                self.step(clock())
            except Exception:
                # Whatever it is, the log keeps what was not folded; the next step tries again.
                logger.exception("The learner of policy %r failed a step and goes on", self.policy.name)
            self._wake.wait(interval_s)
            self._wake.clear()

    def _step(self, now: float) -> int:
        if not self._lead():
            self._follow()
            return 0
        try:
            return self._fold_log(now)
        except Exception as error:
            if not is_damage(error):
                raise
            self._rebuild(error)
            return self._fold_log(now)

    def _lead(self) -> bool:
        if self._lock_descriptor is None:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_descriptor = _sqlite.take_lock(self._lock_path)
        return self._lock_descriptor is not None

    def _named(self, fingerprint: str) -> str:
        return fingerprint

    def _await_erasure(self, user_id: str, now: float, wait_s: float) -> None:
        give_up_at = time.monotonic() + wait_s
        while True:
            with self._stepping:
                if all(erasure.user_id != user_id for erasure in self._ready_store().erasures()):
                    return
            if time.monotonic() > give_up_at:
                raise LogUnavailable(
                    f"The learner that leads {self.state_path} has not erased user {user_id!r} within {wait_s:g} s. "
                    "The request stays with it; see what its process logs, and ask again."
                )
            time.sleep(0.05)
            self.step(now)  # which takes over where the leader is gone

    def _follow(self) -> None:
        """Take over what was saved since, if anything was."""
        try:
            store = self._ready_store()
            self._refresh(store)
            if self._observer is not None:
                self._observer.follow(store)
        except Exception as error:
            if not is_damage(error):
                raise
            # Whoever leads meets the damage too, and rebuilds; until then the snapshot stays.
            logger.warning("%s is damaged and waits for a leading learner: %s", self.state_path, error)
            self._close_store()

    def _refresh(self, store: StateStore) -> None:
        if store.revision() == self._revision:
            return
        saved = store.load()
        if saved is None:
            self._begin_anew()
        else:
            self.snapshot = self.policy.loads(saved.state)
            self._counts = Counter(saved.counts)
            self._revision = saved.revision

    def _ready_store(self) -> StateStore:
        if self._store is not None and self._store.replaced:
            self._close_store()
        if self._store is None:
            self._store = StateStore(self.state_path, self.fingerprint)
        return self._store

    def _rebuild(self, error: BaseException) -> None:
        self._close_store()
        _sqlite.move_aside(self.state_path, str(error))
        self._begin_anew()

    def _begin_anew(self) -> None:
        version = self.snapshot.version
        self.snapshot = self.policy.initial_state()
        if version:
            # Decisions have named the versions up to here.
            self.snapshot = self.policy.at_version(self.snapshot, version + 1)
        self._counts = Counter()
        self._revision = 0

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _fold_log(self, now: float) -> int:
        store = self._ready_store()
        self._refresh(store)
        if self._observer is not None:
            self._observer.follow(store)
        folded = 0
        while True:
            cursors = store.cursors()
            batches = list(self._segments.read(cursors, _EVENTS_PER_TRANSACTION, self._until))
            if not batches:
                break
            for segment_id, cursor, events in batches:
                with store.transaction():
                    reading = _Reading(
                        store,
                        self._segments,
                        self.rules,
                        lambda record: is_learnt(record, self.feature_version, warm_start=self.warm_start),
                        cursors=cursors,
                        segment_id=segment_id,
                        cursor=cursor,
                        now=now,
                    )
                    outcomes = reading.take(events)
                    store.move_cursor(segment_id, cursor)
                    counts = self._keep(store, outcomes, reading.counts)
                    observed = self._observe(store, reading)
                cursors[segment_id] = cursor
                self._publish(self.snapshot, counts)
                observed()
        complete = not self._segments.may_hold_more
        if complete:
            self._close_due(store, now)
        folded = self._fold_closed(store)
        if self._observer is not None:
            self._observer.finish(store, now, complete=complete)
        for erasure in store.erasures():
            self._erase(store, erasure, now)
        self._open_decisions = store.count_open()
        return folded

    def _observe(self, store: StateStore, reading: _Reading) -> Callable[[], None]:
        if self._observer is None:
            return _nothing
        return self._observer.observe(store, reading.decisions, reading.rewards)

    def _keep(self, store: StateStore, outcomes: Sequence[Outcome], counts: Counter[str]) -> Counter[str]:
        """Store what closed, to be folded in the order of closing once all is read; return the counts up to now."""
        looked_at = [outcome for outcome in outcomes if outcome.examined]
        counts = self._counts + counts + Counter(unexamined=len(outcomes) - len(looked_at))
        store.keep_closed(looked_at)
        self._save(store, self.snapshot, counts)
        return counts

    def _fold_closed(self, store: StateStore) -> int:
        folded = 0
        while store.holds_closed():
            with store.transaction():
                next_state, counts = self._fold(store.take_closed(_EVENTS_PER_TRANSACTION))
                self._save(store, next_state, counts)
            folded += self._publish(next_state, counts)
        return folded

    def _close_due(self, store: StateStore, now: float) -> None:
        while due := store.due(now, _EVENTS_PER_TRANSACTION):
            with store.transaction():
                outcomes = [outcome for decision in due for outcome in decision.close(self.rules)]
                store.forget_open(decision.decision_id for decision in due)
                counts = self._keep(store, outcomes, Counter())
            self._publish(self.snapshot, counts)
        if expired := store.expired_kinds(now):
            counts = self._counts + Counter(unknown=expired.get("reward", 0))
            with store.transaction():
                store.expire_early(now)
                self._save(store, self.snapshot, counts)
            self._publish(self.snapshot, counts)

    def _fold(self, outcomes: Sequence[Outcome]) -> tuple[S, Counter[str]]:
        """Return the state after `outcomes`, and the counts up to now."""
        state = self.snapshot
        counts = self._counts.copy()
        # A batch has one feature matrix; the policy refuses the widths, or the lack, that it cannot take.
        for _, group in groupby(outcomes, key=_feature_width):
            rows = list(group)
            state, taken = self._learn(state, rows)
            counts["folded"] += taken
            counts["refused"] += len(rows) - taken
        return state, counts

    def _learn(self, state: S, outcomes: Sequence[Outcome]) -> tuple[S, int]:
        """Return the state after those outcomes that the policy takes, and how many they are."""
        if len(outcomes) > 1 and self._one_by_one:
            taken = 0
            for outcome in outcomes:
                state, one = self._learn(state, [outcome])
                taken += one
            return state, taken
        try:
            return self.policy.learn(state, self._batch(state, outcomes)), len(outcomes)
        except InvalidBatch as error:
            if len(outcomes) == 1:
                outcome = outcomes[0]
                logger.warning(
                    "Policy %r refused the reward of slot %d of decision %r: %s",
                    self.policy.name,
                    outcome.slot,
                    outcome.decision_id,
                    error,
                )
                return state, 0
        # Halving isolates one bad row among n in about 2 log2(n) calls.
        middle = len(outcomes) // 2
        state, first = self._learn(state, outcomes[:middle])
        state, second = self._learn(state, outcomes[middle:])
        return state, first + second

    @property
    def _one_by_one(self) -> bool:
        """Whether what a reward counts for depends on the state that it meets."""
        return isinstance(self.rules.examination, PositionBased) and self.policy.reward_form == "share"

    def _batch(self, state: S, outcomes: Sequence[Outcome]) -> RewardBatch:
        """Return the outcomes as the policy learns from them in `state`."""
        batch = _batch(outcomes, with_offsets=self.warm_start)
        if isinstance(self.rules.examination, PositionBased):
            rewarded = np.array([outcome.rewarded for outcome in outcomes])
            return allowing_for(
                self.rules.examination, self.policy, state, batch, rewarded, self.rules.default_reward
            )
        return batch

    def _erase(self, store: StateStore, erasure: Erasure, now: float) -> None:
        """Take a user out of the state, then out of the log, then forget that it was asked for.

        The request says which steps are done, so that a kill between two of them repeats none that counts.
        """
        user_id = erasure.user_id
        if erasure.decision_ids is None:
            found = list(self._segments.decisions_of(user_id))
            cursors = store.cursors()
            # What is not read yet has taught nothing, though a reward for it may have come early.
            records = {
                decision_id: record
                for segment_id, seq, decision_id, record in found
                if record is not None and seq <= cursors.get(segment_id, 0)
            }
            without = self._without(store, cursors, records.values())
            state, counts = without or (self.snapshot, self._counts)
            erasure = Erasure(user_id, sorted({one for _, _, one, _ in found}), rebuild=without is None)
            with store.transaction():
                store.forget_decisions(erasure.decision_ids or [])
                store.note_erasure(erasure)
                self._save(store, state, counts)
            self._publish(state, counts)
        self._segments.erase(erasure.decision_ids or [])
        if erasure.rebuild:
            self._rebuild_aside(now)
        with store.transaction():
            store.finish_erasure(user_id)
        if not _sqlite.leave_no_trace(self.state_path, patience_s=5.0):
            logger.warning(
                "User %r is erased; older pages of %s stay in its WAL until nobody reads it for a moment",
                user_id,
                self.state_path,
            )

    def _without(
        self, store: StateStore, cursors: Mapping[str, int], records: Iterable[DecisionRecord]
    ) -> tuple[S, Counter[str]] | None:
        """Return state and counts without what these decisions taught; `None` where only a rebuild can."""
        if not self.policy.additive or self._one_by_one:
            return None
        outcomes: list[Outcome] = []
        for record in records:
            if not is_learnt(record, self.feature_version, warm_start=self.warm_start):
                continue
            decision = OpenDecision.of(record)
            for event in self._segments.events_of(record.decision_id, cursors):
                if isinstance(event, Impression):
                    decision.observe_impression(event)
                else:
                    outcomes += decision.take(event, self.rules)[1]
            if store.open_decision(record.decision_id) is None:
                outcomes += decision.close(self.rules)
        state, counts = self.snapshot, self._counts.copy()
        looked_at = [outcome for outcome in outcomes if outcome.examined]
        counts["unexamined"] -= len(outcomes) - len(looked_at)
        for _, group in groupby(sorted(looked_at, key=_feature_width), key=_feature_width):
            rows = list(group)
            try:
                state, taken = self._unlearn(state, rows)
            except InvalidBatch as error:
                logger.warning("A user is forgotten by a rebuild of %r: %s", self.policy.name, error)
                return None
            counts["folded"] -= taken
            counts["refused"] -= len(rows) - taken
        return state, counts

    def _unlearn(self, state: S, outcomes: Sequence[Outcome]) -> tuple[S, int]:
        """Return the state before those outcomes that the policy took, and how many they are."""
        batch = self._batch(state, outcomes)
        try:
            self.policy.learn(self.policy.initial_state(), batch)
        except InvalidBatch:
            if len(outcomes) == 1:
                return state, 0
            middle = len(outcomes) // 2
            state, first = self._unlearn(state, outcomes[:middle])
            state, second = self._unlearn(state, outcomes[middle:])
            return state, first + second
        return self.policy.unlearn(state, batch), len(outcomes)

    def _rebuild_aside(self, now: float) -> int:
        """Learn what was read of the log into a state of another name, then put it in the place of this one's."""
        store = self._ready_store()
        self._refresh(store)
        with StateStore(self.state_path, self.fingerprint + _REBUILDING) as scratch, scratch.transaction():
            scratch.clear()
        aside = _Aside(self, until=store.cursors())
        try:
            aside.step(now)
            with store.transaction():
                store.adopt(aside.fingerprint, self._revision + 1)
        finally:
            aside.close()
        self._refresh(store)
        return self._counts["folded"]

    def _save(self, store: StateStore, state: S, counts: Counter[str]) -> None:
        if self._revision and state is self.snapshot:
            store.save_counts(dict(counts))
        else:
            store.save(Saved(self._revision + 1, self.policy.dumps(state), dict(counts)))

    def _publish(self, state: S, counts: Counter[str]) -> int:
        """Make what was committed visible; return how many outcomes that added."""
        folded = counts["folded"] - self._counts["folded"]
        self._revision += not self._revision or state is not self.snapshot
        self._counts = counts
        self.snapshot = state
        return folded


class _Aside(Learner[S]):
    """A learner that reads what another has read of the log into a state of its own, for that one to take over.

    It reads nothing beyond, because an observer saw what was read, and would miss the rest.
    """

    def __init__(self, learner: Learner[S], until: Mapping[str, int]) -> None:
        rules = learner.rules
        self._suffixed = learner.fingerprint + _REBUILDING
        super().__init__(
            learner._segments.folder,
            learner.policy,
            state_path=learner.state_path,
            reward_weights=rules.weights,
            horizon_s=rules.horizon_s,
            default_reward=rules.default_reward,
            feature_version=learner.feature_version,
            examination=rules.examination,
            warm_start=learner.warm_start,
        )
        self._until = until
        self.snapshot = learner.policy.at_version(self.snapshot, learner.snapshot.version + 1)

    def _named(self, fingerprint: str) -> str:  # noqa: ARG002 - it is named after the learner it works for
        return self._suffixed

    def _lead(self) -> bool:
        return True  # whoever rebuilds leads already

    def _erase(self, store: StateStore, erasure: Erasure, now: float) -> None:
        pass  # that is for the learner whose state takes over


class _Reading:
    """One transaction's pass over new events of a segment."""

    def __init__(
        self,
        store: StateStore,
        segments: Segments,
        rules: RewardRules,
        is_learnt: Callable[[DecisionRecord], bool],
        *,
        cursors: Mapping[str, int],
        segment_id: str,
        cursor: int,
        now: float,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.decisions: list[DecisionRecord] = []
        """Those that no other segment brought before, learnt from or not."""
        self.rewards: list[Reward] = []
        """All of them; one that is early comes again after its decision."""
        self._store = store
        self._segments = segments
        self._rules = rules
        self._is_learnt = is_learnt
        self._cursors = cursors
        self._segment_id = segment_id
        self._cursor = cursor
        self._now = now
        self._touched: dict[str, OpenDecision | None] = {}

    def take(self, events: Sequence[Event]) -> list[Outcome]:
        """Return what the events close; keep what stays open."""
        # Decisions first: within the batch no feedback is early then, wherever it stands.
        decisions = [event for event in events if isinstance(event, DecisionRecord)]
        feedback = [event for event in events if not isinstance(event, DecisionRecord)]
        outcomes = [outcome for record in decisions for outcome in self._decision(record)]
        outcomes += [outcome for item in feedback for outcome in self._feedback(item)]
        for decision_id, decision in self._touched.items():
            if decision is None:
                continue
            if decision.settled:
                self._store.forget_open([decision_id])
            else:
                self._store.keep_open(decision, decision.time + self._rules.horizon_s)
        return outcomes

    def _decision(self, record: DecisionRecord) -> list[Outcome]:
        decision_id = record.decision_id
        if self._read_elsewhere(decision_id):
            return []
        self.decisions.append(record)
        if self._is_learnt(record):
            self._touched[decision_id] = OpenDecision.of(record)
        return [
            outcome
            for feedback in self._store.take_early(decision_id)
            for outcome in self._feedback(feedback, record)
        ]

    def _feedback(self, feedback: Impression | Reward, record: DecisionRecord | None = None) -> list[Outcome]:
        if isinstance(feedback, Reward):
            self.rewards.append(feedback)
        decision = self._open(feedback.decision_id)
        if decision is None:
            self._without_open(feedback, record)
            return []
        if isinstance(feedback, Impression):
            before = decision.order_changed
            decision.observe_impression(feedback)
            self.counts["order_changed"] += decision.order_changed and not before
            return []
        reception, outcomes = decision.take(feedback, self._rules)
        if reception != "accepted":
            self.counts["duplicates" if reception == "duplicate" else reception] += 1
        return outcomes

    def _open(self, decision_id: str) -> OpenDecision | None:
        if decision_id not in self._touched:
            self._touched[decision_id] = self._store.open_decision(decision_id)
        return self._touched[decision_id]

    def _without_open(self, feedback: Impression | Reward, record: DecisionRecord | None) -> None:
        """Take feedback for a decision that is closed, not learnt from, or not read yet."""
        if record is None and not self._read(self._segments.copies(feedback.decision_id)):
            del self._touched[feedback.decision_id]
            self._store.keep_early(feedback, max(feedback.time, self._now) + self._rules.horizon_s)
            return
        if isinstance(feedback, Impression):
            return
        if record is None:
            try:
                record = self._segments.decision(feedback.decision_id)
            except (CorruptState, LogUnavailable, UnknownDecision):
                self.counts["ignored"] += 1
                return
        self.counts["late" if self._is_learnt(record) else "ignored"] += 1

    def _read(self, copies: Mapping[str, int]) -> bool:
        return any(
            seq <= (self._cursor if segment_id == self._segment_id else self._cursors.get(segment_id, 0))
            for segment_id, seq in copies.items()
        )

    def _read_elsewhere(self, decision_id: str) -> bool:
        """Return whether another segment brought the same decision before; its slots may have closed."""
        copies = self._segments.copies(decision_id)
        copies.pop(self._segment_id, None)
        return self._read(copies)


def _feature_width(outcome: Outcome) -> int:
    return -1 if outcome.features is None else len(outcome.features)


def _batch(outcomes: Sequence[Outcome], *, with_offsets: bool) -> RewardBatch:
    featured = [outcome.features for outcome in outcomes if outcome.features is not None]
    return RewardBatch(
        item_ids=np.array([outcome.item_id for outcome in outcomes]),
        values=np.array([outcome.value for outcome in outcomes]),
        features=np.stack(featured) if len(featured) == len(outcomes) else None,
        decision_ids=np.array([outcome.decision_id for outcome in outcomes]),
        slots=np.array([outcome.slot for outcome in outcomes], dtype=np.int64),
        propensities=np.array([outcome.propensity for outcome in outcomes]),
        offsets=np.array([outcome.offset for outcome in outcomes], np.float64) if with_offsets else None,
        strategies=np.array([outcome.strategy for outcome in outcomes], dtype=np.str_),
        times=np.array([outcome.time for outcome in outcomes]),
    )


def _nothing() -> None:
    """Follow a commit that nobody observed."""


def _fingerprint(
    policy: Policy[Any],
    rules: RewardRules,
    feature_version: str | None,
    observer: Observer | None,
    *,
    warm_start: bool,
) -> str:
    parameters = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    described = {
        "policy": policy.name,
        "parameters": parameters,
        "rules": rules,
        "feature_version": feature_version,
        "warm_start": warm_start,
    }
    if observer is not None:
        described["observer"] = observer.fingerprint
    text = orjson.dumps(
        described, default=_described, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    )
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _described(value: object) -> object:
    # The repr of a set differs between processes.
    return sorted(value, key=repr) if isinstance(value, Set) else repr(value)
