"""A trained transformer, served by numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.retrieval._files import Checksums
from explorank.retrieval._ids import IdTable
from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays
from explorank.retrieval.collaborative._training import training_module
from explorank.retrieval.collaborative.embedding_model import has_place, user_vector
from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.sasrec.options import SASRecOptions
from explorank.retrieval.errors import InvalidTable
from explorank.retrieval.user_features import UserFeatures

_FORMAT: Final = "explorank.sasrec/1"
_HEADS: Final = "heads"
NORM_EPSILON: Final = 1e-5
"""Added to a variance before its root is divided by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SASRecArrays:
    """All that serving needs, float32. `d` numbers per vector, `h` steps of history, `b` blocks.

    A gain and a bias of a layer normalisation are the rows of one array; weights are multiplied from the right.
    """

    item_vectors: NDArray[np.float32]
    """(n, d) of length 1, of what was taken up and of what is looked for alike."""
    positions: NDArray[np.float32]
    """(h, d) added to the items of a history, the newest last."""
    attention_norm: NDArray[np.float32]
    """(b, 2, d)"""
    attention_weights: NDArray[np.float32]
    """(b, d, 3d) of queries, keys and values."""
    attention_bias: NDArray[np.float32]
    """(b, 3d)"""
    attended_weights: NDArray[np.float32]
    """(b, d, d)"""
    attended_bias: NDArray[np.float32]
    """(b, d)"""
    feed_norm: NDArray[np.float32]
    """(b, 2, d)"""
    hidden_weights: NDArray[np.float32]
    """(b, d, d)"""
    hidden_bias: NDArray[np.float32]
    """(b, d)"""
    output_weights: NDArray[np.float32]
    """(b, d, d)"""
    output_bias: NDArray[np.float32]
    """(b, d)"""
    final_norm: NDArray[np.float32]
    """(2, d)"""


