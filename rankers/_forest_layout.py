"""Where the compiled walk finds a forest's nodes, columns and categories; see `_forest_kernels` for the walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.rankers import _forest_kernels as kernels
from explorank.rankers._lightgbm_text import Floats, Ints, ModelText
from explorank.rankers.errors import UnsupportedModel

Keys: TypeAlias = NDArray[np.uint32]

_CATEGORICAL: Final = 1
_MISSING_GOES_LEFT: Final = 2
_MISSING_SHIFT: Final = 2
_NOTHING_MISSING, _ZERO_MISSING, _NAN_MISSING = range(3)
_ARRIVED: Final = 0.9
"""Share of the training rows after which the walk begins to look whether all have arrived."""


@dataclass(frozen=True, slots=True)
class Trees:
    """t trees whose nodes stand one tree after another, two siblings always side by side."""

    nodes: NDArray[np.uint64]
    """(nodes,)"""
    leaf_values: Floats
    """(nodes,) 0 where the node is a split."""
    starts: Ints
    """(t + 1,) each tree's first node."""
    knees: Ints
    """(t,) steps after which most rows have arrived."""


@dataclass(frozen=True, slots=True)
class Columns:
    """c columns of a block: a feature, together with where its missing values go."""

    feature: Ints
    """(c,)"""
    when_missing: Keys
    """(c,) the key of NaN."""
    when_zero: Keys
    """(c,) the key of zero."""
    numerical: int
    """The columns from here on hold categories."""
    category_starts: Ints
    """(c - numerical + 1,) where each of these begins in `categories`."""
    categories: Ints
    """Every category that a set names, sorted within its column."""
    sets: Keys
    """The sets, as bits over the places in `categories`; never empty."""


def lay_out(model: ModelText) -> tuple[Trees, Columns]:
    """Return the forest for the walk; raise `UnsupportedModel` where its words are too small for it."""
    splits = model.leaves - 1
    tree_of_split = np.repeat(np.arange(len(splits)), splits)
    is_category = (model.decision & _CATEGORICAL) > 0
    column, columns, set_places = _columns(model, tree_of_split, is_category)
    if (
        2 * int(model.leaves.max(initial=1)) - 1 > kernels.MOST_NODES
        or len(columns.feature) > kernels.MOST_COLUMNS
    ):
        raise UnsupportedModel(
            f"The model has {int(model.leaves.max())} leaves in a tree and {len(columns.feature)} columns (a "
            f"feature counts once for each way its missing values go); a compiled forest holds "
            f"{kernels.MOST_NODES // 2} and {kernels.MOST_COLUMNS}."
        )
    keys = np.where(is_category, 0, _threshold_keys(model.threshold)).astype(np.uint64)
    keys[is_category] = set_places
    return _trees(model, tree_of_split, column, keys), columns


def _trees(model: ModelText, tree_of_split: Ints, column: Ints, keys: NDArray[np.uint64]) -> Trees:
    splits = model.leaves - 1
    split_starts, leaf_starts = _starts(splits), _starts(model.leaves)
    starts = _starts(2 * model.leaves - 1)
    own = np.arange(len(tree_of_split)) - split_starts[tree_of_split]
    split_places, leaf_places = np.full(len(own), -1), np.full(int(model.leaves.sum()), -1)
    split_places[split_starts[:-1][splits > 0]] = 0
    leaf_places[leaf_starts[:-1][splits == 0]] = 0
    # LightGBM numbers splits in the order it made them, so the children of split i have places 2 i + 1 and
    # 2 i + 2: siblings adjoin, and the upper, busier part of a tree lies together.
    for side, children in enumerate((model.left, model.right), start=1):
        to_leaf = children < 0
        fits = np.where(
            to_leaf,
            ~children < model.leaves[tree_of_split],
            (children > own) & (children < splits[tree_of_split]),
        )
        if not fits.all():
            raise UnsupportedModel(
                "A split's child is no later split and no leaf of its tree: no tree at all."
            )
        places = 2 * own + side
        split_places[(split_starts[tree_of_split] + children)[~to_leaf]] = places[~to_leaf]
        leaf_places[(leaf_starts[tree_of_split] + ~children)[to_leaf]] = places[to_leaf]
    if (split_places < 0).any() or (leaf_places < 0).any():
        raise UnsupportedModel(
            "A split or leaf of a tree has no parent, and another has two: no tree at all."
        )
    tree_of_leaf = np.repeat(np.arange(len(splits)), model.leaves)
    split_nodes = starts[tree_of_split] + split_places
    leaf_nodes = starts[tree_of_leaf] + leaf_places
    nodes = np.empty(int(starts[-1]), np.uint64)
    nodes[split_nodes] = _words(keys, 2 * own + 1, column)
    nodes[leaf_nodes] = _words(np.uint64(kernels.GOES_RIGHT), leaf_places, np.zeros_like(leaf_places))
    leaf_values = np.zeros(len(nodes))
    leaf_values[leaf_nodes] = model.leaf_value
    return Trees(
        nodes=nodes,
        leaf_values=leaf_values,
        starts=starts,
        knees=_knees(model, tree_of_split, split_starts, leaf_starts),
    )


def _words(keys: NDArray[np.uint64] | np.uint64, left: Ints, column: Ints) -> NDArray[np.uint64]:
    begin = column.astype(np.uint64) * np.uint64(kernels.LANES)
    shifted = (
        begin << np.uint64(kernels.COLUMN_SHIFT),
        left.astype(np.uint64) << np.uint64(kernels.LEFT_SHIFT),
    )
    return keys | shifted[0] | shifted[1]


