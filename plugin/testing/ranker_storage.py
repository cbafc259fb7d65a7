"""Whether a ranker comes back from its folder as it was, or not at all."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from explorank.rankers import CorruptRanker
from explorank.testing.demands import demand, refused
from explorank.testing.ranker_cases import RankerCases

_PICKLED = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


class RankerStorageTests(RankerCases):
    """The part of `RankerTests` about `save` and `load`."""

    def test_a_saved_ranker_is_the_same_ranker(self, tmp_path: Path) -> None:
        """What `load` returns scores alike to the last bit, has the same manifest, and is saved as the same model.

        A decision that was logged before a restart must be computable after it.
        """
        ranker = self.fitted()
        rows = self.rows(ranker)
        ranker.save(tmp_path / "a" / "new" / "folder")
        loaded = self._class().load(tmp_path / "a" / "new" / "folder")
        demand(
            loaded.manifest.to_json() == ranker.manifest.to_json(),
            f"{ranker.manifest} was saved, and {loaded.manifest} loaded.",
        )
        demand(
            np.array_equal(loaded.score(rows), ranker.score(rows)),
            f"Ranker {ranker.manifest.name!r} scores otherwise after loading, by up to "
            f"{np.abs(loaded.score(rows) - ranker.score(rows)).max():.3g}. Save numbers with all their digits.",
        )
        loaded.save(str(tmp_path / "again"))
        again = self._class().load(str(tmp_path / "again"))
        demand(
            np.array_equal(again.score(rows), ranker.score(rows)),
            f"Ranker {ranker.manifest.name!r} changes when it is loaded, saved and loaded again.",
        )

    def test_a_damaged_file_is_refused_by_name(self, tmp_path: Path) -> None:
        """Each file of the folder, cut off, changed, emptied, replaced by another or missing, raises `CorruptRanker`.

        The message names the file, so that somebody at night knows what to restore.
        """
        ranker = self.fitted()
        ranker.save(tmp_path / "intact")
        self._class().load(tmp_path / "intact")
        for file in _files(tmp_path / "intact"):
            for damage, change in _DAMAGES.items():
                folder = tmp_path / "damaged"
                shutil.copytree(tmp_path / "intact", folder)
                change(folder / file)
                problem = f"{file} {damage}"
                try:
                    with refused(
                        CorruptRanker, f"{problem} is loaded nevertheless, and scores could be anything."
                    ):
                        self._load_saying(folder, file, problem)
                finally:
                    shutil.rmtree(folder)

    def test_its_files_hold_no_code(self, tmp_path: Path) -> None:
        """No file is a pickle, nor an archive with one inside.

        Who loads a ranker must not run what a stranger wrote.
        """
        ranker = self.fitted()
        ranker.save(tmp_path)
        for file in _files(tmp_path):
            content = (tmp_path / file).read_bytes()
            inside = (
                [
                    name
                    for name in zipfile.ZipFile(tmp_path / file).namelist()
                    if name.endswith((".pkl", ".pickle"))
                ]
                if zipfile.is_zipfile(tmp_path / file)
                else []
            )
            demand(
                not content.startswith(_PICKLED) and not inside,
                f"{file} of {ranker.manifest.name!r} is pickled; loading it would run code. Save arrays and JSON.",
            )

    def _load_saying(self, folder: Path, file: Path, problem: str) -> None:
        __tracebackhide__ = True
        try:
            self._class().load(folder)
        except CorruptRanker as error:
            if file.name not in str(error):
                raise AssertionError(f"{problem}: the message does not name {file.name}: {error}") from error
            raise


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def _damages() -> Iterator[tuple[str, Callable[[Path], object]]]:
    yield "cut off", lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    yield "with a bit flipped", _flip
    yield "emptied", lambda file: file.write_bytes(b"")
    yield "replaced by other JSON", lambda file: file.write_bytes(b"[]")
    yield "replaced by noise", lambda file: file.write_bytes(b"\x80\x04 no ranker")
    yield "missing", lambda file: file.unlink()


_DAMAGES = dict(_damages())
