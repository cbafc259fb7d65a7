"""The two networks, built from what a manifest keeps of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from explorank.rankers.neural.batches import Batch
from explorank.rankers.neural.items import SHORTEST
from explorank.rankers.neural.layers import (
    CrossNetwork,
    InterestTransformer,
    Standardise,
    TargetAttention,
    tower,
)
from explorank.rankers.neural.options import DCNOptions, SequenceOptions, TrainingOptions

_EMBEDDING_STD = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large a network's inputs and outputs are; with the options, all that its structure follows from."""

    numbers: int
    flagged: int
    """Numbers with a flag for missing values."""
    categorical: int
    table_rows: int
    tasks: int
    items: int = 0
    """Known ones; there is one embedding more, for the unknown."""
    content: tuple[int, ...] = ()
    """Which standardised inputs describe the item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What goes into a network's graph and comes out: names, and which axes are of any length."""

    inputs: Mapping[str, Tensor]
    """Examples, in the order of `forward`; no axis of any length is 0 or 1 long there."""
    axes: Mapping[str, Mapping[int, str]]
    """By input, the names of the axes that vary."""
    longest: Mapping[str, int] = field(default_factory=dict)
    """How long an axis may be at the most, by its name."""
    outputs: Sequence[str]


class ExportableNetwork(nn.Module):
    """What export needs of a network."""

    def interface(self) -> Interface:
        """Describe `forward`."""
        raise NotImplementedError


class RankingNetwork(ExportableNetwork):
    """What training, export and explanation need of a network."""

    standardise: Standardise
    table: nn.Embedding
    heads: nn.Linear

    def __init__(self, sizes: Sizes, embedding_width: int, training: TrainingOptions) -> None:
        super().__init__()
        self.sizes = sizes
        self.noise = training.noise
        self.unknown_rate = training.unknown_rate
        self.standardise = Standardise(sizes.numbers, sizes.flagged)
        self.table = nn.Embedding(max(sizes.table_rows, 1), embedding_width)
        nn.init.normal_(self.table.weight, std=_EMBEDDING_STD)
        self.register_buffer("unknown_rows", torch.zeros(sizes.categorical, dtype=torch.int64))
        self.unknown_rows: Tensor

    @property
    def features_width(self) -> int:
        """How many numbers `features` makes of a row."""
        return self.standardise.width + self.sizes.categorical * self.table.embedding_dim

    def features(self, numbers: Tensor, embedded: Tensor) -> Tensor:
        """Return (…, w) for standardised numbers (…, p) and embedded categories (…, c, e)."""
        if self.training and self.noise:
            numbers = numbers + self.noise * torch.randn_like(numbers)
        if not self.sizes.categorical:
            return numbers
        return torch.cat([numbers, embedded.flatten(-2)], dim=-1)

    def embed(self, places: Tensor) -> Tensor:
        """Return (…, c, e) for places (…, c) in the table; training takes some for unknown."""
        if self.training and self.unknown_rate and self.sizes.categorical:
            hidden = torch.rand(places.shape, device=places.device) < self.unknown_rate
            places = torch.where(hidden, self.unknown_rows, places)
        embedded: Tensor = self.table(places)
        return embedded

    def embeddings(self) -> list[Tensor]:
        """Return the tables that adversarial training moves."""
        return [self.table.weight] if self.sizes.categorical else []

    def trunk(self) -> dict[str, nn.Parameter]:
        """Return the parameters by name that domains may share: all between the embeddings and the heads."""
        own = ("table.", "items.", "heads.")
        return {name: value for name, value in self.named_parameters() if not name.startswith(own)}

    def rows(self, batch: Batch) -> Tensor:
        """Return the outputs (n, t) for the rows of a batch."""
        raise NotImplementedError


