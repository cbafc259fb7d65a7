"""Losses over more texts than fit into memory at once, with the gradients of one large batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def cached_backward(
    embed: Callable[[range], Tensor],
    count: int,
    loss_of: Callable[[Tensor], Tensor],
    *,
    at_once: int,
    seed: int,
) -> float:
    """Add the gradients of `loss_of(embed(all))` to the parameters and return the loss (GradCache, Gao et al., 2021).

    `embed(places)` returns the vectors (m, d) of a stretch of `count` texts; it runs on `at_once` of them at a time,
    once without gradients for the loss, whose gradient by each vector is kept, and once more to carry that on to the
    parameters. Memory so depends on `at_once` and not on the batch. Both passes drop out alike: `seed` sees to it.
    """
    parts = [range(start, min(start + at_once, count)) for start in range(0, count, at_once)]
    vectors = []
    with torch.no_grad():
        for number, part in enumerate(parts):
            torch.manual_seed(_of(seed, number))
            vectors.append(embed(part))
    leaf = torch.cat(vectors).requires_grad_()
    loss = loss_of(leaf)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = leaf.grad
    if gradient is None:
        raise RuntimeError("The loss does not depend on the vectors.")
    for number, part in enumerate(parts):
        torch.manual_seed(_of(seed, number))
        (embed(part) * gradient[part.start : part.stop]).sum().backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _of(seed: int, part: int) -> int:
    return (seed * 1_000_003 + part) % 2**63
