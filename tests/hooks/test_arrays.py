"""Blobs of arrays are read as they were written, by this layout and the one before, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState

META = {"policy": "greedy", "versions": [1, 2]}
NAMED = {"scores": np.array([0.5, -1.0]), "ids": np.array(["a", "bb"]), "none": np.zeros((0, 3), np.float32)}


def earlier() -> bytes:
    """Return the blob as it was written before: another magic, and a digest of 16 bytes."""
    body = b"XPLRARR1" + arrays.dumps(META, NAMED)[8:-4]
    return body + hashlib.blake2b(body, digest_size=16).digest()


@pytest.mark.parametrize("data", [arrays.dumps(META, NAMED), earlier()], ids=["this layout", "the earlier"])
def test_what_was_written_is_read_and_every_damage_noticed(data: bytes) -> None:
    meta, named = arrays.loads(data)
    assert meta == META
    assert named.keys() == NAMED.keys()
    for name, array in NAMED.items():
        np.testing.assert_array_equal(named[name], array)
        assert named[name].dtype == array.dtype
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        for wrong in (bytes(damaged), data[:place]):
            with pytest.raises(CorruptState, match="checksum"):
                arrays.loads(wrong)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_a_file_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "deep" / "state"
    before = os.umask(umask)
    try:
        arrays.write_atomic(path, b"old")
        arrays.write_atomic(path, b"new")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    arrays.write_atomic(path, b"old")
    with pytest.raises(TypeError):
        arrays.write_atomic(path, "text")  # type: ignore[arg-type]
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("state", b"old")]
