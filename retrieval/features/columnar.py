"""Online reads of a feature service from a columnar store: one gather, past Feast's Python layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

    from explorank.retrieval.columnar_store import ColumnarOnlineStore, FeatureMatrix, KnownKeys
    from explorank.retrieval.features.served import ServedFeatures
    from explorank.retrieval.features.vocabulary import Vocabularies

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceRead:
    """The numbers of n ids, as a service has them."""

    values: NDArray[np.float32]  # (n, d)
    found: NDArray[np.bool_]  # (n, views)
    """Which rows are in store."""
    alive: NDArray[np.bool_]  # (n, views)
    """Which of those may be used."""
    failed: tuple[str, ...] = ()


class ColumnarService:
    """Reads one service; its matrix has the service's names as columns."""

    def __init__(
        self,
        store: FeatureStore,
        online_store: ColumnarOnlineStore,
        served: ServedFeatures,
        views: Sequence[FeatureView],
        vocabularies: Vocabularies,
    ) -> None:
        self._config = store.config
        self._store = online_store
        self._served = served
        self._views = tuple(views)
        self._wanted = [
            tuple(feature.name for feature in view.features if feature.kind != "other")
            for view in served.views
        ]
        self._codes = vocabularies.codes
        self._all = self._matrix(range(len(self._views)))

    def numbers(self, ids: Sequence[str], now: float) -> ServiceRead:
        """Return the numbers of n ids, (n, d) float32; a view that fails is named and logged, never raised."""
        keys, positions = self._served.keys(ids)
        try:
            if self._all is None:
                return self._each(keys, positions, len(ids), now)
            gathered = self._all.gather(keys, now)
        except Exception as error:
            # Whatever a store raises, the other views may still answer.
            _log.warning("Feature service %r can't be read at once: %s", self._served.service.name, error)
            return self._each(keys, positions, len(ids), now)
        if len(keys) == len(ids):
            return ServiceRead(gathered.values, gathered.found, gathered.alive)
        read = self._nothing(len(ids))
        read.values[positions] = gathered.values
        read.found[positions] = gathered.found
        read.alive[positions] = gathered.alive
        return read

    def known(self, ids: NDArray[Any]) -> KnownKeys:
        """Return what `numbers_known` needs to find ids (N,) by their position."""
        from explorank.retrieval.columnar_store import KnownKeys  # noqa: PLC0415 - imports Feast

        return KnownKeys(len(ids), lambda positions: self._served.keys_or_none(ids[positions].tolist()))

    def numbers_known(self, known: KnownKeys, positions: NDArray[np.int64], now: float) -> ServiceRead | None:
        """Do what `numbers` does for known ids at n positions; `None` where `numbers` must be asked."""
        if self._all is None:
            return None
        try:
            gathered = self._all.gather_known(known, positions, now)
        except Exception as error:
            # `numbers` says of each view whether it can be read.
            _log.warning("Feature service %r can't be read at once: %s", self._served.service.name, error)
            return None
        return gathered and ServiceRead(gathered.values, gathered.found, gathered.alive)

    def lists(self, key: str, now: float) -> tuple[dict[str, list[Any]], ServiceRead]:
        """Return the list features of one id, and how its rows stand."""
        keys, _ = self._served.keys((key,))
        read = self._nothing(1)
        lists: dict[str, list[Any]] = {}
        failed = []
        for place, view in enumerate(self._views if keys else ()):
            names = [feature.name for feature in self._served.views[place].features]
            try:
                there, row = self._store.find_row(self._config, view, names, keys[0], now)
            except Exception as error:
                _log.warning("Feature view %r can't be read: %s", view.name, error)
                failed.append(self._served.views[place].name)
                continue
            read.found[0, place] = there
            read.alive[0, place] = row is not None
            lists |= {name: value for name, value in (row or {}).items() if isinstance(value, list)}
        return lists, ServiceRead(read.values, read.found, read.alive, tuple(failed))

    def _matrix(self, places: Sequence[int]) -> FeatureMatrix | None:
        if not places:
            return None
        return self._store.matrix(
            self._config, [(self._views[place], self._wanted[place]) for place in places], self._codes
        )

    def _each(self, keys: list[Any], positions: NDArray[np.int64], count: int, now: float) -> ServiceRead:
        read = self._nothing(count)
        failed = []
        first = 0
        for place, view in enumerate(self._served.views):
            end = first + len(self._wanted[place])
            try:
                matrix = self._matrix((place,))
                assert matrix is not None  # noqa: S101 - one place makes a matrix
                gathered = matrix.gather(keys, now)
            except Exception as error:
                _log.warning("Feature view %r can't be read: %s", view.name, error)
                failed.append(view.name)
            else:
                read.values[positions, first:end] = gathered.values
                read.found[positions, place] = gathered.found[:, 0]
                read.alive[positions, place] = gathered.alive[:, 0]
            first = end
        return ServiceRead(read.values, read.found, read.alive, tuple(failed))

    def _nothing(self, count: int) -> ServiceRead:
        views = len(self._served.views)
        return ServiceRead(
            np.full((count, sum(map(len, self._wanted))), np.nan, np.float32),
            np.zeros((count, views), np.bool_),
            np.zeros((count, views), np.bool_),
        )


def columnar_service(
    store: FeatureStore, served: ServedFeatures, vocabularies: Vocabularies
) -> ColumnarService | None:
    """Return what reads a service from columns; `None` where the store or one of the views can't be read so."""
    from feast.errors import FeatureViewNotFoundException  # noqa: PLC0415 - takes seconds

    from explorank.retrieval.columnar_store import ColumnarOnlineStore  # noqa: PLC0415 - imports Feast

    online_store = store._get_provider().online_store
    if not isinstance(online_store, ColumnarOnlineStore):
        return None
    try:
        views = [store.get_feature_view(view.registered_name) for view in served.views]
    except FeatureViewNotFoundException:  # an on-demand view: Feast computes it
        return None
    return ColumnarService(store, online_store, served, views, vocabularies)
