"""The compiled walk through a forest: sixteen rows at a time, in step, down one tree after another.

A node is one 64-bit word, so that a step costs two loads, a comparison and an addition, and nothing branches:

    bits 46 to 63   where the node's column begins in a block of rows
    bits 32 to 45   the position of its left child within the tree; the right one stands beside it
    bits  0 to 31   its threshold, as a key

The next node is `left + (key of the row > threshold)`. A leaf's left child is the leaf itself and its threshold
the highest key there is, so a row that has arrived stays. Keys are float32 values whose bits are changed so that
unsigned integers sort as the floats do; the lowest and the highest key belong to no float, and stand for "goes
left at every node" and "goes right at every node", which is how missing values find their way.

In a column of categories the key is instead the number of the row's category among those the forest names, and the
threshold the place of the node's set of bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np
from numba import types

from explorank.rankers._prefetch import prefetch
from explorank.rankers.errors import UnsupportedModel

LANES: Final = 16
"""Rows that walk in step: enough to hide the time a load takes, few enough for their places to stay in registers."""

COLUMN_SHIFT: Final = 46
LEFT_SHIFT: Final = 32
MOST_NODES: Final = 1 << (COLUMN_SHIFT - LEFT_SHIFT)
"""Nodes of one tree."""
MOST_COLUMNS: Final = (1 << (64 - COLUMN_SHIFT)) // LANES

GOES_LEFT: Final = 0
ZERO_KEY: Final = 0x80000000
GOES_RIGHT: Final = 0xFFFFFFFF

IDENTITY: Final = 0
SIGNED_SQUARE: Final = 1
EXPONENTIAL: Final = 2
SIGMOID: Final = 3
LOG_ONE_PLUS_EXPONENTIAL: Final = 4
SOFTMAX: Final = 5

# Numba computes in floats where signed and unsigned integers meet: all that the walk counts with is unsigned.
_KEY_MASK: Final = np.uint64(0xFFFFFFFF)
_LEFT_MASK: Final = np.uint64(MOST_NODES - 1)
_LEFT_SHIFT: Final = np.uint64(LEFT_SHIFT)
_COLUMN_SHIFT: Final = np.uint64(COLUMN_SHIFT)
_ROOT: Final = np.uint64(0)
_LEAF: Final = np.uint32(GOES_RIGHT)
_SIGN: Final = np.uint32(0x80000000)
_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)
_INFINITY: Final = np.uint32(0x7F800000)
_WORD_SHIFT: Final = np.uint32(5)
_WORD_MASK: Final = np.uint32(31)
_LARGEST_ZERO: Final = np.uint32(0x0554AD2E)
"""The bits of 1e-35 as float32: LightGBM takes what lies no further from zero for zero."""

_BLOCKS_AT_ONCE: Final = 32
"""512 rows: their columns stay in the second cache, and scratch space does not grow with the request."""
_NODES_AT_ONCE: Final = 4_096
"""Trees of 32 KiB together walk all blocks before the next ones do, so that a large forest is read once."""
_NODES_PER_LINE: Final = 8
"""A cache line holds so many nodes, and as many leaves' values."""


@numba.njit
def _lay_out_block(features, bits, first, columns, categories, block):  # type: ignore[no-untyped-def]  # compiled
    """Write the keys of 16 rows from `first` on, column by column; the last row fills up where fewer are left."""
    feature_of, when_missing, when_zero, numerical, category_starts = columns
    last = features.shape[0] - 1
    for column in range(len(feature_of)):
        feature = feature_of[column]
        if column < numerical:
            for lane in range(LANES):
                # As unsigned integers, or numba would ask each time whether they count from the end.
                value = bits[np.uint64(min(first + lane, last)), np.uint64(feature)]
                magnitude = value & _MAGNITUDE
                key = ~value if value & _SIGN else value | _SIGN
                key = when_zero[column] if magnitude <= _LARGEST_ZERO else key
                place = np.uint64(column * LANES + lane)
                block[place] = when_missing[column] if magnitude > _INFINITY else key
        else:
            begin = category_starts[column - numerical]
            known = categories[begin : category_starts[column - numerical + 1]]
            for lane in range(LANES):
                number = len(known)
                value = features[min(first + lane, last), feature]
                # As a C cast does: -0.5 is category 0. What no int can hold is in no set, and neither is NaN.
                if -1.0 < value < 2147483648.0:
                    code = np.int64(value)
                    found = int(np.searchsorted(known, code))
                    if found < number and known[found] == code:
                        number = found
                block[column * LANES + lane] = np.uint32(number)


