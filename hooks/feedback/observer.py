"""What may look over a learner's shoulder: it sees what the learner reads, once, in the learner's transactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from explorank.hooks.feedback.state_store import StateStore
from explorank.hooks.types import DecisionRecord, Reward


class Observer(Protocol):
    """Keeps a state of its own beside the policy's, on shelves of its own, in the same transactions.

    So a kill at any moment counts each decision and each reward once for both. Only the leading learner calls
    `observe` and `finish`; those who follow take up what was saved.
    """

    @property
    def fingerprint(self) -> str:
        """What the state depends on; with another one it is made anew, and the policy's with it."""

    def follow(self, store: StateStore) -> None:
        """Take up what was last saved; nothing saved means to begin anew."""

    def observe(
        self, store: StateStore, decisions: Sequence[DecisionRecord], rewards: Sequence[Reward]
    ) -> Callable[[], None]:
        """Save the state after what was read, within the open transaction; return what follows its commit.

        Each decision comes once, of whatever mode. Each reward comes once its decision has been read; it may
        come twice, late, or for a decision that is closed.
        """

    def finish(self, store: StateStore, now: float, *, complete: bool) -> None:
        """End a step: close what is due at `now`, in transactions of its own, if the log was read completely."""
