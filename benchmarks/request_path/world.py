"""The data of the benchmark: items that lie in clusters, users who like some of them, features, and a model.

Everything follows from the seed. Vectors and item features are made in chunks that each have a seed of their own,
so that a smaller catalogue is the beginning of a larger one, and a million vectors never stand in memory twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from explorank.retrieval import interest_vector

DECAY: Final = 0.9
"""How much less each older item of a history counts: Explorank's default."""
_CHUNK: Final = 50_000
_TOPICS: Final = 64
_CLUSTERS: Final = 2_048
_HISTORY: Final = 20
_LEAVES: Final = 63
_TRAINING_ROWS: Final = 40_000


@dataclass(frozen=True)
class Size:
    """How large the world is, and how much of it one request touches."""

    items: int = 100_000
    dim: int = 384
    users: int = 1_000
    features: int = 50
    """Half of them are the user's, half the item's."""
    trees: int = 300
    candidates: int = 500
    slots: int = 20

    @property
    def name(self) -> str:
        """A folder's name for what depends on the size."""
        return f"{self.items}x{self.dim}-{self.users}-{self.features}-{self.trees}"


class World:
    """Items, users and a model; what takes long to make is kept in `folder`, vectors in one for all that share them."""

    def __init__(self, size: Size, folder: Path, seed: int = 0) -> None:
        """Describe the world of `seed`; its parts are made when they are asked for."""
        self.size = size
        self.seed = seed
        # Feast resolves relative paths against the repository.
        self.folder = folder.resolve() / f"{size.name}-{seed}"
        self.vectors_folder = folder.resolve() / f"vectors-{size.items}x{size.dim}-{seed}"
        for each in (self.folder, self.vectors_folder):
            each.mkdir(parents=True, exist_ok=True)

    @cached_property
    def item_ids(self) -> list[str]:
        """One for each item, in the order of the vectors."""
        return [f"item-{row:07}" for row in range(self.size.items)]

    @cached_property
    def user_ids(self) -> list[str]:
        """One for each user."""
        return [f"user-{row:05}" for row in range(self.size.users)]

    @property
    def item_names(self) -> list[str]:
        """The item features."""
        return [f"item_{column:03}" for column in range(self.size.features // 2)]

    @property
    def user_names(self) -> list[str]:
        """The user features."""
        return [f"user_{column:03}" for column in range(self.size.features - self.size.features // 2)]

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(items, dim) of length 1, mapped from disk."""
        path = self.vectors_folder / "vectors.npy"
        if not path.exists():
            shape = (self.size.items, self.size.dim)
            draft = path.with_suffix(".draft")
            written = np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)
            for start, clusters, rng in self._chunks():
                chunk = self._centres[clusters]
                # A part of the spread has few dimensions, as that of real embeddings has.
                low = rng.standard_normal((len(chunk), len(self._directions)), np.float32)
                chunk += 0.7 * (low @ self._directions)
                chunk += rng.standard_normal(chunk.shape, np.float32) * np.float32(
                    0.35 / np.sqrt(self.size.dim)
                )
                chunk /= np.linalg.norm(chunk, axis=1, keepdims=True)
                written[start : start + len(chunk)] = chunk
            written.flush()
            draft.rename(path)
        mapped: NDArray[np.float32] = np.load(path, mmap_mode="r")
        return mapped

    @cached_property
    def item_features(self) -> NDArray[np.float32]:
        """(items, features / 2); some are counts, some are missing here and there."""
        columns = len(self.item_names)
        parts = []
        for start, clusters, _ in self._chunks():
            rng = np.random.default_rng((self.seed, 1, start))
            parts.append(_features(rng, len(clusters), columns))
        return np.concatenate(parts)

    @cached_property
    def user_features(self) -> NDArray[np.float32]:
        """(users, features / 2)."""
        rng = np.random.default_rng((self.seed, 2))
        return _features(rng, self.size.users, len(self.user_names))

    @cached_property
    def histories(self) -> NDArray[np.int64]:
        """(users, 20) rows of items, oldest first; a user likes two clusters."""
        clusters = np.concatenate([clusters for _, clusters, _ in self._chunks()])
        by_cluster = np.argsort(clusters, kind="stable")
        starts = np.searchsorted(clusters[by_cluster], np.arange(_CLUSTERS + 1))
        rng = np.random.default_rng((self.seed, 3))
        histories = np.empty((self.size.users, _HISTORY), np.int64)
        for user in range(self.size.users):
            liked = clusters[rng.integers(self.size.items, size=2)]
            members = np.concatenate([by_cluster[starts[one] : starts[one + 1]] for one in liked])
            histories[user] = rng.choice(members, _HISTORY)
        return histories

    @cached_property
    def user_vectors(self) -> NDArray[np.float32]:
        """(users, dim): the interest that follows from each history, of length 1."""
        vectors = np.stack([interest_vector(self.vectors[history], DECAY) for history in self.histories])
        normed: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normed

    @cached_property
    def training_rows(self) -> NDArray[np.float32]:
        """Features of pairs of items and users, in the model's order."""
        rng = np.random.default_rng((self.seed, 4))
        users = rng.integers(self.size.users, size=_TRAINING_ROWS)
        items = rng.integers(self.size.items, size=_TRAINING_ROWS)
        return np.hstack([self.item_features[items], self.user_features[users]])

    @cached_property
    def model(self) -> str:
        """A binary LightGBM model over item features, then user features, as text."""
        path = self.folder / "model.txt"
        if not path.exists():
            rng, rows = np.random.default_rng((self.seed, 7)), self.training_rows
            labels = self.taken_up(rows, rng)
            options: dict[str, Any] = {
                "objective": "binary", "num_leaves": _LEAVES, "verbosity": -1, "num_threads": 1, "seed": 5,
            }  # fmt: skip
            names = [*self.item_names, *self.user_names]
            booster = lightgbm.train(
                options, lightgbm.Dataset(rows, labels, feature_name=names), self.size.trees
            )
            path.write_text(booster.model_to_string(), encoding="utf-8")
        return path.read_text(encoding="utf-8")

    def taken_up(self, rows: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return for pairs of item and user (n, features), in the model's order, whether he takes it up, (n,)."""
        known = np.nan_to_num(rows).clip(-5.0, 5.0)
        half = len(self.item_names)
        appeal = known @ (rng.standard_normal(rows.shape[1]) / np.sqrt(rows.shape[1]))
        appeal += np.sin(2.0 * known[:, 0]) * known[:, half] + known[:, 1] * known[:, half + 1]
        taken: NDArray[np.bool_] = rng.random(len(rows)) < 1.0 / (1.0 + np.exp(-appeal))
        return taken

    @cached_property
    def _centres(self) -> NDArray[np.float32]:
        """(clusters, dim): topics, each with subjects around it."""
        rng = np.random.default_rng((self.seed, 5))
        topics = rng.standard_normal((_TOPICS, self.size.dim), np.float32)
        subjects = rng.standard_normal((_CLUSTERS, self.size.dim), np.float32)
        centres: NDArray[np.float32] = topics[rng.integers(_TOPICS, size=_CLUSTERS)] + 0.8 * subjects
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        return centres

    @cached_property
    def _directions(self) -> NDArray[np.float32]:
        rng = np.random.default_rng((self.seed, 6))
        directions = rng.standard_normal((48, self.size.dim), np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True) * np.float32(np.sqrt(48))
        return directions

    def _chunks(self) -> Iterator[tuple[int, NDArray[np.int64], np.random.Generator]]:
        """Yield the first row of each chunk, its items' clusters, and where its other numbers come from."""
        sizes = 1.0 / np.arange(1, _CLUSTERS + 1) ** 0.7
        for start in range(0, self.size.items, _CHUNK):
            rng = np.random.default_rng((self.seed, 0, start))
            clusters = rng.choice(_CLUSTERS, _CHUNK, p=sizes / sizes.sum())
            yield start, clusters[: self.size.items - start], rng


def _features(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    # Drawn by column, so that fewer rows are not other rows.
    matrix = np.stack([rng.standard_normal(_CHUNK, np.float32)[:rows] for _ in range(columns)], axis=1)
    matrix[:, : columns // 5] = np.floor(np.exp(matrix[:, : columns // 5] + 1.0))
    absent = np.stack([rng.random(_CHUNK, np.float32)[:rows] < 0.1 for _ in range(columns // 5)], axis=1)
    matrix[:, -(columns // 5) :][absent] = np.nan
    return matrix
