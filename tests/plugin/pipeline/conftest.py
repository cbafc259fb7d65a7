"""A catalogue small enough to verify by hand, and the prepared installation with the events it was made from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from explorank.pipeline.tables import past_interactions
from explorank.retrieval import Catalogue
from explorank.settings import Settings, load_settings


@pytest.fixture
def settings(installation: Path) -> Settings:
    return load_settings(installation / "explorank.yaml")


@pytest.fixture(scope="session")
def events(installation_folder: Path) -> pd.DataFrame:
    return past_interactions(pd.read_parquet(installation_folder / "interactions.parquet"))


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Twelve items i0 to i11, each a direction of its own."""
    return Catalogue.build([f"i{number}" for number in range(12)], np.eye(12, dtype=np.float32))
