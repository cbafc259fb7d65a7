"""Looking ids up in an open-addressing hash table, compiled: 300 ids among a million take some 20 µs.

An id is a row of 32-bit code units padded with zeros: a text's characters, or the two halves of an integer. What
is padding does not count, so rows of different widths compare. A slot holds a label, or `EMPTY`.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._compiled import compiled

EMPTY: Final = -1
Codes = NDArray[np.uint32]

_BASIS: Final = np.uint64(14_695_981_039_346_656_037)
_PRIME: Final = np.uint64(1_099_511_628_211)
_MIX: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
_HALF: Final = np.uint64(32)
_ZERO: Final = np.uint32(0)


@cache
def warm_up() -> None:
    """Compile everything, or load what was compiled before, so that no request waits for it."""
    ids, slots, bits = np.zeros((1, 1), np.uint32), np.full(2, EMPTY, np.int32), np.zeros(1, np.uint8)
    labels = np.zeros(1, np.int64)
    put(ids, slots, labels)
    find_rows(ids, slots, ids, labels)
    find_texts(ids, slots, np.frombuffer(bytes(4), np.uint32), labels)
    set_bits(bits, labels)
    clear_bits(bits, live_labels(labels, bits))
    similarities = np.zeros((1, 1), np.float32)
    unite(labels, similarities[0], labels + 1, labels.copy(), np.zeros(1, np.uint64), similarities[0])
    first_allowed(similarities, labels[None, :], bits, labels, similarities, labels[None, :].copy())


@compiled
def _slot(codes: Codes, start: int, end: int, mask: int) -> np.int64:
    """Return where the id in `codes[start:end]` belongs: FNV-1a over pairs, its high bits folded into the low ones."""
    hashed = _BASIS
    for place in range(start, end - 1, 2):
        hashed = (hashed ^ (np.uint64(codes[place]) | (np.uint64(codes[place + 1]) << _HALF))) * _PRIME
    if (end - start) & 1:
        hashed = (hashed ^ np.uint64(codes[end - 1])) * _PRIME
    hashed = (hashed ^ (hashed >> _HALF)) * _MIX
    return np.int64((hashed ^ (hashed >> _HALF)) & np.uint64(mask))


@compiled
def _end(codes: Codes, start: int, end: int) -> int:
    while end > start and codes[end - 1] == _ZERO:
        end -= 1
    return end


@compiled
def _equal(stored: Codes, codes: Codes, start: int, end: int) -> bool:
    length = end - start
    if length > len(stored):
        return False
    different = np.uint32(0)  # looked at in the end, so that the loops have no branches
    for place in range(length):
        different |= stored[place] ^ codes[start + place]
    for place in range(length, len(stored)):
        different |= stored[place]
    return bool(different == _ZERO)


@compiled
def _place(ids: NDArray[np.uint32], slots: NDArray[np.int32], codes: Codes, start: int, end: int) -> np.int64:
    """Return the slot that holds the id, or else the empty one where it would be put."""
    mask = len(slots) - 1
    place = _slot(codes, start, end, mask)
    while slots[place] != EMPTY and not _equal(ids[slots[place]], codes, start, end):
        place = (place + 1) & mask
    return place


@compiled
def put(ids: NDArray[np.uint32], slots: NDArray[np.int32], labels: NDArray[np.int64]) -> int:
    """Enter the ids (n, width) at `labels` into `slots`; the newest label of an id counts.

    Return how many ids were in there already.
    """
    known = 0
    for label in labels:
        row = ids[label]
        place = _place(ids, slots, row, 0, _end(row, 0, len(row)))
        known += slots[place] != EMPTY
        slots[place] = label
    return known


@compiled
def _find(
    ids: NDArray[np.uint32],
    slots: NDArray[np.int32],
    codes: Codes,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    # Step by step over all of them, so that the processor waits for many cache lines at once and not for each.
    mask = len(slots) - 1
    places = np.empty(len(found), np.int64)
    for number in range(len(found)):
        places[number] = _slot(codes, starts[number], ends[number], mask)
    for number in range(len(found)):
        found[number] = slots[places[number]]
    similar = np.empty(len(found), np.bool_)
    for number in range(len(found)):
        label, start = found[number], starts[number]
        similar[number] = label == EMPTY or ids[label, 0] == (codes[start] if start < ends[number] else _ZERO)
    for number in range(len(found)):
        start, end = starts[number], ends[number]
        if found[number] == EMPTY or (similar[number] and _equal(ids[found[number]], codes, start, end)):
            continue
        found[number] = slots[_place(ids, slots, codes, start, end)]


@compiled
def find_rows(
    ids: NDArray[np.uint32], slots: NDArray[np.int32], wanted: NDArray[np.uint32], found: NDArray[np.int64]
) -> None:
    """Write the label of each row of `wanted` (m, width) into `found` (m,), `EMPTY` for unknown ones."""
    width = wanted.shape[1]
    codes = wanted.ravel()
    starts, ends = np.empty(len(found), np.int64), np.empty(len(found), np.int64)
    for number in range(len(found)):
        starts[number] = number * width
        ends[number] = _end(codes, starts[number], starts[number] + width)
    _find(ids, slots, codes, starts, ends, found)


@compiled
def find_texts(
    ids: NDArray[np.uint32], slots: NDArray[np.int32], wanted: Codes, found: NDArray[np.int64]
) -> None:
    """Write the label of each text of `wanted`, where zeros part them, into `found`; `EMPTY` for unknown ones."""
    starts, ends = np.empty(len(found), np.int64), np.empty(len(found), np.int64)
    end = -1
    for number in range(len(found)):
        end += 1
        starts[number] = end
        while end < len(wanted) and wanted[end] != _ZERO:
            end += 1
        ends[number] = end
    _find(ids, slots, wanted, starts, ends, found)


@compiled
def clear_bits(bits: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Clear the bits of `labels` in `bits`, the lowest bit of a byte first."""
    for label in labels:
        bits[label >> 3] &= ~np.uint8(1 << (label & 7))


