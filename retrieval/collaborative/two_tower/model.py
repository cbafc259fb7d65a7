"""Trained towers, served by numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from explorank.retrieval._files import Checksums
from explorank.retrieval._ids import IdTable
from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays
from explorank.retrieval.collaborative._training import training_module
from explorank.retrieval.collaborative.embedding_model import has_place
from explorank.retrieval.collaborative.interactions import Interactions, ItemRows
from explorank.retrieval.collaborative.two_tower.options import TwoTowerOptions
from explorank.retrieval.collaborative.two_tower.training_users import ConstantUsers, PastUsers, TrainingUsers
from explorank.retrieval.collaborative.two_tower.user_encoding import ENCODING_ARRAYS, UserEncoding
from explorank.retrieval.errors import InvalidTable, InvalidVectors
from explorank.retrieval.user_features import UserFeatures

_FORMAT: Final = "explorank.two_tower/2"
_ROWS_AT_ONCE: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerArrays:
    """All that serving needs, float32. `d` outputs, `h` hidden units, `c` content and `w` user numbers, 0 if none."""

    item_vectors: NDArray[np.float32]
    """(n, d) outputs of the item tower, of length 1."""
    content_weights: NDArray[np.float32]
    """(c, d) of the item tower: an item that training never saw is placed by its content through them."""
    content_bias: NDArray[np.float32]
    """(d,)"""
    history_vectors: NDArray[np.float32]
    """(n, d) what having taken up an item adds to a history's mean."""
    history_content: NDArray[np.float32]
    """(c, d) of the user tower: what an item that training never saw adds, by its content."""
    hidden_weights: NDArray[np.float32]
    """(d + w, h) of the user tower."""
    hidden_bias: NDArray[np.float32]
    """(h,)"""
    output_weights: NDArray[np.float32]
    """(h, d)"""
    skip_weights: NDArray[np.float32]
    """(d + w, d) past the hidden layer."""
    output_bias: NDArray[np.float32]
    """(d,)"""


