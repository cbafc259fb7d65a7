"""Search in the documents of a view: nearest vectors by FAISS, words by SQLite's full-text index, filters."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import _get_feature_view_vector_field_metadata
from numpy.typing import NDArray

from explorank.retrieval.columnar_store.cells import PRESENT
from explorank.retrieval.columnar_store.columns import FIRST, NumberColumn, Slots, TextColumn
from explorank.retrieval.columnar_store.memory import Memory
from explorank.retrieval.columnar_store.requests import FOREVER
from explorank.retrieval.columnar_store.responses import answer
from explorank.retrieval.columnar_store.sources.source import StoredView
from explorank.retrieval.columnar_store.table import KeySpace, Table
from explorank.retrieval.errors import InvalidOption

Document = tuple[datetime | None, EntityKey | None, dict[str, Value] | None]

_METRICS: Final = {
    "l2": "l2",
    "euclidean": "l2",
    "l1": "l1",
    "cosine": "cosine",
    "inner_product": "inner_product",
    "ip": "inner_product",
    "dot": "inner_product",
}
_COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "eq": lambda values, wanted: values == wanted,
    "ne": lambda values, wanted: values != wanted,
    "gt": lambda values, wanted: values > wanted,
    "gte": lambda values, wanted: values >= wanted,
    "lt": lambda values, wanted: values < wanted,
    "lte": lambda values, wanted: values <= wanted,
}


@dataclass(frozen=True)
class _Corpus:
    """The documents of a view as they stand."""

    table: Table
    version: int
    ids: NDArray[np.int64]  # (n,) entity ids
    slots: Slots  # (n,)
    vectors: NDArray[np.float32] | None  # (n, dim), NaN where a document has none
    words: sqlite3.Connection | None
    """A full-text index by position, where the view has texts."""


class Documents:
    """Searches exactly: every search compares all documents that pass its filters.

    Vectors and words are indexed anew when the view has changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._corpora: dict[str, _Corpus] = {}

    def search(
        self,
        memory: Memory,
        view: StoredView,
        features: Sequence[str],
        *,
        embedding: Sequence[float] | None,
        query: str | None,
        top_k: int,
        metric: str | None,
        filters: ComparisonFilter | CompoundFilter | None,
        ttl: int,
    ) -> list[Document]:
        """Return the `top_k` best documents with `distance` and, for a text, `text_rank` (0 to 1, best first).

        With a vector and a text: those that either finds, by rank of the text and then by distance. Feast puts
        the features of an answer in the order of the keys, so that is the order of what is returned here;
        `distance` and `text_rank` tell which is best.
        """
        if embedding is None and query is None:
            raise InvalidOption(
                "A search in documents wants a vector, a text, or both, and was given neither; nothing could "
                "be ranked. Pass `query` or `query_string`."
            )
        space, corpus = self._corpus(memory, view)
        allowed = _passes(corpus, filters, space)
        if ttl != FOREVER:
            now = int(datetime.now(UTC).timestamp() * 1_000_000)
            allowed &= corpus.table.times[corpus.slots] >= now - ttl
        chosen: list[int] = []
        distances: dict[int, float] = {}
        ranks: dict[int, float] = {}
        if embedding is not None:
            distances = _nearest(corpus, view, np.flatnonzero(allowed), embedding, top_k, metric)
            chosen += distances
        if query is not None:
            ranks = _matching(corpus, view, allowed, query, top_k)
            chosen += ranks
            if embedding is not None:
                missing = [position for position in ranks if position not in distances]
                distances |= _nearest(corpus, view, np.array(missing, np.int64), embedding, top_k, metric)
        best = sorted(
            dict.fromkeys(chosen),
            key=lambda position: (-ranks.get(position, 0.0), distances.get(position, np.inf)),
        )[:top_k]
        return _documents(space, corpus, features, best, distances, ranks if query is not None else None)

    def nearest(
        self,
        memory: Memory,
        view: StoredView,
        embedding: Sequence[float],
        top_k: int,
        metric: str | None,
        ttl: int,
    ) -> list[tuple[Any, ...]]:
        """Return the nearest documents in the form of Feast's first interface."""
        field = _vector_field(view)
        found = self.search(
            memory,
            view,
            (field,),
            embedding=embedding,
            query=None,
            top_k=top_k,
            metric=metric,
            filters=None,
            ttl=ttl,
        )
        return [
            (moment, key, values[field], values[field], values["distance"])
            for moment, key, values in found
            if values is not None
        ]

    def _corpus(self, memory: Memory, view: StoredView) -> tuple[KeySpace, _Corpus]:
        space, table = memory.whole(view)
        with self._lock:
            known = self._corpora.get(view.name)
            if known is None or known.table is not table or known.version != table.version:
                if known is not None and known.words is not None:
                    known.words.close()
                known = self._corpora[view.name] = _read(space, table, view)
            return space, known


