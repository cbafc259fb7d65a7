"""Arrays plus JSON in one checksummed blob: how states and decisions are stored. Nothing is ever pickled.

Layout: magic (8 bytes), header length (uint32 little endian), JSON header, raw C-order array bytes, and the CRC-32
of all that precedes it (uint32 little endian). It is there to notice damage, not forgery, and every request waits for
it: a cryptographic digest takes six times as long. What was written with one, under an earlier magic, is still read.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState

_MAGIC: Final = b"XPLRARR2"
_EARLIER_MAGIC: Final = b"XPLRARR1"
_KINDS: Final = frozenset("biufU")  # booleans, integers, floats and fixed-width text: never objects


def dumps(meta: dict[str, Any], named: dict[str, NDArray[Any]]) -> bytes:
    """Return `meta` (JSON-ready) and the arrays as bytes; object arrays raise `TypeError`."""
    layout = []
    parts: list[bytes] = []
    for name, array in named.items():
        if array.dtype.kind not in _KINDS:
            raise TypeError(
                f"Array {name!r} has dtype {array.dtype}; only numbers, booleans and text are stored."
            )
        layout.append((name, array.dtype.str, array.shape))
        parts.append(array.tobytes())
    header = orjson.dumps({"meta": meta, "arrays": layout})
    body = b"".join((_MAGIC, len(header).to_bytes(4, "little"), header, *parts))
    return body + _checksum(body)


def loads(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what `dumps` was given, arrays read-only; raise `CorruptState` for anything else."""
    body = _intact(data)
    if body is None:
        raise CorruptState(
            f"{len(data)} bytes that are not an intact array file (wrong magic or checksum); reading them "
            "could yield wrong numbers. Restore an older copy, or rebuild it from the log."
        )
    start = len(_MAGIC) + 4
    end = start + int.from_bytes(body[len(_MAGIC) : start], "little")
    header = orjson.loads(body[start:end])
    named: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in header["arrays"]:
        array = np.frombuffer(body, np.dtype(dtype), count=math.prod(shape), offset=end).reshape(shape)
        named[name] = array
        end += array.nbytes
    return header["meta"], named


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Who may read it is as of any new file: the umask says. Raises `OSError` where nothing can be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Not by `tempfile`, whose files are closed to other accounts: a server may run under one.
    file = draft.open("xb")
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little")


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _intact(data: bytes) -> bytes | None:
    """Return `data` without its checksum, or None where that is wrong or the magic unknown."""
    checksum = {_MAGIC: _checksum, _EARLIER_MAGIC: _digest}.get(data[: len(_MAGIC)])
    if checksum is None:
        return None
    body = data[: -len(checksum(b""))]
    return body if checksum(body) == data[len(body) :] else None
