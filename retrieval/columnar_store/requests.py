"""What a request for online features asks of which views, worked out once per registry and set of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.online_stores.helpers import compute_table_id
from feast.value_type import ValueType

from explorank.retrieval.columnar_store.keys import EntityKeys, Key, plain_values
from explorank.retrieval.columnar_store.sources.source import StoredView

_MICROSECONDS: Final = 1_000_000
FOREVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Part:
    """What a request asks of one view."""

    stored: StoredView
    features: tuple[str, ...]
    names: tuple[str, ...]
    """As the answer calls the features."""
    key_names: tuple[str, ...]
    """As the request calls the join keys, in the order of the sorted join keys."""
    ttl: int
    """In microseconds; `FOREVER` where rows do not expire."""


@dataclass(frozen=True)
class Plan:
    """A request without its rows."""

    parts: tuple[Part, ...]
    join_keys: frozenset[str]
    """Names that the request may give values for."""
    key_types: Mapping[str, ValueType]


def stored_view(view: FeatureView, project: str, *, versioned: bool) -> StoredView:
    """Return what a source has to know of a view."""
    return StoredView(
        compute_table_id(project, view, versioned),
        view,
        {field.name: field.dtype.to_value_type() for field in view.features},
        EntityKeys({column.name: column.dtype.to_value_type() for column in view.entity_columns}),
    )


def ttl_of(view: FeatureView) -> int:
    """Return how long a row may be used, in microseconds."""
    ttl = getattr(view, "ttl", None)
    return round(ttl.total_seconds() * _MICROSECONDS) if ttl else FOREVER


def plan_of(context: Sequence[Any], project: str, *, full_names: bool, versioned: bool) -> Plan | None:
    """Return the plan of what Feast's `_get_cached_request_context` resolved.

    `None` where the answer takes more than gathering: on-demand views, pinned versions of a view.
    """
    _, on_demand, _, key_types, join_keys, grouped, names, needed, _ = context
    if on_demand or needed:
        return None
    parts = []
    for view, features in grouped:
        projection = view.projection
        if getattr(projection, "version_tag", None) is not None:
            return None
        stored = stored_view(view, project, versioned=versioned)
        prefix = f"{projection.name_to_use()}__" if full_names else ""
        parts.append(
            Part(
                stored,
                tuple(features),
                tuple(prefix + feature for feature in features),
                tuple(projection.join_key_map.get(name, name) for name in stored.keys.join_keys),
                ttl_of(view),
            )
        )
        if not names.issuperset(parts[-1].names):
            return None
    return Plan(tuple(parts), frozenset(join_keys), key_types)


@dataclass(frozen=True)
class Rows:
    """The entities of a request."""

    count: int
    columns: Mapping[str, list[Any]]
    """Plain values by join key, in the order in which they were given."""

    def keys(self, part: Part) -> list[Key]:
        """Return the key of each row for one view."""
        if part.key_names == (DUMMY_ENTITY_ID,):
            return [DUMMY_ENTITY_VAL] * self.count
        return part.stored.keys.of_columns([self.columns[name] for name in part.key_names])


def rows_of(plan: Plan, entity_rows: Any) -> Rows | None:
    """Return the entities that a request names, `None` where they are not of the plain shape.

    Feast's own path then has the word: it raises the errors, and it knows names that are deprecated.
    """
    given = _by_column(entity_rows)
    if not given or not plan.join_keys.issuperset(given):
        return None
    if len({len(values) for values in given.values()}) != 1:
        return None
    columns = {
        name: plain_values(values, plan.key_types.get(name, ValueType.UNKNOWN))
        for name, values in given.items()
    }
    needed = {name for part in plan.parts for name in part.key_names} - {DUMMY_ENTITY_ID}
    count = len(next(iter(columns.values())))
    if not count or not needed.issubset(columns):
        return None
    return Rows(count, columns)


def _by_column(entity_rows: Any) -> Mapping[str, Any] | None:
    if not isinstance(entity_rows, list):
        return {
            name: values if hasattr(values, "__len__") else values.val for name, values in entity_rows.items()
        }
    if not entity_rows:
        return None
    names = list(entity_rows[0])
    try:
        columns = {name: [row[name] for row in entity_rows] for name in names}
    except KeyError:
        return None
    return columns if set(map(len, entity_rows)) == {len(names)} else None
