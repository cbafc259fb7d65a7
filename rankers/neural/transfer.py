"""A network's first weights, where it begins as one that was trained for another domain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from explorank.rankers.neural.columns import FIRST_KNOWN
from explorank.rankers.neural.items import ITEM_CODE, UNKNOWN_ITEM
from explorank.rankers.neural.layers import Standardise
from explorank.rankers.neural.networks import RankingNetwork
from explorank.rankers.neural.plan import Plan
from explorank.rankers.neural.start import Start
from explorank.rankers.neural.tasks import Tasks


def standardise_after(start: Start, numbers: NDArray[np.float32]) -> Standardise:
    """Return how this domain's numbers (n, p) are standardised for the start's layers: the same flags as there."""
    prefix = "standardise."
    former = {
        name.removeprefix(prefix): value
        for name, value in load(start.artefact.weights).items()
        if name.startswith(prefix)
    }
    layer = Standardise.of(numbers, former["flagged"].numpy())
    if start.options.scales == "taken":
        layer.load_state_dict(former)
    return layer


def take_over(network: RankingNetwork, plan: Plan, tasks: Tasks, start: Start) -> None:
    """Give an untrained network the start's trunk, the embeddings that are shared, and the heads of the same tasks."""
    former = load(start.artefact.weights)
    with torch.no_grad():
        for name, parameter in network.trunk().items():
            parameter.copy_(former[name])
            parameter.requires_grad_(start.options.trunk == "tuned")
        _take_heads(network, tasks, start, former)
        _take_codes(network.table.weight, plan, start, former["table.weight"])
        if "items.weight" in former and ITEM_CODE in start.options.shared_codes:
            ids = start.vocabulary.ids
            rows = np.concatenate([[UNKNOWN_ITEM], plan.vocabulary.codes(ids)])
            network.get_parameter("items.weight")[torch.from_numpy(rows)] = former["items.weight"]


def _take_heads(network: RankingNetwork, tasks: Tasks, start: Start, former: Mapping[str, Tensor]) -> None:
    heads = Tasks.from_json(start.artefact.manifest.details["tasks"]).heads
    known = {(head.name, head.kind, head.entire_space): place for place, head in enumerate(heads)}
    for place, head in enumerate(tasks.heads):
        found = known.get((head.name, head.kind, head.entire_space))
        if found is not None:
            network.heads.weight[place] = former["heads.weight"][found]
            network.heads.bias[place] = former["heads.bias"][found]


def _take_codes(table: Tensor, plan: Plan, start: Start, former: Tensor) -> None:
    """Copy the rows of shared columns; both know all of the start's codes, and the new one perhaps more."""
    for number, place in enumerate(plan.layout.categorical):
        name = plan.feature_names[place]
        if name not in start.options.shared_codes:
            continue
        there = start.layout.categorical.index(start.artefact.manifest.feature_names.index(name))
        if name == ITEM_CODE:
            known = plan.vocabulary.codes(start.vocabulary.ids) - 1
        else:
            known = np.searchsorted(plan.layout.known[number], start.layout.known[there])
        rows = np.concatenate([np.arange(FIRST_KNOWN), FIRST_KNOWN + known])
        table[plan.layout.embedded_rows(number)][torch.from_numpy(rows)] = former[
            start.layout.embedded_rows(there)
        ]
