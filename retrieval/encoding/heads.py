"""Small maps over vectors that are there already: from what a text says to what it is liked with."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

HeadKind: TypeAlias = Literal["linear", "mlp", "gated"]


class LinearHead(nn.Module):
    """x + W x + b, which is x before training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.change = nn.Linear(dim, dim)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return (n, d) for vectors (n, d)."""
        changed: Tensor = vectors + self.change(vectors)
        return changed


class MLPHead(nn.Module):
    """x + V relu(U x + b), which is x before training."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden)
        self.change = nn.Linear(hidden, dim, bias=False)
        nn.init.zeros_(self.change.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return (n, d) for vectors (n, d)."""
        changed: Tensor = vectors + self.change(torch.relu(self.hidden(vectors)))
        return changed


class GatedHead(nn.Module):
    r"""\(g \odot (x_1 + W_1 x_1) + (1 - g) \odot W_2 x_2\) with \(g = \sigma(G [x_1; x_2] + b)\).

    \(x_1\) is a text's vector, \(x_2\) those of the other modalities, one after another (gated multimodal unit, Arevalo
    et al., 2017). The gate begins at 0.95, near the text alone.
    """

    def __init__(self, dim: int, other_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.change = nn.Linear(dim, dim)
        self.other = nn.Linear(other_dim, dim, bias=False)
        self.gate = nn.Linear(dim + other_dim, dim)
        for weight in (self.change.weight, self.change.bias, self.gate.weight):
            nn.init.zeros_(weight)
        nn.init.constant_(self.gate.bias, 3.0)
        nn.init.normal_(self.other.weight, std=other_dim**-0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return (n, dim) for vectors (n, dim + other_dim)."""
        text, other = vectors[:, : self.dim], vectors[:, self.dim :]
        gate = torch.sigmoid(self.gate(vectors))
        fused: Tensor = gate * (text + self.change(text)) + (1 - gate) * self.other(other)
        return fused


def make_head(kind: HeadKind, dim: int, *, hidden: int = 0, other_dim: int = 0) -> nn.Module:
    """Return an untrained head for text vectors of `dim` dimensions, and for a gate `other_dim` ones beside them."""
    if kind == "linear":
        return LinearHead(dim)
    if kind == "mlp":
        return MLPHead(dim, hidden)
    return GatedHead(dim, other_dim)
