"""What other processes of an installation were told of rewards, for what each process keeps in its own memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Final, TypeAlias

from explorank.hooks.errors import CorruptState, LogUnavailable, UnknownDecision
from explorank.hooks.feedback import DecisionLog
from explorank.hooks.types import Reward
from explorank.recorder import Recorder

Listener: TypeAlias = Callable[[Sequence[Reward]], None]

logger = logging.getLogger("explorank")

_AT_ONCE: Final = 1_000
"""Rewards of one segment that are handed on before the others have their turn."""


class RewardFeed:
    """Hands on the rewards that others wrote to the log after this process began, each once.

    `ranking_observe_rewards` tells the plugins of one process of a reward, the one that took it. This is for state that
    is held once per process and must follow all of them, such as a user's live interest.
    """

    def __init__(self, log: DecisionLog, recorder: Recorder) -> None:
        self._segments: Final = log.reader()
        # A worker numbers what it writes from the microseconds of the clock on. So a segment that could not be read
        # just now, and can be later, does not hand on all that it ever held.
        self._began: Final = time.time_ns() // 1_000
        self._own: Final = log.path
        self._recorder: Final = recorder
        self._cursors: Final = self._segments.ends()
        self._listeners: Final[list[Listener]] = []
        self._polling: Final = Lock()

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with what comes from now on, in the order of each process that took it."""
        self._listeners.append(listener)

    def poll(self) -> None:
        """Hand on what has come since the last time."""
        if not self._listeners:
            return
        with self._polling:
            while self._hand_on() == _AT_ONCE:
                pass

    def _hand_on(self) -> int:
        """Hand on some of each segment; return how many of the one that had most."""
        most = 0
        found = self._segments.rewards(self._cursors, _AT_ONCE, otherwise=self._began, besides=self._own)
        for segment_id, cursor, rewards in found:
            self._cursors[segment_id] = cursor
            self._tell([self._with_user(reward) for reward in rewards])
            most = max(most, len(rewards))
        return most

    def close(self) -> None:
        """Close what was opened to read the log."""
        self._segments.close()

    def _with_user(self, reward: Reward) -> Reward:
        try:
            return replace(reward, user_id=self._recorder.answered(reward.decision_id).user_id)
        except (CorruptState, LogUnavailable, UnknownDecision):
            return reward  # nobody knows whose it is; what needs no user may still read it

    def _tell(self, rewards: Sequence[Reward]) -> None:
        for listener in self._listeners:
            try:
                listener(rewards)
            except Exception:  # whatever one listener does, the others hear of it, and so of what comes next
                logger.exception("rewards that other processes took were not followed")
