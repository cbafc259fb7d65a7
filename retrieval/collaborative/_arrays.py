"""Arrays and facts in a folder that proves intact; nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._files import Checksums, read_manifest, replace_file, write_manifest
from explorank.retrieval.errors import CorruptArtefact

MANIFEST: Final = "manifest.json"


def save_arrays(
    folder: str | Path, file_format: str, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write each array as `NAME.npy` into `folder`, and last the manifest with `facts` and checksums."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        with replace_file(folder / f"{name}.npy") as path, path.open("wb") as draft:
            np.save(draft, array, allow_pickle=False)
    content = {"format": file_format, "arrays": sorted(arrays), "facts": dict(facts)}
    write_manifest(folder / MANIFEST, content, [f"{name}.npy" for name in arrays])


def load_arrays(
    folder: str | Path,
    file_format: str,
    *names: str,
    mapped: bool = False,
    checksums: Checksums | None = None,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the facts and arrays that `save_arrays` wrote, `names` certainly among them.

    `mapped` ones are read from their files as they are used. `checksums`, where the files were read just before,
    spare reading them again.

    Raises `CorruptArtefact`, naming the file, where one is damaged, missing or of another format.
    """
    folder = Path(folder)
    content = read_manifest(folder / MANIFEST, file_format, checksums)
    missing = [name for name in names if name not in content["arrays"]]
    if missing:
        raise CorruptArtefact(
            f"{folder / MANIFEST} lists no {', '.join(missing)}, without which this model cannot score. Restore an "
            "older copy of the folder, or build it again."
        )
    read = _mapped if mapped else _read
    return content["facts"], {name: read(folder / f"{name}.npy") for name in content["arrays"]}


def _read(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def _mapped(path: Path) -> NDArray[Any]:
    try:
        # Mapped privately: what is written to it reaches nobody else.
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError:  # what holds nothing cannot be mapped
        return _read(path)
    return array
