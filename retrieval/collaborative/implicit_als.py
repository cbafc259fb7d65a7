"""Factors of users and items for implicit feedback (Hu, Koren and Volinsky 2008), by alternating least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from explorank.retrieval._files import Checksums
from explorank.retrieval._ids import IdTable
from explorank.retrieval.collaborative._arrays import load_arrays, save_arrays
from explorank.retrieval.collaborative.embedding_model import has_place
from explorank.retrieval.collaborative.interactions import Interactions, ItemRows
from explorank.retrieval.errors import InvalidOption
from explorank.retrieval.user_features import UserFeatures

_FORMAT: Final = "explorank.implicit_als/1"
_FIRST_SD: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitALSOptions:
    """How factors are learnt."""

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    factors: int = 24
    """Numbers per item and user."""
    l2: float = 30.0
    """The penalty on the factors, above 0."""
    confidence: float = 3.0
    """An interaction counts 1 + `confidence` times as much as its absence, 0 or more; the paper's alpha."""
    iterations: int = 8
    """How often users and items are solved for in turn."""

    def __post_init__(self) -> None:
        if self.factors < 1 or not self.l2 > 0 or not self.confidence >= 0 or self.iterations < 1:
            raise InvalidOption(
                f"ImplicitALS: factors={self.factors}, l2={self.l2}, confidence={self.confidence}, iterations="
                f"{self.iterations}; nothing could be learnt. Set factors and iterations to 1 or more, l2 above 0 and "
                "confidence to 0 or more."
            )


class ImplicitALS:
    """Scores x'y_j, where x solves the user's least squares with all item factors y fixed: any history is served.

    Minimises Σ_ui c_ui (p_ui - x_u'y_i)² + λ(Σ||x_u||² + Σ||y_i||²) with p 1 and c 1 + confidence for what was taken
    up, p 0 and c 1 for all else. An iteration takes O(m f² + (u + n) f³).
    """

    Options: ClassVar = ImplicitALSOptions
    name: ClassVar[str] = "als"

    def __init__(
        self, item_ids: NDArray[np.str_], factors: NDArray[np.float64], options: ImplicitALSOptions
    ) -> None:
        """Take the items (n,) and their factors (n, f); use `fit` or `load`."""
        # Plain arrays where they are mapped: the class of a memory map slows every use.
        self._item_ids, self.factors = np.asarray(item_ids), np.asarray(factors)
        self._options = options
        self._gram = self.factors.T @ self.factors + options.l2 * np.eye(factors.shape[1])

    @property
    def item_ids(self) -> NDArray[np.str_]:
        """(n,) the items, in the order of the scores."""
        return self._item_ids

    @property
    def item_vectors(self) -> NDArray[np.float64]:
        """(n, f) the factors; zeros for an item that nobody took up, of which they tell nothing."""
        return self.factors

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
        return {"factors": self.factors}

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        options: ImplicitALSOptions | None = None,
        seed: int = 0,
        content: ArrayLike | None = None,  # noqa: ARG003 - none is read
        user_features: UserFeatures | None = None,  # noqa: ARG003 - none are read
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Return the factors after `iterations`; `seed` draws the first.

        `progress` is told after each iteration how many are done, and of how many.
        """
        options = options or ImplicitALSOptions()
        by_user = interactions.matrix
        by_item = by_user.T.tocsr()
        generator = np.random.default_rng(seed)
        items = generator.normal(0.0, _FIRST_SD, (len(interactions.item_ids), options.factors))
        for done in range(1, options.iterations + 1):
            items = _solved(by_item, _solved(by_user, items, options), options)
            if progress is not None:
                progress(done, options.iterations)
        return cls(interactions.item_ids, items, options)

    def with_factors(self, items: NDArray[np.bool_], factors: NDArray[np.float64]) -> Self:
        """Return a model in which those items (n,), new ones say, have other factors (m, f)."""
        changed = self.factors.copy()
        changed[items] = factors
        return type(self)(self._item_ids, changed, self._options)

    def in_rows_of(self, item_ids: NDArray[np.str_], content: ArrayLike | None = None) -> Self:  # noqa: ARG002 - none is read
        """Return the same model for `item_ids` (n,), in their order; those it does not know have factors of 0."""
        rows = IdTable(self._item_ids).find(item_ids)
        factors = np.zeros((len(item_ids), self.factors.shape[1]))
        factors[rows >= 0] = self.factors[rows[rows >= 0]]
        return type(self)(item_ids, factors, self._options)

    def scores(self, history: Sequence[str]) -> NDArray[np.float32]:
        """Return (n,) scores, the higher the better; unknown items of the history are passed over."""
        return (self.factors @ self.user_vector_at(self._rows.known(history))).astype(np.float32)

    def user_vector_at(
        self,
        rows: NDArray[np.int64],
        user: UserFeatures | None = None,  # noqa: ARG002 - none are read
    ) -> NDArray[np.float64]:
        """Return the factors (f,) of somebody who took up the items in `rows` (h,), each once: the fold-in."""
        return _one(self.factors[rows], self._gram, self._options.confidence)

    def scores_of_many(self, histories: csr_matrix) -> NDArray[np.float32]:
        """Return (m, n) scores for histories (m, n) with 1 where an item was taken up."""
        return (_solved(histories, self.factors, self._options) @ self.factors.T).astype(np.float32)

    def save(self, folder: str | Path) -> None:
        """Write arrays and a manifest with their checksums into `folder`."""
        facts = {name: getattr(self._options, name) for name in ImplicitALSOptions.__slots__}
        save_arrays(folder, _FORMAT, facts, {"item_ids": self._item_ids, "factors": self.factors})

    @classmethod
    def load(cls, folder: str | Path, *, mapped: bool = False, checksums: Checksums | None = None) -> Self:
        """Return the model that `save` wrote; raise `CorruptArtefact` naming the file that is not intact.

        `load_arrays` says what `mapped` and `checksums` mean.
        """
        facts, arrays = load_arrays(
            folder, _FORMAT, "item_ids", "factors", mapped=mapped, checksums=checksums
        )
        return cls(arrays["item_ids"], arrays["factors"], ImplicitALSOptions(**facts))

    @cached_property
    def _rows(self) -> ItemRows:
        return ItemRows(self._item_ids)


def _solved(
    taken: csr_matrix, factors: NDArray[np.float64], options: ImplicitALSOptions
) -> NDArray[np.float64]:
    """Return the factors (m, f) of the rows of `taken` (m, n), given those of its columns."""
    gram = factors.T @ factors + options.l2 * np.eye(factors.shape[1])
    solved = np.zeros((taken.shape[0], factors.shape[1]))
    for row, (start, end) in enumerate(zip(taken.indptr[:-1], taken.indptr[1:], strict=True)):
        if end > start:
            solved[row] = _one(factors[taken.indices[start:end]], gram, options.confidence)
    return solved


def _one(taken: NDArray[np.float64], gram: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    solved: NDArray[np.float64] = np.linalg.solve(
        gram + confidence * (taken.T @ taken), (1.0 + confidence) * taken.sum(axis=0)
    )
    return solved
