"""The parts that networks are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_MASKED = -1e9
"""Added to the attention of what must not be looked at; finite, so that a row without anything to look at is no NaN."""


class Standardise(nn.Module):
    """Numbers as a network likes them: clipped, centred, scaled, and 0 where missing, with a flag that says so.

    The bounds are the 0.1 % and 99.9 % quantiles of training where they differ, so that one row in a million does not
    set the scale for all. Only columns with missing values in training have a flag.
    """

    def __init__(self, columns: int, flagged: int) -> None:
        super().__init__()
        self.columns = columns
        self.width = columns + flagged
        for name, start in (("low", 0.0), ("high", 0.0), ("center", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.full((columns,), start))
        self.register_buffer("flagged", torch.zeros(flagged, dtype=torch.int64))
        self.low: Tensor
        self.high: Tensor
        self.center: Tensor
        self.scale: Tensor
        self.flagged: Tensor

    @classmethod
    def of(cls, numbers: NDArray[np.float32], flagged: NDArray[np.int64] | None = None) -> Standardise:
        """Return the layer for training numbers (n, p); `flagged` columns have a flag, by default as said above."""
        missing = np.isnan(numbers)
        if flagged is None:
            flagged = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0))
        layer = cls(numbers.shape[1], len(flagged))
        layer.flagged.copy_(torch.from_numpy(flagged))
        for place in range(numbers.shape[1]):
            known = numbers[~missing[:, place], place].astype(np.float64)
            if not len(known):
                continue
            low, high = np.quantile(known, [0.001, 0.999])
            if low == high:
                low, high = known.min(), known.max()
            clipped = np.clip(known, low, high)
            layer.low[place], layer.high[place] = float(low), float(high)
            layer.center[place] = float(clipped.mean())
            layer.scale[place] = float(clipped.std()) or 1.0
        return layer

    def forward(self, numbers: Tensor) -> Tensor:
        """Return (…, p + flags) for (…, p), NaN for missing."""
        missing = torch.isnan(numbers)
        clipped = torch.minimum(torch.maximum(numbers, self.low), self.high)
        scaled = (clipped - self.center) / self.scale
        scaled = torch.where(missing, torch.zeros_like(scaled), scaled)
        if not len(self.flagged):
            return scaled
        flags = torch.index_select(missing.to(scaled.dtype), -1, self.flagged)
        return torch.cat([scaled, flags], dim=-1)

    def column_of(self) -> list[int]:
        """Return which of the p columns each output belongs to."""
        return [*range(self.columns), *self.flagged.tolist()]


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l (DCN-v2; Wang et al. 2021, eq. 1), W_l = U_l V_lᵀ of low rank by option."""

    def __init__(self, width: int, layers: int, rank: int) -> None:
        super().__init__()
        low = 0 < rank < width
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
            if low
            else nn.Linear(width, width)
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, w) for (n, w)."""
        first = x
        for layer in self.layers:
            x = first * layer(x) + x
        return x


def tower(width: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Return a perceptron with ReLU after each layer."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
        width = units
    return nn.Sequential(*layers)


class TargetAttention(nn.Module):
    """What of a history matters for a candidate (DIN; Zhou et al. 2018, eq. 3).

    Each history item h counts by an activation unit of [h, t, h ⊙ t], and the weights are not normalised, so that
    strong interests stay strong. The unit's first layer is linear in t: it is t times a matrix that follows from h
    alone, plus what does. So it is one matrix product for all candidates of a history, with a column of ones for the
    latter; adding the parts up afterwards would go over (u, m, l, a) numbers for each of them. The sum over the history
    is scaled by `length`, the most that is read, so that padding changes nothing.
    """

    def __init__(self, width: int, units: int, length: int) -> None:
        super().__init__()
        self.units = units
        self.scale = 1.0 / math.sqrt(length)
        self.of_history = nn.Linear(width, units)
        self.of_target = nn.Linear(width, units, bias=False)
        self.of_product = nn.Linear(width, units, bias=False)
        self.weigh = nn.Linear(units, 1)

    def forward(self, history: Tensor, targets: Tensor, present: Tensor) -> Tensor:
        """Return interests (u, m, k) for histories (u, l, k), targets (u, m, k) and what is present (u, l)."""
        users, length, width = history.shape
        of_target = history.unsqueeze(2) * self.of_product.weight + self.of_target.weight  # (u, l, a, k)
        by_item = torch.cat([of_target, self.of_history(history).unsqueeze(-1)], dim=-1)
        by_item = by_item.reshape(users, length * self.units, width + 1)
        asking = torch.cat([targets, torch.ones_like(targets[..., :1])], dim=-1)
        hidden = torch.relu(torch.matmul(asking, by_item.transpose(1, 2)))  # (u, m, l * a)
        hidden = hidden.reshape(users, targets.shape[1], length, self.units)
        # The bias on (u, m, l): ONNX Runtime takes ten times as long to add it where the last axis is 1.
        weights = nn.functional.linear(hidden, self.weigh.weight).squeeze(-1) + self.weigh.bias
        return torch.matmul(weights * present.unsqueeze(1), history) * self.scale


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before and added (SASRec; Kang and McAuley 2018)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.queries = nn.Linear(width, width)
        self.keys_and_values = nn.Linear(width, 2 * width)
        self.attended = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor, mask: Tensor, last: bool) -> Tensor:  # noqa: FBT001 - torch calls it by place
        """Return (u, l, k) for steps (u, l, k) and a mask (u or 1, l or 1, l) that is added to attention.

        With `last`, (u, 1, k): only the newest step asks.
        """
        users, length, width = steps.shape
        normal = self.before_attention(steps)
        asking = normal[:, -1:] if last else normal
        kept = steps[:, -1:] if last else steps
        queries = self._split(self.queries(asking), 1 if last else length)
        keys, values = self.keys_and_values(normal).chunk(2, dim=-1)
        keys, values = self._split(keys, length), self._split(values, length)
        weights = torch.matmul(queries, keys.transpose(2, 3)) / math.sqrt(width // self.heads)
        weights = torch.softmax(weights + (mask[:, -1:] if last else mask).unsqueeze(1), dim=-1)
        attended = torch.matmul(self.dropout(weights), values).transpose(1, 2)
        kept = kept + self.dropout(self.attended(attended.reshape(users, 1 if last else length, width)))
        result: Tensor = kept + self.dropout(self.feed_forward(kept))
        return result

    def _split(self, steps: Tensor, length: int) -> Tensor:
        width = steps.shape[-1]
        return steps.reshape(-1, length, self.heads, width // self.heads).transpose(1, 2)


class InterestTransformer(nn.Module):
    """The user's interest from a history: the newest step of a causal transformer, or, without order, their mean."""

    def __init__(
        self, width: int, length: int, layers: int, heads: int, dropout: float, *, ordered: bool
    ) -> None:
        super().__init__()
        self.ordered = ordered
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, dropout) for _ in range(layers))
        self.normal = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("future", torch.full((1, length, length), _MASKED).triu(1), persistent=False)
        self.future: Tensor

    def forward(self, history: Tensor, present: Tensor) -> Tensor:
        """Return (u, k) for histories (u, l, k) and what is present (u, l); zeros where nothing is."""
        length = history.shape[1]
        absent = (1.0 - present).unsqueeze(1) * _MASKED
        mask = (
            torch.maximum(absent + self.future[:, :length, :length], torch.full_like(absent, 2 * _MASKED))
            if self.ordered
            else absent
        )
        steps: Tensor = self.dropout(history)
        for number, block in enumerate(self.blocks):
            steps = block(steps, mask, self.ordered and number == len(self.blocks) - 1)
        steps = self.normal(steps)
        if self.ordered:
            return steps[:, -1] * present.amax(dim=1, keepdim=True)
        summed = (steps * present.unsqueeze(-1)).sum(dim=1)
        return summed / present.sum(dim=1, keepdim=True).clamp(min=1.0)
