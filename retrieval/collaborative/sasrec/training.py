"""Training of the transformer, in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from explorank.retrieval._torch import as_array, device_named, reproducible
from explorank.retrieval.collaborative._training import Scores, best_epoch, cut
from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.sasrec.model import NORM_EPSILON, SASRecArrays
from explorank.retrieval.collaborative.sasrec.options import SASRecOptions

_FIRST_SD: Final = 0.05
_MASKED: Final = -1e9
"""Added to the attention of what must not be looked at; finite, so that a step that sees nothing is no NaN."""

Rows = NDArray[np.int64]


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before and added."""

    def __init__(self, options: SASRecOptions) -> None:
        super().__init__()
        dim = options.dim
        self.heads = options.heads
        self.attention_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attention = nn.Linear(dim, 3 * dim)
        self.attended = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.hidden = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, steps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (u, h, d) for steps (u, h, d) and a mask (u, h, h) that is added to attention."""
        users, length, dim = steps.shape
        read = self.attention(self.attention_norm(steps)).reshape(users, length, 3, self.heads, -1)
        queries, keys, values = read.permute(2, 0, 3, 1, 4)
        logits = queries @ keys.transpose(2, 3) / math.sqrt(dim // self.heads) + mask[:, None]
        weights = self.dropout(torch.softmax(logits, dim=-1))
        attended = (weights @ values).transpose(1, 2).reshape(users, length, dim)
        steps = steps + self.dropout(self.attended(attended))
        hidden = self.dropout(torch.relu(self.hidden(self.feed_norm(steps))))
        result: torch.Tensor = steps + self.dropout(self.output(hidden))
        return result


class Network(nn.Module):
    """The parameters; `SASRecArrays` says what serving keeps of them."""

    def __init__(self, items: int, options: SASRecOptions) -> None:
        super().__init__()
        self.absent = items
        """Stands in a history where there is no item yet."""
        self.item_ids = nn.Embedding(items + 1, options.dim)
        nn.init.normal_(self.item_ids.weight, std=_FIRST_SD)
        self.positions = nn.Parameter(torch.randn(options.history, options.dim) * _FIRST_SD)
        self.blocks = nn.ModuleList(Block(options) for _ in range(options.layers))
        self.final_norm = nn.LayerNorm(options.dim, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(options.dropout)
        self.future: torch.Tensor
        future = torch.full((options.history, options.history), _MASKED).triu(1)
        self.register_buffer("future", future, persistent=False)

    def items(self, rows: torch.Tensor) -> torch.Tensor:
        """Return vectors (…, d) of length 1 of the items in rows (…)."""
        return normalize(self.item_ids(rows), dim=-1)

    def users(self, histories: torch.Tensor) -> torch.Tensor:
        """Return where the next item is looked for (u, h, d), of length 1, after each step of histories (u, h)."""
        absent = (histories == self.absent).to(torch.float32)[:, None, :] * _MASKED
        mask = torch.clamp(self.future + absent, min=_MASKED)
        steps = self.dropout(self.items(histories) + self.positions)
        for block in self.blocks:
            steps = block(steps, mask)
        return normalize(self.final_norm(steps), dim=-1)

    def arrays(self) -> SASRecArrays:
        """Return what serving needs."""

        def of_blocks(read: Callable[[Any], torch.Tensor]) -> NDArray[np.float32]:
            return as_array(torch.stack([read(block) for block in self.blocks]))

        def norm(layer: nn.LayerNorm) -> torch.Tensor:
            return torch.stack([layer.weight, layer.bias])

        with torch.no_grad():
            return SASRecArrays(
                item_vectors=as_array(self.items(torch.arange(self.absent, device=self.future.device))),
                positions=as_array(self.positions),
                attention_norm=of_blocks(lambda block: norm(block.attention_norm)),
                attention_weights=of_blocks(lambda block: block.attention.weight.T),
                attention_bias=of_blocks(lambda block: block.attention.bias),
                attended_weights=of_blocks(lambda block: block.attended.weight.T),
                attended_bias=of_blocks(lambda block: block.attended.bias),
                feed_norm=of_blocks(lambda block: norm(block.feed_norm)),
                hidden_weights=of_blocks(lambda block: block.hidden.weight.T),
                hidden_bias=of_blocks(lambda block: block.hidden.bias),
                output_weights=of_blocks(lambda block: block.output.weight.T),
                output_bias=of_blocks(lambda block: block.output.bias),
                final_norm=as_array(norm(self.final_norm)),
            )


def train(
    interactions: Interactions,
    options: SASRecOptions,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SASRecArrays, dict[str, float]]:
    """Return the transformer of the best epoch, and how training went.

    `progress` is told after each epoch how many are done, and of how many at most.
    """
    device = device_named(options.device)
    with reproducible(seed, device):
        return _trained(interactions, options, np.random.default_rng(seed), device, progress)


def _trained(
    interactions: Interactions,
    options: SASRecOptions,
    generator: np.random.Generator,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> tuple[SASRecArrays, dict[str, float]]:
    known, held_out = cut(interactions, options.validation_share, generator)
    network = Network(len(interactions.item_ids), options).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    scores = _scores(network, known, options.history)

    def train_once() -> None:
        network.train()
        for drawn in batches(known, options, generator):
            histories, following = (part.to(device) for part in drawn)
            negatives = _negatives(network.absent, options.negatives, generator).to(device)
            optimiser.zero_grad(set_to_none=True)
            loss(network, histories, following, negatives, options.temperature).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        network.eval()

    return best_epoch(
        train_once,
        network.arrays,
        lambda _: scores,
        known,
        held_out,
        epochs=options.epochs,
        patience=options.patience,
        progress=progress,
    )


def loss(
    network: Network,
    histories: torch.Tensor,
    following: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    r"""Return the mean of \(-\log p\) of what followed each step, by a softmax over all n items.

    `histories` and `following` (u, h) are rows, the network's `absent` where there is none. The softmax's sum over the
    n - 1 other items is estimated by those of `negatives` (k,), distinct ones drawn evenly; where these are all items
    it is exact.
    """
    there = following != network.absent
    users, wanted = network.users(histories)[there], following[there]
    positive = (users * network.items(wanted)).sum(dim=1, keepdim=True) / temperature
    negative = users @ network.items(negatives).T / temperature
    same = wanted[:, None] == negatives[None]
    others = len(negatives) - same.sum(dim=1, keepdim=True)
    # Each drawn item stands for as many as were not.
    negative = negative + torch.log((network.absent - 1) / others.clamp(min=1))
    logits = torch.cat([positive, negative.masked_fill(same, -torch.inf)], dim=1)
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def batches(
    known: Interactions, options: SASRecOptions, generator: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's histories and what followed each of their steps, rows (u, h) with `absent` before the first.

    They lie on the CPU. A user with more items than a history holds has several, and each epoch the newest of them
    ends elsewhere, so that steps are seen at every place. Events of one instant come in a new order each epoch.
    """
    times = np.zeros(len(known)) if known.times is None else known.times
    order = np.lexsort((generator.random(len(known)), times, known.users))
    items = known.items[order]
    ends = np.cumsum(known.activity)
    windows: list[tuple[int, int]] = []
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        last = end - 1
        if last - start > options.history:
            last -= int(generator.integers(options.history))
        while last > start:
            windows.append((max(start, last - options.history), last))
            last -= options.history
    absent = len(known.item_ids)
    mixed = generator.permutation(len(windows))
    for first in range(0, len(mixed), options.batch_size):
        chosen = [windows[place] for place in mixed[first : first + options.batch_size]]
        histories = _padded([items[start:last] for start, last in chosen], options.history, absent)
        following = _padded([items[start + 1 : last + 1] for start, last in chosen], options.history, absent)
        yield torch.from_numpy(histories), torch.from_numpy(following)


def _negatives(items: int, count: int, generator: np.random.Generator) -> torch.Tensor:
    if count >= items:
        return torch.arange(items)
    return torch.from_numpy(generator.choice(items, count, replace=False, shuffle=False))


def _scores(network: Network, known: Interactions, history: int) -> Scores:
    ends = np.cumsum(known.activity)
    starts = np.maximum(ends - known.activity, ends - history)

    def scores(users: Rows) -> NDArray[np.float32]:
        latest = [known.items[start:end] for start, end in zip(starts[users], ends[users], strict=True)]
        histories = torch.from_numpy(_padded(latest, history, network.absent)).to(network.future.device)
        with torch.no_grad():
            newest = network.users(histories)[:, -1]
            return as_array(newest @ network.items(torch.arange(network.absent, device=newest.device)).T)

    return scores


def _padded(parts: list[Rows], length: int, absent: int) -> Rows:
    """Return (u, length) with each of `parts`, up to `length` rows each, at its end."""
    padded = np.full((len(parts), length), absent, np.int64)
    for row, part in enumerate(parts):
        padded[row, length - len(part) :] = part
    return padded
