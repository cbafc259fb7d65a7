"""Rank without a pause in a process of its own until standard input closes; print when answers changed.

Usage: rank_until_told.py SETTINGS. Items are named after their generation, as in `old-3`; an answer with items of two
generations is printed as `mixed`.
"""

from __future__ import annotations

import sys
import threading
import time

from explorank import load


def main() -> None:
    with load(sys.argv[1]) as stage:
        told = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
        last = None
        while not told.is_set():
            decision = stage.rank(user_id=None, slots=20, context={"history": ["anchor"]})
            generations = {item.partition("-")[0] for item in decision.items} - {"anchor"}
            seen = generations.pop() if len(generations) == 1 else "mixed"
            if seen != last:
                sys.stdout.write(f"{seen} {len(decision.items)} {time.time()}\n")
                sys.stdout.flush()
                last = seen


if __name__ == "__main__":
    main()