@numba.njit
def _step(tree, block, place, lane, sets, categorical_from):  # type: ignore[no-untyped-def]  # compiled
    """Return where a row stands after the node at `place`."""
    node = tree[place]
    begin = node >> _COLUMN_SHIFT
    threshold = np.uint32(node & _KEY_MASK)
    key = block[begin + lane]
    left = (node >> _LEFT_SHIFT) & _LEFT_MASK
    if sets is None:
        return left + np.uint64(key > threshold)
    # Both questions are asked and one answer is taken, because which it is cannot be foreseen.
    is_category = begin >= categorical_from
    word = sets[threshold + (key >> _WORD_SHIFT) if is_category else np.uint32(0)]
    absent = ~(word >> (key & _WORD_MASK)) & np.uint32(1)
    return left + np.uint64(absent if is_category else np.uint32(key > threshold))


@numba.njit(inline="always")  # a call for each tree and block would count the references of what it is given
def _walk(tree, leaf_values, block, knee, sums, sets, categorical_from):  # type: ignore[no-untyped-def]  # compiled
    """Add to each of 16 sums the value of the leaf that its row ends in.

    Nobody looks whether all have arrived before `knee` steps. The lanes are written out because only so they
    stay in registers; a loop over an array of places takes a quarter longer.
    """
    a = b = c = d = e = f = g = h = i = j = k = m = n = o = p = q = _ROOT
    while True:
        a = _step(tree, block, a, np.uint64(0), sets, categorical_from)
        b = _step(tree, block, b, np.uint64(1), sets, categorical_from)
        c = _step(tree, block, c, np.uint64(2), sets, categorical_from)
        d = _step(tree, block, d, np.uint64(3), sets, categorical_from)
        e = _step(tree, block, e, np.uint64(4), sets, categorical_from)
        f = _step(tree, block, f, np.uint64(5), sets, categorical_from)
        g = _step(tree, block, g, np.uint64(6), sets, categorical_from)
        h = _step(tree, block, h, np.uint64(7), sets, categorical_from)
        i = _step(tree, block, i, np.uint64(8), sets, categorical_from)
        j = _step(tree, block, j, np.uint64(9), sets, categorical_from)
        k = _step(tree, block, k, np.uint64(10), sets, categorical_from)
        m = _step(tree, block, m, np.uint64(11), sets, categorical_from)
        n = _step(tree, block, n, np.uint64(12), sets, categorical_from)
        o = _step(tree, block, o, np.uint64(13), sets, categorical_from)
        p = _step(tree, block, p, np.uint64(14), sets, categorical_from)
        q = _step(tree, block, q, np.uint64(15), sets, categorical_from)
        knee -= 1
        if knee <= 0:
            first_half = tree[a] & tree[b] & tree[c] & tree[d] & tree[e] & tree[f] & tree[g] & tree[h]
            second_half = tree[i] & tree[j] & tree[k] & tree[m] & tree[n] & tree[o] & tree[p] & tree[q]
            if np.uint32(first_half & second_half & _KEY_MASK) == _LEAF:
                break
    sums[0] += leaf_values[a]
    sums[1] += leaf_values[b]
    sums[2] += leaf_values[c]
    sums[3] += leaf_values[d]
    sums[4] += leaf_values[e]
    sums[5] += leaf_values[f]
    sums[6] += leaf_values[g]
    sums[7] += leaf_values[h]
    sums[8] += leaf_values[i]
    sums[9] += leaf_values[j]
    sums[10] += leaf_values[k]
    sums[11] += leaf_values[m]
    sums[12] += leaf_values[n]
    sums[13] += leaf_values[o]
    sums[14] += leaf_values[p]
    sums[15] += leaf_values[q]


@numba.njit
def _ask_for(nodes, leaf_values, first, part, parts):  # type: ignore[no-untyped-def]  # compiled
    """Have one of so many parts of the next trees loaded, whose nodes stand from `first` on, while others walk.

    A request's search has emptied the caches: 500 rows down 300 trees of 63 leaves then take 1.06 ms instead of 1.19.
    """
    size = (_NODES_AT_ONCE + parts - 1) // parts
    begin = first + part * size
    for node in range(begin, min(begin + size, len(nodes)), _NODES_PER_LINE):
        prefetch(nodes, node)
        prefetch(leaf_values, node)


