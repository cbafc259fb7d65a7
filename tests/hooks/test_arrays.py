"""Blobs of arrays are read as they were written, by this layout and the one before, or not at all."""

from __future__ import annotations

import hashlib

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
