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


@dataclass(frozen=True, slots=True)
class ListsRead:
    """The list features of one id, as a service has them."""

    values: dict[str, list[Any]]
    missing: int
    """In how many views there is no row, or none that could be read."""
    expired: int
    """In how many there is one that may not be used any more."""
    failed: tuple[str, ...]


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
        self._rows = tuple(
            online_store.row_reader(store.config, view, [feature.name for feature in of_service.features])
            for view, of_service in zip(self._views, served.views, strict=True)
        )

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

    def known(self, ids: NDArray[Any]) -> KnownKeys | None:
        """Return what `numbers_known` finds ids (N,) by, given their positions; `None` where there are no numbers."""
        if self._all is None:
            return None
        return self._all.known(len(ids), lambda positions: self._served.keys_or_none(ids[positions].tolist()))

    def numbers_known(self, known: KnownKeys, positions: NDArray[np.int64], now: float) -> ServiceRead | None:
        """Do what `numbers` does for known ids at n positions; `None` where `numbers` must be asked."""
        assert self._all is not None  # noqa: S101 - nothing is known otherwise
        try:
            gathered = self._all.gather_known(known, positions, now)
        except Exception as error:
            # `numbers` says of each view whether it can be read.
            _log.warning("Feature service %r can't be read at once: %s", self._served.service.name, error)
            return None
        if gathered is None:
            return None
        return ServiceRead(gathered.values, gathered.found, gathered.alive)

    def lists(self, entity_id: str, now: float) -> ListsRead:
        """Return the list features of one id; a view that fails is named and logged, never raised."""
        key = self._served.keys_or_none([entity_id])[0]
        if key is None:
            return ListsRead({}, missing=len(self._rows), expired=0, failed=())
        lists: dict[str, list[Any]] = {}
        missing = expired = 0
        failed = []
        for place, reader in enumerate(self._rows):
            try:
                there, row = reader.lists(key, now)
            except Exception as error:
                _log.warning("Feature view %r can't be read: %s", self._views[place].name, error)
                failed.append(self._served.views[place].name)
                there, row = False, None
            missing += not there
            expired += there and row is None
            lists |= row or {}
        return ListsRead(lists, missing, expired, tuple(failed))

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
