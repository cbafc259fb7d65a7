"""The exploration loop as a simulation, in which every reward is a rating that somebody really gave.

Protocol: a visit is one user and the items they rated after the split and that this run has not shown them
yet; a slate of five is drawn from those, and an item earns 1 where its real rating counts as liked, else 0.
Each user comes as often as half of their items last, in an order that the seed shuffles. Scores and features
are those of the ranker as of the moment the user is asked about; only rewards teach the policies, in batches.
It is a simulation: the visits are made up, and the candidates are items the user chose to rate.

No policy but the linear ones learns how the features bear on a rating, and the ranker was trained to tell
liked items from the rest of the catalogue, not liked from disliked ratings. So part of linear Thompson's gain
is learning and no exploration: "linear, greedy" learns the same and always shows what it believes best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.demo.visitors import Visitor
from explorank.hooks.exploration import (
    BetaThompson,
    Contest,
    EpsilonGreedy,
    Greedy,
    LinearThompson,
    Policy,
    RankingBatch,
    RewardBatch,
    build_slate,
)
from explorank.hooks.types import BoolArray

SLOTS = 5
_BATCH_VISITS = 10


@dataclass(frozen=True, slots=True)
class Run:
    """One policy under one seed."""

    policy: str
    seed: int
    cumulative_reward: NDArray[np.float64]  # (visits,)
    coverage: NDArray[np.float64]  # (visits,) share of the rated items shown to anybody so far


@dataclass(frozen=True)
class GreedyLinear(Policy[Any]):
    """Learns what linear Thompson learns, and shows what it believes best: the gain that needs no exploration."""

    name: ClassVar[str] = "greedy_linear"
    needs_features: ClassVar[bool] = True

    model: LinearThompson

    def initial_state(self) -> Any:
        """Return the model's prior."""
        return self.model.initial_state()

    def contest(
        self, state: Any, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> Contest:
        """Return a greedy contest over the expected rewards."""
        assert batch.features is not None  # noqa: S101 - visitors have features
        believed = batch.features.astype(np.float64) @ state.mean
        greedy = Greedy()
        return greedy.contest(greedy.initial_state(), replace(batch, scores=believed), eligible, rng)

    def learn(self, state: Any, rewards: RewardBatch) -> Any:
        """Return the model's posterior."""
        return self.model.learn(state, rewards)

    def pack(self, state: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the model's state, taken apart."""
        return self.model.pack(state)

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> Any:
        """Return the model's state, put together."""
        return self.model.unpack(meta, packed)


def contestants(dim: int) -> Mapping[str, Policy[Any]]:
    """Return the policies by the names they are shown under."""
    return {
        "no exploration": Greedy(),
        "ε-greedy": EpsilonGreedy(epsilon=0.1),
        "Beta Thompson": BetaThompson(),
        "linear, greedy": GreedyLinear(LinearThompson(dim=dim)),
        "linear Thompson": LinearThompson(dim=dim),
    }


def simulate(
    visitors: Sequence[Visitor], *, seeds: int, progress: Callable[[int, int], None] | None = None
) -> list[Run]:
    """Return the runs of every policy under `seeds` seeds; all policies of a seed see the same visits."""
    policies = contestants(visitors[0].features.shape[1])
    runs = []
    for seed in range(seeds):
        for name, policy in policies.items():
            runs.append(_run(name, policy, visitors, seed))
            if progress is not None:
                progress(len(runs), seeds * len(policies))
    return runs


def _run(name: str, policy: Policy[Any], visitors: Sequence[Visitor], seed: int) -> Run:
    generator = np.random.default_rng(seed)
    visits = np.repeat(
        np.arange(len(visitors)), [max(1, len(visitor.item_ids) // (2 * SLOTS)) for visitor in visitors]
    )
    generator.shuffle(visits)
    left = [np.ones(len(visitor.item_ids), np.bool_) for visitor in visitors]
    catalogue = len({item for visitor in visitors for item in visitor.item_ids.tolist()})
    state = policy.initial_state()
    shown: set[str] = set()
    earned, covered = np.zeros(len(visits)), np.zeros(len(visits))
    pending: list[tuple[NDArray[np.str_], NDArray[np.float32], NDArray[np.float64]]] = []
    for position, index in enumerate(visits.tolist()):
        visitor, rows = visitors[index], np.flatnonzero(left[index])
        batch = RankingBatch(
            item_ids=visitor.item_ids[rows], features=visitor.features[rows], scores=visitor.scores[rows]
        )
        slate = build_slate(policy, state, batch, SLOTS, seed=int(generator.integers(2**62)))
        chosen = rows[slate.order]
        left[index][chosen] = False
        items = visitor.item_ids[chosen]
        pending.append((items, visitor.features[chosen], visitor.rewards[chosen]))
        shown.update(items.tolist())
        earned[position] = visitor.rewards[chosen].sum()
        covered[position] = len(shown) / catalogue
        if len(pending) == _BATCH_VISITS:
            ids, features, values = (np.concatenate(column) for column in zip(*pending, strict=True))
            state = policy.learn(state, RewardBatch(item_ids=ids, features=features, values=values))
            pending.clear()
    return Run(name, seed, earned.cumsum(), covered)
