"""The mapping from content to collaborative factors."""

from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import CorruptArtefact, InvalidOption, InvalidVectors
from explorank.retrieval.collaborative import ContentMapping


def test_a_linear_truth_is_found() -> None:
    generator = np.random.default_rng(0)
    content, truth = generator.normal(size=(200, 6)), generator.normal(size=(6, 3))
    mapping = ContentMapping.fit(content, content @ truth + 2.0, l2=1e-6)

    new = generator.normal(size=(5, 6))
    np.testing.assert_allclose(mapping.factors(new), new @ truth + 2.0, atol=1e-6)


def test_items_without_confidence_teach_nothing() -> None:
    generator = np.random.default_rng(1)
    content = generator.normal(size=(50, 2))
    factors = content @ [[1.0], [2.0]]
    factors[25:] = 1e3
    mapping = ContentMapping.fit(content, factors, l2=1e-6, confidence=[1.0] * 25 + [0.0] * 25)

    np.testing.assert_allclose(mapping.factors([[1.0, 1.0]]), [[3.0]], atol=1e-4)


def test_saved_and_damaged(tmp_path: Path) -> None:
    mapping = ContentMapping.fit(np.eye(3), np.eye(3))
    mapping.save(tmp_path)
    assert ContentMapping.load(tmp_path).factors(np.eye(3)).tolist() == mapping.factors(np.eye(3)).tolist()

    (tmp_path / "weights.npy").write_bytes(b"not an array")
    with pytest.raises(CorruptArtefact, match=r"weights\.npy"):
        ContentMapping.load(tmp_path)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidVectors, match="same items"):
        ContentMapping.fit(np.eye(3), np.eye(2))
    with pytest.raises(InvalidOption, match="l2=0"):
        ContentMapping.fit(np.eye(3), np.eye(3), l2=0)
    with pytest.raises(InvalidVectors, match="different encoders"):
        ContentMapping.fit(np.eye(3), np.eye(3)).factors(np.eye(2))
