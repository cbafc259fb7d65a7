"""A catalogue small enough to verify by hand."""

import numpy as np
import pytest

from explorank.retrieval import Catalogue


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Twelve items i0 to i11, each a direction of its own."""
    return Catalogue.build([f"i{number}" for number in range(12)], np.eye(12, dtype=np.float32))
