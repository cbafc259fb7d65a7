"""How much the host takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one request, and all requests together, may ask of the process."""

    body_bytes: int = 1_048_576
    """The largest body; more is answered 413, and no more than this is ever read."""
    body_timeout_s: float = 10.0
    """How long a body may take to arrive; answered 408 beyond it."""
    slots: int = 1_000
    """The longest slate one request may ask for."""
    rewards: int = 1_000
    """The most rewards one call may bring."""
    threads: int = 1
    """Calls to the stage that run at once; the event loop itself never ranks."""
    waiting: int = 128
    """Calls that may wait for a thread; beyond them the answer is 503 at once. Slates wait by `latency_s` instead,
    where it is set."""
    latency_s: float | None = None
    """Within this time of its arrival a slate is answered or refused; `None`: requests wait as long as it takes."""

    def __post_init__(self) -> None:
        """Refuse limits that would refuse everything."""
        for name in ("body_bytes", "body_timeout_s", "slots", "rewards", "threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be above 0.")
        if self.latency_s is not None and self.latency_s <= 0:
            raise ValueError(f"`latency_s` is {self.latency_s}; it must be above 0.")
        if self.waiting < 0:
            raise ValueError(f"`waiting` is {self.waiting}; it must be 0 or more.")
