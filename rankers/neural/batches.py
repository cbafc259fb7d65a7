"""Training data as tensors that lie where they are used, and batches of whole requests from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, Self

import torch
from torch import Tensor

_LAYOUT: Final = ("starts", "sizes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rows of some requests, one after another."""

    numbers: Tensor
    """(n, p) standardised."""
    places: Tensor
    """(n, c) of categories in the table of embeddings."""
    labels: Tensor
    """(n,), NaN where only a teacher says something."""
    weights: Tensor | None
    """(n,)"""
    outcomes: Tensor
    """(n, t - 1), NaN where not known."""
    teacher: Tensor | None
    """(n, t) how probable a teacher finds what each head foresees, NaN where it says nothing."""
    items: Tensor | None
    """(n,) codes."""
    histories: Tensor | None
    """(u, l) codes."""
    requests: int
    """How many there are, u."""
    longest: int
    """Rows of the longest request, m."""
    slots: Tensor | None
    """(n,) where each row stands among u times m; None where all requests are equally long, so that none is empty."""

    def padded(self, rows: Tensor) -> Tensor:
        """Return (u, m, …) for (n, …), zeros in the empty slots."""
        shape = (self.requests, self.longest, *rows.shape[1:])
        if self.slots is None:
            return rows.reshape(shape)
        empty = rows.new_zeros((self.requests * self.longest, *rows.shape[1:]))
        return empty.index_copy(0, self.slots, rows).reshape(shape)

    def flat(self, padded: Tensor) -> Tensor:
        """Return (n, …) for (u, m, …): the rows without the empty slots."""
        rows = padded.flatten(0, 1)
        return rows if self.slots is None else rows.index_select(0, self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """All rows, and where each request's begin."""

    numbers: Tensor
    places: Tensor
    labels: Tensor
    weights: Tensor | None
    outcomes: Tensor
    teacher: Tensor | None
    items: Tensor | None
    histories: Tensor | None
    starts: Tensor
    """(g,), on the CPU, as batches are laid out there: asking a GPU for a length waits for all it has to do."""
    sizes: Tensor
    """(g,), on the CPU."""

    def to(self, device: torch.device) -> Self:
        """Return the frame with its rows on a device."""
        moved = {
            field.name: part.to(device)
            for field in fields(self)
            if field.name not in _LAYOUT and isinstance(part := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def requests_per_batch(self, rows: int) -> int:
        """Return how many requests make a batch of about so many rows."""
        return max(1, round(rows * len(self.sizes) / max(len(self.labels), 1)))

    def batches(self, order: Tensor, per_batch: int) -> Iterator[Batch]:
        """Yield the requests of `order` (on the CPU), so many at a time."""
        for requests in torch.split(order, per_batch):
            yield self.batch(requests)

    def batch(self, requests: Tensor) -> Batch:
        """Return the rows of some requests (on the CPU)."""
        device = self.labels.device
        sizes = self.sizes[requests]
        longest = int(sizes.max())
        slots = None
        if longest * len(requests) == int(sizes.sum()):
            rows = (self.starts[requests].unsqueeze(1) + torch.arange(longest)).flatten()
        else:
            local = torch.repeat_interleave(torch.arange(len(requests)), sizes)
            offsets = torch.arange(len(local)) - (sizes.cumsum(0) - sizes)[local]
            rows = self.starts[requests][local] + offsets
            slots = (local * longest + offsets).to(device)
        rows, histories = rows.to(device), self.histories
        return Batch(
            numbers=self.numbers.index_select(0, rows),
            places=self.places.index_select(0, rows),
            labels=self.labels.index_select(0, rows),
            weights=None if self.weights is None else self.weights.index_select(0, rows),
            outcomes=self.outcomes.index_select(0, rows),
            teacher=None if self.teacher is None else self.teacher.index_select(0, rows),
            items=None if self.items is None else self.items.index_select(0, rows),
            histories=None if histories is None else histories.index_select(0, requests.to(device)),
            requests=len(requests),
            longest=longest,
            slots=slots,
        )
