"""Integrated gradients: what each column added to a network's raw score."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from explorank.rankers.neural.artefact import Artefact
from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.networks import (
    DCNNetwork,
    RankingNetwork,
    SequenceNetwork,
    Sizes,
    build_network,
)
from explorank.rankers.neural.options import DCNOptions, SequenceOptions
from explorank.rankers.neural.plan import Readings, options_from_json
from explorank.rankers.neural.tasks import Tasks

_log: Final = logging.getLogger(__name__)

_FEWEST_STEPS: Final = 32
_MOST_STEPS: Final = 256
_CLOSE: Final = 5e-3
"""How much of a row's attributions, in all, the integral may still be off when no more steps are taken."""
_ROWS_AT_ONCE: Final = 1_024


def network_of(artefact: Artefact) -> RankingNetwork:
    """Return the trained torch network, in evaluation mode."""
    details = artefact.manifest.details
    kind = DCNOptions if artefact.manifest.name == "dcn" else SequenceOptions
    sizes = details["sizes"]
    network: RankingNetwork = build_network(
        options_from_json(kind, details["options"]), Sizes(**{**sizes, "content": tuple(sizes["content"])})
    )
    network.load_state_dict(load(artefact.weights))
    return network.eval()


def integrated_gradients(
    artefact: Artefact, layout: ColumnLayout, tasks: Tasks, rows: Readings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return attributions (n, d) and bases (n,) of the raw score, computed in float64.

    The integral is taken with more and more steps, for the rows that need them, until attributions and base miss the
    raw score by less than 0.5 % of what the attributions sum to without their signs. What it still misses is
    shared out in proportion to them, so that each row sums to its raw score exactly; a row that misses more is logged.
    """
    network = network_of(artefact).double()
    paths = _Paths(network, tasks, layout, len(artefact.manifest.feature_names))
    count = len(rows.numbers)
    attributions = np.zeros((count, paths.columns))
    base = np.zeros(count)
    for start in range(0, count, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        attributions[part], base[part] = paths.explain(*_tensors(network, rows, part))
    return attributions, base


class _Paths:
    """The way from a row's baseline to the row, in the space where the network is differentiable."""

    def __init__(self, network: RankingNetwork, tasks: Tasks, layout: ColumnLayout, columns: int) -> None:
        self._network = network
        self._tasks = tasks
        self._layout = layout
        self.columns = columns
        self._gradients = IntegratedGradients(self._raw_score)

    def explain(
        self, inputs: tuple[Tensor, ...], present: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        with torch.no_grad():
            baselines = self._baselines(inputs)
            base = self._raw_score(*baselines, present).numpy()
            raw = self._raw_score(*inputs, present).numpy()
        attributions = np.zeros((len(raw), self.columns))
        pending, steps = np.arange(len(raw)), _FEWEST_STEPS
        while len(pending):
            chosen = torch.from_numpy(pending)
            found = self._gradients.attribute(
                tuple(part[chosen] for part in inputs),
                baselines=tuple(part[chosen] for part in baselines),
                additional_forward_args=(present[chosen],),
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=max(_ROWS_AT_ONCE, len(pending)),
            )
            attributions[pending] = self._by_column(found)
            missed = np.abs(raw - base - attributions.sum(axis=1))[pending]
            pending = pending[missed > _CLOSE * np.abs(attributions[pending]).sum(axis=1) + 1e-9]
            if steps == _MOST_STEPS:
                break
            steps *= 2
        if len(pending):
            _log.warning(
                "The attributions of %d rows of %d miss their raw scores by more than %g of their sum after %d steps; "
                "what is missing is shared out among the columns.", len(pending), len(raw), _CLOSE, _MOST_STEPS,
            )  # fmt: skip
        shares = np.abs(attributions)
        total = shares.sum(axis=1, keepdims=True)
        residual = (raw - base - attributions.sum(axis=1))[:, None]
        return attributions + residual * np.divide(
            shares, total, out=np.zeros_like(shares), where=total > 0
        ), base

    def _raw_score(self, *arguments: Tensor) -> Tensor:
        *inputs, present = arguments
        if isinstance(self._network, SequenceNetwork):
            numbers, embedded, items, history = inputs
            outputs = self._network.read(
                numbers.unsqueeze(1), embedded.unsqueeze(1), items.unsqueeze(1), history, present
            )[0][:, 0]
        elif isinstance(self._network, DCNNetwork):
            outputs = self._network.read(inputs[0], inputs[1])[0]
        else:
            raise TypeError(type(self._network))
        # captum asks for the slope along every part, and one without columns leads to no output.
        outputs = outputs + sum(part.sum() for part in inputs if part.numel() == 0)
        if self._tasks.link == "logistic":
            return outputs[:, 0]
        return _combined(self._tasks, outputs)

    def _baselines(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        unknown = self._network.table(self._network.unknown_rows)
        parts = [torch.zeros_like(inputs[0]), unknown.expand_as(inputs[1])]
        if isinstance(self._network, SequenceNetwork):
            # Not zeros: the transformer normalises each step's length, so that it would leap at the path's beginning.
            parts += [self._network.items.weight[0].expand_as(part) for part in inputs[2:]]
        return tuple(parts)

    def _by_column(self, found: tuple[Tensor, ...]) -> NDArray[np.float64]:
        """Return (n, d): each column's parts summed up."""
        sums = np.zeros((len(found[0]), self.columns))
        for place, column in enumerate(self._network.standardise.column_of()):
            sums[:, self._layout.dense[column]] += found[0][:, place].detach().numpy()
        if self._layout.categorical:
            sums[:, list(self._layout.categorical)] += found[1].sum(dim=2).detach().numpy()
        if len(found) > 2:
            history = found[3].sum(dim=2).detach().numpy()
            first = self.columns - 1 - history.shape[1]
            sums[:, first] = found[2].sum(dim=1).detach().numpy()
            sums[:, first + 1 :] = history
        return sums


def _tensors(network: RankingNetwork, rows: Readings, part: slice) -> tuple[tuple[Tensor, ...], Tensor]:
    with torch.no_grad():
        numbers = network.standardise(torch.from_numpy(rows.numbers[part]).double())
        embedded = network.embed(torch.from_numpy(rows.places[part]))
        if not isinstance(network, SequenceNetwork) or rows.items is None or rows.histories is None:
            return (numbers, embedded), numbers.new_zeros(len(numbers))
        items = network.embed_candidates(torch.from_numpy(rows.items[part]))
        codes = torch.from_numpy(rows.histories[part])
        return (numbers, embedded, items, network.items(codes)), (codes > 0).double()


def _combined(tasks: Tasks, outputs: Tensor) -> Tensor:
    """Return what `Tasks.score` does, in torch."""
    values: list[Tensor] = []
    for place, head in enumerate(tasks.heads):
        value = outputs[:, place]
        if head.kind == "binary":
            value = torch.sigmoid(value)
        elif head.kind == "regression":
            value = value * head.scale + head.center
        values.append(value * values[0] if head.entire_space else value)
    weighted = [weight * value for weight, value in zip(tasks.score_weights, values, strict=True)]
    return torch.stack(weighted).sum(dim=0)
