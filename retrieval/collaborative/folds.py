"""Which interactions a model may see, and which it is asked to foresee: nothing of the second is in the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.errors import InvalidOption, InvalidTable


@dataclass(frozen=True, slots=True)
class Fold:
    """Interactions parted in two, rows and columns the same."""

    known: Interactions
    """What may be learnt from."""
    held_out: Interactions
    """What is to be foreseen."""
    now: float | None = None
    """The moment of asking in seconds since the Unix epoch, where the parts are before and after; None without."""


def folds_by_user(interactions: Interactions, count: int, seed: int) -> Iterator[Fold]:
    """Yield `count` folds; each holds out another random `count`-th of each user's interactions, whatever their times.

    Times are dropped: with a random part held out they would tell of the future.
    """
    if count < 2:
        raise InvalidOption(f"count={count} folds leave nothing to learn from. Set 2 or more.")
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(interactions)), interactions.users))
    users = interactions.users[order]
    starts = np.searchsorted(users, users)
    # Where a user's dealing begins is drawn too, or the first folds would hold more of those with few interactions.
    first = generator.integers(count, size=len(interactions.user_ids))
    numbers = np.empty(len(interactions), np.int64)
    numbers[order] = (np.arange(len(users)) - starts + first[users]) % count
    for number in range(count):
        known, held_out = interactions.take(numbers != number), interactions.take(numbers == number)
        yield Fold(known.without_times(), held_out.without_times())


def cuts_in_time(interactions: Interactions, shares: Sequence[float], horizon: float) -> Iterator[Fold]:
    """Yield a fold for each of `shares`: known is what happened before that share of the interactions.

    Held out are the interactions that follow, `horizon` as a share of all at most. Of equally timed ones all are on
    the same side. Raises `InvalidTable` where the interactions have no times.
    """
    times = interactions.times
    if times is None:
        raise InvalidTable(
            "The interactions have no times, so past and future cannot be told apart. Pass `times` to `of`."
        )
    rising = np.sort(times)
    for share in shares:
        if not 0 < share < 1:
            raise InvalidOption(
                f"share={share} of the interactions leaves no past or no future. Choose within (0, 1)."
            )
        now = float(rising[int(share * len(rising))])
        end = min(int((share + horizon) * len(rising)), len(rising) - 1)
        later = (times >= now) & (times <= rising[end])
        yield Fold(interactions.take(times < now), interactions.take(later), now)
