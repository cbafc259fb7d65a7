"""Guards under which policies are tested: eligibility by item, by slot, and by the slate above."""

from __future__ import annotations

from dataclasses import dataclass

from explorank.hooks.guards import BlockList, Guard
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest


def guards_for(batch: RankingBatch) -> tuple[Guard, ...]:
    """Return guards that leave at least one of six candidates or more in each of three slots."""
    ids = batch.item_ids.tolist()
    return BlockList(items=[str(ids[3])]), NotBelow(ids[1], ids[4]), NotOnTop(ids[0])


@dataclass(frozen=True, slots=True)
class NotBelow:
    """Bars one item from the slots below another."""

    above: str
    barred: str

    def eligible(
        self,
        request: RankingRequest,  # noqa: ARG002 - holds for every request
        batch: RankingBatch,
        placed: IndexArray,
        slot: int,  # noqa: ARG002 - the slate above says it all
    ) -> BoolArray:
        """Return True for all but `barred`, and for it until `above` is placed, (n,) bool."""
        stands_above = self.above in batch.item_ids[placed].tolist()
        mask: BoolArray = ~((batch.item_ids == self.barred) & stands_above)
        return mask


@dataclass(frozen=True, slots=True)
class NotOnTop:
    """Bars one item from slot 0, and lets it in below."""

    barred: str

    def eligible(
        self,
        request: RankingRequest,  # noqa: ARG002 - holds for every request
        batch: RankingBatch,
        placed: IndexArray,  # noqa: ARG002 - the slot says it all
        slot: int,
    ) -> BoolArray:
        """Return True for all but `barred`, and for it below slot 0, (n,) bool."""
        mask: BoolArray = (batch.item_ids != self.barred) | (slot > 0)
        return mask
