"""How sure a difference between arms is where visitors come again: what is dealt to the arms are visitors.

Decisions of one visitor resemble one another, and an arm keeps its visitors. With few of them, or few very active
ones, the arms differ by the luck of the deal alone, and no number of decisions makes that difference go away. So
visitors are dealt into buckets by a hash of their own; what varies between the buckets of an arm is what chance
makes of its visitors, however often each of them came and whatever changed with time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from explorank.hooks.errors import CorruptState
from explorank.hooks.types import FloatArray, IndexArray, RankingRequest

BUCKETS: Final = 64
_ENOUGH: Final = 8


def bucket_of(request: RankingRequest) -> int:
    """Return the bucket of the request's visitor: their user id, else their session's, else they come once."""
    visitor = request.user_id or str(request.context.get("session_id") or request.decision_id)
    digest = blake2b(visitor.encode("utf-8", "surrogatepass"), digest_size=8, person=b"explorank.visit")
    return int.from_bytes(digest.digest(), "big") % BUCKETS


def _empty() -> FloatArray:
    return np.zeros((2, 2, BUCKETS))


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """How many decisions, and what they earned, by bucket; the explore arm first, then the baseline."""

    sums: FloatArray = field(default_factory=_empty)  # (2 arms, count and total, BUCKETS)

    def plus(self, values: FloatArray, explore: NDArray[np.bool_], buckets: IndexArray) -> Self:
        """Return the sums after `values` (m,), each of an arm and a bucket."""
        sums = self.sums.copy()
        for arm, mine in enumerate((explore, ~explore)):
            sums[arm, 0] += np.bincount(buckets[mine], minlength=BUCKETS)
            sums[arm, 1] += np.bincount(buckets[mine], weights=values[mine], minlength=BUCKETS)
        return type(self)(sums)

    def fallen(self, drop: float, error: float) -> bool:
        """Return whether buckets say that the explore arm's mean is below the baseline's by more than `drop`.

        Right with 1 - `error` for one look, by a t test on the ratio of totals to counts (Cochran, *Sampling
        Techniques*, 1977, section 6.3), which takes the buckets' totals as normal: near enough where dozens of
        visitors share a bucket. False where fewer than 8 buckets of an arm have a decision.
        """
        return bool(fallen(self.sums, drop, error))

    def packed(self) -> list[float]:
        """Return all sums as one list, for JSON."""
        flat: list[float] = self.sums.ravel().tolist()
        return flat

    @classmethod
    def unpacked(cls, packed: Sequence[float]) -> Self:
        """Return what `packed` holds; raise `CorruptState` for anything else."""
        try:
            return cls(np.array(packed, np.float64).reshape(2, 2, BUCKETS))
        except (TypeError, ValueError) as error:
            raise CorruptState(
                f"The saved buckets of the automatic stop cannot be read ({error}). The learner rebuilds its state "
                "from the log."
            ) from error


def fallen(sums: FloatArray, drop: float, error: float) -> NDArray[np.bool_]:
    """Return the verdict of `Buckets.fallen` for sums (..., 2, 2, BUCKETS)."""
    counts, totals = sums[..., 0, :], sums[..., 1, :]
    decisions = np.maximum(counts.sum(axis=-1), 1.0)
    means = totals.sum(axis=-1) / decisions  # (..., 2)
    filled = (counts > 0).sum(axis=-1)
    spread = ((totals - means[..., None] * counts) ** 2).sum(axis=-1)
    variances = filled / np.maximum(filled - 1, 1) * spread / decisions**2
    explore, baseline = means[..., 0], means[..., 1]
    fewest = filled.min(axis=-1)
    slope = np.where(baseline >= 0.0, 1.0 - drop, 1.0 + drop)
    missing = baseline * slope - explore
    deviation = np.sqrt(variances[..., 0] + slope**2 * variances[..., 1])
    width = stdtrit(np.maximum(fewest - 1, 1), 1.0 - error) * deviation
    verdict: NDArray[np.bool_] = (fewest >= _ENOUGH) & (missing > width)
    return verdict
