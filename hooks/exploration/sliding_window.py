"""A window over the latest rewards, for any policy whose state is a sum."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState, InvalidPolicy
from explorank.hooks.exploration.policy import Contest, Policy
from explorank.hooks.exploration.rewards import taken_rewards
from explorank.hooks.exploration.wrapping import WrappingPolicy, pack_states, unpack_states
from explorank.hooks.types import BoolArray, FloatArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class WindowState:
    """What the latest blocks of rewards taught, one state of the windowed policy each, and their sum."""

    version: int
    blocks: tuple[Any, ...]
    """The oldest first; all are full but the last."""
    latest: int
    """How many rewards the last block holds."""
    settled: Any = field(repr=False)
    """The sum of all blocks but the last."""
    merged: Any = field(repr=False)
    """The sum of all blocks: what requests read."""


@dataclass(frozen=True)
class SlidingWindow(WrappingPolicy[WindowState]):
    """Let a policy know the latest rewards only, and nothing of those before.

    The window is a ring of blocks of rewards / blocks each; when the last block is full a new one begins, and
    what falls out of the ring is forgotten as a whole. So between (1 - 1 / blocks) · rewards and `rewards` of the
    log's latest are known (fewer only until so many have come), however the log is cut into batches. A request
    reads the blocks' sum, which is kept ready.

    Propensity: that of the windowed policy, at the state that the window holds.

    When: the world changes by steps, after which the past is worth nothing; or what is learnt must not rest on
    data older than so many rewards. When not: it drifts, where a `half_life` loses less; or rewards of many items
    are rare, because what is not shown for a window's length is unknown again.

    Source: the sliding window of Garivier and Moulines, *On Upper-Confidence Bound Policies for Switching Bandit
    Problems* (2011), for any policy whose state is a sum. It departs from them in that rewards are forgotten by
    blocks, so that a reward need not be kept to be taken out again.
    """

    name: ClassVar[str] = "sliding_window"

    policy: Policy[Any]
    """What learns within the window; it must be `additive`. The window's name is `windowed_` and its name."""
    rewards: int = 10_000
    """How many of the latest rewards are known at most; a multiple of `blocks`."""
    blocks: int = 10
    """How many blocks the window has, from 2 on. More forget more evenly, and take more memory."""

    def __post_init__(self) -> None:
        """Check the options, and answer for the windowed policy where a class would."""
        if not self.policy.additive:
            raise InvalidPolicy(
                f"`policy` of {self.name} is {self.policy.name}, whose state is no sum over rewards, given its "
                "options, so that blocks of it have no sum. Take one that is `additive`, or its own `half_life`."
            )
        if not 2 <= self.blocks <= self.rewards or self.rewards % self.blocks:
            raise InvalidPolicy(
                f"`blocks` of {self.name} is {self.blocks!r} for {self.rewards!r} `rewards`; a window has 2 blocks "
                "or more, of one size from 1 reward on. Try 10 blocks of 10,000 rewards."
            )
        self._stand_for("windowed")

    def initial_state(self) -> WindowState:
        """Return a window that has seen nothing."""
        nothing = self.policy.initial_state()
        return WindowState(0, (nothing,), 0, nothing, nothing)

    def contest(
        self, state: WindowState, batch: RankingBatch, eligible: BoolArray, rng: np.random.Generator
    ) -> Contest:
        """Return the windowed policy's contest of one request."""
        return self.policy.contest(state.merged, batch, eligible, rng)

    def expected(self, state: WindowState, rewards: RewardBatch) -> FloatArray | None:
        """Return what the windowed policy expects of each row, (m,)."""
        return self.policy.expected(state.merged, rewards)

    def learn(self, state: WindowState, rewards: RewardBatch) -> WindowState:
        """Return the window moved on by `rewards`; raise `InvalidBatch` where the policy refuses one of them."""
        blocks, latest, settled = state.blocks, state.latest, state.settled
        size, m = self.rewards // self.blocks, len(rewards)
        cuts = [0, *range(size - latest, m, size), m] if m else [0]
        for start, end in pairwise(cuts):
            if start == end:  # the last block was full to begin with
                continue
            if latest == size:
                blocks = (*blocks, self.policy.initial_state())[-self.blocks :]
                latest, settled = 0, self._sum(blocks[:-1])
            learnt = self.policy.learn(blocks[-1], taken_rewards(rewards, slice(start, end)))
            blocks, latest = (*blocks[:-1], learnt), latest + end - start
        if blocks is state.blocks:
            # Said aloud even where nothing came, so that an unfit batch is refused.
            self.policy.learn(blocks[-1], rewards)
        return self._state(state.version + 1, blocks, latest, settled)

    def pack(self, state: WindowState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the blocks; their sum follows from them."""
        metas, named = pack_states(self.policy, state.blocks)
        return {"version": state.version, "latest": state.latest, "blocks": metas}, named

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> WindowState:
        """Return the state; raise `CorruptState` where it is no window of these options."""
        version, latest, metas = meta.get("version"), meta.get("latest"), meta.get("blocks")
        if (
            not isinstance(version, int)
            or version < 0
            or not isinstance(metas, list)
            or not 1 <= len(metas) <= self.blocks
            or not isinstance(latest, int)
            or not 0 <= latest <= self.rewards // self.blocks
        ):
            raise CorruptState(
                f"A saved state of {self.name} has version {version!r} and {latest!r} rewards in the last of its "
                f"blocks; it needs a version from 0 on and 1 to {self.blocks} blocks of at most "
                f"{self.rewards // self.blocks} rewards. Restore an older copy, or rebuild it from the log."
            )
        blocks = unpack_states(self, self.policy, metas, packed)
        return self._state(version, blocks, latest, self._sum(blocks[:-1]))

    def _state(self, version: int, blocks: tuple[Any, ...], latest: int, settled: Any) -> WindowState:
        return WindowState(version, blocks, latest, settled, self.policy.merge(settled, blocks[-1]))

    def _sum(self, blocks: tuple[Any, ...]) -> Any:
        """Return what all `blocks` know together, added up from the oldest on."""
        total = self.policy.initial_state()
        for block in blocks:
            total = self.policy.merge(total, block)
        return total
