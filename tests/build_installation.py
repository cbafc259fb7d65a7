"""Builds a small installation with the real commands; `python build_installation.py FOLDER`.

40 readers, 60 books of 6 subjects, 60 days. Each reader likes two subjects, so that there is something to
learn and a test can say who should be shown what. A process of its own: the tests that only serve must not
find torch imported.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

SUBJECTS = {
    "sea": ["lighthouse", "harbour", "diver", "storm", "tide"],
    "crime": ["murder", "alibi", "detective", "witness", "poison"],
    "baking": ["bread", "sourdough", "oven", "pastry", "rye"],
    "space": ["orbit", "comet", "launch", "moon", "telescope"],
    "garden": ["fern", "orchard", "compost", "rose", "pruning"],
    "chess": ["opening", "endgame", "gambit", "castling", "tournament"],
}
BOOKS_PER_SUBJECT = 10
READERS = 40
BOOKS_PER_READER = 30
BEGIN = pd.Timestamp("2026-01-01", tz="UTC")

SETTINGS = """\
version: 1
project: books
features:
  positive_from: 4.0
exploration:
  mode: live
  policy: {use: linear_thompson, floor: 0.02}
  features: [score, similarity]
  slots: [2, 5, 8]
  holdout: 0.0
guards:
  - {use: block_list, path: blocked.txt}
"""


def tables() -> dict[str, pd.DataFrame]:
    """Return `interactions`, `items` and `users` in the columns that the commands take."""
    random = np.random.default_rng(2026)
    books = [
        {
            "item_id": f"{subject}-{number}",
            "text": f"A book on {subject}: {' and '.join(random.choice(words, 2, replace=False))}.",
            "subject": subject,
            "pages": int(random.integers(80, 600)),
        }
        for subject, words in SUBJECTS.items()
        for number in range(BOOKS_PER_SUBJECT)
    ]
    subjects = list(SUBJECTS)
    readers, events = [], []
    for number in range(READERS):
        favourites = {subjects[number % 6], subjects[(number // 6) % 6]}
        readers.append({"user_id": f"reader-{number}", "age": int(random.integers(12, 80))})
        weights = np.array([3.0 if book["subject"] in favourites else 1.0 for book in books])
        chosen = random.choice(len(books), BOOKS_PER_READER, replace=False, p=weights / weights.sum())
        minutes = np.sort(random.choice(60 * 24 * 60, BOOKS_PER_READER, replace=False))
        for book, minute in zip(chosen, minutes, strict=True):
            liked = books[book]["subject"] in favourites
            events.append(
                {
                    "user_id": f"reader-{number}",
                    "item_id": books[book]["item_id"],
                    "timestamp": BEGIN + pd.Timedelta(minutes=int(minute)),
                    "value": float(random.integers(4, 6) if liked else random.integers(1, 4)),
                }
            )
    return {
        "interactions": pd.DataFrame(events),
        "items": pd.DataFrame(books),
        "users": pd.DataFrame(readers),
    }


def build(folder: Path) -> None:
    """Run `init`, `features`, `build` and `train` in `folder`; leave the tables there too."""
    from explorank.cli.app import app

    def run(*arguments: str) -> None:
        config = [] if arguments[0] == "init" else ["--config", str(folder / "explorank.yaml")]
        if app([*arguments, *config], standalone_mode=False):
            sys.exit(f"explorank {arguments[0]} failed")

    run("init", str(folder))
    for name, table in tables().items():
        table.to_parquet(folder / f"{name}.parquet")
    (folder / "explorank.yaml").write_text(SETTINGS, encoding="utf-8")
    (folder / "blocked.txt").write_text("# Books that are out of print.\nchess-9\n", encoding="utf-8")
    interactions, items, users = (
        str(folder / f"{name}.parquet") for name in ("interactions", "items", "users")
    )
    run("features", "--interactions", interactions, "--items", items, "--users", users)
    run("build")
    run("train", "--interactions", interactions)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
