"""Feast's online-store interface, in front of any other online store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from feast import Entity, FeatureService, FeatureView, metrics, utils
from feast.infra.infra_object import InfraObject
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.infra.online_stores.vector_store import VectorStoreConfig
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig, get_online_config_from_type
from pydantic import Field, field_validator

from explorank.retrieval.columnar_store.cells import NOT_FOUND
from explorank.retrieval.columnar_store.columns import FIRST
from explorank.retrieval.columnar_store.documents import Documents
from explorank.retrieval.columnar_store.matrix import FeatureMatrix, MatrixView, TextCodes
from explorank.retrieval.columnar_store.memory import Memory, MemoryReport
from explorank.retrieval.columnar_store.requests import FOREVER, Plan, plan_of, rows_of, stored_view, ttl_of
from explorank.retrieval.columnar_store.responses import Answer, ColumnarResponse, answer
from explorank.retrieval.columnar_store.rows import RowReader
from explorank.retrieval.columnar_store.sources.other import OtherSource
from explorank.retrieval.columnar_store.sources.source import Source, StoredView, ToldSource
from explorank.retrieval.columnar_store.sources.sqlite import SqliteSource
from explorank.retrieval.columnar_store.writers.sqlite import SqliteWriter
from explorank.retrieval.columnar_store.writers.told import TellingWriter
from explorank.retrieval.columnar_store.writers.writer import Row, WriteProgress, Writer, newest_rows
from explorank.retrieval.errors import FeatureRepositoryError

_CLASS_PATH: Final = "explorank.retrieval.columnar_store.ColumnarOnlineStore"
_PRECOMPUTED: Final = "__precomputed__"  # the views in which Feast keeps what it has joined beforehand
_PLANS: Final = 256
_MEGABYTE: Final = 1_000_000
_MICROSECONDS: Final = 1_000_000


class ColumnarOnlineStoreConfig(FeastConfigBaseModel, VectorStoreConfig):  # type: ignore[misc]  # Feast has no types
    """`online_store` in `feature_store.yaml`."""

    type: Literal["explorank.retrieval.columnar_store.ColumnarOnlineStore"] = _CLASS_PATH

    backing: dict[str, Any] = Field(default_factory=lambda: {"type": "sqlite"})
    """The online store that keeps the rows, as its own `online_store` section would have it."""

    freshness_s: float = Field(1.0, gt=0)
    """How old an answer may be, in seconds, beside the time it takes to read what changed."""

    enforce_ttl: bool = True
    """Whether a row older than its view's ttl is answered as OUTSIDE_MAX_AGE; Feast's own stores answer it."""

    sweep_s: float = Field(30.0, gt=0)
    """How often everything is looked at again, in seconds, where the backing store can't tell of all writers."""

    memory_limit_mb: float = Field(4_096.0, gt=0)
    """How much memory the columns may take; beyond it rows that were not asked for lately are read again."""

    @field_validator("backing")
    @classmethod
    def _check_backing(cls, backing: dict[str, Any]) -> dict[str, Any]:
        kind = backing.get("type", "sqlite")
        if kind == _CLASS_PATH:
            raise ValueError("`backing` names the columnar store itself; name the store that keeps the rows")
        get_online_config_from_type(kind)(**{"type": kind, **backing})
        return {"type": kind, **backing}

    def backing_config(self, **changes: Any) -> Any:
        """Return the configuration of the backing store, with `changes` where it has such settings."""
        kind = get_online_config_from_type(self.backing["type"])
        known = {name: value for name, value in changes.items() if name in kind.model_fields}
        return kind(**{**self.backing, **known})


