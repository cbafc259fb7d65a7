"""Online reads of a feature service: one call, unless a view fails; then each view for itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from feast import FeatureStore

    from explorank.retrieval.features.served import ServedFeatures, ServedView

_log = logging.getLogger(__name__)

_IN_STORE: Final = (1, 2, 4)
"""`FieldStatus` of Feast's serving protocol: PRESENT, NULL_VALUE and OUTSIDE_MAX_AGE."""
_KEYS_PER_CALL: Final = 10_000  # SQLite takes 32,766 values in one statement


@dataclass(frozen=True, slots=True)
class ViewsRead:
    """What the online store holds of some ids, as Feast's messages."""

    size: int
    positions: NDArray[np.int64]  # (k,) of the ids that could be asked for
    vectors: dict[str, dict[str, list[Any]]]
    """View, feature: Feast's feature vectors, each for the next part of the k ids."""
    failed: tuple[str, ...]

    def messages(self, view: ServedView, feature: str) -> list[Any]:
        """Return the value messages of a feature, k of them."""
        return [message for vector in self.vectors[view.name][feature] for message in vector.values]

    def standing(self, view: ServedView, now: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which ids have a row, and which of those rows may still be used at `now`, both (n,)."""
        found = np.zeros(self.size, bool)
        alive = np.zeros(self.size, bool)
        if view.name not in self.vectors:
            return found, alive
        features = self.vectors[view.name]
        # A feature that was added to the view later is absent from older rows.
        statuses = [
            [status for vector in vectors for status in vector.statuses] for vectors in features.values()
        ]
        found[self.positions] = np.isin(statuses, _IN_STORE).any(axis=0)
        # All features of a view share the row's time.
        stamps = [stamp for vector in next(iter(features.values())) for stamp in vector.event_timestamps]
        times = np.array([stamp.seconds + stamp.nanos * 1e-9 for stamp in stamps])
        alive[self.positions] = found[self.positions] & (times + view.ttl_s >= now)
        return found, alive

    def lists(self, view: ServedView, row: int) -> dict[str, list[Any]]:
        """Return the list features of the id asked for at `row`."""
        lists = {}
        for feature in view.features:
            message = self.messages(view, feature.name)[row]
            kind = message.WhichOneof("val") or ""
            if kind.endswith("list_val"):
                lists[feature.name] = list(getattr(message, kind).val)
        return lists


def read_views(store: FeatureStore, served: ServedFeatures, ids: Sequence[str]) -> ViewsRead:
    """Return what the online store holds of `ids`; a view that fails is named and logged, never raised."""
    keys, positions = served.keys(ids)
    vectors: dict[str, dict[str, list[Any]]] = {}
    if not keys:
        return ViewsRead(len(ids), positions, vectors, ())
    try:
        parts = _ask(store, served.service, served.join_key, keys)
        for view in served.views:
            vectors[view.name] = {
                feature.name: [part[f"{view.name}__{feature.name}"] for part in parts]
                for feature in view.features
            }
        return ViewsRead(len(ids), positions, vectors, ())
    except Exception as error:
        # Whatever a store raises, the other views may still answer.
        _log.warning("Feature service %r can't be read at once: %s", served.service.name, error)
    vectors.clear()
    failed = []
    for view in served.views:
        references = [f"{view.registered_name}:{feature.name}" for feature in view.features]
        try:
            parts = _ask(store, references, served.join_key, keys)
            vectors[view.name] = {
                feature.name: [part[f"{view.registered_name}__{feature.name}"] for part in parts]
                for feature in view.features
            }
        except Exception as error:
            _log.warning("Feature view %r can't be read: %s", view.name, error)
            failed.append(view.name)
    return ViewsRead(len(ids), positions, vectors, tuple(failed))


def _ask(store: FeatureStore, features: Any, join_key: str, keys: list[Any]) -> list[dict[str, Any]]:
    parts = []
    for first in range(0, len(keys), _KEYS_PER_CALL):
        answer = store.get_online_features(
            features=features,
            entity_rows={join_key: keys[first : first + _KEYS_PER_CALL]},
            full_feature_names=True,
        ).proto
        parts.append(dict(zip(answer.metadata.feature_names.val, answer.results, strict=True)))
    return parts
