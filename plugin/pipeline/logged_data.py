"""Displayed slates as training data: each row knows its slot, so that a ranker can allow for where it was seen."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from explorank.builtin.retrieval import history_of, similarity_columns
from explorank.crosses import Crosses
from explorank.errors import DataError
from explorank.model_card import Sampling, moment
from explorank.pipeline.liked_events import known_events
from explorank.pipeline.logged_outcomes import Settled, settled_outcomes
from explorank.pipeline.past_data import PastData, feature_matrix
from explorank.pipeline.past_use import PastUse, block_starts
from explorank.pipeline.queries import interest_vectors
from explorank.pipeline.train_options import TrainOptions
from explorank.rankers import RankingData
from explorank.retrieval import Catalogue
from explorank.retrieval.features import FeatureAccess
from explorank.settings import Settings


def logged_data(
    settings: Settings, catalogue: Catalogue, access: FeatureAccess, options: TrainOptions, *, now: float
) -> PastData:
    """Return the latest decisions of known users: a request each, a row for each slot that was displayed.

    A row's label is 1 where what the slot earned adds up to liking, its position is the slot. Features are as
    of the decision, by Feast's point-in-time join; the history is the one that the decision was made with. Slates that
    the host displayed in another order are left out, and decisions whose horizon has not passed at `now`. Slots are
    kept whether or not they are looked at: that is for the ranker's `position_bias` to allow for.

    Raises `DataError` where there are too few, or nothing was taken up in the earlier or in the later ones.
    """
    crosses = Crosses.of(settings)
    crosses.check((*access.item_names, *access.user_names, *similarity_columns(settings)))
    shown = _shown(settings, options, now)
    split = int(len(shown) * (1 - options.validation_share))
    query = np.repeat(np.arange(len(shown)), [len(outcomes) for _, outcomes, _ in shown])
    outcomes = [outcome for _, slots, _ in shown for outcome in slots]
    labels = np.array(
        [str(outcome.item_id) in liked for _, slots, liked in shown for outcome in slots], np.float64
    )
    taken = [bool(labels[query < split].any()), bool(labels[query >= split].any())]
    if not 0 < split < len(shown) or not all(taken):
        raise DataError(
            f"{len(shown):,} displayed slates of known users, of which {int(labels.sum()):,} slots were taken up, are "
            "too few to train on the earlier and to stop on the later ones. Serve on until more have come and "
            "`feedback.horizon_s` has passed, or train from interactions."
        )
    times = np.array([record.request.time for record, *_ in shown])
    users = np.array([record.request.user_id for record, *_ in shown], np.str_)
    histories = [history_of(record.request) for record, *_ in shown]
    queries = pd.DataFrame(
        {
            "user_id": users.astype(object),
            "event_timestamp": pd.to_datetime((times * 1e6).astype(np.int64), unit="us", utc=True),
            # What the candidates of each decision were compared with.
            "liked": [
                history if record.request.similar_to is None else (record.request.similar_to,)
                for (record, *_), history in zip(shown, histories, strict=True)
            ],
            "about_user": [record.request.similar_to is None for record, *_ in shown],
        }
    )
    rows = pd.DataFrame(
        {
            "query": query,
            "user_id": users[query].astype(object),
            "item_id": np.array([str(outcome.item_id) for outcome in outcomes], object),
            "event_timestamp": queries["event_timestamp"].take(query).array,
        }
    )
    use = PastUse.of(
        settings.retrieval,
        lambda learner: known_events(settings, learner),
        catalogue,
        queries,
        block_starts(split, options.blocks),
        access=access,
    )
    vectors = interest_vectors(queries, catalogue, settings.retrieval.decay)
    names, matrix = feature_matrix(
        access, catalogue, rows, vectors, crosses, use.columns(catalogue, queries, rows)
    )
    data = RankingData(
        features=matrix,
        feature_names=names,
        labels=labels,
        groups=np.bincount(query, minlength=len(shown)),
        positions=np.array([outcome.slot for outcome in outcomes]),
        item_ids=rows["item_id"].to_numpy(),
        histories=tuple(histories),
        user_ids=users,
    )
    later = replace(
        data.take(np.arange(split, len(shown))),
        window=(float(times[split]), float(times[-1])),
        called="validation",
    )
    displayed = rows.loc[query < split, "item_id"].value_counts()
    return PastData(
        replace(data.take(np.arange(split)), window=(float(times[0]), float(times[split - 1]))),
        later,
        np.array([len(history) for history in histories[split:]], np.int64),
        np.asarray(displayed.reindex(later.item_ids, fill_value=0), np.int64),
        Sampling(
            rows="log",
            requests={
                "max_decisions": options.max_decisions,
                "blocks": options.blocks,
                **({} if options.since is None else {"since": moment(options.since)}),
            },
        ),
    )


def _shown(settings: Settings, options: TrainOptions, now: float) -> list[Settled]:
    """Return the latest displayed slates of known users by time, each by slot."""
    since = -math.inf if options.since is None else options.since
    found = [
        settled._replace(outcomes=sorted(settled.outcomes, key=lambda outcome: outcome.slot))
        for settled in settled_outcomes(
            settings,
            now,
            wanted=lambda record: record.request.user_id is not None and record.request.time > since,
            examined_only=False,
        )
    ]
    found.sort(key=lambda settled: (settled.record.request.time, settled.record.decision_id))
    return found[-options.max_decisions :]
