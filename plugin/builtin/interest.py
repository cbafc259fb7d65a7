"""What users did since their features were materialised, and the interest vector that follows it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Final

from explorank.hooks.types import FeatureArray
from explorank.retrieval import Catalogue, UserVectors, interest_vector

_USERS: Final = 100_000
_ITEMS_PER_USER: Final = 200


class RecentItems:
    """The last items each user rewarded, oldest first; bounded, the longest silent user is forgotten."""

    def __init__(self, users: int = _USERS, items_per_user: int = _ITEMS_PER_USER) -> None:
        self._users = users
        self._items_per_user = items_per_user
        self._items: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = Lock()

    def add(self, user_id: str, item_id: str) -> None:
        """Note that the user took up the item just now."""
        with self._lock:
            before = self._items.pop(user_id, ())
            self._items[user_id] = (*before, item_id)[-self._items_per_user :]
            if len(self._items) > self._users:
                self._items.popitem(last=False)

    def of(self, user_id: str) -> tuple[str, ...]:
        """Return the user's recent items, oldest first."""
        return self._items.get(user_id, ())


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
        stored = set(liked)
        since = [item for item in self.recent.of(user_id) if item not in stored]
        vector = self._compute([*liked, *since], catalogue)
        if vector is not None:
            self._vectors.seed(user_id, vector)
            self._bases[user_id] = base
            if len(self._bases) > _USERS:
                self._bases.popitem(last=False)
        return vector

    def observe(self, user_id: str, item_id: str, catalogue: Catalogue) -> None:
        """Follow an event: the user took up the item just now.

        An interest that came from another catalogue is computed anew by the next request: vectors of two encoders are
        never added up.
        """
        self.recent.add(user_id, item_id)
        base = self._bases.get(user_id)
        if base is None:
            return
        if base[0] != catalogue.version:
            # Held in another encoder's space, perhaps, where the item's vector means nothing.
            self._bases.pop(user_id, None)
            return
        row = int(catalogue.rows([item_id])[0])
        if row >= 0:
            self._vectors.observe(user_id, catalogue.vectors[row])

    def _compute(self, liked: Sequence[str], catalogue: Catalogue) -> FeatureArray | None:
        rows = catalogue.rows(liked)
        rows = rows[rows >= 0]
        return interest_vector(catalogue.vectors[rows], self._decay) if len(rows) else None