def _threshold_keys(thresholds: Floats) -> Keys:
    """Return keys that float32 values stay below or reach exactly where they are <= the thresholds."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    above = rounded > thresholds
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    bits = (rounded + np.float32(0.0)).view(np.uint32)  # -0.0 becomes 0.0: they are equal, their bits are not
    return np.where(bits >> 31, ~bits, bits | kernels.ZERO_KEY).astype(np.uint32)


def _knees(model: ModelText, tree_of_split: Ints, split_starts: Ints, leaf_starts: Ints) -> Ints:
    trees = len(model.leaves)
    rows = model.leaf_count if model.leaf_count.any() else np.ones_like(model.leaf_count)
    total = np.bincount(np.repeat(np.arange(trees), model.leaves), rows, trees)
    arrived, knees = np.zeros(trees), np.zeros(trees, np.int64)
    level, depth = split_starts[:-1][model.leaves > 1], 0
    while len(level):
        depth += 1
        children = np.concatenate([model.left[level], model.right[level]])
        of_tree = np.tile(tree_of_split[level], 2)
        ends = children < 0
        arrived += np.bincount(of_tree[ends], rows[(leaf_starts[of_tree] + ~children)[ends]], trees)
        knees[(knees == 0) & (arrived >= _ARRIVED * total)] = depth
        level = (split_starts[of_tree] + children)[~ends]
    return np.maximum(knees, 1)


def _columns(
    model: ModelText, tree_of_split: Ints, is_category: NDArray[np.bool_]
) -> tuple[Ints, Columns, NDArray[np.uint64]]:
    """Return each split's column, the columns, and where the set of each categorical split begins."""
    missing = model.decision >> _MISSING_SHIFT
    goes_left = (model.decision & _MISSING_GOES_LEFT) > 0
    if (missing > _NAN_MISSING).any():
        raise UnsupportedModel("A split knows another kind of missing value than none, zero and NaN.")
    # What is missing and where it goes make a column: 0 nothing, 1 and 2 zero, 3 and 4 NaN, to the right and left.
    ways = np.where(missing == _NOTHING_MISSING, 0, 2 * missing - 1 + goes_left)
    numerical, column_of_numerical = np.unique(
        np.stack([model.feature, ways])[:, ~is_category], axis=1, return_inverse=True
    )
    if not numerical.shape[1]:  # leaves look at column 0, and must find a key there
        numerical = np.zeros((2, 1), np.int64)
    categorical, column_of_categorical = np.unique(model.feature[is_category], return_inverse=True)
    column = np.empty(len(model.feature), np.int64)
    column[~is_category] = column_of_numerical.ravel()  # NumPy 2.0 gives it as a row
    column[is_category] = numerical.shape[1] + column_of_categorical
    zero, left, right = kernels.ZERO_KEY, kernels.GOES_LEFT, kernels.GOES_RIGHT
    when_missing = np.array([zero, right, left, right, left], np.uint32)[numerical[1]]
    when_zero = np.array([zero, right, left, zero, zero], np.uint32)[numerical[1]]
    unused = np.zeros(len(categorical), np.uint32)
    own_set, tree = model.threshold[is_category], tree_of_split[is_category]
    if not ((own_set >= 0) & (own_set < model.sets[tree])).all():
        raise UnsupportedModel("A split asks for a set of categories that its tree does not have.")
    set_of_split = _starts(model.sets)[tree] + own_set.astype(np.int64)
    starts, categories, sets, places = _categories(model, set_of_split, column_of_categorical)
    columns = Columns(
        feature=np.concatenate([numerical[0], categorical]),
        when_missing=np.concatenate([when_missing, unused]),
        when_zero=np.concatenate([when_zero, unused]),
        numerical=numerical.shape[1],
        category_starts=starts,
        categories=categories,
        sets=sets,
    )
    return column, columns, places


def _categories(
    model: ModelText, set_of_split: Ints, column_of_split: Ints
) -> tuple[Ints, Ints, Keys, NDArray[np.uint64]]:
    """Return where each column's categories begin, these, the sets as bits over them, and where each split's is."""
    word_starts = _starts(model.set_words)
    members = np.flatnonzero(np.unpackbits(model.words.view(np.uint8), bitorder="little"))
    set_of_member = np.searchsorted(word_starts, members // 32, side="right") - 1
    category = members - 32 * word_starts[set_of_member]
    starts, known, sets = [0], [np.zeros(0, np.int64)], [np.zeros(1, np.uint32)]
    places, length = np.zeros(len(set_of_split), np.uint64), 1
    for number in range(int(column_of_split.max(initial=-1)) + 1):
        mine = np.flatnonzero(column_of_split == number)
        splits_of_set = np.full(len(model.set_words), -1)
        splits_of_set[set_of_split[mine]] = np.arange(len(mine))
        belongs = splits_of_set[set_of_member] >= 0
        names = np.unique(category[belongs])
        # One bit more than there are categories: it is never set, and any other category looks there.
        width = len(names) // 32 + 1
        bits = np.zeros((len(mine), 32 * width), np.bool_)
        bits[splits_of_set[set_of_member[belongs]], np.searchsorted(names, category[belongs])] = True
        sets.append(np.packbits(bits, axis=1, bitorder="little").view(np.uint32).ravel())
        places[mine] = length + width * np.arange(len(mine))
        known.append(names)
        starts.append(starts[-1] + len(names))
        length += width * len(mine)
    return np.array(starts, np.int64), np.concatenate(known), np.concatenate(sets), places


def _starts(sizes: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
