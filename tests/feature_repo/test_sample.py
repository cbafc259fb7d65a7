"""The sample data that the repository carries, and how it got there."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from explorank.retrieval.features import copy_repository
from explorank.retrieval.features.sample import build_sample

REPOSITORY = Path(__file__).parents[2] / "feature_repo"
VIEWS = ("item_content", "item_statistics", "user_history", "user_profile", "user_statistics")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_repository(tmp_path_factory.mktemp("rebuilt") / "repository")
    for file in (folder / "data").iterdir():
        file.unlink()
    build_sample(folder)
    return folder / "data"


@pytest.mark.parametrize("view", VIEWS)
def test_the_committed_rows_are_those_that_the_builder_writes(rebuilt: Path, view: str) -> None:
    committed = pq.read_table(REPOSITORY / "data" / f"{view}.parquet")
    written = pq.read_table(rebuilt / f"{view}.parquet")
    assert written.schema.equals(committed.schema, check_metadata=True)
    assert written.equals(committed)


def test_the_committed_vocabularies_are_those_that_the_builder_writes(rebuilt: Path) -> None:
    assert json.loads((rebuilt / "vocabularies.json").read_text()) == json.loads(
        (REPOSITORY / "data" / "vocabularies.json").read_text()
    )


def test_building_again_leaves_nothing_beside_the_views(rebuilt: Path) -> None:
    assert {path.name for path in rebuilt.iterdir()} == {f"{view}.parquet" for view in VIEWS} | {
        "vocabularies.json"
    }
