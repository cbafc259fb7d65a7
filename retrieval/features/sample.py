"""The made-up sample that the packaged repository carries: 6 books, 4 readers, 16 interactions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pandas as pd

from explorank.retrieval.features.builder import BuildReport, build_features

_BUILT: Final = datetime(2026, 2, 1, tzinfo=UTC)

_ITEMS: Final = [
    ("tide", "The Tide Clock. A lighthouse keeper counts the days.", ["Novel", "Sea"], 1962, "paper"),
    ("fern", "Ferns of the Northern Woods. A field guide.", ["Nature"], 1987, "hardback"),
    ("lamp", "The Lamplighter's Error. A murder on the last tram.", ["Crime", "Novel"], 2004, "paper"),
    ("loaf", "One Loaf a Day. Baking with what is there.", ["Cooking"], 2016, "hardback"),
    ("reef", "Beneath the Reef. Divers and what they saw.", ["Nature", "Sea"], 2011, "audio"),
    ("mole", "Mole Digs Twice. For readers from five on.", ["Children"], None, "paper"),
]
_USERS: Final = [("ada", 34, "evening"), ("bo", 61, "morning"), ("cy", 27, "evening"), ("di", 45, None)]
_INTERACTIONS: Final = [
    ("ada", "tide", "2025-12-01T18:00:00", 5.0),
    ("ada", "reef", "2025-12-01T18:00:00", 4.0),
    ("bo", "fern", "2025-12-03T07:15:00", 5.0),
    ("bo", "reef", "2025-12-04T07:30:00", 4.0),
    ("cy", "lamp", "2025-12-05T20:10:00", 2.0),
    ("ada", "lamp", "2025-12-09T19:05:00", 3.0),
    ("cy", "tide", "2025-12-12T21:40:00", 4.0),
    ("di", "loaf", "2025-12-15T12:00:00", 5.0),
    ("bo", "loaf", "2025-12-20T08:00:00", 3.0),
    ("ada", "fern", "2025-12-28T17:20:00", 2.0),
    ("di", "mole", "2026-01-02T12:30:00", 4.0),
    ("cy", "reef", "2026-01-05T22:00:00", 5.0),
    ("di", "tide", "2026-01-09T13:00:00", 1.0),
    ("ada", "tide", "2026-01-11T18:45:00", 5.0),
    ("bo", "mole", "2026-01-20T07:50:00", 2.0),
    ("cy", "loaf", "2026-01-28T20:20:00", 4.0),
]


def sample_tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the sample's interactions, items and users, in the shape that `build_features` takes."""
    return (
        pd.DataFrame(_INTERACTIONS, columns=["user_id", "item_id", "timestamp", "value"]),
        pd.DataFrame(_ITEMS, columns=["item_id", "text", "genres", "year", "binding"]),
        pd.DataFrame(_USERS, columns=["user_id", "age", "reads"]),
    )


def build_sample(repository: Path | str) -> BuildReport:
    """Write the sample's rows into `repository`: the same ones at every call."""
    return build_features(*sample_tables(), repository, positive_from=4.0, until=_BUILT, created=_BUILT)