@compiled
def set_bits(bits: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Set the bits of `labels` in `bits`, the lowest bit of a byte first."""
    for label in labels:
        bits[label >> 3] |= np.uint8(1 << (label & 7))


@compiled
def place_in_set(members: NDArray[np.int64], label: int) -> np.int64:
    """Return where `label` is in the hash table `members`, or -1 - where it would be put."""
    mask = len(members) - 1
    place = np.int64((np.uint64(label) * _MIX) >> _HALF) & mask
    while members[place] != EMPTY:
        if members[place] == label:
            return place
        place = (place + 1) & mask
    return -1 - place


@compiled
def empty_set(count: int) -> NDArray[np.int64]:
    size = 16
    while size < 4 * count:
        size *= 2
    return np.full(size, EMPTY, np.int64)


@compiled
def live_labels(labels: NDArray[np.int64], live: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return those of `labels` (m,) that are live, each once; -1 stands for none."""
    kept = np.empty(len(labels), np.int64)
    members = empty_set(len(labels))
    count = 0
    for label in labels:
        if label < 0 or (live[label >> 3] >> np.uint8(label & 7)) & np.uint8(1) == 0:
            continue
        place = place_in_set(members, label)
        if place < 0:
            members[-1 - place] = label
            kept[count] = label
            count += 1
    return kept[:count]


@compiled
def first_allowed(
    similarities: NDArray[np.float32],
    labels: NDArray[np.int64],
    live: NDArray[np.uint8],
    excluded: NDArray[np.int64],
    kept_similarities: NDArray[np.float32],
    kept_labels: NDArray[np.int64],
) -> bool:
    """Keep of each row (q, m) the first k that are live and not `excluded`, whose labels all differ.

    `kept_similarities` and `kept_labels` (q, k) take them. Return False where a row has fewer; the label -1
    stands for no neighbour.
    """
    k = kept_labels.shape[1]
    members = empty_set(len(excluded))
    for label in excluded:
        members[-1 - place_in_set(members, label)] = label
    for row in range(len(labels)):
        kept = 0
        for place in range(labels.shape[1]):
            label = labels[row, place]
            if kept == k or label < 0:
                break
            if (live[label >> 3] >> np.uint8(label & 7)) & np.uint8(1) == 0 or place_in_set(
                members, label
            ) >= 0:
                continue
            kept_similarities[row, kept] = similarities[row, place]
            kept_labels[row, kept] = label
            kept += 1
        if kept < k:
            return False
    return True


@compiled
def unite(
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    ends: NDArray[np.int64],
    kept: NDArray[np.int64],
    sources: NDArray[np.uint64],
    best: NDArray[np.float32],
) -> int:
    """Write each of `rows` (m,) once to `kept`, in order of first appearance, and return how many there are.

    `ends` says where the parts of `rows` end; bit j of `sources` is set where part j holds the row, and `best` is the
    highest of its scores that is a number.
    """
    members = empty_set(len(rows))
    numbers = np.empty(len(members), np.int64)
    count = start = 0
    for part in range(len(ends)):
        bit = np.uint64(1) << np.uint64(part)
        for number in range(start, ends[part]):
            row, score = rows[number], scores[number]
            place = place_in_set(members, row)
            if place < 0:
                place = -1 - place
                members[place], numbers[place] = row, count
                kept[count], best[count], sources[count] = row, score, np.uint64(0)
                count += 1
            at = numbers[place]
            if score > best[at] or np.isnan(best[at]):
                best[at] = score
            sources[at] |= bit
        start = ends[part]
    return count
