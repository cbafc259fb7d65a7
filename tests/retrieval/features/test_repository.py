"""The repository that travels with the package."""

from pathlib import Path

import pytest

from explorank.retrieval.errors import FeatureRepositoryError
from explorank.retrieval.features import copy_repository

FILES = {"README.md", "data", "feature_store.yaml", "features.py"}


def test_the_copy_holds_the_repository_and_its_sample(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "shop" / "features")
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.suffix for path in (folder / "data").iterdir()} == {".parquet", ".json"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert {path.name for path in copy_repository(tmp_path).iterdir()} == FILES


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    mine = tmp_path / "features.py"
    mine.write_text("mine")
    with pytest.raises(FeatureRepositoryError, match="already holds something"):
        copy_repository(tmp_path)
    assert mine.read_text() == "mine"
    (tmp_path / "notes.txt").write_text("kept")
    copy_repository(tmp_path, overwrite=True)
    assert mine.read_text() != "mine"
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_a_file_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FeatureRepositoryError, match="taken"):
        copy_repository(tmp_path / "taken" / "below")
