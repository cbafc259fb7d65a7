"""Columns of a candidate from counts, content, tags, numbers and groups, whatever the times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.side_information import SideInformation

_PRIOR_EVENTS = 5.0
"""An item's or user's mean value begins with so many interactions of the mean value."""


class SideColumns:
    """What interactions and side information tell of a user and an item; counted once, looked up for each pair."""

    def __init__(self, interactions: Interactions, side: SideInformation) -> None:
        matrix, self._side = interactions.matrix, side
        popularity, activity = interactions.popularity, interactions.activity
        total = max(len(interactions), 1)
        mean = float(interactions.values.mean()) if len(interactions) else 0.0
        sums = np.asarray(interactions.valued.sum(axis=0), np.float64).ravel()
        user_sums = np.asarray(interactions.valued.sum(axis=1), np.float64).ravel()
        self._by_item: dict[str, NDArray[np.float64]] = {
            "popularity": np.log1p(popularity),
            "item_mean_value": (sums + _PRIOR_EVENTS * mean) / (popularity + _PRIOR_EVENTS),
            **side.item_numbers,
        }
        self._by_user: dict[str, NDArray[np.float64]] = {
            "activity": np.log1p(activity),
            "user_mean_value": (user_sums + _PRIOR_EVENTS * mean) / (activity + _PRIOR_EVENTS),
            **side.user_numbers,
        }
        self._usual = {name: _means(matrix, numbers) for name, numbers in side.item_numbers.items()}
        self._tag_lift: NDArray[np.float64] | None = None
        if side.tags is not None:
            taken = np.asarray(matrix @ side.tags, np.float64) / np.maximum(activity, 1)[:, None]
            usual = popularity @ side.tags / total
            self._tag_lift = np.log((taken + 0.01) / (usual + 0.01))
            self._tag_share = side.tags / np.maximum(side.tags.sum(axis=1, keepdims=True), 1.0)
        share = (popularity + 1.0) / (total + len(popularity))
        self._group_lift: dict[str, NDArray[np.float64]] = {}
        for name, codes in side.user_groups.items():
            members = csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
            taken = (members @ matrix).toarray()
            expected = taken.sum(axis=1, keepdims=True) * share
            self._group_lift[name] = np.log((taken + 1.0) / (expected + 1.0))

    def of(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return the columns (r,) of pairs of users (r,) and items (r,), by name."""
        columns = {name: values[items] for name, values in self._by_item.items()}
        columns |= {name: values[users] for name, values in self._by_user.items()}
        for name, usual in self._usual.items():
            columns[f"{name}_beyond_usual"] = self._by_item[name][items] - usual[users]
        if self._tag_lift is not None:
            columns["tag_taste"] = np.einsum("rt,rt->r", self._tag_lift[users], self._tag_share[items])
        for name, lift in self._group_lift.items():
            columns[f"{name}_taste"] = lift[self._side.user_groups[name][users], items]
        return columns

    def content_scores(self, histories: csr_matrix) -> dict[str, NDArray[np.float32]]:
        """Return the cosine (m, n) of each item with the mean of each history (m, n); nothing without content."""
        content = self._side.content
        if content is None:
            return {}
        interest = np.asarray(histories @ content, np.float32)
        interest /= np.maximum(np.linalg.norm(interest, axis=1, keepdims=True), 1e-12)
        return {"content_similarity": interest @ content.T}


def _means(matrix: csr_matrix, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean number (u,) of what each user took up, NaN where none is known."""
    known = np.isfinite(numbers)
    count = np.asarray(matrix @ known.astype(np.float64))
    sums = np.asarray(matrix @ diags(known.astype(np.float64)) @ np.where(known, numbers, 0.0))
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)