def _read(space: KeySpace, table: Table, view: StoredView) -> _Corpus:
    version = table.version
    slots = table.slot_of[: len(space)]
    ids = np.flatnonzero(slots >= FIRST)
    slots = slots[ids]
    field = _get_feature_view_vector_field_metadata(view.view)
    vectors = None if field is None else _vectors(table, field.name, slots)
    texts = [name for name, column in table.columns.items() if isinstance(column, TextColumn)]
    return _Corpus(table, version, ids, slots, vectors, _index_words(table, texts, slots) if texts else None)


def _vectors(table: Table, feature: str, slots: Slots) -> NDArray[np.float32] | None:
    column = table.columns[feature]
    present = np.flatnonzero(column.status[slots] == PRESENT)
    if not len(present):
        return None
    rows = [
        np.asarray(getattr(message, message.WhichOneof("val") or "").val, np.float32)
        for message in column.messages(slots[present])
    ]
    width = len(rows[0])
    vectors = np.full((len(slots), width), np.nan, np.float32)
    vectors[present] = [row if len(row) == width else np.full(width, np.nan) for row in rows]
    return vectors


def _index_words(table: Table, features: Sequence[str], slots: Slots) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    names = ", ".join(f"c{place}" for place in range(len(features)))
    # The tokenizer that Feast's own SQLite store has.
    connection.execute(f"CREATE VIRTUAL TABLE words USING fts5({names}, tokenize='porter unicode61')")
    columns = []
    for feature in features:
        column = table.columns[feature]
        missing = (column.status[slots] != PRESENT).tolist()
        columns.append(
            [None if gone else text for gone, text in zip(missing, column.python(slots), strict=True)]
        )
    marks = ", ".join("?" * len(features))
    connection.executemany(
        f"INSERT INTO words (rowid, {names}) VALUES (?, {marks})",  # noqa: S608 - names made above
        zip(range(len(slots)), *columns, strict=True),
    )
    return connection


def _vector_field(view: StoredView) -> str:
    field = _get_feature_view_vector_field_metadata(view.view)
    if field is None:
        raise InvalidOption(
            f"The view {view.view.name!r} has no field with `vector_index=True`; there is nothing to compare "
            "a vector with. Mark the field that holds the embedding, and apply."
        )
    return str(field.name)


def _nearest(
    corpus: _Corpus,
    view: StoredView,
    positions: NDArray[np.int64],
    embedding: Sequence[float],
    top_k: int,
    metric: str | None,
) -> dict[int, float]:
    """Return the distances of the nearest of `positions`, nearest first."""
    import faiss  # noqa: PLC0415 - an extra

    _vector_field(view)
    kind = _METRICS.get((metric or "L2").lower())
    if kind is None:
        raise InvalidOption(
            f"The distance metric is {metric!r}, which is none of L2, L1, cosine and inner_product; nothing "
            "was searched. Name one of those."
        )
    if corpus.vectors is None or not len(positions):
        return {}
    query = np.asarray(embedding, np.float32)[None]
    if query.shape[1] != corpus.vectors.shape[1]:
        raise InvalidOption(
            f"The query has {query.shape[1]} dimensions and the documents of {view.view.name!r} have "
            f"{corpus.vectors.shape[1]}; no distance is defined. Embed it with the documents' encoder."
        )
    vectors = corpus.vectors[positions]
    held = np.isfinite(vectors).all(axis=1)
    positions, vectors = positions[held], np.ascontiguousarray(vectors[held])
    count = min(top_k, len(positions))
    if not count:
        return {}
    if kind == "cosine":
        query, vectors = _unit(query), _unit(vectors)
    metrics = {"l2": faiss.METRIC_L2, "l1": faiss.METRIC_L1}
    scores, nearest = faiss.knn(query, vectors, count, metric=metrics.get(kind, faiss.METRIC_INNER_PRODUCT))
    # As PostgreSQL's operators have them, to which Feast's scores are fitted: less is nearer.
    distances = {
        "l2": np.sqrt(np.maximum(scores, 0.0)),
        "l1": scores,
        "cosine": 1.0 - scores,
        "inner_product": -scores,
    }[kind]
    return dict(zip(positions[nearest[0]].tolist(), distances[0].tolist(), strict=True))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    return unit


