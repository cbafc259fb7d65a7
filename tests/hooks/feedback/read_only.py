"""Append to a log that this user may read but not write; print what happens, then that it goes on."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from records import make_record

from explorank.hooks.errors import LogUnavailable
from explorank.hooks.feedback import DecisionLog


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with DecisionLog(folder) as log:
            log.append_decision(make_record("before"))
        log.path.chmod(0o444)
        folder.chmod(0o755)
        (folder / "segment-0.lock").chmod(0o666)
        if os.getuid() == 0:
            os.seteuid(65534)  # permissions mean nothing to root
        try:
            DecisionLog(folder)
        except LogUnavailable as error:
            sys.stdout.write(f"{error}\n")
        if os.getuid() == 0:
            os.seteuid(0)
        log.path.chmod(0o644)
        with DecisionLog(folder) as log:
            log.append_decision(make_record("after"))
            sys.stdout.write(" ".join(log.decision(name).decision_id for name in ("before", "after")))


if __name__ == "__main__":
    main()
