"""What a user is interested in, as one vector: recent items weigh more, and a new event costs O(d)."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval.errors import InvalidOption, InvalidVectors


def interest_vector(vectors: ArrayLike, decay: float) -> NDArray[np.float32]:
    r"""Return \(\sum_i \mathrm{decay}^{h-1-i} e_i\), (d,), over `vectors` (h, d), oldest first.

    The newest item weighs 1 and each step back multiplies by `decay`, in (0, 1]: with 0.9 an item seven
    steps back weighs about half. The vector is not normalised, so that `decay * v + e` takes up one more
    item exactly. No items give the zero vector.
    """
    _check_decay(decay)
    items = np.asarray(vectors, np.float32)
    if items.ndim != 2:
        raise InvalidVectors(
            f"A history of shape {items.shape} is not (items, dimensions), so the items' order and weight "
            "are unknown. Pass one row per item, oldest first."
        )
    weights = decay ** np.arange(len(items) - 1, -1, -1, dtype=np.float64)
    return (weights @ items).astype(np.float32)


class UserVectors:
    """The interest vectors of the users seen last, safe for use from many threads.

    At most `capacity` users are held; the one untouched for longest is forgotten, and the next request
    starts them again from their history with `seed`.
    """

    def __init__(self, decay: float, capacity: int = 100_000) -> None:
        _check_decay(decay)
        if capacity < 1:
            raise InvalidOption(
                f"capacity={capacity} holds no user, so nothing would ever be remembered. Set 1 or more; "
                "each user takes 4 bytes per dimension."
            )
        self._decay = np.float32(decay)
        self._capacity = capacity
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def seed(self, user_id: str, vector: ArrayLike) -> None:
        """Hold `vector` (d,) as the user's interest from now on."""
        with self._lock:
            self._hold(user_id, np.array(vector, np.float32))

    def observe(self, user_id: str, vector: ArrayLike) -> bool:
        """Take up one more item's `vector` (d,): v ← decay · v + e, in O(d).

        Returns False, and changes nothing, for a user who is not held: a vector of this one item would
        pass for their whole history. `seed` them first.
        """
        with self._lock:
            before = self._vectors.get(user_id)
            if before is None:
                return False
            item = np.asarray(vector, np.float32)
            if item.shape != before.shape:
                raise InvalidVectors(
                    f"The item's vector has shape {item.shape}, user {user_id!r} has {before.shape}; they "
                    "come from different encoders. Seed the user again with the current catalogue."
                )
            self._hold(user_id, self._decay * before + item)
            return True

    def get(self, user_id: str) -> NDArray[np.float32] | None:
        """Return the user's interest (d,), read-only, or None for a user who is not held."""
        with self._lock:
            vector = self._vectors.get(user_id)
            if vector is not None:
                self._vectors.move_to_end(user_id)
            return vector

    def _hold(self, user_id: str, vector: NDArray[np.float32]) -> None:
        vector.flags.writeable = False  # readers share it; an update replaces it
        self._vectors[user_id] = vector
        self._vectors.move_to_end(user_id)
        if len(self._vectors) > self._capacity:
            self._vectors.popitem(last=False)


def _check_decay(decay: float) -> None:
    if not 0 < decay <= 1:
        raise InvalidOption(
            f"decay={decay} is not in (0, 1]; older items would weigh more than newer ones, or nothing at "
            "all. 1 weighs all items the same, 0.9 halves the weight about every seven items."
        )
