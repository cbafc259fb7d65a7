"""What a user's profile adds to two towers on MovieLens-100K: for users that training knew, and for new ones.

    python -m benchmarks.user_features [--seeds 1 2 3] [--history-dropout 0.1]

**Protocol.** What was liked alone (4 stars or more). A random tenth of the users is new: training sees nothing of them.
Of all others, the latest fifth of what each liked is held out. Towers learn from the rest, with the items' texts as
content, once by histories alone and once with age, gender and occupation. *Known users* are asked with the history
that training saw; *new users* with their first 0, 1 or 5 likes; what each liked later is to be found among the first
100 of all films. Those of whom the profile is not known are asked about, too. A seed draws the new users and the
training. Intervals are bootstraps over users, each one's seeds averaged; "beyond" is the difference user by user; ± is
half of Student's 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks import environment
from benchmarks.accuracy.metrics import accuracy, best_of
from benchmarks.accuracy.situations import Figures, Found, first_of, summed
from benchmarks.accuracy.summary import of_seeds_told
from benchmarks.accuracy.worlds import World, world
from explorank.demo.data import movielens
from explorank.retrieval.collaborative import Interactions, TwoTower, TwoTowerOptions
from explorank.retrieval.user_features import UserFeatures

CACHE: Final = Path(__file__).parents[1] / "build" / "accuracy" / "embeddings.db"
FIRST: Final = (0, 1, 5)
_CUTOFF: Final = 100
_NEW: Final = 0.1
_LATEST: Final = 0.2
POPULAR: Final = "popularity"
HISTORIES: Final = "towers, histories alone"
PROFILES: Final = "towers, histories and profiles"
WITHHELD: Final = "the same, asked without the profile"

_System: TypeAlias = Callable[[csr_matrix, UserFeatures], NDArray[np.floating[Any]]]
"""Returns scores (m, n) for histories (m, n) of users of whom that is known, (m, g)."""


def profiles(data: World) -> UserFeatures:
    """Return (u, g) what is known of the users, in the interactions' order."""
    numbers = {name: column.astype(np.float32) for name, column in data.side.user_numbers.items()}
    groups = {
        name: np.where(codes > 0, codes, np.nan).astype(np.float32)
        for name, codes in data.side.user_groups.items()
        if f"user_{name}" not in numbers
    }
    columns = numbers | groups
    return UserFeatures(tuple(columns), np.column_stack(list(columns.values())), frozenset(groups))


def _systems(
    known: Interactions,
    told: UserFeatures,
    content: NDArray[np.float32] | None,
    options: TwoTowerOptions,
    seed: int,
) -> dict[str, _System]:
    popularity = known.popularity + np.random.default_rng(seed).random(len(known.item_ids))  # ties are drawn
    at_events = told.take(known.users)
    alone = TwoTower.fit(known, options=options, seed=seed, content=content)
    both = TwoTower.fit(known, options=options, seed=seed, content=content, user_features=at_events)
    return {
        POPULAR: lambda histories, _: np.broadcast_to(popularity, histories.shape),
        HISTORIES: lambda histories, _: alone.scores_of_many(histories),
        PROFILES: both.scores_of_many,
        WITHHELD: lambda histories, _: both.scores_of_many(histories),
    }


def _latest(interactions: Interactions) -> NDArray[np.bool_]:
    """Return which interactions (m,) are among the latest fifth of their user's."""
    place = np.arange(len(interactions)) - np.searchsorted(interactions.users, interactions.users)
    held = np.floor(_LATEST * interactions.activity)[interactions.users]
    latest: NDArray[np.bool_] = place >= interactions.activity[interactions.users] - held
    return latest


def asked(data: World, options: TwoTowerOptions, seed: int) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    """Yield situation, system, and the recall (u,) of each user, NaN for those who are not asked about."""
    everyone, told = data.interactions, profiles(data)
    generator = np.random.default_rng(seed)
    count = len(everyone.user_ids)
    new = np.sort(generator.choice(count, max(int(_NEW * count), 1), replace=False))
    of_new, late = np.isin(everyone.users, new), _latest(everyone)
    known, later = everyone.take(~of_new & ~late), everyone.take(~of_new & late)
    known = replace(known, given=np.arange(len(known)))  # what is told of users comes in their order
    cuts = [("known users", np.setdiff1d(np.arange(count), new), known, later)]
    cuts += [(f"new users, {first} likes known", new, *first_of(everyone, new, first)) for first in FIRST]
    systems = _systems(known, told, data.side.content, options, seed)
    for situation, users, before, after in cuts:
        taken, wanted = before.matrix[users], after.matrix[users]
        for name, system in systems.items():
            if name in {HISTORIES, WITHHELD} and not before.matrix[users].nnz:
                continue  # they know nothing without a history
            recall = np.full(count, np.nan)
            scores = system(taken, told.take(users))
            recall[users] = accuracy(best_of(scores, taken, _CUTOFF), wanted).recall
            yield situation, name, recall


def play(data: World, options: TwoTowerOptions, seeds: Sequence[int]) -> list[Found]:
    """Return what each system found in each situation."""
    figures: Figures = {}
    for seed in seeds:
        for situation, system, recall in asked(data, options, seed):
            figures.setdefault((situation, system), []).append(recall)
            sys.stderr.write(f"seed {seed}, {situation}: {system} {np.nanmean(recall):.4f}\n")
    return list(summed(figures))


def table(found: Sequence[Found]) -> list[str]:
    """Return the figures as a table in Markdown."""
    lines = [
        "| who is asked | system | recall@100 | beyond popularity | beyond histories alone |",
        "|---|---|---:|---:|---:|",
    ]
    for one in found:
        beyond = [f"{one.beyond[name]:+}" if name in one.beyond else "" for name in (POPULAR, HISTORIES)]
        who = f"{one.situation} ({one.users})"
        lines.append(
            f"| {who} | {one.system} | {of_seeds_told(one.recall, one.by_seed)} | {' | '.join(beyond)} |"
        )
    return lines


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--history-dropout", type=float, default=TwoTowerOptions().history_dropout, metavar="SHARE"
    )
    options = parser.parse_args()
    environment.restart_with_one_thread()
    import torch  # noqa: PLC0415 - after the restart with one thread

    torch.set_num_threads(1)
    data = movielens()
    liked = replace(data, interactions=data.interactions[data.interactions["value"] >= data.positive_from])
    towers = TwoTowerOptions(history_dropout=options.history_dropout)
    found = play(world(liked, CACHE), towers, options.seeds)
    facts = {**environment.describe(), "history dropout": options.history_dropout, "seeds": options.seeds}
    sys.stdout.write("\n".join([*environment.lines(facts), "", *table(found)]) + "\n")


if __name__ == "__main__":
    main()
