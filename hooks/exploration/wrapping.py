"""Policies that are made of another policy: what they answer in its stead, and how they keep several of its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from explorank.hooks.errors import CorruptState
from explorank.hooks.exploration.policy import Policy, S

_DELEGATED: Final = ("needs_features", "learns_from", "learns_residuals", "sees_slate", "reward_form")


@dataclass(frozen=True)
class WrappingPolicy(Policy[S]):
    """A policy over the states of another one, for which it answers wherever it says nothing itself."""

    policy: Policy[Any]
    """What learns; the name of the whole is a prefix and its name."""

    def _stand_for(self, prefix: str) -> None:
        """Answer for the wrapped policy where a class would."""
        object.__setattr__(self, "name", f"{prefix}_{self.policy.name}")
        for attribute in _DELEGATED:
            object.__setattr__(self, attribute, getattr(self.policy, attribute))

    @property
    def dim(self) -> Any:
        """The wrapped policy's `dim`, `None` where it has none."""
        return getattr(self.policy, "dim", None)

    @property
    def exploration_floor(self) -> float:
        """The wrapped policy's."""
        return self.policy.exploration_floor

    @property
    def reads(self) -> tuple[str, ...]:
        """The wrapped policy's."""
        return self.policy.reads


def pack_states(
    policy: Policy[Any], states: Sequence[Any]
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Return the metadata of each state, and the arrays of them all by place and name."""
    packed = [policy.pack(state) for state in states]
    # How often a part's `learn` was called depends on how the log was cut, and nothing depends on it.
    metas = [{name: value for name, value in meta.items() if name != "version"} for meta, _ in packed]
    return metas, {
        f"{at}.{name}": array for at, (_, held) in enumerate(packed) for name, array in held.items()
    }


def unpack_states(
    wrapping: Policy[Any],
    policy: Policy[Any],
    metas: Sequence[dict[str, Any]],
    packed: dict[str, NDArray[Any]],
) -> tuple[Any, ...]:
    """Return the states that `pack_states` took apart; raise `CorruptState` for arrays that belong to none."""
    held: list[dict[str, NDArray[Any]]] = [{} for _ in metas]
    for name, array in packed.items():
        at, _, inner = name.partition(".")
        if not at.isdigit() or int(at) >= len(metas):
            raise CorruptState(
                f"A saved state of {wrapping.name} has an array {name!r} that belongs to none of its "
                f"{len(metas)} parts. Restore an older copy, or rebuild it from the log."
            )
        held[int(at)][inner] = array
    return tuple(
        policy.unpack({**meta, "version": 0}, arrays) for meta, arrays in zip(metas, held, strict=True)
    )