class DCNNetwork(RankingNetwork):
    """DCN-v2 (Wang et al. 2021): cross layers and a deep tower over features."""

    def __init__(self, sizes: Sizes, options: DCNOptions) -> None:
        super().__init__(sizes, options.embedding_width, options.training)
        width = self.features_width
        self.parallel = options.structure == "parallel"
        self.cross = CrossNetwork(width, options.cross_layers, options.rank)
        self.deep = tower(width, options.hidden, options.training.dropout)
        self.heads = nn.Linear(options.hidden[-1] + (width if self.parallel else 0), sizes.tasks)

    def forward(self, numbers: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs (n, t) and representation (n, h) for raw numbers (n, p) and places (n, c)."""
        return self.read(self.standardise(numbers), self.embed(places))

    def read(self, numbers: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does for standardised numbers and embedded categories."""
        features = self.features(numbers, embedded)
        crossed = self.cross(features)
        hidden = torch.cat([crossed, self.deep(features)], dim=-1) if self.parallel else self.deep(crossed)
        return self.heads(hidden), hidden

    def rows(self, batch: Batch) -> Tensor:
        """Return the outputs (n, t) for the rows of a batch."""
        return self.read(batch.numbers, self.embed(batch.places))[0]

    def interface(self) -> Interface:
        """Describe `forward`."""
        return Interface(
            inputs={
                "numbers": torch.zeros(2, self.sizes.numbers),
                "places": torch.zeros(2, self.sizes.categorical, dtype=torch.int64),
            },
            axes={"numbers": {0: "rows"}, "places": {0: "rows"}},
            outputs=["outputs", "representation"],
        )


class SequenceNetwork(RankingNetwork):
    """A tower over dense features, the candidate, the user's vector and the interest that the candidate awakens."""

    def __init__(self, sizes: Sizes, options: SequenceOptions) -> None:
        super().__init__(sizes, options.embedding_width, options.training)
        self.length = options.history
        width, dropout = options.width, options.training.dropout
        self.ordered = options.ordered
        self.items = nn.Embedding(sizes.items + 1, width)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        self.content = nn.Linear(max(len(sizes.content), 1), width, bias=False)
        self.register_buffer(
            "content_columns", torch.tensor(sizes.content, dtype=torch.int64), persistent=False
        )
        self.content_columns: Tensor
        if self.ordered:
            self.positions = nn.Parameter(torch.randn(options.history, width) * _EMBEDDING_STD)
        self.transformer = InterestTransformer(
            width, options.history, options.layers, options.heads, dropout, ordered=options.ordered
        )
        self.attention = TargetAttention(width, options.attention_width, options.history)
        self.deep = tower(self.features_width + 4 * width, options.hidden, dropout)
        self.heads = nn.Linear(options.hidden[-1] + 1, sizes.tasks)
        with torch.no_grad():
            self.heads.weight[:, -1] = 1.0  # SASRec's own score to begin with

    def forward(
        self, numbers: Tensor, places: Tensor, items: Tensor, histories: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return outputs (u, m, t), representation (u, m, h), user vectors (u, k) and item vectors (u, m, k).

        For u histories (u, l), the newest last, and m rows of each: raw numbers (u, m, p), places (u, m, c) and items
        (u, m). l is the length of histories or less: padding that all of them begin with may be left out.
        """
        return self.read(
            self.standardise(numbers),
            self.embed(places),
            self.embed_candidates(items),
            self.items(histories),
            (histories > 0).to(torch.float32),
        )

    def read(
        self, numbers: Tensor, embedded: Tensor, items: Tensor, history: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `forward` does for inputs that are standardised and embedded."""
        targets = items
        if len(self.content_columns):
            targets = targets + self.content(torch.index_select(numbers, -1, self.content_columns))
        if self.ordered:
            history = history + self.positions[self.length - history.shape[1] :]
        user = self.transformer(history, present)
        interest = self.attention(history, targets, present)
        each = torch.zeros_like(targets) + user.unsqueeze(1)
        match = targets * each
        features = self.features(numbers, embedded)
        hidden = self.deep(torch.cat([features, targets, each, match, interest], dim=-1))
        hidden = torch.cat([hidden, match.sum(dim=-1, keepdim=True)], dim=-1)
        return self.heads(hidden), hidden, user, targets

    def embed_candidates(self, items: Tensor) -> Tensor:
        """Return (…, k) for item codes (…); training takes some for unknown (DropoutNet; Volkovs et al. 2017)."""
        if self.training and self.unknown_rate:
            hidden = torch.rand(items.shape, device=items.device) < self.unknown_rate
            items = torch.where(hidden, torch.zeros_like(items), items)
        embedded: Tensor = self.items(items)
        return embedded

    def embeddings(self) -> list[Tensor]:
        """Return the tables that adversarial training moves."""
        return [*super().embeddings(), self.items.weight]

    def rows(self, batch: Batch) -> Tensor:
        """Return the outputs (n, t) for the rows of a batch."""
        if batch.items is None or batch.histories is None:
            raise AssertionError("the sequence ranker's frames hold items and histories")
        outputs = self.read(
            batch.padded(batch.numbers),
            self.embed(batch.padded(batch.places)),
            self.embed_candidates(batch.padded(batch.items)),
            self.items(batch.histories),
            (batch.histories > 0).to(torch.float32),
        )[0]
        return batch.flat(outputs)

    def interface(self) -> Interface:
        """Describe `forward`."""
        axes = {0: "users", 1: "rows"}
        # An axis that may be 1 long cannot be left open: torch takes it for one to broadcast.
        steps = {1: "steps"} if self.length > SHORTEST else {}
        return Interface(
            inputs={
                "numbers": torch.zeros(2, 3, self.sizes.numbers),
                "places": torch.zeros(2, 3, self.sizes.categorical, dtype=torch.int64),
                "items": torch.zeros(2, 3, dtype=torch.int64),
                "histories": torch.zeros(2, self.length, dtype=torch.int64),
            },
            axes={"numbers": axes, "places": axes, "items": axes, "histories": {0: "users", **steps}},
            longest={"steps": self.length},
            outputs=["outputs", "representation", "user", "item"],
        )


def build_network(options: DCNOptions | SequenceOptions, sizes: Sizes) -> Any:
    """Return the network that options and sizes describe, with weights as torch's generator draws them."""
    return DCNNetwork(sizes, options) if isinstance(options, DCNOptions) else SequenceNetwork(sizes, options)