class ColumnarOnlineStore(OnlineStore):  # type: ignore[misc]  # Feast has no types
    """Writes to the backing store, answers from columns in memory.

    Safe for any number of threads. Each process has its own columns; after a fork they are loaded anew.
    """

    def __init__(self) -> None:
        self._opening = threading.RLock()
        self._writing = threading.Lock()
        self._opened: tuple[Memory, Writer] | None = None
        self._backing: OnlineStore | None = None
        self._read_config: tuple[RepoConfig, RepoConfig] | None = None
        self._write_config: tuple[RepoConfig, RepoConfig] | None = None
        self._plans: dict[int, tuple[Any, Plan | None]] = {}
        self._documents = Documents()

    # ---- reading ----------------------------------------------------------------------------------------

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Any],
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
    ) -> OnlineResponse:
        """Answer from columns; what takes more than gathering goes Feast's way, over the same rows."""
        if not include_feature_view_version_metadata:
            response = self._answer(config, features, entity_rows, registry, project, full_feature_names)
            if response is not None:
                return response
        return super().get_online_features(
            config,
            features,
            entity_rows,
            registry,
            project,
            full_feature_names,
            include_feature_view_version_metadata,
        )

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Any],
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
    ) -> OnlineResponse:
        """Answer at once where all rows are in memory, otherwise from a thread."""
        if not include_feature_view_version_metadata:
            response = self._answer(
                config, features, entity_rows, registry, project, full_feature_names, only_if_warm=True
            )
            if response is not None:
                return response
        return await asyncio.to_thread(
            self.get_online_features,
            config,
            features,
            entity_rows,
            registry,
            project,
            full_feature_names,
            include_feature_view_version_metadata,
        )

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Return the event time and values of each row; an expired row is as one that is not there."""
        if _is_precomputed(table):
            return self._store(config).online_read(  # type: ignore[no-any-return]  # Feast has no types
                self._for_reading(config), table, entity_keys, requested_features
            )
        features = requested_features or [field.name for field in table.features]
        stored = self._stored(config, table)
        keys = [stored.keys.of_proto(entity_key) for entity_key in entity_keys]
        [(rows, slots)] = self._columns(config).find((stored,), keys)
        found = answer(rows, slots, features, features, _ttl(config, table), _now())
        values: list[dict[str, Value]] = [{} for _ in keys]
        for name, column in zip(found.names, found.columns, strict=True):
            statuses = found.statuses(column)
            messages = column.messages(found.usable)
            for row, (status, message) in enumerate(zip(statuses.tolist(), messages, strict=True)):
                if status != NOT_FOUND:
                    values[row][name] = message if status == 1 else Value()
        return [
            (None, None)
            if slot < FIRST
            else (datetime.fromtimestamp(microseconds / _MICROSECONDS, UTC), cells)
            for slot, microseconds, cells in zip(
                found.usable.tolist(), rows.times[slots].tolist(), values, strict=True
            )
        ]

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Do what `online_read` does, in a thread."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def matrix(
        self, config: RepoConfig, views: Sequence[tuple[FeatureView, Sequence[str]]], text_codes: TextCodes
    ) -> FeatureMatrix:
        """Return what gathers features of these views into one float32 matrix, past Feast's Python layer.

        Args:
            config: Feast's configuration, `FeatureStore.config`.
            views: Views with the same join keys, and the features wanted of each, in the order of the columns.
            text_codes: Gives texts their numbers.

        Raises:
            FeatureRepositoryError: Where the views have different join keys.

        """
        parts = [
            MatrixView(self._stored(config, view), tuple(features), ttl_of(view)) for view, features in views
        ]
        if len({part.stored.keys for part in parts}) > 1:
            names = ", ".join(repr(view.name) for view, _ in views)
            raise FeatureRepositoryError(
                f"The views {names} have different join keys, and one key can't find the rows of all. Gather "
                "each entity's views for themselves."
            )
        return FeatureMatrix(self._columns(config), parts, text_codes)

    def row_reader(self, config: RepoConfig, view: FeatureView, features: Sequence[str]) -> RowReader:
        """Return what reads lists of single rows of a view, past Feast's answers."""
        return RowReader(self._columns(config), self._stored(config, view), features, ttl_of(view))

    def report(self, config: RepoConfig) -> MemoryReport:
        """Return what is in memory, and how fresh it is."""
        return self._columns(config).report()

    # ---- writing ----------------------------------------------------------------------------------------

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Both: reads are answered from memory, writes run in a thread."""
        return SupportedAsyncMethods(read=True, write=True)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: WriteProgress | None,
    ) -> None:
        """Write to the backing store, then show the rows here and to other processes.

        Of several rows of one entity the one with the newest event time stays, of equally new ones the last.
        """
        if _is_precomputed(table):
            with self._writing:
                self._store(config).online_write_batch(self._for_writing(config), table, data, progress)
            return
        stored = self._stored(config, table)
        newest = newest_rows(data)
        memory, writer = self._open(config)
        written = 0

        def count(rows: int) -> None:
            nonlocal written
            written += rows
            if progress is not None:
                progress(rows)

        with self._writing:
            writer.write(stored, newest, count)
            memory.wrote(stored)
        if progress is not None and written < len(data):
            progress(len(data) - written)

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: WriteProgress | None,
    ) -> None:
        """Do what `online_write_batch` does, in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,  # noqa: FBT001 - Feast's signature
    ) -> None:
        """Create and drop what views need in the backing store."""
        self._plans.clear()
        with self._writing:
            self._store(config).update(
                self._for_reading(config),
                tables_to_delete,
                tables_to_keep,
                entities_to_delete,
                entities_to_keep,
                partial,
            )
            memory = self._columns(config)
            kept = [self._stored(config, view) for view in tables_to_keep]
            if kept:
                memory.prepare(kept)
            deleted = [self._stored(config, view).name for view in tables_to_delete]
            if deleted:
                memory.dropped(deleted)

    def plan(self, config: RepoConfig, desired_registry_proto: Registry) -> list[InfraObject]:
        """Return what the backing store would create."""
        return self._store(config).plan(self._for_reading(config), desired_registry_proto)  # type: ignore[no-any-return]  # Feast has no types

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete everything, in the backing store and in memory."""
        self._plans.clear()
        with self._writing:
            memory, writer = self._open(config)
            backing = self._store(config)
            if not isinstance(backing, SqliteOnlineStore):
                memory.dropped([self._stored(config, view).name for view in tables])
            memory.close()
            writer.close()
            backing.teardown(self._for_reading(config), tables, entities)
            if isinstance(backing, SqliteOnlineStore):
                path = Path(backing._get_db_path(self._for_reading(config)))
                for suffix in ("-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)

    async def initialize(self, config: RepoConfig) -> None:
        """Prepare the backing store."""
        await self._store(config).initialize(self._for_reading(config))

    async def close(self) -> None:
        """Stop following the backing store and close it; the next use opens it anew."""
        if self._opened is not None:
            memory, writer = self._opened
            await asyncio.to_thread(memory.close)
            with self._writing:
                writer.close()
        if self._backing is not None:
            await self._backing.close()

    # ---- documents --------------------------------------------------------------------------------------

    def retrieve_online_documents(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float],
        top_k: int,
        distance_metric: str | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return the nearest documents: event time, key, the vector's value twice as Feast wants it, distance."""
        memory = self._columns(config)
        if not memory.source.pages():
            return self._store(config).retrieve_online_documents(  # type: ignore[no-any-return]  # Feast has no types
                self._for_reading(config), table, requested_features, embedding, top_k, distance_metric
            )
        return self._documents.nearest(
            memory, self._stored(config, table), embedding, top_k, distance_metric, _ttl(config, table)
        )

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: Any = None,
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
    ) -> list[tuple[datetime | None, EntityKey | None, dict[str, Value] | None]]:
        """Return the documents that are nearest to a vector, match a text, or both, among those that pass filters.

        A backing store that can't list its rows searches for itself.
        """
        memory = self._columns(config)
        if not memory.source.pages():
            return self._store(config).retrieve_online_documents_v2(  # type: ignore[no-any-return]  # Feast has no types
                self._for_reading(config),
                table,
                requested_features,
                embedding,
                top_k,
                distance_metric,
                query_string,
                filters,
                include_feature_view_version_metadata,
            )
        return self._documents.search(
            memory,
            self._stored(config, table),
            requested_features,
            embedding=embedding,
            query=query_string,
            top_k=top_k,
            metric=distance_metric,
            filters=filters,
            ttl=_ttl(config, table),
        )

    # ---- Feast's own path over these rows -----------------------------------------------------------------

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,  # noqa: FBT001 - Feast's signature
        include_feature_view_version_metadata: bool,  # noqa: FBT001 - Feast's signature
    ) -> None:
        for view, features in grouped_refs:
            entities, positions, _ = utils._get_unique_entities(
                view, join_key_values, entity_name_to_join_key_map
            )
            stored = self._stored(config, view)
            keys = [stored.keys.of_proto(key) for key in utils._get_entity_key_protos(entities)]
            [(rows, slots)] = self._columns(config).find((stored,), keys)
            spread = slots.repeat([len(places) for places in positions])
            order = [place for places in positions for place in places]
            in_order = spread.copy()
            in_order[order] = spread
            prefix = f"{view.projection.name_to_use()}__" if full_feature_names else ""
            names = [prefix + feature for feature in features]
            found = answer(rows, in_order, features, names, _ttl(config, view), _now())
            found.add_to(online_features_response)
            _track(view.name, found)
            if include_feature_view_version_metadata:
                _add_version(view, online_features_response)

    async def _read_features_per_fv_async(self, *arguments: Any) -> None:
        await asyncio.to_thread(self._read_features_per_fv, *arguments)

    def _is_versioned_read_supported(self) -> bool:
        return self._backing is None or bool(self._backing._is_versioned_read_supported())

    # ---- inside -----------------------------------------------------------------------------------------

    def _answer(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool,  # noqa: FBT001 - as Feast has it
        *,
        only_if_warm: bool = False,
    ) -> ColumnarResponse | None:
        plan = self._plan(config, features, registry, project, full_names=full_feature_names)
        rows = None if plan is None else rows_of(plan, entity_rows)
        if plan is None or rows is None:
            return None
        memory = self._columns(config)
        began = time.monotonic()
        now = _now()
        enforced = config.online_store.enforce_ttl
        answers = []
        found: dict[tuple[str, ...], Any] = {}
        for names in dict.fromkeys(part.key_names for part in plan.parts):
            parts = [part for part in plan.parts if part.key_names == names]
            keys = rows.keys(parts[0])
            for alike in _by_keys(parts):
                stored = [part.stored for part in alike]
                if only_if_warm and not memory.is_warm(stored, keys):
                    return None
                for part, columns in zip(alike, memory.find(stored, keys), strict=True):
                    found[part.names] = columns
        for part in plan.parts:
            table, slots = found[part.names]
            answers.append(
                answer(table, slots, part.features, part.names, part.ttl if enforced else FOREVER, now)
            )
        _track_read(time.monotonic() - began)
        for part, made in zip(plan.parts, answers, strict=True):
            _track(part.stored.view.name, made)
        return ColumnarResponse(rows.columns, plan.key_types, answers)

    def _plan(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        registry: BaseRegistry,
        project: str,
        *,
        full_names: bool,
    ) -> Plan | None:
        if getattr(features, "precompute_online", False):
            return None
        context = utils._get_cached_request_context(registry, project, features, full_names)
        known = self._plans.get(id(context))
        if known is not None and known[0] is context:
            return known[1]
        plan = plan_of(context, project, full_names=full_names, versioned=_versioned(config))
        if len(self._plans) >= _PLANS:
            self._plans.clear()
        self._plans[id(context)] = (context, plan)
        return plan

    def _stored(self, config: RepoConfig, view: FeatureView) -> StoredView:
        return stored_view(view, config.project, versioned=_versioned(config))

    def _columns(self, config: RepoConfig) -> Memory:
        return self._open(config)[0]

    def _open(self, config: RepoConfig) -> tuple[Memory, Writer]:
        if self._opened is None:
            with self._opening:
                if self._opened is None:
                    if config.entity_key_serialization_version < 3:
                        raise FeatureRepositoryError(
                            "The columnar store reads entity keys of serialization version 3, and the "
                            f"repository has {config.entity_key_serialization_version}; its rows could not be "
                            "listed. Set `entity_key_serialization_version: 3` and materialize anew."
                        )
                    self._opened = self._memory_and_writer(config)
        return self._opened

    def _memory_and_writer(self, config: RepoConfig) -> tuple[Memory, Writer]:
        settings = config.online_store

        def over(source: Source) -> Memory:
            return Memory(
                source,
                freshness_s=settings.freshness_s,
                sweep_s=settings.sweep_s,
                limit_nbytes=round(settings.memory_limit_mb * _MEGABYTE),
            )

        backing, derived = self._store(config), self._for_reading(config)
        if isinstance(backing, SqliteOnlineStore):
            return over(SqliteSource(derived)), SqliteWriter(derived)
        source: ToldSource
        if type(backing).__module__ == "feast.infra.online_stores.redis":
            from explorank.retrieval.columnar_store.sources.redis import RedisSource  # noqa: PLC0415 - an extra

            source = RedisSource(derived)
        else:
            # Stores may be made for one thread: reading and writing each have their own.
            source = OtherSource(derived, get_online_store_from_config(derived.online_store))
        memory = over(source)
        return memory, TellingWriter(backing, self._for_writing(config), source, memory)

    def _store(self, config: RepoConfig) -> OnlineStore:
        if self._backing is None:
            with self._opening:
                if self._backing is None:
                    self._backing = get_online_store_from_config(config.online_store.backing_config())
        return self._backing

    def _for_reading(self, config: RepoConfig) -> RepoConfig:
        known = self._read_config
        if known is None or known[0] is not config:
            known = self._read_config = (config, _derived(config, config.online_store.backing_config()))
        return known[1]

    def _for_writing(self, config: RepoConfig) -> RepoConfig:
        known = self._write_config
        if known is None or known[0] is not config:
            # Redis drops a row that is as new as the one in store; what may be written is decided here.
            backing = config.online_store.backing_config(skip_dedup=True)
            known = self._write_config = (config, _derived(config, backing))
        return known[1]