class TwoTower:
    r"""Scores are cosines of the outputs of two towers (Yi et al. 2019).

    The item tower is \(\mathrm{unit}(e_i + W c_i + b)\): an id's embedding and its content. The user tower is a
    hidden layer with a linear bypass over the mean of the history's own vectors and the user's columns. Training
    draws no negatives: in a batch each interaction's negatives are the others' items, whose logits are lowered by the
    logarithm of how often they come up (logQ correction), or popular items would be punished for being popular.
    """

    Options: ClassVar = TwoTowerOptions
    name: ClassVar[str] = "two_tower"

    def __init__(
        self,
        item_ids: NDArray[np.str_],
        arrays: TowerArrays,
        metrics: dict[str, float],
        encoding: UserEncoding | None = None,
    ) -> None:
        """Take the items (n,), what serving needs, and how training went; use `fit` or `load`.

        `encoding` is how named columns of users become the numbers that the towers read; without it they are passed as
        they are.
        """
        # Plain arrays where they are mapped: the class of a memory map slows every use.
        self._item_ids = np.asarray(item_ids)
        self._arrays = TowerArrays(
            **{part.name: np.asarray(getattr(arrays, part.name)) for part in fields(TowerArrays)}
        )
        self._encoding = encoding
        self.metrics = metrics
        """Epochs trained, the best one, and the recall@100 it had on the validation cut."""

    @property
    def item_ids(self) -> NDArray[np.str_]:
        """(n,) the items, in the order of the scores."""
        return self._item_ids

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """(n, d) of length 1; an index over them answers for `user_vector`.

        Of a model for other items than it was trained on (`in_rows_of`), those that it cannot place are rows of zeros.
        """
        return self._arrays.item_vectors

    @cached_property
    def places(self) -> NDArray[np.bool_]:
        """(n,) which items have a vector other than 0."""
        return has_place(self.item_vectors)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What scoring needs, by name."""
        arrays = {part.name: getattr(self._arrays, part.name) for part in fields(TowerArrays)}
        return arrays if self._encoding is None else arrays | self._encoding.arrays

    @property
    def user_columns(self) -> int:
        """How many numbers of a user the towers read."""
        return len(self._arrays.skip_weights) - len(self._arrays.output_bias)

    @property
    def user_features(self) -> tuple[str, ...]:
        """The columns of a user that the model reads, by name; none where it was trained without them."""
        return () if self._encoding is None else self._encoding.names

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        options: TwoTowerOptions | None = None,
        seed: int = 0,
        content: ArrayLike | None = None,
        user_features: ArrayLike | UserFeatures | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Train on `interactions`; the same ones, options and seed give the same towers on the same machine.

        `content` (n, c) are numbers of the items, text embeddings or any columns, in the order of the interactions'
        ids, finite and scaled. What is known of users are `UserFeatures` (e, g), as of each of the interactions that
        `Interactions.of` was given; they need not be scaled, may be missing, and the model keeps how it reads them. Or
        they are bare numbers (u, w) in the order of the interactions' users, finite and scaled. `progress` is told
        after each epoch how many are done, and of how many at most. Raises `InvalidVectors` where they do not fit, and
        `InvalidTable` for fewer than ten interactions.

        A history is hidden now and then, so that what is known of users alone learns to place them (as DropoutNet of
        Volkovs, Yu and Poutanen 2017 does).
        """
        options = options or TwoTowerOptions()
        if len(interactions) < 10:
            raise InvalidTable(
                f"{len(interactions)} interactions, and two towers learn nothing from fewer than 10. Gather more; "
                "EASE and ItemKNN do with little."
            )
        items = _columns("content", content, len(interactions.item_ids))
        users: TrainingUsers
        encoding = None
        if isinstance(user_features, UserFeatures):
            encoding, users = _encoded(interactions, user_features, options.feature_dropout)
        else:
            users = ConstantUsers(_columns("user_features", user_features, len(interactions.user_ids)))
        training = training_module(__package__, "Towers")
        arrays, metrics = training.train(interactions, items, users, options, seed, progress)
        return cls(interactions.item_ids, arrays, metrics, encoding)

    def scores(
        self, history: Sequence[str], user_features: ArrayLike | UserFeatures | None = None
    ) -> NDArray[np.float32]:
        """Return (n,) cosines; unknown items of the history are passed over, and bare numbers left out count as 0."""
        scores: NDArray[np.float32] = self.item_vectors @ self.user_vector(history, user_features)
        return scores

    def scores_of_many(
        self, histories: csr_matrix, user_features: ArrayLike | UserFeatures | None = None
    ) -> NDArray[np.float32]:
        """Return (m, n) cosines for histories (m, n) with 1 where an item was taken up."""
        scores: NDArray[np.float32] = self.user_vectors(histories, user_features) @ self.item_vectors.T
        return scores

    def user_vector(
        self, history: Sequence[str], user_features: ArrayLike | UserFeatures | None = None
    ) -> NDArray[np.float32]:
        """Return the user tower's output (d,), of length 1."""
        return self.user_vector_at(self._rows.known(history), user_features)

    def user_vector_at(
        self, rows: NDArray[np.int64], user: ArrayLike | UserFeatures | None = None
    ) -> NDArray[np.float32]:
        """Return the user tower's output (d,) for somebody who took up the items in `rows` (h,), each once."""
        sums = self._arrays.history_vectors[rows].sum(axis=0, keepdims=True)
        given = user
        if user is not None and not isinstance(user, UserFeatures):
            given = np.atleast_2d(np.asarray(user, np.float32))
        vector: NDArray[np.float32] = self._outputs(sums, np.array([len(rows)]), given)[0]
        return vector

    def user_vectors(
        self, histories: csr_matrix, user_features: ArrayLike | UserFeatures | None = None
    ) -> NDArray[np.float32]:
        """Return the user tower's outputs (m, d) for histories (m, n), of length 1."""
        sums = np.asarray(histories @ self._arrays.history_vectors)
        return self._outputs(sums, np.diff(histories.indptr), user_features)

    def _outputs(
        self,
        sums: NDArray[np.float32],
        lengths: NDArray[Any],
        user_features: ArrayLike | UserFeatures | None,
    ) -> NDArray[np.float32]:
        """Return the user tower's outputs (m, d) for the summed history vectors (m, d) of so many items (m,)."""
        arrays = self._arrays
        given = self._numbers_of(user_features, len(sums))
        means = sums / np.maximum(lengths, 1)[:, None].astype(np.float32)
        read = np.concatenate([means, given], axis=1)
        hidden = np.maximum(read @ arrays.hidden_weights + arrays.hidden_bias, 0.0)
        output = hidden @ arrays.output_weights + read @ arrays.skip_weights + arrays.output_bias
        return _unit(output)

    def _numbers_of(self, user_features: ArrayLike | UserFeatures | None, count: int) -> NDArray[np.float32]:
        """Return what the user tower reads of `count` users besides histories, (m, w)."""
        if self._encoding is not None and isinstance(user_features, UserFeatures):
            given = self._encoding.encode(self._encoding.read(user_features))
        elif user_features is None and self._encoding is not None:
            given = self._encoding.nothing_known(count)
        elif user_features is None or isinstance(user_features, UserFeatures):
            given = np.zeros((count, self.user_columns), np.float32)
        else:
            given = np.asarray(user_features, np.float32)
        if given.shape != (count, self.user_columns):
            raise InvalidVectors(
                f"User columns of shape {given.shape}, and the model takes ({count}, {self.user_columns}); columns "
                "would be mixed up. Pass those that it was trained on, by name where it was trained by names."
            )
        return given

    def place(self, content: ArrayLike) -> NDArray[np.float32]:
        """Return vectors (m, d) of length 1 for items that training never saw, by their content (m, c) alone."""
        arrays = self._arrays
        vectors = _columns("content", content, None)
        if not len(arrays.content_weights) or vectors.shape[1] != len(arrays.content_weights):
            raise InvalidVectors(
                f"Content of shape {vectors.shape}, and the towers were trained on (n, {len(arrays.content_weights)}); "
                "new items cannot be placed by it. Pass the same columns, or train with `content`."
            )
        return _unit(vectors @ arrays.content_weights + arrays.content_bias)

    def in_rows_of(self, item_ids: NDArray[np.str_], content: ArrayLike | None = None) -> Self:
        """Return the same towers for `item_ids` (n,), in their order.

        Items that training never saw have what their `content` (n, c) tells of them, on both sides; it is read in
        parts and may be a memory map. Without content, or in towers that were trained without, their vectors are 0.
        """
        arrays = self._arrays
        rows = IdTable(self._item_ids).find(item_ids)
        dim = arrays.item_vectors.shape[1]
        items, histories = (np.zeros((len(item_ids), dim), np.float32) for _ in range(2))
        known = rows >= 0
        items[known], histories[known] = (
            arrays.item_vectors[rows[known]],
            arrays.history_vectors[rows[known]],
        )
        new = np.flatnonzero(~known)
        if content is not None and len(arrays.content_weights):
            told = np.asanyarray(content)
            for start in range(0, len(new), _ROWS_AT_ONCE):
                those = new[start : start + _ROWS_AT_ONCE]
                part = _columns("content", told[those], len(those))
                items[those], histories[those] = self.place(part), part @ arrays.history_content
        return type(self)(
            item_ids,
            replace(arrays, item_vectors=items, history_vectors=histories),
            self.metrics,
            self._encoding,
        )

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`; loading it needs no torch."""
        save_arrays(folder, _FORMAT, self.metrics, {"item_ids": self._item_ids, **self.arrays})

    @classmethod
    def load(cls, folder: str | Path, *, mapped: bool = False, checksums: Checksums | None = None) -> Self:
        """Return the model that `save` wrote; raise `CorruptArtefact` naming the file that is not intact.

        `load_arrays` says what `mapped` and `checksums` mean.
        """
        names = tuple(part.name for part in fields(TowerArrays))
        metrics, arrays = load_arrays(folder, _FORMAT, "item_ids", *names, mapped=mapped, checksums=checksums)
        encoding = UserEncoding.of_arrays(arrays) if ENCODING_ARRAYS[0] in arrays else None
        return cls(
            arrays["item_ids"], TowerArrays(**{name: arrays[name] for name in names}), metrics, encoding
        )

    @cached_property
    def _rows(self) -> ItemRows:
        return ItemRows(self._item_ids)


def _encoded(
    interactions: Interactions, told: UserFeatures, dropout: float
) -> tuple[UserEncoding, PastUsers]:
    """Return how `told` (e, g) is read, learnt from the interactions that count, and itself ready to train on."""
    if told.values.ndim != 2 or len(told.values) <= interactions.given.max():
        raise InvalidVectors(
            f"user_features of shape {told.values.shape}, and interaction {interactions.given.max()} was given; rows "
            "would belong to others. Pass a row for each interaction that `Interactions.of` was given, in their order."
        )
    encoding = UserEncoding.fit(told.take(interactions.given), interactions.users)
    return encoding, PastUsers(encoding, encoding.read(told), dropout)


def _columns(what: str, values: ArrayLike | None, rows: int | None) -> NDArray[np.float32]:
    if values is None:
        return np.zeros((rows or 0, 0), np.float32)
    matrix = np.asarray(values, np.float32)
    if matrix.ndim != 2 or (rows is not None and len(matrix) != rows):
        raise InvalidVectors(
            f"{what} of shape {matrix.shape} for {rows} rows; they would belong to others. Pass one row each in the "
            "order of the interactions' ids."
        )
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0].tolist()
        raise InvalidVectors(
            f"{what} has {matrix[row, column]} in row {row}, column {column}; no product with it is a number. Fill "
            "what is missing, with the mean say; of users, `UserFeatures` may hold NaN."
        )
    return matrix


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    units: NDArray[np.float32] = (vectors / norms).astype(np.float32)
    return units
