"""Items that nobody took up yet, and users of whom little is known.

**Items.** A random tenth of the items is taken out of training altogether. Who took one of them up is asked about:
how many of theirs are among the first 100 of the whole catalogue, and among the first 20 of the new items alone.

**Users.** A random tenth of the users is taken out. Each is known by profile and first k interactions only; the rest
is to be foreseen, among the first 100.

Intervals are bootstraps over users; a user asked about under several seeds counts once, by the mean. Differences
between systems are user by user and seed by seed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.metrics import accuracy, best_of
from benchmarks.accuracy.situations import Figures, Found, first_of, summed
from benchmarks.accuracy.summary import of_seeds_told
from benchmarks.accuracy.worlds import World, known_of_items, known_of_users
from explorank.retrieval.collaborative import EASE, ContentMapping, ImplicitALS, Interactions
from explorank.retrieval.collaborative.two_tower import TwoTower, TwoTowerOptions

SHARE: Final = 0.1
FIRST: Final = (0, 1, 5, 10)
_WIDE: Final = 100
_AMONG_NEW: Final = 20
_POPULAR: Final = "popularity"
_TOWERS: Final = TwoTowerOptions(history_dropout=0.0)
"""Histories are never hidden in training; `benchmarks.user_features` measures what hiding them is worth."""


@dataclass(frozen=True, slots=True)
class ItemCut:
    """Interactions with known items, and those with new ones."""

    known: Interactions
    held_out: Interactions
    new: NDArray[np.bool_]
    """(n,) which items are new."""

    @property
    def users(self) -> NDArray[np.int64]:
        """The users who took up items of both kinds."""
        return np.intersect1d(self.known.users, self.held_out.users)


def new_items(interactions: Interactions, seed: int) -> ItemCut:
    """Take a random tenth of the items that anybody took up out of `interactions`."""
    generator = np.random.default_rng(seed)
    taken = np.flatnonzero(interactions.popularity)
    new = np.zeros(len(interactions.item_ids), np.bool_)
    new[generator.choice(taken, max(int(SHARE * len(taken)), 1), replace=False)] = True
    out = new[interactions.items]
    return ItemCut(interactions.take(~out), interactions.take(out), new)


def item_scores(cut: ItemCut, data: World, seed: int) -> Iterator[tuple[str, NDArray[np.floating[Any]]]]:
    """Yield each system's scores (m, n) for `cut.users`."""
    histories = cut.known.matrix[cut.users]
    content, people = known_of_items(data.side), known_of_users(data.side)
    popularity = cut.known.popularity + np.random.default_rng(seed).random(len(cut.new))  # ties are drawn
    yield _POPULAR, np.broadcast_to(popularity, histories.shape)
    if content is None or data.side.content is None:
        return
    yield "content similarity", (histories @ data.side.content) @ data.side.content.T
    als = ImplicitALS.fit(cut.known.without_times(), seed=seed)
    yield "content mapped to ALS factors", mapped(als, cut, content).scores_of_many(histories)
    towers = TwoTower.fit(
        cut.known.without_times(), options=_TOWERS, seed=seed, content=content, user_features=people
    )
    vectors = towers.item_vectors.copy()
    vectors[cut.new] = towers.place(content[cut.new])
    given = None if people is None else people[cut.users]
    yield "TwoTower, new items by content", towers.user_vectors(histories, given) @ vectors.T


def mapped(
    als: ImplicitALS, cut: ItemCut, content: NDArray[np.float32], *, l2: float | None = None
) -> ImplicitALS:
    """Return `als` with the new items' factors foretold from their content."""
    taken = cut.known.popularity > 0
    options = {} if l2 is None else {"l2": l2}
    mapping = ContentMapping.fit(
        content[taken], als.factors[taken], confidence=cut.known.popularity[taken], **options
    )
    return als.with_factors(cut.new, mapping.factors(content[cut.new]))


def _items(data: World, seed: int) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    wide, narrow = "new items, among all", "new items, among the new alone"
    cut = new_items(data.interactions, seed)
    taken, wanted = (part.matrix[cut.users] for part in (cut.known, cut.held_out))
    for name, scores in item_scores(cut, data, seed):
        among_new = np.where(cut.new, scores, -np.inf)
        for situation, ranked, k in ((wide, scores, _WIDE), (narrow, among_new, _AMONG_NEW)):
            recall = np.full(len(data.interactions.user_ids), np.nan)
            recall[cut.users] = accuracy(best_of(ranked, taken, k), wanted).recall
            yield situation, name, recall


def _users(data: World, seed: int) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    people = known_of_users(data.side)
    everyone = data.interactions
    generator = np.random.default_rng(seed)
    count = len(everyone.user_ids)
    new = np.sort(generator.choice(count, max(int(SHARE * count), 1), replace=False))
    given = None if people is None else people[new]
    known = everyone.take(~np.isin(everyone.users, new)).without_times()
    systems = _user_systems(data, known, seed)
    for first in FIRST:
        begun, rest = first_of(everyone, new, first)
        taken, wanted = begun.matrix[new], rest.matrix[new]
        for name, system in systems:
            if first == 0 and name not in {_POPULAR, "TwoTower"}:
                continue  # the others know nothing without a history
            recall = np.full(count, np.nan)
            recall[new] = accuracy(best_of(system(taken, given), taken, _WIDE), wanted).recall
            yield f"new users, {first} interactions known", name, recall


def _user_systems(data: World, known: Interactions, seed: int) -> Sequence[tuple[str, Any]]:
    popularity = known.popularity.astype(np.float64)
    ease, als = EASE.fit(known), ImplicitALS.fit(known, seed=seed)
    towers = TwoTower.fit(
        known,
        options=_TOWERS,
        seed=seed,
        content=known_of_items(data.side),
        user_features=known_of_users(data.side),
    )

    return [
        (_POPULAR, lambda histories, given: np.broadcast_to(popularity, histories.shape)),
        ("EASE", lambda histories, given: ease.scores_of_many(histories)),
        ("implicit ALS", lambda histories, given: als.scores_of_many(histories)),
        ("TwoTower", towers.scores_of_many),
    ]


def play(data: World, *, seeds: Sequence[int]) -> Iterator[list[Found]]:
    """Yield what each system found of new items and of new users under the first of `seeds`, the first two, …."""
    figures: Figures = {}
    for seed in seeds:
        for situation, system, recall in chain(_items(data, seed), _users(data, seed)):
            if np.isnan(recall).all():
                continue  # nobody has so many interactions
            figures.setdefault((situation, system), []).append(recall)
            sys.stderr.write(f"{situation}, seed {seed}: {system} {np.nanmean(recall):.4f}\n")
        yield list(summed(figures))


def tables(found: Sequence[Found]) -> list[str]:
    """Return a table in Markdown for each situation."""
    lines: list[str] = []
    for situation in dict.fromkeys(one.situation for one in found):
        own = [one for one in found if one.situation == situation]
        cutoff = _AMONG_NEW if "alone" in situation else _WIDE
        lines += [
            f"### {situation} ({own[0].users} users)",
            "",
            f"| system | recall@{cutoff} | beyond popularity |",
            "|---|---:|---:|",
        ]
        lines += [
            f"| {one.system} | {of_seeds_told(one.recall, one.by_seed)} | {_beyond_popularity(one)} |"
            for one in own
        ]
        lines.append("")
    return lines


def _beyond_popularity(one: Found) -> str:
    return f"{one.beyond[_POPULAR]:+}" if _POPULAR in one.beyond else ""
