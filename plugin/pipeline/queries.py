"""Turns a history of interactions into past ranking requests: who could have asked when, and what they took.

A query stands at the time of some event of a user. What it may know is what lies strictly before; its
positives are what the user liked next. Features as of the query's time then leak nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.model_card import moment
from explorank.retrieval import Catalogue, interest_vector

_LIKED, _RETRIEVED, _EVENLY, _UNLABELLED = range(4)

_Query: TypeAlias = tuple[str, pd.Timestamp, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """How queries are cut from histories."""

    positive_from: float = 1.0
    """An interaction of at least this value is liked."""
    warmup: int = 5
    """Events a user must have before their first query."""
    stride: int = 10
    """Events between two queries of a user."""
    horizon: int = 20
    """The liked items among this many next events are a query's positives."""
    per_user: int = 8
    """At most this many queries of a user, drawn at random."""


def ranking_queries(
    interactions: pd.DataFrame, options: QueryOptions, *, seed: int, since: float | None = None
) -> pd.DataFrame:
    """Return past requests: columns `user_id`, `event_timestamp`, `liked` and `seen` (before), `positives`.

    `interactions` has text `user_id` and `item_id`, UTC `timestamp` and `value`. All stand after `since`, in seconds
    since the Unix epoch. Raises `DataError` where no user has enough events.
    """
    generator = np.random.default_rng(seed)
    rows: list[_Query] = []
    for user_id, events in interactions.sort_values("timestamp", kind="stable").groupby("user_id", sort=True):
        cuts = np.arange(options.warmup, len(events), options.stride)
        if since is not None:
            cuts = cuts[_seconds(events["timestamp"].iloc[cuts]) > since]
        if len(cuts) > options.per_user:
            cuts = np.sort(generator.choice(cuts, options.per_user, replace=False))
        rows.extend(_queries_at(cuts, str(user_id), events, options))
    if not rows:
        raise DataError(
            f"No user has {options.warmup} interactions and a liked one after them, so there is nothing to learn a "
            f"ranking from ({len(interactions)} interactions, liked from value {options.positive_from}"
            f"{'' if since is None else f', requests after {moment(since)}'}). Bring more data, lower "
            f"`positive_from`{'' if since is None else ', or begin earlier'}."
        )
    frame = pd.DataFrame(rows, columns=["user_id", "event_timestamp", "liked", "seen", "positives"])
    frame = frame.drop_duplicates(["user_id", "event_timestamp"])
    return frame.sort_values("event_timestamp", kind="stable", ignore_index=True)


def _seconds(times: pd.Series[pd.Timestamp]) -> NDArray[np.float64]:
    return times.to_numpy("datetime64[us]").astype(np.int64) / 1e6


def _queries_at(
    cuts: NDArray[np.int64], user_id: str, events: pd.DataFrame, options: QueryOptions
) -> Iterator[_Query]:
    items = events["item_id"].to_numpy()
    liked = events["value"].to_numpy() >= options.positive_from
    times = events["timestamp"].to_numpy("datetime64[us]")
    for cut in cuts:
        first = int((times < times[cut]).sum())  # events of the same instant are not known yet
        following = slice(first, first + options.horizon)
        positives = tuple(dict.fromkeys(items[following][liked[following]]))
        if first >= options.warmup and positives:
            before = items[:first]
            asked = events["timestamp"].iloc[cut]
            yield user_id, asked, tuple(before[liked[:first]]), tuple(before), positives


def interest_vectors(queries: pd.DataFrame, catalogue: Catalogue, decay: float) -> NDArray[np.float32]:
    """Return the interest vector of each query's liked items, (q, d); zero where none is known."""
    vectors = np.zeros((len(queries), catalogue.vectors.shape[1]), np.float32)
    for position, liked in enumerate(queries["liked"]):
        rows = catalogue.rows(liked)
        if (rows >= 0).any():
            vectors[position] = interest_vector(catalogue.vectors_at(rows[rows >= 0]), decay)
    return vectors


def labelled_rows(
    queries: pd.DataFrame,
    catalogue: Catalogue,
    *,
    negatives: int,
    seed: int,
    candidates: Sequence[NDArray[np.int64]] | None = None,
    retrieved_share: float = 0.0,
    unlabelled: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Return one row per query and item to learn from: `query`, `user_id`, `item_id`, `event_timestamp`, `label`.

    `retrieved` says which negatives were drawn from `candidates`, `unlabelled` which rows are neither liked nor
    negatives: up to as many as the parameter (q,) has for the query, drawn from what is left of its candidates, with
    label 0 like any that was not liked. They come last, and change no other draw.
    `retrieved_share` of the negatives are drawn from the query's own of `candidates` (q,), rows of the catalogue (m,)
    each once, as far as those reach; the others evenly from the catalogue. What the user knew or liked next is never
    among them. Rows are shuffled within a query: metrics break ties by position, and must not find the positives in
    front.
    """
    generator, for_unlabelled = np.random.default_rng(seed), np.random.default_rng([seed, _UNLABELLED])
    item_rows: list[NDArray[np.int64]] = []
    kinds: list[NDArray[np.int64]] = []
    for number, (seen, positives) in enumerate(zip(queries["seen"], queries["positives"], strict=True)):
        wanted = catalogue.rows(positives)
        wanted = wanted[wanted >= 0]
        kept_out = np.concatenate([catalogue.rows(seen), wanted])
        retrieved = np.empty(0, np.int64)
        if candidates is not None and retrieved_share > 0:
            likely = np.setdiff1d(candidates[number], kept_out)
            count = min(round(retrieved_share * negatives), len(likely))
            retrieved = generator.choice(likely, count, replace=False)
        # From the whole catalogue, even what appeared later: a positive may be the first that is heard of an item, and
        # if no negative ever was, that nothing is known of an item would say that it was liked.
        evenly = np.unique(generator.integers(len(catalogue), size=negatives - len(retrieved)))
        drawn = np.concatenate([retrieved, np.setdiff1d(evenly, np.concatenate([kept_out, retrieved]))])
        shuffled = generator.permutation(len(wanted) + len(drawn))
        more = np.empty(0, np.int64)
        if candidates is not None and unlabelled is not None and unlabelled[number] > 0:
            left = np.setdiff1d(candidates[number], np.concatenate([kept_out, drawn]))
            more = for_unlabelled.choice(left, min(int(unlabelled[number]), len(left)), replace=False)
        item_rows.append(np.concatenate([np.concatenate([wanted, drawn])[shuffled], more]))
        counts = [len(wanted), len(retrieved), len(drawn) - len(retrieved)]
        kinds.append(np.repeat([_LIKED, _RETRIEVED, _EVENLY], counts)[shuffled])
        kinds.append(np.full(len(more), _UNLABELLED))
    query = np.repeat(np.arange(len(queries)), [len(rows) for rows in item_rows])
    kind = np.concatenate(kinds)
    return pd.DataFrame(
        {
            "query": query,
            "user_id": queries["user_id"].to_numpy()[query],
            "item_id": catalogue.item_ids[np.concatenate(item_rows)].astype(object),
            "event_timestamp": queries["event_timestamp"].array[query],
            "label": (kind == _LIKED).astype(np.int64),
            "retrieved": kind == _RETRIEVED,
            "unlabelled": kind == _UNLABELLED,
        }
    )
