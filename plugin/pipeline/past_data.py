"""Past requests with what was known at their time: the rows that a ranker learns from, and is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.builtin.retrieval import SIMILARITY, similarity_columns
from explorank.crosses import Crosses
from explorank.errors import DataError
from explorank.hooks.types import Features
from explorank.model_card import Sampling, moment
from explorank.pipeline.liked_events import liked_events
from explorank.pipeline.past_retrieval import past_candidates
from explorank.pipeline.past_use import PastUse, block_starts
from explorank.pipeline.queries import interest_vectors, labelled_rows, ranking_queries
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import RankingData
from explorank.retrieval import Catalogue, LearnedEmbeddings, Retriever
from explorank.retrieval.features import FeatureAccess
from explorank.settings import Settings


@dataclass(frozen=True, slots=True)
class PastData:
    """Past requests with their users, the earlier to train on and the later to stop and judge on."""

    training: RankingData
    later: RankingData
    activity: NDArray[np.int64]  # (h,) how many events the user of each later request had before
    popularity: NDArray[np.int64]  # (n,)
    """How many events the item of each later row had before the later slice; displays, of a log."""
    sampling: Sampling
    """How the rows of both were made."""
    unlabelled: NDArray[np.bool_] | None = None
    """(m,) which of the earlier rows nobody chose between, so that only a teacher says something of them; None where
    all are liked or negatives."""

    @property
    def items(self) -> frozenset[str]:
        """The items that rows and histories name."""
        named: set[str] = set()
        for data in (self.training, self.later):
            named.update(() if data.item_ids is None else data.item_ids.tolist())
            named.update(item for history in data.histories or () for item in history)
        return frozenset(named)

    def with_texts(self, texts: Mapping[str, str]) -> PastData:
        """Return the same, knowing what items are called."""
        training, later = (replace(data, item_texts=texts) for data in (self.training, self.later))
        return replace(self, training=training, later=later)

    @property
    def training_users(self) -> NDArray[np.str_]:
        """(g,) whose each earlier request is."""
        return _users_of(self.training)

    @property
    def later_users(self) -> NDArray[np.str_]:
        """(h,) whose each later request is."""
        return _users_of(self.later)


def _users_of(data: RankingData) -> NDArray[np.str_]:
    assert data.user_ids is not None  # noqa: S101 - past requests know whose they are, for the type checker
    return data.user_ids


def past_data(
    settings: Settings,
    interactions: pd.DataFrame,
    catalogue: Catalogue,
    access: FeatureAccess,
    options: TrainOptions,
    retrievers: Sequence[tuple[Retriever, int]] = (),
    *,
    pseudo_labels: int = 0,
) -> PastData:
    """Return the past requests that teach something; raise `DataError` where they are too few.

    `options.retrieved_share` of the negatives come from what `retrievers`, each with how many items it is asked for,
    would have found then; without any, all are drawn evenly. So do up to `pseudo_labels` rows without a label that each
    of the earlier requests has besides.
    """
    crosses = Crosses.of(settings)
    crosses.check((*access.item_names, *access.user_names, *similarity_columns(settings)))
    queries, split = _past_requests(interactions, catalogue, options)
    vectors = interest_vectors(queries, catalogue, settings.retrieval.decay)
    starts = block_starts(split, options.blocks)
    asked = retrievers if options.retrieved_share > 0 or pseudo_labels else ()
    use = PastUse.of(
        settings.retrieval,
        lambda learner: liked_events(settings, learner, interactions),
        catalogue,
        queries,
        starts,
        access=access,
        with_models=any(isinstance(retriever, LearnedEmbeddings) for retriever, _ in asked),
    )
    candidates = None
    if asked:
        limit = settings.retrieval.candidates
        trending = settings.retrieval.trending
        candidates = past_candidates(
            asked, interactions, catalogue, queries, vectors, use,
            limit=limit, recent_days=None if trending is None else trending.days,
        )  # fmt: skip
    rows = labelled_rows(
        queries,
        catalogue,
        negatives=options.negatives,
        seed=options.seed,
        candidates=candidates,
        retrieved_share=options.retrieved_share,
        unlabelled=np.where(np.arange(len(queries)) < split, pseudo_labels, 0),
    )
    learnt = use.columns(catalogue, queries, rows)
    names, matrix = feature_matrix(access, catalogue, rows, vectors, crosses, learnt)
    _check_known("users", access.user_names, queries["user_id"].nunique(), names, matrix)
    _check_known("items", access.item_names, rows["item_id"].nunique(), names, matrix)
    times = [moment.timestamp() for moment in queries["event_timestamp"]]
    users = queries["user_id"].to_numpy().astype(str)
    data = RankingData(
        features=matrix,
        feature_names=names,
        labels=rows["label"].to_numpy(),
        groups=_group_sizes(rows["query"]),
        item_ids=rows["item_id"].to_numpy(),
        histories=tuple(queries["liked"]),
        user_ids=users,
    )
    later = replace(
        data.take(np.arange(split, len(queries))), window=(times[split], times[-1]), called="validation"
    )
    before = interactions["timestamp"] < queries["event_timestamp"].iloc[split]
    events = interactions.loc[before, "item_id"].value_counts()
    return PastData(
        replace(data.take(np.arange(split)), window=(times[0], times[split - 1])),
        later,
        np.array([len(seen) for seen in queries["seen"][split:]], np.int64),
        events.reindex(later.item_ids, fill_value=0).to_numpy(np.int64),
        Sampling(
            rows="interactions",
            requests={
                **asdict(options.queries),
                "max_queries": options.max_queries,
                **({} if options.since is None else {"since": moment(options.since)}),
                "blocks": options.blocks,
            },
            negatives=options.negatives,
            retrieved_share=options.retrieved_share,
            retrievers=() if candidates is None else tuple(retriever.name for retriever, _ in retrievers),
            drawn_from_retrieval=int(rows["retrieved"].sum()),
            drawn_evenly=int((~rows["retrieved"] & ~rows["unlabelled"] & (rows["label"] == 0)).sum()),
        ),
        rows["unlabelled"].to_numpy()[rows["query"].to_numpy() < split] if pseudo_labels else None,
    )


def _past_requests(
    interactions: pd.DataFrame, catalogue: Catalogue, options: TrainOptions
) -> tuple[pd.DataFrame, int]:
    """Return the queries that teach something, the latest, and how many of them come before validation."""
    queries = ranking_queries(interactions, options.queries, seed=options.seed, since=options.since)
    queries = queries[[bool(catalogue.item_known(taken).any()) for taken in queries["positives"]]]
    queries = queries.tail(options.max_queries).reset_index(drop=True)
    split = int(len(queries) * (1 - options.validation_share))
    if not 0 < split < len(queries):
        raise DataError(
            f"{len(queries)} past requests after which items of the catalogue were liked are too few to train on the "
            "earlier and to stop on the later ones. Bring more interactions, or build the catalogue of their items."
        )
    return queries, split


def _check_known(
    who: str, own: Sequence[str], count: int, names: tuple[str, ...], matrix: NDArray[np.float32]
) -> None:
    """Raise `DataError` where no row has a value in any of the columns `own`: nobody is known to the feature store."""
    if own and np.isnan(matrix[:, [names.index(name) for name in own]]).all():
        raise DataError(
            f"None of the {count:,} {who} of these past requests is known to the feature repository, so that all "
            f"{len(own)} columns of {who} ({own[0]}, …) would be missing: the ranker would learn nothing of {who}, and "
            "serve those that the repository does know by columns that it never saw a value of. Run `explorank "
            f"features` with these interactions, or bring interactions of the {who} that it knows."
        )


def feature_matrix(
    access: FeatureAccess,
    catalogue: Catalogue,
    rows: pd.DataFrame,
    vectors: NDArray[np.float32],
    crosses: Crosses | None = None,
    learnt: Mapping[str, NDArray[np.float32]] | None = None,
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Return the ranker's columns for `rows`, (n, d) float32, as of each row's time: what serving would have seen.

    `rows` has `query`, `user_id`, `item_id` and `event_timestamp`; `vectors` (q, d) are the queries' interests,
    `learnt` the columns (n,) that were learnt from use, by name.
    """
    known = access.training_frame(rows[["user_id", "item_id", "event_timestamp"]])
    names = (*access.item_names, *access.user_names)
    positions = catalogue.rows(rows["item_id"].tolist())
    norms = np.linalg.norm(vectors, axis=1)
    units = vectors / np.where(norms > 0, norms, 1.0)[:, None]
    query = rows["query"].to_numpy()
    cosines = np.einsum("nd,nd->n", catalogue.vectors[positions], units[query])
    cosines[(positions < 0) | (norms[query] == 0)] = np.nan
    columns = {SIMILARITY: cosines.astype(np.float32), **(learnt or {})}
    matrix = np.column_stack([known[list(names)].to_numpy(np.float32), *columns.values()])
    features = (crosses or Crosses()).extend(Features((*names, *columns), matrix))
    return features.names, features.values


def _group_sizes(query: pd.Series[int]) -> NDArray[np.int64]:
    """Return how many consecutive rows each query has."""
    return np.asarray(query.groupby(query, sort=False).size(), np.int64)
