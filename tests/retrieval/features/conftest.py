"""Repositories that are built, applied and materialised once, since importing Feast alone takes seconds."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from explorank.retrieval.features import FeatureAccess, build_features, copy_repository
from explorank.retrieval.features.sample import build_sample

SAMPLE_TIME = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def sample_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of the package, materialised as of 2026-02-01."""
    folder = copy_repository(tmp_path_factory.mktemp("sample") / "repository")
    build_sample(folder)
    access = FeatureAccess(folder)
    access.apply()
    access.materialize(SAMPLE_TIME)
    return folder


@pytest.fixture(scope="session")
def access(sample_repository: Path) -> FeatureAccess:
    """Access to the sample, which no test may change."""
    return FeatureAccess(sample_repository, as_of=SAMPLE_TIME.timestamp())


@pytest.fixture
def own_repository(sample_repository: Path, tmp_path: Path) -> Path:
    """A copy of the materialised sample that a test may change."""
    return Path(shutil.copytree(sample_repository, tmp_path / "repository"))


@pytest.fixture(scope="session")
def random_events() -> pd.DataFrame:
    """Interactions of 90 days, many at one instant, some within a second."""
    generator = np.random.default_rng(20260201)
    seconds = np.sort(generator.integers(0, 90 * 86_400, size=150)).astype(float)
    seconds[20:60:2] = seconds[21:60:2]  # pairs at one instant
    seconds[80:100] += 0.25
    return pd.DataFrame(
        {
            "user_id": generator.integers(0, 12, size=150),
            "item_id": generator.choice(list("abcdefgh"), size=150),
            "timestamp": 1_700_000_000 + seconds,
            "value": generator.integers(1, 11, size=150) / 2,
        }
    )


@pytest.fixture(scope="session")
def random_repository(random_events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of `random_events`, applied; histories hold five items."""
    folder = copy_repository(tmp_path_factory.mktemp("random") / "repository")
    items = pd.DataFrame({"item_id": list("abcdefgh"), "text": "something"})
    build_features(random_events, items, None, folder, history_length=5, positive_from=3.0)
    FeatureAccess(folder).apply()
    return folder