def _matching(
    corpus: _Corpus, view: StoredView, allowed: NDArray[np.bool_], query: str, top_k: int
) -> dict[int, float]:
    """Return the ranks of the documents that hold all words of the query, best first."""
    if corpus.words is None:
        raise InvalidOption(
            f"The view {view.view.name!r} has no text features; no word can be found in it. Search by vector, "
            "or add a String field."
        )
    words = re.findall(r"\w+", query)
    if not words:
        return {}
    every = " AND ".join(f'"{word}"' for word in words)
    ranks: dict[int, float] = {}
    with contextlib.closing(
        corpus.words.execute(
            "SELECT rowid, bm25(words) FROM words WHERE words MATCH ? ORDER BY bm25(words)", (every,)
        )
    ) as found:
        for position, score in found:
            if allowed[position]:
                # SQLite's score is negative, and lower is better: 0 and more, then between 0 and 1.
                strength = max(-score, 0.0)
                ranks[position] = strength / (1.0 + strength)
                if len(ranks) == top_k:
                    break
    return ranks


def _passes(
    corpus: _Corpus, filters: ComparisonFilter | CompoundFilter | None, space: KeySpace
) -> NDArray[np.bool_]:
    if filters is None:
        return np.ones(len(corpus.slots), np.bool_)
    if isinstance(filters, CompoundFilter):
        if not filters.filters:
            return np.ones(len(corpus.slots), np.bool_)
        masks = [_passes(corpus, part, space) for part in filters.filters]
        combine = np.logical_and if filters.type == "and" else np.logical_or
        mask: NDArray[np.bool_] = combine.reduce(masks)
        return mask
    return _compared(*_values(corpus, filters.key, space), filters)


def _values(corpus: _Corpus, key: str, space: KeySpace) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    column = corpus.table.columns.get(key)
    if column is not None:
        values = (
            column.values[corpus.slots]
            if isinstance(column, NumberColumn)
            else np.array(column.python(corpus.slots), object)
        )
        return values, column.status[corpus.slots] == PRESENT
    if key in space.keys.join_keys:
        natives = [space.natives[position] for position in corpus.ids.tolist()]
        if len(space.keys.join_keys) > 1:
            natives = [native[space.keys.join_keys.index(key)] for native in natives]
        return np.array(natives), np.ones(len(natives), np.bool_)
    known = ", ".join(map(repr, (*corpus.table.columns, *space.keys.join_keys)))
    raise InvalidOption(
        f"The filter compares {key!r}, which is neither a feature nor a join key of the view; no document could "
        f"pass or fail it. There are: {known}."
    )


def _compared(
    values: NDArray[Any], present: NDArray[np.bool_], wanted: ComparisonFilter
) -> NDArray[np.bool_]:
    if wanted.type in {"in", "nin"}:
        if not isinstance(wanted.value, list):
            raise InvalidOption(
                f"The filter {wanted.type!r} on {wanted.key!r} wants a list, not {wanted.value!r}; it can't be "
                "decided what is in it. Pass a list."
            )
        chosen = set(wanted.value)
        mask = np.fromiter((value in chosen for value in values.tolist()), np.bool_, len(values))
        return present & (mask if wanted.type == "in" else ~mask)
    passed = np.zeros(len(values), np.bool_)
    try:
        passed[present] = _COMPARE[wanted.type](values[present], wanted.value)
    except TypeError as error:
        raise InvalidOption(
            f"The filter {wanted.type!r} compares {wanted.key!r} with {wanted.value!r}, and its values are of "
            f"another type ({error}). Compare like with like."
        ) from error
    return passed


def _documents(
    space: KeySpace,
    corpus: _Corpus,
    features: Sequence[str],
    best: Sequence[int],
    distances: Mapping[int, float],
    ranks: Mapping[int, float] | None,
) -> list[Document]:
    keys = [space.natives[position] for position in corpus.ids[list(best)].tolist()]
    order = sorted(range(len(best)), key=lambda place: _sortable(keys[place]))
    positions = [best[place] for place in order]
    slots = corpus.slots[positions]
    names = [name for name in features if name in corpus.table.columns]
    found = answer(corpus.table, slots, names, names, FOREVER, 0)
    columns = {
        name: [
            message if status == PRESENT else Value()
            for message, status in zip(column.messages(slots), found.statuses(column).tolist(), strict=True)
        ]
        for name, column in zip(names, found.columns, strict=True)
    }
    documents: list[Document] = []
    for row, (place, position) in enumerate(zip(order, positions, strict=True)):
        entity_key = space.keys.to_proto(keys[place])
        values = {name: messages[row] for name, messages in columns.items()}
        # A join key may be asked for as a feature; its value is in the key.
        key_values = dict(zip(entity_key.join_keys, entity_key.entity_values, strict=True))
        values |= {name: value for name, value in key_values.items() if name in features}
        distance = distances.get(position)
        values["distance"] = Value() if distance is None else Value(float_val=distance)
        if ranks is not None:
            values["text_rank"] = Value(float_val=ranks.get(position, 0.0))
        moment = corpus.table.times[slots[row]] / 1_000_000
        documents.append((datetime.fromtimestamp(moment, UTC), entity_key, values))
    return documents


def _sortable(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)
