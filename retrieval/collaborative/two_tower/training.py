"""Training of the towers, in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import nn

from explorank.retrieval._torch import as_array, device_named, reproducible
from explorank.retrieval.collaborative._training import Scores, best_epoch, cut
from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.two_tower.model import TowerArrays, TwoTower
from explorank.retrieval.collaborative.two_tower.options import TwoTowerOptions
from explorank.retrieval.collaborative.two_tower.training_users import TrainingUsers

_FIRST_SD: Final = 0.05


class Towers(nn.Module):
    """The parameters; `TowerArrays` says what serving keeps of them."""

    def __init__(
        self, content: NDArray[np.float32], items: int, user_columns: int, options: TwoTowerOptions
    ) -> None:
        super().__init__()
        dim, columns = options.dim, content.shape[1]
        self.content: torch.Tensor
        self.register_buffer("content", torch.from_numpy(np.ascontiguousarray(content)))
        self.item_ids = nn.Embedding(items, dim)
        self.content_weights = nn.Parameter(torch.randn(columns, dim) * _FIRST_SD)
        self.content_bias = nn.Parameter(torch.zeros(dim))
        self.history_ids = nn.Embedding(items, dim)
        self.history_content = nn.Parameter(torch.randn(columns, dim) * _FIRST_SD)
        self.hidden = nn.Linear(dim + user_columns, options.hidden)
        self.output = nn.Linear(options.hidden, dim)
        self.skip = nn.Linear(dim + user_columns, dim, bias=False)
        for embedding in (self.item_ids, self.history_ids):
            nn.init.normal_(embedding.weight, std=_FIRST_SD)

    def items(self, rows: torch.Tensor, with_id: torch.Tensor | None = None) -> torch.Tensor:
        """Return vectors (m, d) of length 1; `with_id` (m, 1) is 0 where the id is hidden."""
        own = self.item_ids(rows)
        if with_id is not None:
            own = own * with_id
        return nn.functional.normalize(
            own + self.content[rows] @ self.content_weights + self.content_bias, dim=1
        )

    def histories(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what items (m,) add to a history, (m, d)."""
        added: torch.Tensor = self.history_ids(rows) + self.content[rows] @ self.history_content
        return added

    def users(self, pooled: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return vectors (m, d) of length 1 for mean histories (m, d) and user columns (m, g)."""
        read = torch.cat([pooled, columns], dim=1)
        return nn.functional.normalize(self.output(torch.relu(self.hidden(read))) + self.skip(read), dim=1)

    def arrays(self) -> TowerArrays:
        """Return what serving needs."""
        with torch.no_grad():
            every = torch.arange(self.item_ids.num_embeddings, device=self.content.device)
            return TowerArrays(
                item_vectors=as_array(self.items(every)),
                content_weights=as_array(self.content_weights),
                content_bias=as_array(self.content_bias),
                history_vectors=as_array(self.histories(every)),
                history_content=as_array(self.history_content),
                hidden_weights=as_array(self.hidden.weight.T),
                hidden_bias=as_array(self.hidden.bias),
                output_weights=as_array(self.output.weight.T),
                skip_weights=as_array(self.skip.weight.T),
                output_bias=as_array(self.output.bias),
            )


def train(
    interactions: Interactions,
    content: NDArray[np.float32],
    people: TrainingUsers,
    options: TwoTowerOptions,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TowerArrays, dict[str, float]]:
    """Return the towers of the best epoch, and how training went.

    `progress` is told after each epoch how many are done, and of how many at most.
    """
    device = device_named(options.device)
    with reproducible(seed, device):
        return _trained(interactions, content, people, options, np.random.default_rng(seed), device, progress)


def _trained(
    interactions: Interactions,
    content: NDArray[np.float32],
    people: TrainingUsers,
    options: TwoTowerOptions,
    generator: np.random.Generator,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> tuple[TowerArrays, dict[str, float]]:
    known, held_out = cut(interactions, options.validation_share, generator)
    towers = Towers(content, len(interactions.item_ids), people.width, options).to(device)
    optimiser = torch.optim.AdamW(
        towers.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    batches = _Batches(known, people, options, generator, with_content=bool(content.shape[1]))

    def train_once() -> None:
        for drawn in batches.epoch():
            batch = {name: part.to(device) for name, part in drawn.items()}
            optimiser.zero_grad(set_to_none=True)
            _loss(towers, batch, options).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    return best_epoch(
        train_once,
        towers.arrays,
        lambda arrays: _scores(TwoTower(interactions.item_ids, arrays, {}), known, people),
        known,
        held_out,
        epochs=options.epochs,
        patience=options.patience,
        progress=progress,
    )


def _loss(towers: Towers, batch: dict[str, torch.Tensor], options: TwoTowerOptions) -> torch.Tensor:
    """Return the softmax loss over the batch's items, corrected for how often each comes up."""
    added = towers.histories(batch["history_items"])
    pooled = nn.functional.embedding_bag(batch["history"], added, batch["history_starts"], mode="mean")
    users = towers.users(pooled, batch["user_features"])
    items = towers.items(batch["items"], batch["with_id"])
    logits = users @ items.T / options.temperature - options.logq * batch["log_frequency"][None]
    # Another interaction's item that this user took up too is no negative.
    logits = logits.masked_fill(batch["taken"], -torch.inf)
    return nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


class _Batches:
    """Draws interactions, and for each a part of the rest of its user's history."""

    def __init__(
        self,
        known: Interactions,
        people: TrainingUsers,
        options: TwoTowerOptions,
        generator: np.random.Generator,
        *,
        with_content: bool,
    ) -> None:
        self._known = known
        self._matrix: csr_matrix = known.matrix
        self._matrix.sort_indices()
        self._people = people
        self._options = options
        self._generator = generator
        self._hidden = options.id_dropout if with_content else 0.0
        self._forgotten = options.history_dropout if people.width else 0.0
        self._log_frequency = np.log(np.maximum(known.popularity, 1) / max(len(known), 1)).astype(np.float32)

    def epoch(self) -> Any:
        """Yield batches of tensors on the CPU; the last of an epoch is left out if it has a single interaction."""
        order = self._generator.permutation(len(self._known))
        for start in range(0, len(order), self._options.batch_size):
            chosen = order[start : start + self._options.batch_size]
            if len(chosen) > 1:
                yield self._batch(chosen)

    def _batch(self, chosen: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        users, items = self._known.users[chosen], self._known.items[chosen]
        of, taken_items = self._rest_of_histories(users, items)
        unique, places = np.unique(taken_items, return_inverse=True)
        taken = self._matrix[users][:, items].toarray() > 0
        np.fill_diagonal(taken, False)  # noqa: FBT003
        with_id = self._generator.random((len(chosen), 1)) >= self._hidden
        return {
            "items": torch.from_numpy(items),
            "history_items": torch.from_numpy(unique),
            "history": torch.from_numpy(places),
            "history_starts": torch.from_numpy(np.searchsorted(of, np.arange(len(chosen)))),
            "user_features": torch.from_numpy(self._people.at_events(self._known, chosen, self._generator)),
            "with_id": torch.from_numpy(with_id.astype(np.float32)),
            "log_frequency": torch.from_numpy(self._log_frequency[items]),
            "taken": torch.from_numpy(taken),
        }

    def _rest_of_histories(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs of a place in the batch and an item of its history, without the one to foresee."""
        indptr, indices = self._matrix.indptr, self._matrix.indices
        lengths = (indptr[users + 1] - indptr[users]).astype(np.int64)
        of = np.repeat(np.arange(len(users)), lengths)
        within = np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        taken = indices[indptr[users][of] + within].astype(np.int64)
        # Each stays with the probability that leaves `history` items on average.
        kept = (taken != items[of]) & (self._generator.random(len(of)) * lengths[of] < self._options.history)
        if self._forgotten:
            kept &= (self._generator.random(len(users)) >= self._forgotten)[of]
        return of[kept], taken[kept]


def _scores(model: TwoTower, known: Interactions, people: TrainingUsers) -> Scores:
    return lambda users: model.scores_of_many(known.matrix[users], people.lately(known, users))
