"""What a ranker reads of some data, settled before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.items import ItemVocabulary
from explorank.rankers.neural.options import (
    DCNOptions,
    SequenceOptions,
    TaskOptions,
    TrainingOptions,
    TransferOptions,
)

NeuralOptions: TypeAlias = DCNOptions | SequenceOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """The rows of some data as a network reads them."""

    numbers: NDArray[np.float32]
    """(n, p), NaN for missing."""
    places: NDArray[np.int64]
    """(n, c) in the table of embeddings."""
    items: NDArray[np.int64] | None = None
    """(n,) codes."""
    histories: NDArray[np.int64] | None = None
    """(g, l) codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which columns and items a ranker knows."""

    kind: str
    """`dcn` or `sequence`."""
    options: NeuralOptions
    feature_names: tuple[str, ...]
    """(d,) the columns that `score` takes: those of the data, then those made from ids."""
    categorical: tuple[str, ...]
    id_columns: tuple[str, ...]
    layout: ColumnLayout
    vocabulary: ItemVocabulary
    content: tuple[int, ...] = ()
    """Which numeric columns describe the item, counted among the numeric ones."""


def options_from_json(kind: Callable[..., NeuralOptions], content: Mapping[str, Any]) -> NeuralOptions:
    """Return the options that `dataclasses.asdict` and JSON made `content` of."""
    parts = {name: _tuple(value) for name, value in content.items()}
    parts["training"] = TrainingOptions(**content["training"])
    parts["tasks"] = TaskOptions(**{name: _tuple(value) for name, value in content["tasks"].items()})
    transfer = content.get("transfer", {})  # those of before 0.1 have none
    parts["transfer"] = TransferOptions(**{name: _tuple(value) for name, value in transfer.items()})
    return kind(**parts)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
