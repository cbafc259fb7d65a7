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
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
import orjson

from explorank.hooks.errors import CorruptState, InvalidBatch, LogUnavailable, UnknownDecision
from explorank.hooks.exploration.policy import Policy, State
from explorank.hooks.feedback import _sqlite
from explorank.hooks.feedback.observer import Observer
from explorank.hooks.feedback.outcomes import OpenDecision, Outcome, RewardRules, is_learnt
from explorank.hooks.feedback.segments import Event, Segments
from explorank.hooks.feedback.state_store import Saved, StateStore, is_damage
from explorank.hooks.types import DecisionRecord, Impression, Reward, RewardBatch

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=State)

_EVENTS_PER_TRANSACTION: Final = 1024
_COUNTED: Final = ("folded", "late", "duplicates", "refused", "order_changed", "ignored", "unknown")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LearnerStats:
    """What a learner did with the log so far, restarts included."""

    folded: int
    """Outcomes that the policy learnt from."""
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
    ) -> None:
        """Load the saved state, if there is one; nothing is learnt before `step` or `start`.

        `feature_version`, where given, must stand in a decision's `versions["exploration_features"]` for it
        to be learnt. Raises `InvalidFeedback` for reward rules that cannot work, `LogUnavailable` where the
        state file cannot be opened.
        """
        self.policy = policy
        self.rules = RewardRules(
            weights=dict(reward_weights), horizon_s=horizon_s, default_reward=default_reward
        )
        self.feature_version = feature_version
        self._observer = observer
        self.fingerprint = _fingerprint(policy, self.rules, feature_version, observer)
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
        self.snapshot = self.policy.initial_state()
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
            batches = list(self._segments.read(cursors, _EVENTS_PER_TRANSACTION))
            if not batches:
                break
            for segment_id, cursor, events in batches:
                with store.transaction():
                    reading = _Reading(
                        store,
                        self._segments,
                        self.rules,
                        self.feature_version,
                        cursors=cursors,
                        segment_id=segment_id,
                        cursor=cursor,
                        now=now,
                    )
                    outcomes = reading.take(events)
                    store.move_cursor(segment_id, cursor)
                    next_state, counts = self._fold(outcomes, reading.counts)
                    self._save(store, next_state, counts)
                    observed = self._observe(store, reading)
                cursors[segment_id] = cursor
                folded += self._publish(next_state, counts)
                observed()
        complete = not self._segments.may_hold_more
        if complete:
            folded += self._close_due(store, now)
        if self._observer is not None:
            self._observer.finish(store, now, complete=complete)
        self._open_decisions = store.count_open()
        return folded

    def _observe(self, store: StateStore, reading: _Reading) -> Callable[[], None]:
        if self._observer is None:
            return _nothing
        return self._observer.observe(store, reading.decisions, reading.rewards)

    def _close_due(self, store: StateStore, now: float) -> int:
        folded = 0
        while due := store.due(now, _EVENTS_PER_TRANSACTION):
            with store.transaction():
                outcomes = [outcome for decision in due for outcome in decision.close(self.rules)]
                store.forget_open(decision.decision_id for decision in due)
                next_state, counts = self._fold(outcomes, Counter())
                self._save(store, next_state, counts)
            folded += self._publish(next_state, counts)
        if expired := store.expired_kinds(now):
            counts = self._counts + Counter(unknown=expired.get("reward", 0))
            with store.transaction():
                store.expire_early(now)
                self._save(store, self.snapshot, counts)
            self._publish(self.snapshot, counts)
        return folded

    def _fold(self, outcomes: list[Outcome], counts: Counter[str]) -> tuple[S, Counter[str]]:
        """Return the state after `outcomes`, and the counts up to now."""
        state = self.snapshot
        counts = self._counts + counts
        # The order is the log's and the clock's, whenever the steps come: a restart learns the same.
        outcomes.sort(key=lambda outcome: (outcome.closed_at, outcome.decision_id, outcome.slot))
        # A batch has one feature matrix; the policy refuses the widths, or the lack, that it cannot take.
        for _, group in groupby(outcomes, key=_feature_width):
            rows = list(group)
            state, taken = self._learn(state, rows)
            counts["folded"] += taken
            counts["refused"] += len(rows) - taken
        return state, counts

    def _learn(self, state: S, outcomes: Sequence[Outcome]) -> tuple[S, int]:
        """Return the state after those outcomes that the policy takes, and how many they are."""
        try:
            return self.policy.learn(state, _batch(outcomes)), len(outcomes)
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


class _Reading:
    """One transaction's pass over new events of a segment."""

    def __init__(
        self,
        store: StateStore,
        segments: Segments,
        rules: RewardRules,
        feature_version: str | None,
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
        self._feature_version = feature_version
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
        if is_learnt(record, self._feature_version):
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
        reception, outcome = decision.observe_reward(feedback, self._rules)
        if reception != "accepted":
            self.counts["duplicates" if reception == "duplicate" else reception] += 1
        return [] if outcome is None else [outcome]

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
        self.counts["late" if is_learnt(record, self._feature_version) else "ignored"] += 1

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


def _batch(outcomes: Sequence[Outcome]) -> RewardBatch:
    featured = [outcome.features for outcome in outcomes if outcome.features is not None]
    return RewardBatch(
        item_ids=np.array([outcome.item_id for outcome in outcomes]),
        values=np.array([outcome.value for outcome in outcomes]),
        features=np.stack(featured) if len(featured) == len(outcomes) else None,
        decision_ids=np.array([outcome.decision_id for outcome in outcomes]),
        slots=np.array([outcome.slot for outcome in outcomes], dtype=np.int64),
        propensities=np.array([outcome.propensity for outcome in outcomes]),
        strategies=np.array([outcome.strategy for outcome in outcomes], dtype=np.str_),
        times=np.array([outcome.time for outcome in outcomes]),
    )


def _nothing() -> None:
    """Follow a commit that nobody observed."""


def _fingerprint(
    policy: Policy[Any], rules: RewardRules, feature_version: str | None, observer: Observer | None
) -> str:
    parameters = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    described = {
        "policy": policy.name,
        "parameters": parameters,
        "rules": rules,
        "feature_version": feature_version,
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
