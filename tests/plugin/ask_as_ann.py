"""Ask as the same visitor in a process of its own; print the slots that each answer explored in.

Usage: ask_as_ann.py SETTINGS REQUESTS NAME. Each request is for another page, so that none is served again.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from explorank import load


def main() -> None:
    with load(sys.argv[1]) as stage:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        items, scores = [f"i{number}" for number in range(12)], np.linspace(2.0, 0.9, 12)
        decisions = [
            stage.explore(items, scores, user_id="ann", slots=3, context={"page": f"{sys.argv[3]} {page}"})
            for page in range(int(sys.argv[2]))
        ]
        json.dump([decision.methods.count("explore") for decision in decisions], sys.stdout)


if __name__ == "__main__":
    main()
