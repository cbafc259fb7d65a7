"""What a model is whose scores are products of two vectors: one of the user, made of any history, one of the item."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval._files import Checksums
from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.user_features import UserFeatures


class EmbeddingModel(Protocol):
    """Puts items and users into one space, where what is near in the sense of the inner product is taken up; immutable.

    The user's vector is computed from a history when somebody asks, so that an event of a moment ago counts.
    """

    Options: ClassVar[type[Any]]
    """A frozen dataclass with defaults."""
    name: ClassVar[str]
    """What settings and files call it."""

    @property
    def item_ids(self) -> NDArray[np.str_]:
        """(n,) the items, whose rows are how the methods below know them."""

    @property
    def item_vectors(self) -> NDArray[Any]:
        """(n, d) float32 or float64; a row of zeros for an item that the model cannot place."""

    @property
    def places(self) -> NDArray[np.bool_]:
        """(n,) whether the model has a place for each item."""

    @property
    def user_features(self) -> tuple[str, ...]:
        """The columns of a user that it reads, by name; none where it reads histories alone."""

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What scoring needs, by name."""

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        options: Any = None,
        seed: int = 0,
        content: ArrayLike | None = None,
        user_features: UserFeatures | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Return a model of `interactions`; the same ones, options, seed, content and features give the same model.

        `content` (n, c) tells of the items in the interactions' order, `user_features` (e, g) of the user at each of
        the interactions that `Interactions.of` was given, where the model reads them. `progress` is told after each
        pass how many are done, and of how many at most. Raises `InvalidTable` where they are too few.
        """

    def user_vector_at(self, rows: NDArray[np.int64], user: UserFeatures | None = None) -> NDArray[Any]:
        """Return the vector (d,) of who took up the items in `rows` (h,), which differ and have a place.

        The newest comes last, where the order counts. Where something is known of a `user` (g,) that the model reads,
        there may be no rows.
        """

    def in_rows_of(self, item_ids: NDArray[np.str_], content: ArrayLike | None = None) -> Self:
        """Return the same model for `item_ids` (n,), in their order.

        Items that training never saw are placed by their `content` (n, c) where the model reads content.
        """

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""

    @classmethod
    def load(cls, folder: str | Path, *, mapped: bool = False, checksums: Checksums | None = None) -> Self:
        """Return the model that `save` wrote; raise `CorruptArtefact` naming the file that is not intact."""


def has_place(item_vectors: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of `item_vectors` (n, d) is other than 0, (n,): what a model's `places` are."""
    places: NDArray[np.bool_] = (item_vectors != 0).any(axis=1)
    return places


def user_vector(
    model: EmbeddingModel, history: NDArray[np.int64], user: UserFeatures | None = None
) -> NDArray[Any] | None:
    """Return the vector (d,) of who took up the rows of `history` (h,), oldest first.

    A row of -1 stands for an unknown item and is passed over; one that stands twice counts where it stands last. None
    where no row has a place, and nothing is known of a `user` (g,) that the model reads.
    """
    taken = history[history >= 0]
    taken = taken[model.places[taken]]
    if not len(taken) and (user is None or not user.tell_any(model.user_features)):
        return None
    _, from_end = np.unique(taken[::-1], return_index=True)
    return model.user_vector_at(
        taken if len(from_end) == len(taken) else taken[np.sort(len(taken) - 1 - from_end)], user
    )


def products_with_user(
    model: EmbeddingModel,
    history: NDArray[np.int64],
    wanted: NDArray[np.int64],
    user: UserFeatures | None = None,
) -> NDArray[np.float32]:
    """Return the product (m,) of who took up the rows of `history` (h,), oldest first, with each of `wanted` (m,).

    NaN for a row of -1 and for an item without a place, and throughout where the `user` (g,) has no vector:
    `user_vector` says when.
    """
    vector = user_vector(model, history, user)
    if vector is None:
        return np.full(len(wanted), np.nan, np.float32)
    products: NDArray[np.float32] = (model.item_vectors[wanted] @ vector).astype(np.float32)
    products[(wanted < 0) | ~model.places[wanted]] = np.nan
    return products
