"""Contestants answer requests in turns, and each step of each request is timed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.request_path.laps import Laps
from benchmarks.request_path.table import Steps

TURN: Final = 12
"""Requests in a row of one contestant."""
_SETTLING: Final = 2

Request = Callable[[int, Laps], object]
"""Does the work of one request of the user in a row."""


def drawn_users(users: int, rounds: int, seed: int = 0) -> list[int]:
    """Return the rows of users, so many that `measure` counts at least `rounds` requests of each contestant."""
    turns = -(-rounds // (TURN - _SETTLING))
    drawn: list[int] = np.random.default_rng(seed).integers(users, size=turns * TURN).tolist()
    return drawn


def measure(contestants: Mapping[str, Request], users: Sequence[int]) -> dict[str, Steps]:
    """Return each contestant's seconds by step.

    They take turns of twelve requests, all for the same users, in the opposite order every other turn. The first
    two of a turn find caches that hold another's data and are not counted; neither is the garbage of others.
    """
    order = list(contestants.items())
    found: dict[str, list[dict[str, int]]] = {name: [] for name in contestants}
    gc.collect()
    gc.freeze()
    for begin in range(0, len(users), TURN):
        for name, request in order if begin // TURN % 2 == 0 else reversed(order):
            gc.collect()
            for number, user in enumerate(users[begin : begin + TURN]):
                laps = Laps()
                request(user, laps)
                if number >= _SETTLING:
                    found[name].append(laps.ns)
    gc.unfreeze()
    return {name: _by_step(requests) for name, requests in found.items()}


def _by_step(requests: Sequence[Mapping[str, int]]) -> dict[str, NDArray[np.float64]]:
    steps = dict.fromkeys(step for request in requests for step in request)
    return {step: np.array([request.get(step, 0) for request in requests]) * 1e-9 for step in steps}
