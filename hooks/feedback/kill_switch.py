"""The kill switch: while its file exists nothing explores, in any process, without a restart."""

from __future__ import annotations

import os
import time
from pathlib import Path

from explorank.hooks import arrays


class KillSwitch:
    """A file whose presence stops exploration; its contents say why.

    Anyone may engage it, `touch` included. A path that cannot be examined counts as engaged: not exploring
    is the safe side. A second file beside it remembers when it was last released.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._looked_at = os.fspath(self.path)

    @property
    def engaged(self) -> bool:
        """Whether the switch is on; costs one `stat`."""
        try:
            os.stat(self._looked_at)  # noqa: PTH116 - per request
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    @property
    def reason(self) -> str | None:
        """What whoever engaged the switch wrote, or `None` while it is off."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            return str(error) if self.engaged else None

    def engage(self, reason: str) -> None:
        """Stop exploration in every process that watches this path; raise `OSError` if that fails."""
        arrays.write_atomic(self.path, f"{reason}\n".encode())

    def release(self) -> None:
        """Let exploration go on; a switch that is off stays off. Raise `OSError` if that fails.

        Whoever compares what was earned begins anew from here.
        """
        if self.engaged:
            arrays.write_atomic(self._note, f"{time.time()!r}\n".encode())
        self.path.unlink(missing_ok=True)

    @property
    def released_at(self) -> float | None:
        """When the switch was last released, in seconds since the Unix epoch; `None` where it never was."""
        try:
            return float(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.released")