def _derived(config: RepoConfig, online_store: Any) -> RepoConfig:
    """Return a configuration whose online store is the backing one: stores insist on their own type."""
    derived = config.model_copy()
    derived.online_config = online_store
    derived._online_store = online_store
    return derived


def _now() -> int:
    return time.time_ns() // 1_000


def _ttl(config: RepoConfig, view: FeatureView) -> int:
    return ttl_of(view) if config.online_store.enforce_ttl else FOREVER


def _versioned(config: RepoConfig) -> bool:
    return bool(config.registry.enable_online_feature_view_versioning)


def _is_precomputed(view: FeatureView) -> bool:
    return bool(view.name.startswith(_PRECOMPUTED))


def _by_keys(parts: Sequence[Any]) -> list[list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for part in parts:
        groups.setdefault(part.stored.keys, []).append(part)
    return list(groups.values())


def _add_version(view: FeatureView, response: GetOnlineFeaturesResponse) -> None:
    name = view.projection.name_alias or view.projection.name
    if name not in [known.name for known in response.metadata.feature_view_metadata]:
        metadata = response.metadata.feature_view_metadata.add()
        metadata.name = name
        metadata.version = getattr(view, "current_version_number", 0) or 0


def _track(view: str, found: Answer) -> None:
    """Count statuses for Feast's own metrics, where they are switched on."""
    if metrics._config.online_features:
        cells = len(found.slots) * len(found.features)
        present = sum(int((found.statuses(column) == 1).sum()) for column in found.columns)
        metrics.track_feature_statuses(view, present, cells - present)


def _track_read(seconds: float) -> None:
    if metrics._config.online_features:
        metrics.track_online_store_read(seconds)
