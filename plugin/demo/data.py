"""The demo's data: MovieLens-100K as the package `recbole` carries it, or anyone's tables of that shape."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from explorank.errors import DataError
from explorank.pipeline.tables import past_interactions, read_table
from explorank.retrieval.features.tables import text_ids

MOVIELENS_POSITIVE_FROM = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoData:
    """Three tables, what counts as liked in them, and the instant that separates past from future."""

    name: str
    interactions: pd.DataFrame
    """Checked and in order of time: `user_id`, `item_id`, `timestamp`, `value`."""
    items: pd.DataFrame
    users: pd.DataFrame | None
    positive_from: float
    split: datetime
    """80 % of the interactions lie before it."""

    @property
    def item_texts(self) -> dict[str, str]:
        """What to call each item: its title or text, or its id where those are missing."""
        column = "title" if "title" in self.items else "text"
        ids = text_ids(self.items["item_id"], "items", "item_id")
        texts = self.items[column].fillna("").astype(str)
        return {item: text or item for item, text in zip(ids.tolist(), texts, strict=True)}

    @property
    def past(self) -> pd.DataFrame:
        """The interactions before the split."""
        return self.interactions[self.interactions["timestamp"] < self.split]

    @property
    def future(self) -> pd.DataFrame:
        """The interactions from the split on; nothing is built or trained on them."""
        return self.interactions[self.interactions["timestamp"] >= self.split]


def movielens() -> DemoData:
    """Return MovieLens-100K: 100,000 ratings (1997-98) of 1,682 films by 943 people.

    Licensed for research use and not for redistribution: it is read where the package put it and nothing of
    it is copied but into the demo's folder. Raises `DataError` where the package is not installed.
    """
    package = find_spec("recbole")
    if package is None or package.origin is None:
        raise DataError(
            "MovieLens-100K comes with the package recbole, which is not installed. Run `pip install --no-deps "
            "recbole==1.2.1`, or bring your own data with --interactions and --items."
        )
    folder = Path(package.origin).parent / "dataset_example" / "ml-100k"

    def table(kind: str) -> pd.DataFrame:
        frame = pd.read_csv(
            folder / f"ml-100k.{kind}", sep="\t", dtype={"item_id:token": str, "user_id:token": str}
        )
        return frame.rename(columns=lambda column: column.split(":")[0])

    ratings = table("inter").rename(columns={"rating": "value"})
    films = table("item").rename(columns={"movie_title": "title", "class": "genres"})
    genres = films["genres"].fillna("").str.split()
    films = pd.DataFrame(
        {
            "item_id": films["item_id"],
            "text": films["title"] + ". " + genres.str.join(", "),
            "release_year": pd.to_numeric(films["release_year"], errors="coerce"),
            "genres": genres,
        }
    )
    people = table("user").drop(columns="zip_code")
    return _split("MovieLens-100K", ratings, films, people, MOVIELENS_POSITIVE_FROM)


def own_data(interactions: Path, items: Path, users: Path | None, positive_from: float | None) -> DemoData:
    """Return the tables at those paths; without `positive_from` the median value counts as liked."""
    return _split(
        interactions.stem,
        read_table(interactions),
        read_table(items),
        None if users is None else read_table(users),
        positive_from,
    )


def _split(
    name: str,
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None,
    positive_from: float | None,
) -> DemoData:
    events = past_interactions(interactions)
    split = events["timestamp"].iloc[int(0.8 * len(events))]
    if events["timestamp"].iloc[0] == split:
        raise DataError(
            f"All interactions of {name} happened at one time, so there is no past to learn from."
        )
    return DemoData(
        name=name,
        interactions=events,
        items=items,
        users=users,
        positive_from=float(events["value"].median()) if positive_from is None else positive_from,
        split=split.to_pydatetime(),
    )
