"""Built indexes and trained models on disk: published whole, verified, and taken up without a restart.

Layout: `<root>/<kind>/<version>/…` with `checksums.json` in each version; `<root>/<kind>/current.json`, the
pointer; and `<root>/<kind>/history.jsonl`, who was current when. A version's folder never changes; the pointer is
replaced atomically. So a reader sees one complete version or another, whatever happens to a writer.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final, Generic, Literal, TypeVar

from explorank.errors import DamagedArtefact, UnknownArtefact
from explorank.hooks.arrays import write_atomic

T = TypeVar("T")

_CHECKSUMS: Final = "checksums.json"
_POINTER: Final = "current.json"
_HISTORY: Final = "history.jsonl"
_DRAFT: Final = ".draft-"
_DRAFT_ABANDONED_AFTER_S: Final = 86_400.0
_KIND: Final = re.compile(r"[a-z][a-z0-9_-]*")
_VERSION: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Promotion:
    """One change of what is current."""

    version: str
    """What became current."""
    time: str
    """When, in ISO 8601, UTC."""
    action: Literal["publish", "promote", "rollback"]


class ArtefactStore:
    """Versions of several kinds of artefacts under one folder; processes may share it."""

    def __init__(self, root: str | Path) -> None:
        self.root: Final = Path(root)

    def publish(self, kind: str, write: Callable[[Path], object], *, promote: bool = True) -> str:
        """Let `write` fill a new folder, make it the current version of `kind`, and return that version.

        Versions sort by time. The current version stays where `write` raises or writes nothing, and where `promote`
        is false: `set_current` may make the new one current later. Who may read it the umask says.
        """
        home = self._home(kind)
        # Not by `tempfile`, whose folders are closed to other accounts: a server may run under one.
        draft = home / f"{_DRAFT}{secrets.token_hex(8)}"
        draft.mkdir(parents=True)
        try:
            write(draft)
            # The version names the content of the checksums, which name the content of all files.
            digest = _seal(draft, kind)
            version = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%fZ')}-{digest}"
            draft.rename(home / version)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _sync(home)
        if promote:
            self._promote(kind, version, "publish")
        return version

    def versions(self, kind: str) -> list[str]:
        """Return the versions of `kind`, the oldest first."""
        home = self._home(kind)
        if not home.is_dir():
            return []
        return sorted(path.name for path in home.iterdir() if _VERSION.fullmatch(path.name))

    def current(self, kind: str) -> tuple[str, Path] | None:
        """Return the current version of `kind` and its folder, or None where nothing is published.

        Raises `DamagedArtefact` for a pointer that cannot be read or leads nowhere.
        """
        pointer = self.pointer(kind)
        try:
            version = json.loads(pointer.read_bytes())["version"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedArtefact(
                f"{pointer} cannot be read ({error}), so it is unknown which {kind} is current. Point to one "
                f"of {self.versions(kind)} with `set_current`, or publish again."
            ) from error
        if version not in self.versions(kind):
            raise DamagedArtefact(
                f"{pointer} points to {version!r}, which is not there. Point to one of {self.versions(kind)} "
                "with `set_current`, or publish again."
            )
        return version, self.pointer(kind).parent / version

    def pointer(self, kind: str) -> Path:
        """Return the file that names the current version of `kind`; it is replaced with every change."""
        return self._home(kind) / _POINTER

    def set_current(self, kind: str, version: str) -> None:
        """Make an existing version the current one; `roll_back` undoes it."""
        self._folder(kind, version)
        self._promote(kind, version, "promote")

    def roll_back(self, kind: str) -> str:
        """Make the version current again that was so before the current one, and return it.

        Done twice, it goes back by two. Raises `UnknownArtefact` where nothing was current before.
        """
        previous = self.previous(kind)
        if previous is None:
            raise UnknownArtefact(
                f"No {kind} that is still there was current before the present one, so there is nothing to go back "
                f"to. Promote one of {self.versions(kind)}."
            )
        self._promote(kind, previous, "rollback")
        return previous

    def previous(self, kind: str) -> str | None:
        """Return the version that `roll_back` would make current; None where there is none.

        Versions that were deleted meanwhile are passed over.
        """
        current = self.current(kind)
        there = set(self.versions(kind))
        stack: list[str] = []
        for promotion in self.history(kind):
            if promotion.action == "rollback" and promotion.version in stack:
                while stack[-1] != promotion.version:
                    stack.pop()
            elif promotion.version in there and stack[-1:] != [promotion.version]:
                stack.append(promotion.version)
        if (
            current is not None and current[0] in stack
        ):  # the last line may tell of what a killed process left undone
            while stack.pop() != current[0]:
                pass
        return stack[-1] if stack else None

    def history(self, kind: str) -> list[Promotion]:
        """Return every change of what is current, the oldest first; a line that a crash cut short is passed over."""
        try:
            lines = (self._home(kind) / _HISTORY).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with suppress(ValueError, TypeError):
                found.append(Promotion(**json.loads(line)))
        return found

    def resolve(self, kind: str, given: str) -> str:
        """Return the version that `given` means: itself, or the only one that begins so or whose hash does.

        Raises `UnknownArtefact`, with the closest ones, where none or several fit.
        """
        versions = self.versions(kind)
        if given in versions:
            return given
        fitting = [
            one for one in versions if given and (one.startswith(given) or _hash_of(one).startswith(given))
        ]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise UnknownArtefact(
                f"{given!r} fits {len(fitting)} versions of the {kind}: {', '.join(fitting)}. Write more of it."
            )
        by_name = {name: one for one in versions for name in (one, _hash_of(one), one[: len(given)])}
        close = difflib.get_close_matches(given, by_name, n=1)
        hint = f" Did you mean {by_name[close[0]]!r}?" if close else ""
        raise UnknownArtefact(
            f"There is no {kind} of version {given!r}.{hint} There are: {', '.join(versions) or 'none'}."
        )

    def verify(self, kind: str, version: str) -> Path:
        """Return the folder of a version whose every file is as published.

        Raises `DamagedArtefact` naming the first file that is missing, changed or added.
        """
        folder = self._folder(kind, version)
        listed = folder / _CHECKSUMS
        try:
            content = listed.read_bytes()
        except OSError as error:
            raise DamagedArtefact(f"{listed} cannot be read ({error}). {_way_out(kind)}") from error
        if hashlib.sha256(content).hexdigest()[:12] != _hash_of(version):
            raise DamagedArtefact(f"{listed} was changed after it was published. {_way_out(kind)}")
        published, found = json.loads(content), _checksums(folder)
        for name in sorted(published.keys() | found.keys()):
            if name not in found:
                raise DamagedArtefact(f"{folder / name} is missing. {_way_out(kind)}")
            if name not in published:
                raise DamagedArtefact(f"{folder / name} was added after publication. {_way_out(kind)}")
            if published[name] != found[name]:
                raise DamagedArtefact(
                    f"{folder / name} is damaged: its SHA-256 differs from the published one. {_way_out(kind)}"
                )
        return folder

    def prune(self, kind: str, keep: int = 3) -> list[str]:
        """Delete all but the newest `keep` versions, the current one and the one before it; return what was deleted.

        What a writer that was killed left behind goes too, after a day.
        """
        current = self.current(kind)
        versions = self.versions(kind)
        spared = {
            *versions[max(len(versions) - keep, 0) :],
            None if current is None else current[0],
            self.previous(kind),
        }
        deleted = [version for version in versions if version not in spared]
        for version in deleted:
            shutil.rmtree(self._home(kind) / version)
        for draft in self._home(kind).glob(f"{_DRAFT}*"):
            if draft.stat().st_mtime < time.time() - _DRAFT_ABANDONED_AFTER_S:
                shutil.rmtree(draft, ignore_errors=True)
        return deleted

    def _promote(self, kind: str, version: str, action: Literal["publish", "promote", "rollback"]) -> None:
        """Note the change, then make it: a process that dies in between leaves a line too many, never one too few."""
        promotion = Promotion(version, datetime.now(UTC).isoformat(timespec="seconds"), action)
        with (self._home(kind) / _HISTORY).open("ab") as history:
            fcntl.flock(history, fcntl.LOCK_EX)
            try:
                history.write(
                    b"\n" * _is_cut_short(history.name) + json.dumps(asdict(promotion)).encode() + b"\n"
                )
                history.flush()
                os.fsync(history.fileno())
                write_atomic(self.pointer(kind), json.dumps({"version": version}).encode())
            finally:
                fcntl.flock(history, fcntl.LOCK_UN)  # for a child too that was forked meanwhile

    def _home(self, kind: str) -> Path:
        if not _KIND.fullmatch(kind):
            raise UnknownArtefact(
                f"{kind!r} is no kind of artefact: it names a folder, in lower case letters, digits, - and _."
            )
        return self.root / kind

    def _folder(self, kind: str, version: str) -> Path:
        if version not in self.versions(kind):
            raise UnknownArtefact(
                f"There is no {kind} of version {version!r}; there are {self.versions(kind)}. Publish one first."
            )
        return self._home(kind) / version


class Watched(Generic[T]):
    """The newest loadable artefact of one kind; a new one takes over once it is verified and loaded.

    `get` is a plain attribute read, from any thread. A new version that is damaged or does not load is
    refused: the one before stays, and `error` says why; it is tried again when the pointer is replaced. A
    process that starts on a damaged version takes the newest intact one before it.
    """

    def __init__(self, store: ArtefactStore, kind: str, load: Callable[[Path], T]) -> None:
        self.error: Exception | None = None
        """Why the current version was refused; None while the held one is the current one."""
        self._store = store
        self._kind = kind
        self._load = load
        self._held: tuple[str, T] | None = None
        self._looked_at: tuple[int, int, bytes] | None = None
        self._lock = Lock()
        self.refresh()

    def get(self) -> T | None:
        """Return the artefact, or None while there is none that loads."""
        return None if self._held is None else self._held[1]

    @property
    def version(self) -> str | None:
        """The version that `get` returns."""
        return None if self._held is None else self._held[0]

    def change(self, change: Callable[[T], T]) -> None:
        """Hold what `change` makes of the artefact in its stead, until another version is taken up."""
        with self._lock:
            if self._held is not None:
                version, held = self._held
                self._held = version, change(held)

    def refresh(self) -> bool:
        """Take up the current version where the pointer was replaced; return whether another is held now.

        Costs one look at the pointer's file where nothing changed. Never raises for what is on disk.
        """
        with self._lock:
            seen = self._pointer_identity()
            if seen == self._looked_at:
                return False
            before = self.version
            self.error = None
            try:
                current = self._store.current(self._kind)
                if current is not None and current[0] != before:
                    self._take_up(current[0])
            except Exception as error:  # whatever is wrong with it, the last good one stays
                self.error = error
                if self._held is None:
                    self._take_up_an_older_one()
            self._looked_at = seen
            return self.version != before

    def _take_up(self, version: str) -> None:
        self._held = (version, self._load(self._store.verify(self._kind, version)))

    def _take_up_an_older_one(self) -> None:
        for version in reversed(self._store.versions(self._kind)):
            try:
                self._take_up(version)
            except Exception:  # noqa: S112 - the next older one may be intact; `error` tells of the newest
                continue
            return

    def _pointer_identity(self) -> tuple[int, int, bytes] | None:
        pointer = self._store.pointer(self._kind)
        try:
            state = pointer.stat()
            # Two replacements within one tick of the file system's clock may come back to the same inode.
            return state.st_ino, state.st_mtime_ns, pointer.read_bytes()
        except OSError:
            return None


def published_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a version, by its relative name, as `verify` found them in `folder`."""
    checksums: dict[str, str] = json.loads((folder / _CHECKSUMS).read_bytes())
    return checksums


def _checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file under `folder` by its relative name, the list of them left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != _CHECKSUMS:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _seal(draft: Path, kind: str) -> str:
    """Write the checksums of all files in `draft`, make everything durable, return the checksums' hash."""
    checksums = _checksums(draft)
    if not checksums:
        raise DamagedArtefact(
            f"Nothing was written for the new {kind}, so there is nothing to publish; the current version "
            "stays. Write at least one file into the folder that is passed."
        )
    content = json.dumps(checksums, indent=1).encode()
    (draft / _CHECKSUMS).write_bytes(content)
    for file in (*checksums, _CHECKSUMS):
        _sync(draft / file)
    return hashlib.sha256(content).hexdigest()[:12]


def _sync(path: Path) -> None:
    """Make a file or a folder's entries survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hash_of(version: str) -> str:
    return version.rpartition("-")[2]


def _is_cut_short(file: str) -> bool:
    """Say whether the last line lacks its end."""
    content = Path(file).read_bytes()
    return bool(content) and not content.endswith(b"\n")


def _way_out(kind: str) -> str:
    return f"This {kind} is not used. Go back with `roll_back`, or publish again."
