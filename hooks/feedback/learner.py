"""The learner: folds what the log says was earned into a policy's state, each reward exactly once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from explorank.hooks.errors import CorruptState, LogUnavailable
from explorank.hooks.exploration.examination import Examination
from explorank.hooks.exploration.policy import Policy, State
from explorank.hooks.feedback.checkpoint import Checkpoint, Erasure, Saved
from explorank.hooks.feedback.fingerprint import fingerprint_of
from explorank.hooks.feedback.folding import Folding
from explorank.hooks.feedback.observer import Observer
from explorank.hooks.feedback.outcomes import Outcome, RewardRules, is_learnt
from explorank.hooks.feedback.reading import Reading, outcomes_until
from explorank.hooks.feedback.segments import Segments
from explorank.hooks.feedback.sqlite_state_store import SqliteStateBackend
from explorank.hooks.feedback.state_store import Lease, StateBackend
from explorank.hooks.types import DecisionRecord, Reward

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


@dataclass(frozen=True, slots=True, kw_only=True)
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

    One learner per fingerprint leads, by a lease that ends with its process, however that ends; all others follow
    what it saves, and one of them takes over at its next step. The fingerprint is that of the policy, its
    parameters, the feature version and the reward rules: change one of them, and the state is rebuilt from the
    log.

    The state, the log's cursors and what still waits for rewards are saved in one transaction, so a kill at
    any moment counts every acknowledged reward once. What is damaged is moved aside and rebuilt from the log.

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
        state_path: str | Path | None = None,
        states: StateBackend | None = None,
        reward_weights: Mapping[str, float],
        horizon_s: float,
        default_reward: float = 0.0,
        feature_version: str | None = None,
        observer: Observer | None = None,
        examination: Examination | None = None,
        warm_start: bool = False,
    ) -> None:
        """Load the saved state, if there is one; nothing is learnt before `step` or `start`.

        The state is kept in an SQLite file at `state_path`, or in `states`. `feature_version`, where given, must
        stand in a decision's `versions["exploration_features"]` for it to be learnt. `examination` says which
        slots were looked at. With a `warm_start`, what is learnt is the reward less what the record says was
        expected of the item, and decisions whose record says nothing are not learnt from.

        Raises `InvalidFeedback` for reward rules that cannot work, `LogUnavailable` where the state cannot be
        opened, `TypeError` unless either `state_path` or `states` says where it is.
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
        self.states = _backend(state_path, states)
        """Where the state is kept."""
        self._folding = Folding(policy, self.rules, warm_start)
        self._observer = observer
        self._until: Mapping[str, int] | None = None
        self.fingerprint = self._named(
            fingerprint_of(policy, self.rules, feature_version, observer, warm_start=warm_start)
        )
        self.snapshot = policy.initial_state()
        self._segments = Segments(Path(folder))
        self._checkpoint: Checkpoint | None = None
        self._revision = 0
        self._cleared = False
        self._counts: Counter[str] = Counter()
        self._lease: Lease | None = None
        self._stepping = threading.RLock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._last_error: str | None = None
        self._open_decisions = 0
        self._current_at = time.monotonic()
        try:
            self._follow()
        except BaseException:
            self.close()
            raise

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
                raise
            self._last_error = None
            self._current_at = time.monotonic()
            return folded

    def rebuild(self, now: float | None = None) -> int:
        """Learn the whole log anew and take the result up at once; return how many outcomes it holds.

        `snapshot` stays what it is meanwhile, and its version goes on rising. Only the learner that leads can do
        it: raises `LogUnavailable` for any other, or where the state cannot be saved.
        """
        with self._stepping, self._named_damage():
            if not self._lead():
                raise LogUnavailable(
                    f"Another learner leads {self.states.name}, and two would write over each other. Stop it, or "
                    "rebuild there."
                )
            at = time.time() if now is None else now
            self._fold_log(at)
            return self._rebuild_aside(at)

    def forget(self, user_id: str, now: float | None = None, *, wait_s: float = 30.0) -> int:
        """Erase a user's decisions, impressions and rewards from the log, and what was learnt from them.

        Returns how many decisions that were. Where the state is a sum over rewards, what the user's taught is
        taken out of it, else it is rebuilt from the log that is left. The deleted bytes are overwritten. Where
        another learner leads, it is asked to, and has `wait_s` seconds; the request stays if it takes longer.
        States of other fingerprints in the same store are dropped, and rebuilt when they are needed again.

        Raises `LogUnavailable` where it is not done yet; it is safe to call again.
        """
        at = time.time() if now is None else now
        with self._stepping, self._named_damage():
            count = len({found[2] for found in self._segments.decisions_of(user_id)})
            checkpoint = self._ready_checkpoint()
            with checkpoint.store.transaction():
                checkpoint.request_erasure(user_id)
            if self._lead():
                self._fold_log(at)
                return count
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
        """Stop, close log and store, and let another learner lead."""
        self.stop()
        with self._stepping:
            self._segments.close()
            self._close_store()
            lease, self._lease = self._lease, None
            if lease is not None:
                lease.release()

    @property
    def stats(self) -> LearnerStats:
        """What was learnt so far; costs no access to a file."""
        counts = self._counts
        return LearnerStats(
            **{name: counts[name] for name in _COUNTED},
            open=self._open_decisions,
            version=self.snapshot.version,
            lag_s=time.monotonic() - self._current_at,
            leads=self._lease is not None,
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
        except CorruptState as error:
            self._close_store()
            self.states.move_aside(str(error))
            self._begin_anew()
            return self._fold_log(now)

    def _lead(self) -> bool:
        if self._lease is not None and not self._lease.renew():
            self._lease = None
        if self._lease is None:
            self._lease = self.states.lease(self.fingerprint)
        return self._lease is not None

    def _named(self, fingerprint: str) -> str:
        return fingerprint

    def _await_erasure(self, user_id: str, now: float, wait_s: float) -> None:
        give_up_at = time.monotonic() + wait_s
        while True:
            with self._stepping, self._named_damage():
                if all(erasure.user_id != user_id for erasure in self._ready_checkpoint().erasures()):
                    return
            if time.monotonic() > give_up_at:
                raise LogUnavailable(
                    f"The learner that leads {self.states.name} has not erased user {user_id!r} within {wait_s:g} s. "
                    "The request stays with it; see what its process logs, and ask again."
                )
            time.sleep(0.05)
            self.step(now)  # which takes over where the leader is gone

    def _follow(self) -> None:
        """Take over what was saved since, if anything was."""
        try:
            self._refresh(self._ready_checkpoint())
        except CorruptState as error:
            # Whoever leads meets the damage too, and rebuilds; until then the snapshot stays.
            logger.warning("%s is damaged and waits for a leading learner: %s", self.states.name, error)
            self._close_store()

    def _refresh(self, checkpoint: Checkpoint) -> None:
        if checkpoint.revision() != self._revision:
            saved = checkpoint.load()
            if saved is None:
                self._begin_anew()
            else:
                self.snapshot = self.policy.loads(saved.state)
                self._counts = Counter(saved.counts)
                self._revision = saved.revision
        if self._observer is not None:
            self._observer.follow(checkpoint.store)

    def _ready_checkpoint(self) -> Checkpoint:
        if self._checkpoint is not None and self._checkpoint.store.replaced:
            self._close_store()
        if self._checkpoint is None:
            self._checkpoint = Checkpoint(self.states.open(self.fingerprint))
        return self._checkpoint

    def _begin_anew(self) -> None:
        version = self.snapshot.version
        self.snapshot = self.policy.initial_state()
        if version:
            # Decisions have named the versions up to here.
            self.snapshot = self.policy.at_version(self.snapshot, version + 1)
        self._counts = Counter()
        self._revision = 0
        self._cleared = False

    def _close_store(self) -> None:
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            checkpoint.store.close()

    @contextmanager
    def _transaction(self, checkpoint: Checkpoint) -> Iterator[None]:
        """Write, unless the state is another by now: erasing a user drops those of other fingerprints."""
        with checkpoint.store.transaction():
            if checkpoint.revision() != self._revision:
                raise LogUnavailable(
                    f"The state in {self.states.name} was dropped or replaced while the learner of policy "
                    f"{self.policy.name!r} was at work, so that nothing was saved. The next step goes on from what "
                    "is there now."
                )
            yield

    @contextmanager
    def _named_damage(self) -> Iterator[None]:
        """Refuse what was asked for where the state is damaged, which only a step mends."""
        try:
            yield
        except CorruptState as error:
            raise LogUnavailable(
                f"{self.states.name} is damaged, so that this was not done. The next step of the learner that leads "
                f"rebuilds it from the log; then try again. {error}"
            ) from error

    def _fold_log(self, now: float) -> int:
        checkpoint = self._ready_checkpoint()
        self._refresh(checkpoint)
        if not self._revision and not self._cleared:
            # Where no state is saved, nothing beside it may count as read.
            with self._transaction(checkpoint):
                checkpoint.store.clear()
            self._cleared = True
        self._read_log(checkpoint, now)
        complete = not self._segments.may_hold_more
        if complete:
            self._close_due(checkpoint, now)
        folded = self._fold_closed(checkpoint)
        if self._observer is not None:
            self._observer.finish(checkpoint.store, now, complete=complete)
        for erasure in checkpoint.erasures():
            self._erase(checkpoint, erasure, now)
        self._open_decisions = checkpoint.count_open()
        return folded

    def _read_log(self, checkpoint: Checkpoint, now: float) -> None:
        while True:
            cursors = checkpoint.cursors()
            batches = list(self._segments.read(cursors, _EVENTS_PER_TRANSACTION, self._until))
            if not batches:
                return
            for segment_id, cursor, events in batches:
                with self._transaction(checkpoint):
                    reading = Reading(
                        checkpoint,
                        self._segments,
                        self.rules,
                        self._is_learnt,
                        cursors=cursors,
                        segment_id=segment_id,
                        cursor=cursor,
                        now=now,
                    )
                    outcomes = reading.take(events)
                    checkpoint.move_cursor(segment_id, cursor)
                    counts = self._keep(checkpoint, outcomes, reading.counts)
                    observed = self._observe(checkpoint, reading)
                cursors[segment_id] = cursor
                self._publish(self.snapshot, counts)
                observed()

    def _is_learnt(self, record: DecisionRecord) -> bool:
        return is_learnt(record, self.feature_version, warm_start=self.warm_start)

    def _observe(self, checkpoint: Checkpoint, reading: Reading) -> Callable[[], None]:
        if self._observer is None:
            return _nothing
        return self._observer.observe(checkpoint.store, reading.decisions, reading.rewards)

    def _keep(
        self, checkpoint: Checkpoint, outcomes: Sequence[Outcome], counts: Counter[str]
    ) -> Counter[str]:
        """Store what closed, to be folded in the order of closing once all is read; return the counts up to now."""
        looked_at = [outcome for outcome in outcomes if outcome.examined]
        counts = self._counts + counts + Counter(unexamined=len(outcomes) - len(looked_at))
        checkpoint.keep_closed(looked_at)
        self._save(checkpoint, self.snapshot, counts)
        return counts

    def _close_due(self, checkpoint: Checkpoint, now: float) -> None:
        while due := checkpoint.due(now, _EVENTS_PER_TRANSACTION):
            with self._transaction(checkpoint):
                outcomes = [outcome for decision in due for outcome in decision.close(self.rules)]
                checkpoint.update_open(due, self.rules.horizon_s)
                counts = self._keep(checkpoint, outcomes, Counter())
            self._publish(self.snapshot, counts)
        while expired := checkpoint.expired(now, _EVENTS_PER_TRANSACTION):
            rewards = sum(isinstance(early.feedback, Reward) for early in expired)
            counts = self._counts + Counter(unknown=rewards)
            with self._transaction(checkpoint):
                checkpoint.forget_early(expired)
                self._save(checkpoint, self.snapshot, counts)
            self._publish(self.snapshot, counts)

    def _fold_closed(self, checkpoint: Checkpoint) -> int:
        folded = 0
        while closed := checkpoint.closed(_EVENTS_PER_TRANSACTION):
            with self._transaction(checkpoint):
                state, taken = self._folding.fold(self.snapshot, closed)
                counts = self._counts + taken
                checkpoint.forget_closed(closed)
                self._save(checkpoint, state, counts)
            folded += self._publish(state, counts)
        return folded

    def _erase(self, checkpoint: Checkpoint, erasure: Erasure, now: float) -> None:
        """Take a user out of the state, then out of the log, then forget that it was asked for.

        The request says which steps are done, so that a kill between two of them repeats none that counts.
        """
        user_id = erasure.user_id
        if erasure.decision_ids is None:
            found = list(self._segments.decisions_of(user_id))
            cursors = checkpoint.cursors()
            # What is not read yet has taught nothing, though a reward for it may have come early.
            records = {
                decision_id: record
                for segment_id, seq, decision_id, record in found
                if record is not None and seq <= cursors.get(segment_id, 0)
            }
            without = self._without(checkpoint, cursors, records.values())
            state, counts = without or (self.snapshot, self._counts)
            decision_ids = sorted({decision_id for _, _, decision_id, _ in found})
            erasure = Erasure(user_id, decision_ids, rebuild=without is None)
            with self._transaction(checkpoint):
                checkpoint.forget_decisions(decision_ids)
                checkpoint.note_erasure(erasure)
                self._save(checkpoint, state, counts)
            self._publish(state, counts)
        self._segments.erase(erasure.decision_ids or [])
        if erasure.rebuild:
            self._rebuild_aside(now)
        with self._transaction(checkpoint):
            checkpoint.finish_erasure(user_id)
        if not checkpoint.store.leave_no_trace():
            logger.warning(
                "User %r is erased; older copies of what %s held stay in it until nobody reads it for a moment",
                user_id,
                self.states.name,
            )

    def _without(
        self, checkpoint: Checkpoint, cursors: Mapping[str, int], records: Iterable[DecisionRecord]
    ) -> tuple[S, Counter[str]] | None:
        """Return state and counts without what these decisions taught; `None` where only a rebuild can."""
        if not self._folding.reversible:
            return None
        outcomes = [
            outcome
            for record in records
            if self._is_learnt(record)
            for outcome in outcomes_until(cursors, record, self._segments, checkpoint, self.rules)
        ]
        looked_at = [outcome for outcome in outcomes if outcome.examined]
        unfolded = self._folding.unfold(self.snapshot, looked_at)
        if unfolded is None:
            return None
        state, taken = unfolded
        return state, self._counts - taken - Counter(unexamined=len(outcomes) - len(looked_at))

    def _rebuild_aside(self, now: float) -> int:
        """Learn what was read of the log into a state of another name, then put it in the place of this one's."""
        checkpoint = self._ready_checkpoint()
        self._refresh(checkpoint)
        with closing(self.states.open(self.fingerprint + _REBUILDING)) as scratch, scratch.transaction():
            scratch.clear()
        aside = _Aside(self, until=checkpoint.cursors())
        try:
            aside.step(now)
            state = self.policy.dumps(aside.snapshot)
            saved = Saved(self._revision + 1, state, dict(aside._counts))
            with self._transaction(checkpoint):
                checkpoint.adopt(aside.fingerprint, saved)
        finally:
            aside.close()
        self._refresh(checkpoint)
        return self._counts["folded"]

    def _save(self, checkpoint: Checkpoint, state: S, counts: Counter[str]) -> None:
        if self._revision and state is self.snapshot:
            checkpoint.save_counts(self._revision, counts)
        else:
            checkpoint.save(Saved(self._revision + 1, self.policy.dumps(state), dict(counts)))

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
            states=learner.states,
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

    def _erase(self, checkpoint: Checkpoint, erasure: Erasure, now: float) -> None:
        pass  # that is for the learner whose state takes over


def _backend(state_path: str | Path | None, states: StateBackend | None) -> StateBackend:
    if states is not None and state_path is None:
        return states
    if state_path is not None and states is None:
        return SqliteStateBackend(state_path)
    raise TypeError(
        "A learner keeps its state in one place: give it either `state_path`, the path of an SQLite file, or "
        "`states`, a backend of another kind."
    )


def _nothing() -> None:
    """Follow a commit that nobody observed."""
