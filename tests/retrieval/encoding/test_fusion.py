"""Vectors of several sources joined: weights and graphs whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from explorank.retrieval import InvalidOption, InvalidTable, InvalidVectors
from explorank.retrieval.encoding import concatenate, knowledge_vectors


def unit(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_cosine_is_the_weighted_mean_of_the_cosines() -> None:
    text, image, sound = unit(5, 8, 1), unit(5, 4, 2), unit(5, 3, 3)
    joined = concatenate(text, {"image": 3.0 * image, "sound": sound}, {"image": 0.3, "sound": 0.2})
    expected = 0.5 * text @ text.T + 0.3 * image @ image.T + 0.2 * sound @ sound.T
    np.testing.assert_allclose(joined @ joined.T, expected, atol=1e-6)


@pytest.mark.parametrize("unknown", [0.0, np.nan])
def test_what_is_unknown_leaves_the_text_to_speak(unknown: float) -> None:
    text, image = unit(3, 8, 1), unit(3, 4, 2)
    image[1] = unknown
    joined = concatenate(text, {"image": image}, {"image": 0.4})
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(joined[1], [*text[1], 0, 0, 0, 0], atol=1e-6)


def test_weights_and_rows_that_do_not_fit_are_refused() -> None:
    text = unit(3, 8, 1)
    for weights in ({}, {"image": 1.0}, {"image": -0.1}, {"sound": 0.2}):
        with pytest.raises(InvalidOption, match="each of these needs a weight"):
            concatenate(text, {"image": unit(3, 4, 2)}, weights)
    with pytest.raises(InvalidVectors, match="one row per item"):
        concatenate(text, {"image": unit(4, 4, 2)}, {"image": 0.2})


TRIPLES = [
    *((f"film-{number}", "made_by", f"maker-{number % 2}") for number in range(8)),
    *((f"maker-{number % 2}", "famous_for", f"film-{number}") for number in range(8)),
    *((f"film-{number}", "genre", f"genre-{number % 2}-{number % 4 // 2}") for number in range(8)),
    ("film-0", "award", "of its own"),
    ("film-9", "award", "another of its own"),
]
ITEMS = [f"item-{number}" for number in range(10)]
ENTITIES = {f"item-{number}": f"film-{number}" for number in range(10) if number != 8}


def test_a_graph_puts_together_what_shares_facts() -> None:
    vectors = knowledge_vectors(TRIPLES, ITEMS, ENTITIES, dim=4)
    assert vectors.shape == (10, 4)
    assert vectors.dtype == np.float32
    likeness = vectors @ vectors.T
    even, odd = np.arange(0, 8, 2), np.arange(1, 8, 2)
    assert likeness[np.ix_(even, even)].min() > likeness[np.ix_(even, odd)].max() + 0.1
    np.testing.assert_allclose(np.linalg.norm(vectors[:8], axis=1), 1, atol=1e-6)
    assert not vectors[8:].any()  # one without an entity, one without a fact that another item shares


def test_the_order_of_the_triples_does_not_matter() -> None:
    forward, backward = (
        knowledge_vectors(triples, ITEMS, ENTITIES, dim=4) for triples in (TRIPLES, TRIPLES[::-1])
    )
    np.testing.assert_allclose(forward @ forward.T, backward @ backward.T, atol=1e-5)


def test_graphs_that_say_nothing_are_refused() -> None:
    with pytest.raises(InvalidTable, match="No two items share a fact"):
        knowledge_vectors([("film-0", "award", "x")], ITEMS, ENTITIES)
    with pytest.raises(InvalidOption, match="dim=64 is not between 1 and"):
        knowledge_vectors(TRIPLES, ITEMS, ENTITIES, dim=64)
