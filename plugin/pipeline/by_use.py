"""Which items have the same users: the table that is fitted to what users liked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.retrieval.collaborative import EASE, Interactions, ItemKNN, NeighbourTable
from explorank.settings import ByUseSettings

_EASE_UP_TO: Final = 5_000
"""Items for which EASE takes some ten seconds and 400 MB; both grow fast."""


def table_by_use(by_use: ByUseSettings, events: pd.DataFrame, item_ids: NDArray[np.str_]) -> NeighbourTable:
    """Return the table of what has the same users among `item_ids` (n,), by liked `events`.

    Raises `DataError` where there are too few to tell anything.
    """
    table = fit_table(by_use, events, item_ids)
    if table is None:
        raise DataError(
            f"No user liked two items of the catalogue ({len(events):,} liked interactions), so nothing tells what has "
            "the same users. Bring more interactions, lower `features.positive_from`, or remove `retrieval.by_use`."
        )
    return table


def fit_table(
    by_use: ByUseSettings, events: pd.DataFrame, item_ids: NDArray[np.str_]
) -> NeighbourTable | None:
    """Return the table for `item_ids` (n,) by liked `events`, or None where they tell of no two items."""
    known = events[events["item_id"].isin(item_ids)]
    if known.empty:
        return None
    interactions = Interactions.of(known["user_id"], known["item_id"])
    model: Any = {"ease": EASE, "item_knn": ItemKNN}.get(by_use.model)
    if model is None:
        model = EASE if len(interactions.item_ids) <= _EASE_UP_TO else ItemKNN
    table: NeighbourTable = model.fit(interactions).neighbours(by_use.neighbours).in_rows_of(item_ids)
    return table if len(table.neighbours) else None
