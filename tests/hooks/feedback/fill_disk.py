"""Let writes fail as on a full disk, by the process's own limit on file sizes; print what happens."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from records import make_record

from explorank.hooks.errors import LogUnavailable
from explorank.hooks.feedback import DecisionLog


def main() -> None:
    folder = Path(sys.argv[1])
    log = DecisionLog(folder)
    log.append_decision(make_record("before"))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = log.path.with_name(log.path.name + "-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 1000, hard))
    try:
        log.append_decision(make_record("while-full"))
    except LogUnavailable as error:
        sys.stdout.write(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.append_decision(make_record("after"))
    log.close()


if __name__ == "__main__":
    main()
