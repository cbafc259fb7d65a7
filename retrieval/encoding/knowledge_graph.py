"""Vectors of items from what a knowledge graph says of them: who made a film, what it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from explorank.retrieval.errors import InvalidOption, InvalidTable


def knowledge_vectors(
    triples: Iterable[tuple[str, str, str]],
    items: Sequence[str],
    entities: Mapping[str, str],
    *,
    dim: int = 64,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return a vector (n, dim) of length 1 for each of `items`, zero for one that the graph says nothing of.

    `triples` are (head, relation, tail), `entities` maps items to theirs. A fact of an item is a relation with the
    entity at its other end, heads and tails told apart. The items' facts, weighted by how few items share them
    (log n / count, as inverse document frequency), are reduced to `dim` dimensions by a truncated singular value
    decomposition: latent semantic analysis (Deerwester et al., 1990) over facts in place of words. Facts of one item
    alone tie it to nothing and are left out.

    Raises `InvalidTable` where no two items share a fact, `InvalidOption` where `dim` is not below the number of shared
    facts and of items.
    """
    rows_of: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        if item in entities:
            rows_of.setdefault(entities[item], []).append(row)
    facts: dict[tuple[str, str, str], int] = {}
    places: set[tuple[int, int]] = set()
    for head, relation, tail in triples:
        for own, other, direction in ((head, tail, "to"), (tail, head, "from")):
            for row in rows_of.get(own, ()):
                places.add((row, facts.setdefault((direction, relation, other), len(facts))))
    table = np.array(sorted(places), np.int64).reshape(-1, 2)
    counts = np.bincount(table[:, 1], minlength=len(facts))
    table = table[counts[table[:, 1]] > 1]
    if not len(table):
        raise InvalidTable(
            "No two items share a fact of the graph, so their vectors would say nothing. Check that `entities` maps "
            "item ids to the names that the triples use."
        )
    shared, columns = np.unique(table[:, 1], return_inverse=True)
    if not 0 < dim < min(len(items), len(shared)):
        raise InvalidOption(
            f"dim={dim} is not between 1 and {min(len(items), len(shared)) - 1}: {len(items)} items share "
            f"{len(shared)} facts. Set fewer dimensions."
        )
    weights = np.log(len(items) / counts[shared])
    matrix = sparse.csr_array((weights[columns], (table[:, 0], columns)), shape=(len(items), len(shared)))
    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    left, values, _ = svds(matrix, k=dim, v0=start, solver="arpack")
    vectors = left * values
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.zeros((len(items), 1), np.bool_)
    known[table[:, 0]] = True
    unit = np.zeros(vectors.shape, np.float32)
    np.divide(vectors, lengths, out=unit, where=known & (lengths > 1e-9), casting="same_kind")
    return unit
