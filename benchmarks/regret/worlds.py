"""Worlds to learn in: everything that happens is fixed before anyone plays.

Only numpy is imported, because other libraries' interpreters play in them too. A world holds the expected
reward of each candidate in each round and one number of noise per round. The reward of whatever is chosen
follows from the two, so that contestants that choose alike are paid alike, and a difference between two of
them is one of choices. (Rewards of different candidates in one round are thereby dependent. Only one of them
is ever seen, so that no contestant can tell.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["arms", "shared", "disjoint"]
Numbers: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """One realisation of a world: T rounds of K candidates."""

    kind: Kind
    """`arms`: K arms without features. `shared`: candidates with features, one truth for all. `disjoint`: a
    context per round, and a truth for each arm."""
    means: Numbers  # (T, K) or (1, K) where they never change
    noise: Numbers  # (T,) uniform in [0, 1) for clicks, else added to the mean
    clicks: bool
    """Whether a reward is 1 with probability `means`, else 0."""
    arrival: Indices  # (T,) after which round's end the reward of each round is told
    features: Numbers  # shared: (N, d) of each item; disjoint: (T, d) of each round; arms: (0, 0)
    offered: Indices  # shared: (T, K) which items are the candidates; else (0, 0)

    @property
    def rounds(self) -> int:
        """T."""
        return len(self.noise)

    @property
    def arms(self) -> int:
        """K."""
        return int(self.means.shape[1])

    @property
    def dim(self) -> int:
        """How many features a candidate, or a context, has."""
        return int(self.features.shape[1])

    def reward(self, time: int, position: int) -> float:
        """Return what the candidate at `position` earns in round `time`."""
        mean = self.means[time % len(self.means), position]
        return float(self.noise[time] < mean) if self.clicks else float(mean + self.noise[time])

    def regret(self, time: int, position: int) -> float:
        """Return what the candidate at `position` is expected to earn less than the best, in round `time`."""
        means = self.means[time % len(self.means)]
        return float(means.max() - means[position])

    def candidates(self, time: int) -> Numbers:
        """Return the features of round `time`, (K, d) of the candidates or (d,) of the context."""
        row: Numbers = self.features[self.offered[time] if self.kind == "shared" else time]
        return row


def save(world: World, path: Path) -> None:
    """Write `world` for another interpreter."""
    arrays: dict[str, Any] = {name: getattr(world, name) for name in _ARRAYS}
    np.savez(path, kind=world.kind, clicks=world.clicks, **arrays)


def load(path: Path) -> World:
    """Read a world that `save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _ARRAYS}
        return World(kind=stored["kind"].item(), clicks=bool(stored["clicks"]), **arrays)


_ARRAYS: Final = ("means", "noise", "arrival", "features", "offered")
_NOTHING: Final[Numbers] = np.zeros((0, 0))
_NOBODY: Final[Indices] = np.zeros((0, 0), np.int64)


def at_once(rounds: int) -> Indices:
    """Return the arrival of rewards that are told before the next round."""
    return np.arange(rounds)


def late(rounds: int, delay: int) -> Indices:
    """Return the arrival of rewards that are told `delay` rounds later; the last ones never are."""
    return np.arange(rounds) + delay


def in_batches(rounds: int, size: int) -> Indices:
    """Return the arrival of rewards that are told at the end of every `size` rounds."""
    return (np.arange(rounds) // size + 1) * size - 1


def bernoulli(rates: Numbers, arrival: Indices, rng: np.random.Generator) -> World:
    """Return arms with these rates of success, (K,), in an order that chance decides."""
    shuffled = rng.permutation(rates)
    return World("arms", shuffled[None], rng.random(len(arrival)), True, arrival, _NOTHING, _NOBODY)  # noqa: FBT003 - clicks


def shared(
    features: Numbers,
    offered: Indices,
    truth: Numbers,
    noise: float,
    arrival: Indices,
    rng: np.random.Generator,
) -> World:
    """Return candidates whose expected reward is linear in their features; `truth` is (d,) or (T, d)."""
    if truth.ndim == 1:
        means = (features @ truth)[offered]
    else:
        means = np.stack([features[row] @ now for row, now in zip(offered, truth, strict=True)])
    drawn = noise * rng.standard_normal(len(offered))
    return World("shared", means, drawn, False, arrival, features, offered)  # noqa: FBT003 - clicks


def shared_clicks(
    features: Numbers, offered: Indices, truth: Numbers, arrival: Indices, rng: np.random.Generator
) -> World:
    """Return candidates whose odds of a click are log-linear in their features; the last one is constant 1."""
    means = 1.0 / (1.0 + np.exp(-(features @ truth)))[offered]
    return World("shared", means, rng.random(len(offered)), True, arrival, features, offered)  # noqa: FBT003 - clicks


def disjoint(
    contexts: Numbers, truth: Numbers, noise: float, arrival: Indices, rng: np.random.Generator
) -> World:
    """Return arms that answer to a context each in its own way; `truth` is (K, d) or (T, K, d)."""
    means = contexts @ truth.T if truth.ndim == 2 else np.einsum("td,tkd->tk", contexts, truth)
    drawn = noise * rng.standard_normal(len(contexts))
    return World("disjoint", means, drawn, False, arrival, contexts, _NOBODY)  # noqa: FBT003 - clicks


def classification(features: Numbers, labels: Indices, rounds: int, rng: np.random.Generator) -> World:
    """Return rows (n, d) in random order; naming the class of a row earns 1, another one 0.

    Columns are standardised and divided by sqrt(d), and a constant 1 is appended: all linear models need them
    alike. A set that is shorter than `rounds` is gone through again, in another order.
    """
    passes = -(-rounds // len(labels))
    rows = np.concatenate([rng.permutation(len(labels)) for _ in range(passes)])[:rounds]
    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    contexts = np.hstack((standard / np.sqrt(features.shape[1]), np.ones((len(features), 1))))[rows]
    means = np.eye(int(labels.max()) + 1)[labels[rows]]
    # A mean of 1 is above every number of noise, one of 0 above none.
    return World("disjoint", means, rng.random(rounds), True, at_once(rounds), contexts, _NOBODY)  # noqa: FBT003 - clicks


def directions(n: int, dim: int, rng: np.random.Generator) -> Numbers:
    """Return `n` points on the unit sphere, (n, dim)."""
    drawn = rng.standard_normal((n, dim))
    length: Numbers = np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn / length


def clustered(n: int, dim: int, clusters: int, rng: np.random.Generator) -> Numbers:
    """Return `n` points on the unit sphere in tight clusters, (n, dim)."""
    near = directions(clusters, dim, rng)[rng.integers(clusters, size=n)]
    drawn = near + 0.3 * directions(n, dim, rng)
    length: Numbers = np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn / length


def fixed(rounds: int, arms: int) -> Indices:
    """Return the same candidates in every round, (rounds, arms)."""
    return np.tile(np.arange(arms), (rounds, 1))


def churning(rounds: int, arms: int, every: int, replaced: int) -> Indices:
    """Return candidates of which the `replaced` oldest make way for new ones each `every` rounds."""
    oldest = np.arange(rounds) // every * replaced
    return oldest[:, None] + np.arange(arms)


Builder: TypeAlias = Callable[[np.random.Generator, int], World]
DIM: Final = 16
ARMS: Final = 50
NOISE: Final = 0.5


@dataclass(frozen=True)
class Recipe:
    """How a world is made, and what is said of it."""

    title: str
    says: str
    """What it is, in a sentence."""
    rounds: int
    build: Builder
    data: str = ""
    """The data set that it needs, or none."""
    changing: bool = False
    """Whether what is true changes with time, so that settings that forget take part."""


def _linear(rng: np.random.Generator, arrival: Indices) -> World:
    features, truth = directions(ARMS, DIM, rng), rng.standard_normal(DIM)
    return shared(features, fixed(len(arrival), ARMS), truth, NOISE, arrival, rng)


def _churning(rng: np.random.Generator, rounds: int) -> World:
    offered = churning(rounds, ARMS, every=10, replaced=5)
    features, truth = directions(int(offered.max()) + 1, DIM, rng), rng.standard_normal(DIM)
    return shared(features, offered, truth, NOISE, at_once(rounds), rng)


def _clicks(rng: np.random.Generator, rounds: int) -> World:
    offered = churning(rounds, ARMS, every=10, replaced=5)
    features = directions(int(offered.max()) + 1, DIM - 1, rng)
    truth = np.append(1.5 * rng.standard_normal(DIM - 1), -3.0)
    constant = np.ones((len(features), 1))
    return shared_clicks(np.hstack((features, constant)), offered, truth, at_once(rounds), rng)


def _slow(rng: np.random.Generator, rounds: int) -> World:
    # The truth turns in a plane, a full circle in all; half of it lies outside and stays.
    features, (stays, x, y) = directions(ARMS, DIM, rng), rng.standard_normal((3, DIM)) / np.sqrt(2.0)
    angle = 2.0 * np.pi * np.arange(rounds)[:, None] / rounds
    truth = stays + np.sqrt(2.0) * (np.cos(angle) * x + np.sin(angle) * y)
    return shared(features, fixed(rounds, ARMS), truth, NOISE, at_once(rounds), rng)


def _contexts(rng: np.random.Generator, rounds: int, dim: int) -> Numbers:
    return np.hstack((directions(rounds, dim - 1, rng), np.ones((rounds, 1))))


def _disjoint(rng: np.random.Generator, rounds: int) -> World:
    truth = rng.standard_normal((10, 10)) * np.append(np.ones(9), 0.3)
    return disjoint(_contexts(rng, rounds, 10), truth, NOISE, at_once(rounds), rng)


def _abrupt(rng: np.random.Generator, rounds: int) -> World:
    two = rng.standard_normal((2, 10, 10)) * np.append(np.ones(9), 0.3)
    truth = two[(np.arange(rounds) >= rounds // 2).astype(np.int64)]
    return disjoint(_contexts(rng, rounds, 10), truth, NOISE, at_once(rounds), rng)


def _labelled(data: Mapping[str, Any], name: str) -> Builder:
    return lambda rng, rounds: classification(data[f"{name}/x"], data[f"{name}/y"], rounds, rng)


SPACED: Final[Numbers] = np.linspace(0.05, 0.95, 10)
RARE: Final[Numbers] = np.linspace(0.005, 0.05, 10)


def recipes(data: Mapping[str, Any]) -> dict[str, Recipe]:
    """Return all worlds by name; those of data sets that `data` lacks are left out."""
    made = {
        "spaced": Recipe(
            "10 arms, gaps of 0.1",
            "Success rates 0.05, 0.15, … 0.95.",
            3_000,
            lambda rng, rounds: bernoulli(SPACED, at_once(rounds), rng),
        ),
        "rare": Recipe(
            "10 arms, rare clicks",
            "Click rates from 0.5 to 5 per cent, evenly spaced.",
            4_000,
            lambda rng, rounds: bernoulli(RARE, at_once(rounds), rng),
        ),
        "many": Recipe(
            "100 arms, drawn rates",
            "Rates drawn from Beta(1, 9), others for each seed.",
            800,
            lambda rng, rounds: bernoulli(rng.beta(1.0, 9.0, 100), at_once(rounds), rng),
        ),
        "late": Recipe(
            "10 arms, rewards 100 rounds late",
            "The arms with gaps of 0.1, each reward told 100 rounds later.",
            2_000,
            lambda rng, rounds: bernoulli(SPACED, late(rounds, 100), rng),
        ),
        "linear": Recipe(
            "50 candidates, shared linear model",
            "The same 50 candidates, 16 features on the unit sphere, coefficients from N(0, I), noise 0.5.",
            1_000,
            lambda rng, rounds: _linear(rng, at_once(rounds)),
        ),
        "churning": Recipe(
            "50 of many candidates, shared linear model",
            "`linear`, but every 10 rounds the oldest 5 candidates make way for new ones.",
            1_000,
            _churning,
        ),
        "batches": Recipe(
            "Shared linear model, rewards in batches of 100",
            "`linear`, rewards told at the end of every 100 rounds.",
            1_000,
            lambda rng, rounds: _linear(rng, in_batches(rounds, 100)),
        ),
        "clicks": Recipe(
            "50 of many candidates, clicks",
            "Candidates as in `churning`; log-odds of a click linear in 15 features, about 5 per cent at the middle.",
            1_500,
            _clicks,
        ),
        "slow": Recipe(
            "Slow drift, shared linear model",
            "`linear`, but the larger part of the coefficients turns, once round in all.",
            800,
            _slow,
            changing=True,
        ),
        "disjoint": Recipe(
            "10 arms in a context",
            "Nine features on the unit sphere and a constant; coefficients of each arm's own, noise 0.5.",
            600,
            _disjoint,
        ),
        "abrupt": Recipe(
            "Abrupt drift, 10 arms in a context",
            "`disjoint`, with other coefficients from the middle on.",
            800,
            _abrupt,
            changing=True,
        ),
    }
    for name, (source, rounds) in LABELLED.items():
        made[name] = Recipe(
            f"Classes of {name}",
            f"Naming the class, from {source}.",
            rounds,
            _labelled(data, name),
            data=name,
        )
    return {name: recipe for name, recipe in made.items() if not recipe.data or f"{recipe.data}/x" in data}


LABELLED: Final = {
    "iris": ("scikit-learn: 150 rows, 4 features, 3 classes", 300),
    "breast_cancer": ("scikit-learn: 569 rows, 30 features, 2 classes", 400),
    "phishing": ("river: 1,250 rows, 9 features, 2 classes", 500),
    "wine": ("scikit-learn: 178 rows, 13 features, 3 classes", 356),
    "image_segments": ("river: 2,310 rows, 18 features, 7 classes", 600),
    "digits": ("scikit-learn: 1,797 rows, 64 features, 10 classes", 600),
    "bananas": ("river: 5,300 rows, 2 features, 2 classes that no line parts", 500),
}


def build(name: str, recipe: Recipe, seed: int, rounds: int | None = None) -> World:
    """Return the world `name` of a seed; the name is part of the seed."""
    rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
    return recipe.build(rng, recipe.rounds if rounds is None else rounds)
