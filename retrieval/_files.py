"""Folders of files that can prove they are intact: a sealed JSON manifest with the checksum of each file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from explorank.retrieval.errors import CorruptArtefact

Checksums: TypeAlias = Mapping[str, str]
"""The SHA-256 in hex of each file, by its name relative to a folder, as somebody has just computed them."""


def checksums_within(name: str, checksums: Checksums | None) -> Checksums | None:
    """Return the checksums of the files in the folder `name`, by their names there."""
    if checksums is None:
        return None
    return {
        file.removeprefix(f"{name}/"): digest
        for file, digest in checksums.items()
        if file.startswith(f"{name}/")
    }


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield where to write a new `path`; it takes the old one's place when the block ends without an error.

    The old file's content stays for whoever has it open or mapped: to cut it short would end their process.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_manifest(path: Path, facts: dict[str, Any], files: Iterable[str]) -> None:
    """Write `facts` and the checksums of `files`, which lie beside `path`; last, once they are complete."""
    content = {**facts, "sha256": {name: file_digest(path.parent / name) for name in files}}
    with replace_file(path) as draft:
        draft.write_text(json.dumps({"content": content, "seal": _seal(content)}, indent=1), encoding="utf-8")


def read_manifest(path: Path, file_format: str, checksums: Checksums | None = None) -> dict[str, Any]:
    """Return the facts of an intact manifest whose files are intact too, going by `checksums` where they are given.

    Raises `CorruptArtefact`, naming the first file that is missing, damaged or of another format.
    """
    try:
        envelope = json.loads(path.read_bytes())
        content: dict[str, Any] = envelope["content"]
        intact = envelope["seal"] == _seal(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtefact(
            f"{path} cannot be read as a manifest ({error}); without it nothing here is trusted. {_WAY_OUT}"
        ) from error
    if not intact:
        raise CorruptArtefact(f"{path} was changed after it was written: its seal does not fit. {_WAY_OUT}")
    if content.get("format") != file_format:
        raise CorruptArtefact(
            f"{path} describes {content.get('format')!r}, and {file_format!r} was expected; its files mean "
            f"something else. {_WAY_OUT}"
        )
    for name, digest in content["sha256"].items():
        file = path.parent / name
        if not file.is_file():
            raise CorruptArtefact(f"{file} is missing; {path.name} lists it. {_WAY_OUT}")
        if (file_digest(file) if checksums is None else checksums.get(name)) != digest:
            raise CorruptArtefact(
                f"{file} is damaged: its SHA-256 is not the one in {path.name}; reading it could give wrong "
                f"results. {_WAY_OUT}"
            )
    return content


_WAY_OUT = "Restore an older copy of the folder, or build it again."


def _seal(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
