"""The model feature repository that travels with the package."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

from explorank.retrieval.errors import FeatureRepositoryError


def copy_repository(target: Path | str, *, overwrite: bool = False) -> Path:
    """Copy the packaged Feast repository with its sample data to the folder `target`; return that folder.

    Raises `FeatureRepositoryError` if `target` exists and is not an empty folder, unless `overwrite`: then
    the packaged files replace those of the same name and all others stay.
    """
    folder = Path(target)
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise FeatureRepositoryError(
            f"{folder} already holds something, which a copy could overwrite. Name another folder, empty "
            "this one, or ask for overwriting."
        )
    try:
        with resources.as_file(resources.files("explorank.feature_repo")) as packaged:
            shutil.copytree(
                packaged,
                folder,
                # What Feast and Python write beside the repository's own files stays behind.
                ignore=shutil.ignore_patterns("__init__.py", "__pycache__", "*.db", "*.db-*", ".*"),
                dirs_exist_ok=True,
            )
    except OSError as error:
        raise FeatureRepositoryError(
            f"The feature repository could not be written to {folder}: {error}. Make the folder writable, or "
            "name another one."
        ) from error
    return folder
