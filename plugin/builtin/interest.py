"""What users did since their features were materialised, and the interest vector that follows it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, Self

from explorank.hooks.types import FeatureArray
from explorank.liking import is_liked
from explorank.retrieval import Catalogue, UserVectors, interest_vector

_USERS: Final = 100_000
_ITEMS_PER_USER: Final = 200


@dataclass(frozen=True, slots=True)
class Recent:
    """What one user rewarded last."""

    events: tuple[tuple[str, float], ...] = ()
    """Items with what each reward was worth, oldest first."""
    liked: tuple[str, ...] = ()
    """Items at each reward above 0, oldest first, where the item's rewards add up to liking."""
    disliked: tuple[str, ...] = ()
    """Items whose rewards do not: seen, but not liked."""

    @classmethod
    def of(cls, events: tuple[tuple[str, float], ...]) -> Self:
        """Return what `events` add up to."""
        totals: dict[str, float] = {}
        for item, worth in events:
            totals[item] = totals.get(item, 0.0) + worth
        return cls(
            events,
            tuple(item for item, worth in events if worth > 0.0 and is_liked(totals[item])),
            tuple(item for item, total in totals.items() if not is_liked(total)),
        )


class RecentItems:
    """The last rewards of each user; bounded, the longest silent user is forgotten."""

    def __init__(self, users: int = _USERS, items_per_user: int = _ITEMS_PER_USER) -> None:
        self._users = users
        self._items_per_user = items_per_user
        self._recent: OrderedDict[str, Recent] = OrderedDict()
        self._lock = Lock()

    def add(self, user_id: str, item_id: str, worth: float) -> tuple[Recent, Recent]:
        """Note a reward of just now; return the user's recent rewards before it and with it."""
        with self._lock:
            before = self._recent.pop(user_id, _NOTHING)
            after = Recent.of((*before.events, (item_id, worth))[-self._items_per_user :])
            self._recent[user_id] = after
            if len(self._recent) > self._users:
                self._recent.popitem(last=False)
        return before, after

    def of(self, user_id: str) -> Recent:
        """Return what the user rewarded last."""
        return self._recent.get(user_id, _NOTHING)


_NOTHING: Final = Recent()


class LiveInterest:
    """Interest vectors that follow every event in O(d), and start anew when the stored history changes."""

    def __init__(self, decay: float) -> None:
        self.recent = RecentItems()
        self._decay = decay
        self._vectors = UserVectors(decay, _USERS)
        self._bases: OrderedDict[str, tuple[str, tuple[str, ...]]] = OrderedDict()

    def vector(self, user_id: str | None, liked: Sequence[str], catalogue: Catalogue) -> FeatureArray | None:
        """Return the interest vector (d,), or None for somebody of whom no known item is known.

        `liked` is the stored history, oldest first; what was observed since then follows it.
        """
        if user_id is None:
            return self._compute(liked, catalogue)
        base = (catalogue.version, tuple(liked))
        if self._bases.get(user_id) == base and (known := self._vectors.get(user_id)) is not None:
            return known
        recent = self.recent.of(user_id)
        stored, disliked = set(liked), set(recent.disliked)
        since = [item for item in recent.liked if item not in stored]
        vector = self._compute([*(item for item in liked if item not in disliked), *since], catalogue)
        if vector is not None:
            self._vectors.seed(user_id, vector)
            self._bases[user_id] = base
            if len(self._bases) > _USERS:
                self._bases.popitem(last=False)
        return vector

    def observe(self, user_id: str, item_id: str, worth: float, catalogue: Catalogue | None) -> None:
        """Follow a reward of just now, worth more or less than 0: the user took the item up, or dislikes it.

        An interest that came from another catalogue is computed anew by the next request: vectors of two encoders are
        never added up. So is one that held an item which turned out to be disliked.
        """
        before, after = self.recent.add(user_id, item_id, worth)
        base = self._bases.get(user_id)
        if base is None:
            return
        turned = worth < 0.0 or item_id in before.disliked or item_id in after.disliked
        if catalogue is None or base[0] != catalogue.version or turned:
            # Held in another encoder's space, perhaps, where the item's vector means nothing.
            self._bases.pop(user_id, None)
            return
        row = int(catalogue.rows([item_id])[0])
        if row >= 0:
            self._vectors.observe(user_id, catalogue.vectors[row])

    def _compute(self, liked: Sequence[str], catalogue: Catalogue) -> FeatureArray | None:
        rows = catalogue.rows(liked)
        rows = rows[rows >= 0]
        return interest_vector(catalogue.vectors_at(rows), self._decay) if len(rows) else None
