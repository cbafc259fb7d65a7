"""Knowledge for each training of a network, for any policy over its last layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration.policy import Contest
from explorank.hooks.exploration.rewards import taken_rewards
from explorank.hooks.exploration.wrapping import WrappingPolicy, pack_states, unpack_states
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class RepresentedState:
    """What was learnt over each representation."""

    version: int
    states: tuple[tuple[str, Any], ...]
    """The representation's version and the policy's state over it; what was learnt from latest stands last."""

    def over(self, representation: str) -> Any | None:
        """Return the policy's state over a representation, `None` where nothing was learnt over it."""
        return next((state for name, state in self.states if name == representation), None)


@dataclass(frozen=True)
class PerRepresentation(WrappingPolicy[RepresentedState]):
    """Keep a policy's knowledge apart for each network whose last layer it reads.

    Column 7 of one training means something else than column 7 of the next, so a posterior over the one says nothing
    of the other. A request is answered from the state over the representation that its batch names, from the prior
    where there is none; a reward is learnt over the representation that its item was shown with. Requests and rewards
    of two networks may mix, as they do while one takes the other's place in several processes. Who goes back to an
    earlier network finds what was learnt over it.

    Propensity: that of the policy, at the state over the batch's representation.

    When: a network ranks and is trained again now and then. When not: what the policy reads is no network's. Nothing
    is carried from one representation to the next: let a warm start do that, which is in the unit of rewards.
    """

    name: ClassVar[str] = "per_representation"

    kept: int = 4
    """Over how many representations something is known; beyond that the one longest not learnt from is forgotten."""

    def __post_init__(self) -> None:
        """Check the options, and answer for the policy where a class would."""
        if self.kept < 1:
            raise InvalidPolicy(
                f"`kept` of {self.name} is {self.kept!r}; with no representation nothing could be learnt. Try 4."
            )
        self._stand_for("represented")

    def initial_state(self) -> RepresentedState:
        """Return that nothing was learnt over any representation."""
        return RepresentedState(0, ())

    def contest(
        self, state: RepresentedState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> Contest:
        """Return the policy's contest, by what is known over the batch's representation."""
        return self.policy.contest(self._over(state, batch.representation), batch, eligible, rng)

    def expected(self, state: RepresentedState, rewards: RewardBatch) -> FloatArray | None:
        """Return what the policy expects of each row, (m,), by what is known over its representation."""
        found = [
            self.policy.expected(self._over(state, name), taken_rewards(rewards, rows))
            for name, rows in _runs(rewards)
        ]
        known = [one for one in found if one is not None]
        return np.concatenate(known) if found and len(known) == len(found) else None

    def learn(self, state: RepresentedState, rewards: RewardBatch) -> RepresentedState:
        """Return the state with each reward learnt over its representation.

        Raises `InvalidBatch` where the policy refuses one.
        """
        if not len(rewards):
            # Said aloud even where nothing came, so that an unfit batch is refused.
            self.policy.learn(self.policy.initial_state(), rewards)
        states = state.states
        for name, rows in _runs(rewards):
            learnt = self.policy.learn(self._over(state, name), taken_rewards(rewards, rows))
            states = (*(one for one in states if one[0] != name), (name, learnt))[-self.kept :]
            state = RepresentedState(state.version, states)
        return RepresentedState(state.version + 1, states)

    def pack(self, state: RepresentedState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the state over each representation."""
        metas, named = pack_states(self.policy, [one for _, one in state.states])
        return {"version": state.version, "names": [name for name, _ in state.states], "states": metas}, named

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> RepresentedState:
        """Return the state; raise `CorruptState` where it is none of these options."""
        version, names, metas = meta.get("version"), meta.get("names"), meta.get("states")
        if (
            not isinstance(version, int)
            or version < 0
            or not isinstance(names, list)
            or not isinstance(metas, list)
            or not len(set(map(str, names))) == len(names) == len(metas) <= self.kept
        ):
            raise CorruptState(
                f"A saved state of {self.name} has version {version!r} over representations {names!r}; it needs a "
                f"version from 0 on, and at most {self.kept} that differ, with a state each. Restore an older copy, "
                "or rebuild it from the log."
            )
        states = unpack_states(self, self.policy, metas, packed)
        return RepresentedState(version, tuple(zip(map(str, names), states, strict=True)))

    def _over(self, state: RepresentedState, representation: str) -> Any:
        """Return the policy's state over a representation, the prior where nothing was learnt over it."""
        found = state.over(representation)
        return self.policy.initial_state() if found is None else found


def _runs(rewards: RewardBatch) -> Iterator[tuple[str, slice]]:
    """Yield the rows of one representation after another, in their order, however the log is cut into batches."""
    m = len(rewards)
    names = np.full(m, "") if rewards.representations is None else rewards.representations
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist()] if m else []
    for start, end in zip(starts, [*starts[1:], m], strict=False):
        yield str(names[start]), slice(start, end)
