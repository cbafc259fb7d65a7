"""LightGBM's text format, read into arrays: every tree's splits and leaves, one tree after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.errors import UnsupportedModel

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Number = TypeVar("Number", np.int64, np.float64, np.uint32)

_TREE: Final = "\nTree="
"""What stands before each tree."""


@dataclass(frozen=True, slots=True)
class ModelText:
    """A model as LightGBM writes it down: t trees with s splits and l leaves in all.

    A split's children are numbered within its tree: a split from 0 on, or a leaf as -1 - leaf.
    """

    features: int
    classes: int
    """Scores per row; tree i adds to score i modulo this."""
    averaged: bool
    """Whether the trees' mean is meant, as in a random forest, and not their sum."""
    objective: tuple[str, ...]
    """The objective's name and its options, `binary` and `sigmoid:1` say; empty where it is not LightGBM's own."""
    leaves: Ints
    """(t,) of each tree."""
    feature: Ints
    """(s,)"""
    threshold: Floats
    """(s,) values up to here go left; where the split is categorical, which of the tree's sets goes left."""
    decision: Ints
    """(s,) bits: 1 categorical, 2 missing values go left, from 4 on what is missing: nothing, zero, NaN."""
    left: Ints
    """(s,)"""
    right: Ints
    """(s,)"""
    leaf_value: Floats
    """(l,)"""
    leaf_count: Floats
    """(l,) training rows that ended there, or 0 where the model does not say."""
    sets: Ints
    """(t,) how many sets of categories each tree has."""
    set_words: Ints
    """(sum of sets,) how many words each set has."""
    words: NDArray[np.uint32]
    """The sets, one after another: bit b of a set's word w stands for category 32 w + b."""

    @classmethod
    def of(cls, text: str) -> ModelText:
        """Read a model; raise `UnsupportedModel` for linear trees and for what does not fit together."""
        header, *sections = text.split(_TREE)
        facts = _pairs(header.splitlines())
        trees = [_pairs(section.partition("\n\n")[0].splitlines()) for section in sections]
        if any(tree.get("is_linear", "0").strip() != "0" for tree in trees):
            raise UnsupportedModel(
                "The model has linear trees, whose leaves hold regressions; a compiled forest holds numbers."
            )
        try:
            model = cls._read(facts, trees)
        except (KeyError, ValueError) as error:
            raise UnsupportedModel(
                f"The model's text is not as LightGBM 4 writes it ({error!r}), so its trees are not known."
            ) from error
        model._check()
        return model

    @classmethod
    def _read(cls, facts: Mapping[str, str], trees: Sequence[Mapping[str, str]]) -> ModelText:
        grown = [tree for tree in trees if int(tree["num_leaves"]) > 1]
        branched = [tree for tree in grown if int(tree["num_cat"])]
        boundaries = [np.array(tree["cat_boundaries"].split(), np.int64) for tree in branched]
        return cls(
            features=int(facts["max_feature_idx"]) + 1,
            classes=int(facts.get("num_tree_per_iteration", facts["num_class"])),
            averaged="average_output" in facts,
            objective=tuple(facts.get("objective", "").split()),
            leaves=np.array([int(tree["num_leaves"]) for tree in trees], np.int64),
            feature=_joined(grown, "split_feature", np.int64),
            threshold=_joined(grown, "threshold", np.float64),
            decision=_joined(grown, "decision_type", np.int64),
            left=_joined(grown, "left_child", np.int64),
            right=_joined(grown, "right_child", np.int64),
            leaf_value=_joined(trees, "leaf_value", np.float64),
            leaf_count=_joined(trees, "leaf_count", np.float64, absent="0"),
            sets=np.array([int(tree["num_cat"]) for tree in trees], np.int64),
            set_words=np.concatenate([np.zeros(0, np.int64), *(np.diff(edges) for edges in boundaries)]),
            words=_joined(branched, "cat_threshold", np.uint32),
        )

    def _check(self) -> None:
        of_splits = (self.feature, self.threshold, self.decision, self.left, self.right)
        fits = (
            self.classes >= 1
            and (self.leaves >= 1).all()
            and (self.set_words >= 0).all()
            and all(len(array) == (self.leaves - 1).sum() for array in of_splits)
            and len(self.leaf_value) == len(self.leaf_count) == self.leaves.sum()
            and len(self.set_words) == self.sets.sum()
            and len(self.words) == self.set_words.sum()
            and len(self.leaves) % self.classes == 0
        )
        if not fits:
            raise UnsupportedModel(
                f"The model's {len(self.leaves)} trees have other numbers of splits, leaves or categories than "
                "they state, so nobody knows which belongs where."
            )
        if ((self.feature < 0) | (self.feature >= self.features)).any():
            raise UnsupportedModel(
                f"A split asks for a feature that is none of the model's {self.features}, so nobody knows what "
                "it reads."
            )


def trees_in(text: str) -> int:
    """Return how many trees a model's text holds."""
    return text.count(_TREE)


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def _joined(
    trees: Sequence[Mapping[str, str]], key: str, dtype: type[Number], absent: str | None = None
) -> NDArray[Number]:
    lines = [
        tree[key] if absent is None or tree.get(key) else " ".join([absent] * int(tree["num_leaves"]))
        for tree in trees
    ]
    return np.array(" ".join(lines).split(), dtype)
