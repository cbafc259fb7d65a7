"""Feast's own operations inside another program: no output, no changed directory, no module left behind."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from explorank.retrieval.errors import FeatureRepositoryError, RetrievalError

if TYPE_CHECKING:
    from feast import FeatureStore

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
# Before all data, yet late enough for Feast to subtract from.
_BEGINNING: Final = datetime(1900, 1, 1, tzinfo=UTC)


@contextlib.contextmanager
def quiet(doing: str, folder: Path) -> Iterator[None]:
    """Run Feast's code silently; any failure becomes a `FeatureRepositoryError` that says what Feast said.

    Not for the request path: the output and the warning filters of the whole process are redirected.
    """
    said = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            # Feast and what it builds on deprecate each other's interfaces; no user of ours can mend that.
            # Recorded, because Feast switches some of its own on again.
            warnings.catch_warnings(record=True),
        ):
            warnings.simplefilter("ignore")
            yield
    except RetrievalError:
        raise
    except (Exception, SystemExit) as error:  # Feast's command line leaves by `sys.exit`
        told = " ".join(_COLOURS.sub("", said.getvalue()).split())[-500:]
        reason = f"{type(error).__name__}: {error}".rstrip(".: ")
        raise FeatureRepositoryError(
            f"Feast failed while {doing} the repository {folder}: {reason}. "
            f"{f'It said: {told}. ' if told else ''}Run `feast apply` in that folder to see the whole of it."
        ) from error


def open_store(folder: Path) -> FeatureStore:
    """Return Feast's store for the repository in `folder`; the first call imports Feast (4-5 s)."""
    if not (folder / "feature_store.yaml").is_file():
        raise FeatureRepositoryError(
            f"{folder} holds no feature_store.yaml, so it is no Feast repository. Name the folder that holds "
            "one, or write one with `explorank init`."
        )
    with quiet("opening", folder):
        from feast import FeatureStore  # noqa: PLC0415 - takes seconds

        return FeatureStore(repo_path=str(folder))


def apply_repository(folder: Path) -> None:
    """Register what the repository's Python files define, as `feast apply` does in that folder."""
    with quiet("applying", folder), contextlib.chdir(folder), _modules_of(folder):
        from feast.repo_config import load_repo_config  # noqa: PLC0415 - takes seconds
        from feast.repo_operations import apply_total  # noqa: PLC0415 - takes seconds

        config = load_repo_config(folder, folder / "feature_store.yaml")
        _refuse_registry_of_another_folder(config, folder)
        apply_total(config, folder, skip_source_validation=False)


def _refuse_registry_of_another_folder(config: Any, folder: Path) -> None:
    """Keep Feast from deleting the online store of the folder that this one was copied from.

    A registry holds the absolute path of each SQLite table, and applying drops those that are at other paths.
    """
    from feast import FeatureStore  # noqa: PLC0415 - takes seconds

    store = FeatureStore(config=config)
    if not store._should_use_plan():  # such a store is asked for its own tables, by the path in its settings
        return
    own = folder / getattr(config.online_store, "path", "")
    for table in store.registry.get_infra(config.project).infra_objects:
        path = getattr(table, "path", None)
        if path is not None and Path(path).resolve() != own.resolve():
            raise FeatureRepositoryError(
                f"The registry of {folder} was made for the online store {path}, not {own}; applying it would "
                "delete the tables there. Delete the copied registry and online store, or call `reset`."
            )


def materialize_repository(store: FeatureStore, folder: Path, until: datetime, *, incremental: bool) -> None:
    """Load the newest rows up to `until` into the online store: all views, from the start or what is new."""
    with quiet("materialising", folder):
        if incremental:
            store.materialize_incremental(end_date=until)
        else:
            store.materialize(start_date=_BEGINNING, end_date=until)


@contextlib.contextmanager
def _modules_of(folder: Path) -> Iterator[None]:
    """Let `folder`'s files be imported by their bare names, as Feast does, and forget them afterwards.

    Two repositories may both have a `features.py`; the second would otherwise be given the first one's.
    """
    names = {path.stem for path in folder.glob("*.py")} | {
        path.name for path in folder.iterdir() if path.is_dir()
    }

    def own() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in names]

    others = {name: sys.modules.pop(name) for name in own()}
    writes_bytecode, search_path = sys.dont_write_bytecode, sys.path[:]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode, sys.path[:] = writes_bytecode, search_path
        for name in own():
            del sys.modules[name]
        sys.modules.update(others)
