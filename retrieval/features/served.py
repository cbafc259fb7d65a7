"""Which features a Feast service serves, and how each of them becomes a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.retrieval.errors import FeatureRepositoryError
from explorank.retrieval.features.meaning import Meaning
from explorank.retrieval.features.tables import MICROSECONDS

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

    from explorank.retrieval.features.vocabulary import Vocabularies

Kind: TypeAlias = Literal["number", "text", "time", "other"]

_DAY_S: Final = 86_400.0
_NO_TIME: Final = np.iinfo(np.int64).min  # how Feast stores a missing time

# Feast's type name: the member of its value message, and the way to a number.
_KINDS: Final[Mapping[str, tuple[str, Kind]]] = {
    "Bool": ("bool_val", "number"),
    "Int32": ("int32_val", "number"),
    "Int64": ("int64_val", "number"),
    "Float32": ("float_val", "number"),
    "Float64": ("double_val", "number"),
    "String": ("string_val", "text"),
    "UnixTimestamp": ("unix_timestamp_val", "time"),
}


@dataclass(frozen=True, slots=True)
class ServedFeature:
    """One feature of a service."""

    name: str
    kind: Kind
    """A text becomes its code in the vocabulary, a time its age in days; `other` becomes nothing."""
    member: str
    """The member of Feast's value message that holds it."""


@dataclass(frozen=True, slots=True)
class ServedView:
    """The part of a service that comes from one feature view."""

    name: str
    """As the service calls it."""
    registered_name: str
    features: tuple[ServedFeature, ...]
    ttl_s: float
    """How long a row may be used, infinite where the view sets no limit."""


@dataclass(frozen=True)
class ServedFeatures:
    """All that a service serves of one kind of entity."""

    service: FeatureService
    join_key: str
    integer_keys: bool
    views: tuple[ServedView, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features that become numbers, in the service's order."""
        return tuple(
            feature.name for view in self.views for feature in view.features if feature.kind != "other"
        )

    def keys(self, ids: Iterable[str]) -> tuple[list[Any], NDArray[np.int64]]:
        """Return the ids that the join key's type can hold, as that type, and their positions."""
        if not self.integer_keys:
            keys = list(ids)
            return keys, np.arange(len(keys))
        held = [(row, key) for row, key in enumerate(self.keys_or_none(list(ids))) if key is not None]
        return [key for _, key in held], np.array([row for row, _ in held], np.int64)

    def keys_or_none(self, ids: list[str]) -> list[Any]:
        """Return each id as the join key's type, `None` where that type cannot hold it."""
        if not self.integer_keys:
            return ids
        return [int(key) if key.removeprefix("-").isdecimal() else None for key in ids]


def served_features(store: FeatureStore, name: str) -> ServedFeatures:
    """Return what the service `name` serves; `FeatureRepositoryError` if it can't be served as one matrix."""
    from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException  # noqa: PLC0415 - takes seconds

    try:
        service = store.get_feature_service(name)
    except FeatureServiceNotFoundException as error:
        known = ", ".join(sorted(service.name for service in store.list_feature_services())) or "none"
        raise FeatureRepositoryError(
            f"The repository {store.repo_path} has no feature service {name!r}; registered are: {known}. "
            "Nothing can be read without it: name one of those, or define it and run `feast apply`, as "
            "`explorank features` does."
        ) from error
    views: list[ServedView] = []
    keys: dict[str, bool] = {}
    for projection in service.feature_view_projections:
        try:
            view = store.get_feature_view(projection.name)
        except FeatureViewNotFoundException:  # an on-demand view: computed from the others, keyless
            ttl_s = float("inf")
        else:
            ttl_s = (view.ttl.total_seconds() if view.ttl else 0.0) or float("inf")
            for column in view.entity_columns:
                key = projection.join_key_map.get(column.name, column.name)
                keys[key] = str(column.dtype) in {"Int32", "Int64"}
        features = tuple(_served(field) for field in projection.features)
        views.append(ServedView(projection.name_to_use(), projection.name, features, ttl_s))
    if len(keys) != 1:
        raise FeatureRepositoryError(
            f"The feature service {name!r} is keyed by {', '.join(map(repr, keys)) or 'nothing'}; it must "
            "have one join key, so that users and items are each read once. Split the service by entity."
        )
    [(join_key, integer_keys)] = keys.items()
    served = ServedFeatures(service, join_key, integer_keys, tuple(views))
    refuse_equal_names(served.names, f"The feature service {name!r}")
    return served


def refuse_equal_names(names: tuple[str, ...], what: str) -> None:
    """Raise `FeatureRepositoryError` where two features have the same name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FeatureRepositoryError(
            f"{what} serves {', '.join(map(repr, twice))} more than once; a ranker could not tell them "
            "apart. Rename the feature in one of the views (a `field_mapping` of its source does it)."
        )


def _served(field: Any) -> ServedFeature:
    member, kind = _KINDS.get(str(field.dtype), ("", "other"))
    return ServedFeature(field.name, kind, member)


def meaning_of(feature: ServedFeature, texts: Sequence[str]) -> Meaning:
    """Return what the numbers of `feature` mean, of which `texts` have codes."""
    return Meaning.of_codes(texts) if feature.kind == "text" else Meaning(feature.kind)


def numbers_from_messages(
    feature: ServedFeature, messages: Any, time_s: float, vocabularies: Vocabularies
) -> NDArray[np.float32]:
    """Return the numbers of Feast's value messages, (n,) float32, NaN where a message is empty."""
    member = feature.member
    if feature.kind == "text":
        return vocabularies.codes(feature.name, [message.string_val or None for message in messages])
    raw = np.array([getattr(message, member) for message in messages])
    numbers = raw.astype(np.float64)
    # An empty message reads as 0; only a zero needs the slower question.
    for row in np.flatnonzero(raw == 0):
        if not messages[row].HasField(member):
            numbers[row] = np.nan
    if feature.kind == "time":
        numbers = np.where(raw == _NO_TIME, np.nan, (time_s - numbers) / _DAY_S)
    return numbers.astype(np.float32)


def numbers_from_column(
    feature: ServedFeature, column: pd.Series[Any], times: NDArray[np.int64], vocabularies: Vocabularies
) -> NDArray[np.float32]:
    """Return a training frame's column as the numbers that `numbers_from_messages` would give, (n,) float32.

    `times`, (n,) in µs, says when each row is read.
    """
    if feature.kind == "text":
        return vocabularies.codes(feature.name, column.mask(column == ""))
    if feature.kind == "time":
        # Feast's online stores keep whole seconds.
        moments = pd.to_datetime(column, utc=True).dt.as_unit("us")
        seconds = moments.astype(np.int64).to_numpy() // MICROSECONDS
        ages = (times / MICROSECONDS - seconds) / _DAY_S
        return np.where(moments.isna(), np.nan, ages).astype(np.float32)
    if column.dtype == object:
        column = column.map(float, na_action="ignore")
    return column.to_numpy(np.float64, na_value=np.nan).astype(np.float32)
