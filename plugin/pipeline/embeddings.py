"""The space of items and users that `learned_embeddings` searches: fitted to what users liked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.pipeline.user_features import PastUserFeatures
from explorank.retrieval import UserFeatures
from explorank.retrieval.collaborative import EMBEDDING_MODELS, EmbeddingModel, Interactions
from explorank.settings import LearnedEmbeddingsSettings

_HISTORIES: Final = 256
_MODEL_NAMES: Final = {
    "als": "factors of items and users",
    "two_tower": "two towers",
    "sasrec": "what follows on what",
}


def fit_embeddings(
    wanted: LearnedEmbeddingsSettings,
    events: pd.DataFrame,
    item_ids: NDArray[np.str_],
    vectors: NDArray[np.float32],
    *,
    people: PastUserFeatures | None = None,
    progress: Callable[[int, int], None] | None = None,
    begins: Callable[[str], None] | None = None,
) -> EmbeddingModel:
    """Return the model of the liked `events`, in the rows of `item_ids` (n,) with text `vectors` (n, c).

    `events` is what `liked_events` returns, with what `people` knew beside it. `progress` is told how many passes are
    done, and of how many. Raises `DataError` where no user liked two items, `InvalidTable` where a network has too few
    interactions to learn from, and `EncoderUnavailable` where one is wanted and torch is missing.
    """
    known = events[events["item_id"].isin(item_ids)]
    pairs = known.drop_duplicates(["user_id", "item_id"])
    if not pairs["user_id"].duplicated().any():
        raise DataError(
            f"No user liked two items of the catalogue ({len(events):,} liked interactions), so nothing tells which "
            "lie together. Bring more interactions, lower `features.positive_from`, or remove "
            "`retrieval.learned_embeddings`."
        )
    if begins is not None:
        begins(f"learning {_MODEL_NAMES[wanted.model]}")
    seconds = known["timestamp"].to_numpy("datetime64[us]").astype(np.int64) / 1e6
    interactions = Interactions.of(known["user_id"], known["item_id"], times=seconds)
    model = EMBEDDING_MODELS[wanted.model].fit(
        interactions,
        options=getattr(wanted, wanted.model),
        seed=wanted.seed,
        content=vectors[pd.Index(item_ids).get_indexer(pd.Index(interactions.item_ids))],
        user_features=None if people is None else people.among(known),
        progress=progress,
    )
    return model.in_rows_of(item_ids, vectors)


def sampled_users(
    events: pd.DataFrame, item_ids: NDArray[np.str_], people: PastUserFeatures | None = None
) -> tuple[list[NDArray[np.int64]], UserFeatures | None]:
    """Return what some users liked by `events`, each as rows (h,) of `item_ids` (n,), oldest first, and who they are.

    That is what `people` knew of each at the last of those (u, g); None without.
    """
    users = pd.Series(events["user_id"].unique())
    drawn = users.sample(min(_HISTORIES, len(users)), random_state=0)
    theirs = events[events["user_id"].isin(drawn)].sort_values("timestamp", kind="stable")
    rows = pd.Index(item_ids).get_indexer(pd.Index(theirs["item_id"]))
    theirs = theirs.assign(row=rows)[rows >= 0]
    histories = [own.to_numpy(np.int64) for _, own in theirs.groupby("user_id")["row"]]
    last = theirs.drop_duplicates("user_id", keep="last").sort_values("user_id")
    return histories, None if people is None else people.among(last)