@numba.njit
def _link(scores, link, scale):  # type: ignore[no-untyped-def]  # compiled
    """Turn raw scores of one row, (classes,), into what LightGBM predicts, by its own formulas."""
    if link == SOFTMAX:
        highest, total = scores.max(), 0.0
        for number in range(len(scores)):
            scores[number] = math.exp(scores[number] - highest)
            total += scores[number]
        for number in range(len(scores)):
            scores[number] /= total
        return
    for number in range(len(scores)):
        raw = scores[number]
        if link == SIGMOID:
            scores[number] = 1.0 / (1.0 + math.exp(-scale * raw))
        elif link == EXPONENTIAL:
            scores[number] = math.exp(raw)
        elif link == LOG_ONE_PLUS_EXPONENTIAL:
            scores[number] = math.log1p(math.exp(raw))
        elif link == SIGNED_SQUARE:
            sign = 1.0 if raw > 0.0 else -1.0 if raw < 0.0 else 0.0
            scores[number] = sign * raw * raw


def _predict(features, bits, nodes, leaf_values, trees, columns, categories, sets, output, scores):  # type: ignore[no-untyped-def]  # compiled
    """Fill `scores` (n, classes), zeros at first, for `features` (n, d), of which `bits` are the bits."""
    starts, knees = trees
    categorical_from = np.uint64(columns[3] * LANES)
    rounds, link, scale = output
    n, classes = scores.shape
    width = len(columns[0]) * LANES
    rows_at_once = _BLOCKS_AT_ONCE * LANES
    blocks = np.empty((min(_BLOCKS_AT_ONCE, (n + LANES - 1) // LANES), width), np.uint32)
    sums = np.empty((len(blocks), classes, LANES))
    for chunk in range(0, n, rows_at_once):
        rows = min(rows_at_once, n - chunk)
        filled = (rows + LANES - 1) // LANES
        for number in range(filled):
            _ask_for(nodes, leaf_values, 0, number, filled)
            _lay_out_block(features, bits, chunk + number * LANES, columns, categories, blocks[number])
        sums[:] = 0.0
        begin = 0
        while begin < len(knees):
            end = begin + 1
            while end < len(knees) and starts[end + 1] - starts[begin] <= _NODES_AT_ONCE:
                end += 1
            for number in range(filled):
                _ask_for(nodes, leaf_values, starts[end], number, filled)
                block = blocks[number]
                for at in range(begin, end):
                    tree = nodes[starts[at] : starts[at + 1]]
                    values = leaf_values[starts[at] : starts[at + 1]]
                    row_sums = sums[number, at % classes]
                    _walk(tree, values, block, knees[at], row_sums, sets, categorical_from)
            begin = end
        for row in range(rows):
            for number in range(classes):
                total = sums[row // LANES, number, row % LANES]
                scores[chunk + row, number] = total / rounds if rounds >= 0.0 else total
            _link(scores[chunk + row], link, scale)


_INTEGERS: Final = types.Array(types.int64, 1, "C", readonly=True)
_KEYS: Final = types.Array(types.uint32, 1, "C", readonly=True)


def _signature(sets: types.Type) -> types.Type:
    return types.void(
        types.Array(types.float32, 2, "A", readonly=True),
        types.Array(types.uint32, 2, "A", readonly=True),
        types.Array(types.uint64, 1, "C", readonly=True),
        types.Array(types.float64, 1, "C", readonly=True),
        types.UniTuple(_INTEGERS, 2),
        types.Tuple((_INTEGERS, _KEYS, _KEYS, types.int64, _INTEGERS)),
        _INTEGERS,
        sets,
        types.Tuple((types.float64, types.int64, types.float64)),
        types.Array(types.float64, 2, "C"),
    )


@functools.cache
def compiled_predict(*, categories: bool) -> Callable[..., None]:
    """Return `_predict`, compiled for one signature, so that no request compiles anything.

    Without categories it takes None for their sets, and the walk that asks for them is left out: beside it the
    other one is an eighth slower. The code is kept beside this module, or in the user's cache where
    that cannot be written, and compiled anew by each process where neither can: a few seconds. Raises
    `UnsupportedModel` where compilation is switched off.
    """
    if numba.config.DISABLE_JIT:
        raise UnsupportedModel("NUMBA_DISABLE_JIT is set, so that nothing is compiled. Unset it.")
    signature = _signature(_KEYS if categories else types.none)
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(signature, cache=True, **options)(_predict)  # type: ignore[no-any-return]  # numba is untyped
    except (OSError, RuntimeError):  # a full disk; numba's word for "nowhere to keep it"
        return numba.njit(signature, **options)(_predict)  # type: ignore[no-any-return]  # the same