class SASRec:
    """Scores are cosines of items with where a causal transformer looks for the next one (Kang and McAuley 2018).

    Each block is self-attention and a feed-forward layer, both normalised before and added; a step attends to itself
    and those before it. The vector of the user is the newest step's output. Training foresees at each step of a history
    the item that came next, by a softmax over all items or over those drawn, instead of the paper's one negative
    (Klenitskiy and Vasilev 2023). Events of one instant have no order: each epoch draws one.
    """

    Options: ClassVar = SASRecOptions
    name: ClassVar[str] = "sasrec"

    def __init__(
        self, item_ids: NDArray[np.str_], arrays: SASRecArrays, heads: int, metrics: dict[str, float]
    ) -> None:
        """Take the items (n,), what serving needs, and how training went; use `fit` or `load`."""
        # Plain arrays where they are mapped: the class of a memory map slows every use.
        self._item_ids = np.asarray(item_ids)
        self._arrays = SASRecArrays(
            **{part.name: np.asarray(getattr(arrays, part.name)) for part in fields(SASRecArrays)}
        )
        self._heads = heads
        self.metrics = metrics
        """Epochs trained, the best one, and the recall@100 it had on the validation cut."""
        history = len(self._arrays.positions)
        self._future = np.triu(np.full((history, history), -np.inf, np.float32), 1)

    @property
    def item_ids(self) -> NDArray[np.str_]:
        """(n,) the items, in the order of the scores."""
        return self._item_ids

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """(n, d) of length 1; zeros for an item that nobody took up, of which they tell nothing."""
        return self._arrays.item_vectors

    @cached_property
    def places(self) -> NDArray[np.bool_]:
        """(n,) which items have a vector other than 0."""
        return has_place(self.item_vectors)

    @property
    def user_features(self) -> tuple[str, ...]:
        """None: histories alone are read."""
        return ()

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What scoring needs, by name."""
        return {part.name: getattr(self._arrays, part.name) for part in fields(SASRecArrays)}

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        options: SASRecOptions | None = None,
        seed: int = 0,
        content: ArrayLike | None = None,  # noqa: ARG003 - none is read
        user_features: UserFeatures | None = None,  # noqa: ARG003 - none are read
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Train on `interactions`; the same ones, options and seed give the same model on the same machine.

        `progress` is told after each epoch how many are done, and of how many at most. Raises `InvalidTable` for
        interactions without times, for fewer than ten, and where no user took up two items at different times.
        """
        options = options or SASRecOptions()
        if interactions.times is None:
            raise InvalidTable(
                "The interactions have no times, so nothing tells what came next, which is all that a sequence model "
                "learns. Pass `times`, or fit a model without order, such as ImplicitALS."
            )
        follows = (np.diff(interactions.users) == 0) & (np.diff(interactions.times) > 0)
        if len(interactions) < 10 or not follows.any():
            raise InvalidTable(
                f"{len(interactions)} interactions, of which {follows.sum()} came after another of the same user; a "
                "sequence model learns nothing from fewer than 10, or where nothing came next. Gather more; EASE and "
                "ItemKNN do with little."
            )
        training = training_module(__package__, "Sequence models")
        arrays, metrics = training.train(interactions, options, seed, progress)
        met = interactions.popularity > 0
        arrays = replace(arrays, item_vectors=np.where(met[:, None], arrays.item_vectors, np.float32(0.0)))
        return cls(interactions.item_ids, arrays, options.heads, metrics)

    def scores(self, history: Sequence[str]) -> NDArray[np.float32]:
        """Return (n,) cosines after a history, oldest first; 0 where nothing of it is known."""
        scores: NDArray[np.float32] = self.item_vectors @ self.user_vector(history)
        return scores

    def user_vector(self, history: Sequence[str]) -> NDArray[np.float32]:
        """Return where the next item is looked for (d,), of length 1; zeros where nothing of the history is known.

        Unknown items are passed over, and one that stands twice counts where it stands last.
        """
        vector = user_vector(self, self._table.find(history))
        return np.zeros(self.item_vectors.shape[1], np.float32) if vector is None else vector

    def user_vector_at(
        self,
        rows: NDArray[np.int64],
        user: UserFeatures | None = None,  # noqa: ARG002 - none are read
    ) -> NDArray[np.float32]:
        """Return the newest step's output (d,), of length 1, after the items in `rows` (h,), h ≥ 1, the newest last."""
        arrays = self._arrays
        read = rows[-len(arrays.positions) :]
        steps = arrays.item_vectors[read] + arrays.positions[-len(read) :]
        for block in range(len(arrays.attended_bias)):
            steps = self._block(block, steps)
        output = _normalised(steps[-1], arrays.final_norm)
        unit: NDArray[np.float32] = output / max(float(np.linalg.norm(output)), 1e-12)
        return unit

    def _block(self, block: int, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a block's outputs for steps (h, d): all (h, d), of the last block the newest (1, d) alone."""
        arrays, count = self._arrays, len(steps)
        asking = slice(count - 1, None) if block == len(arrays.attended_bias) - 1 else slice(None)
        read = (
            _normalised(steps, arrays.attention_norm[block]) @ arrays.attention_weights[block]
            + arrays.attention_bias[block]
        )
        queries, keys, values = read.reshape(count, 3, self._heads, -1).transpose(1, 2, 0, 3)
        logits = queries[:, asking] @ keys.transpose(0, 2, 1) / np.float32(np.sqrt(keys.shape[2]))
        logits += self._future[asking.start or 0 : count, :count]
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        attended = (weights @ values).transpose(1, 0, 2).reshape(weights.shape[1], -1)
        steps = steps[asking] + attended @ arrays.attended_weights[block] + arrays.attended_bias[block]
        normal = _normalised(steps, arrays.feed_norm[block])
        hidden = np.maximum(normal @ arrays.hidden_weights[block] + arrays.hidden_bias[block], 0.0)
        outputs: NDArray[np.float32] = (
            steps + hidden @ arrays.output_weights[block] + arrays.output_bias[block]
        )
        return outputs

    def in_rows_of(self, item_ids: NDArray[np.str_], content: ArrayLike | None = None) -> Self:  # noqa: ARG002 - none is read
        """Return the same model for `item_ids` (n,), in their order; those it does not know have vectors of 0."""
        rows = self._table.find(item_ids)
        vectors = np.zeros((len(item_ids), self.item_vectors.shape[1]), np.float32)
        vectors[rows >= 0] = self.item_vectors[rows[rows >= 0]]
        return type(self)(item_ids, replace(self._arrays, item_vectors=vectors), self._heads, self.metrics)

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`; loading it needs no torch."""
        facts = {_HEADS: self._heads, "metrics": self.metrics}
        save_arrays(folder, _FORMAT, facts, {"item_ids": self._item_ids, **self.arrays})

    @classmethod
    def load(cls, folder: str | Path, *, mapped: bool = False, checksums: Checksums | None = None) -> Self:
        """Return the model that `save` wrote; raise `CorruptArtefact` naming the file that is not intact.

        `load_arrays` says what `mapped` and `checksums` mean.
        """
        names = tuple(part.name for part in fields(SASRecArrays))
        facts, arrays = load_arrays(folder, _FORMAT, "item_ids", *names, mapped=mapped, checksums=checksums)
        parts = SASRecArrays(**{name: arrays[name] for name in names})
        return cls(arrays["item_ids"], parts, facts[_HEADS], facts["metrics"])

    @cached_property
    def _table(self) -> IdTable:
        return IdTable(self._item_ids)


def _normalised(steps: NDArray[np.float32], norm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return steps (…, d) of mean 0 and deviation 1, with a gain and a bias (2, d)."""
    width = np.float32(steps.shape[-1])
    centred = steps - steps.sum(axis=-1, keepdims=True) / width
    variance = (centred * centred).sum(axis=-1, keepdims=True) / width
    normal: NDArray[np.float32] = centred / np.sqrt(variance + np.float32(NORM_EPSILON)) * norm[0] + norm[1]
    return normal
