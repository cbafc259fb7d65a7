"""What is kept in memory: packed, bounded, reported; rows that are not there are read when asked for."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval.columnar_store.columns import FIRST
from explorank.retrieval.columnar_store.keys import EntityKeys
from explorank.retrieval.columnar_store.memory import Memory
from explorank.retrieval.columnar_store.sources.other import OtherSource
from explorank.retrieval.columnar_store.table import KeySpace, Table
from explorank.retrieval.columnar_store.writers.told import TellingWriter

FEATURES = {"price": ValueType.DOUBLE, "name": ValueType.STRING}


def cells(rows: list[tuple[float | None, str | None]]) -> dict[str, list[bytes | None]]:
    return {
        "price": [None if p is None else Value(double_val=p).SerializeToString() for p, _ in rows],
        "name": [None if n is None else Value(string_val=n).SerializeToString() for _, n in rows],
    }


ROW = st.tuples(st.one_of(st.none(), st.floats(allow_nan=False)), st.one_of(st.none(), st.text(max_size=3)))
STEP = st.lists(
    st.tuples(st.integers(1, 6), st.one_of(st.none(), ROW)), unique_by=lambda step: step[0], max_size=6
)


@given(st.lists(STEP, max_size=12))
def test_a_table_holds_what_a_dictionary_holds(steps: list[list[tuple[int, Any]]]) -> None:
    """Rows are put, replaced and forgotten at random; matrix and packed copy say the same as the columns."""
    table = Table(FEATURES, 7)
    expected: dict[int, tuple[float | None, str | None]] = {}
    for time, step in enumerate(steps):
        written = [(entity, row) for entity, row in step if row is not None]
        gone = [entity for entity, row in step if row is None]
        ids = np.array([entity for entity, _ in written], np.int64)
        table.put(ids, np.full(len(ids), time), cells([row for _, row in written]))
        table.forget(np.array(gone, np.int64))
        expected |= dict(written)
        for entity in gone:
            expected.pop(entity, None)
        if time == 3:
            table.blocks()  # from here on it is kept up to date
    everyone = np.arange(1, 7)
    for copy in (table, table.packed(everyone, everyone, 7)):
        assert copy.rows == len(expected)
        slots = copy.slot_of[everyone]
        assert [entity for entity, slot in zip(everyone, slots, strict=True) if slot >= FIRST] == sorted(
            expected
        )
        blocks = copy.blocks()
        for entity, slot in zip(everyone.tolist(), slots.tolist(), strict=True):
            price, name = expected.get(entity, (None, None))
            number = blocks.numbers[slot, blocks.number_places["price"]]
            with np.errstate(over="ignore"):
                assert np.isnan(number) if price is None else number == np.float32(price)
            column = copy.columns["name"]
            assert (column.status[slot] == 1) == (name is not None)
            if name is not None:
                assert column.python(np.array([slot])) == [name]


def test_a_table_that_changes_much_is_packed() -> None:
    space = KeySpace(EntityKeys({"item_id": ValueType.STRING}))
    space.tables["facts"] = Table(FEATURES, len(space))
    ids = space.add(["a", "b"])
    for step in range(3_000):
        space.tables["facts"].put(ids, np.full(2, step), cells([(float(step), "x"), (0.0, "y")]))
        if space.tables["facts"].wasteful:
            space.pack("facts")
    assert space.tables["facts"].used < 6_000
    slots = space.tables["facts"].slot_of[ids]
    assert space.tables["facts"].blocks().numbers[slots].tolist() == [[2999.0], [0.0]]


def test_the_entities_asked_for_last_stay() -> None:
    space = KeySpace(EntityKeys({"item_id": ValueType.STRING}))
    ids = space.add([f"i{number}" for number in range(10)])
    space.touch(ids, 1)
    space.touch(space.lookup(["i3", "i7", "unknown"]), 2)
    kept = space.reduced(2)
    assert sorted(kept.natives[1:]) == ["i3", "i7"]
    assert (kept.lookup(["i3", "i0"]) > 0).tolist() == [True, False]


@pytest.fixture
def store(make: ModuleType, tmp_path: Path) -> Any:
    """A view of 300 rows with a text, of which a limit of 0.1 MB holds only a part."""
    store = make.columnar(tmp_path, memory_limit_mb=0.1)
    store.apply(
        [make.item_entity(), make.view_of(tmp_path, {"price": Float64, "stock": Int64, "name": String})]
    )
    numbers = list(range(2_000))
    store.write_to_online_store(
        "facts",
        make.rows(
            [f"i{n}" for n in numbers],
            {"price": [n / 2 for n in numbers], "stock": numbers, "name": [f"name {n}" for n in numbers]},
        ),
    )
    return store


def test_beyond_the_limit_rows_are_read_again_when_asked_for(store: Any, make: ModuleType) -> None:
    online = make.online_store(store)
    for first in (0, 1_000, 500, 0):
        asked = list(range(first, first + 200))
        found = make.read(store, "facts:stock", "facts:name", keys=[*(f"i{n}" for n in asked), "none"])
        assert found["stock"] == [*asked, None]
        assert found["name"] == [*(f"name {n}" for n in asked), None]
        report = online.report(store.config)
        assert report.nbytes <= report.limit_nbytes == 100_000
        assert 0 < report.views["shop_facts"].rows < 2_000
        assert not report.views["shop_facts"].complete


def test_a_request_larger_than_the_limit_is_answered_whole(store: Any, make: ModuleType) -> None:
    keys = [f"i{n}" for n in range(2_000)]
    assert make.read(store, "facts:stock", keys=keys)["stock"] == list(range(2_000))


def test_dropped_rows_are_fresh_when_they_come_back(store: Any, make: ModuleType, tmp_path: Path) -> None:
    assert make.read(store, "facts:stock", keys=["i7"])["stock"] == [7]
    for first in range(100, 2_000, 100):
        make.read(store, "facts:stock", keys=[f"i{n}" for n in range(first, first + 100)])
    make.write(store, store.get_feature_view("facts"), "i7", stock=Value(int64_val=-7))
    assert make.read(store, "facts:stock", keys=["i7", "i107"])["stock"] == [-7, 107]


def test_a_report_names_views_rows_and_bytes(make: ModuleType, tmp_path: Path) -> None:
    store = make.columnar(tmp_path)
    store.apply([make.item_entity(), make.view_of(tmp_path, {"price": Float64})])
    online = make.online_store(store)
    assert online.report(store.config).views == {}
    store.write_to_online_store("facts", make.rows(["a", "b"], {"price": [1.0, 2.0]}))
    make.read(store, "facts:price", keys=["a"])
    report = online.report(store.config)
    assert report.views["shop_facts"].rows == 2
    assert report.views["shop_facts"].complete
    assert report.nbytes >= report.views["shop_facts"].nbytes > 0
    assert 0 <= report.age_s < 60
    assert report.loading == ()


def test_a_large_view_answers_while_it_is_loaded(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first request waits for part of it only; what is not there yet is read for it."""
    monkeypatch.setattr("explorank.retrieval.columnar_store.memory._LOAD_AT_ONCE_S", 0.0)
    store = make.columnar(tmp_path)
    store.apply([make.item_entity(), make.view_of(tmp_path, {"stock": Int64})])
    numbers = list(range(5_000))
    keys = [f"i{n:05}" for n in numbers]
    store.write_to_online_store("facts", make.rows(keys, {"stock": numbers}))
    assert make.read(store, "facts:stock", keys=[keys[0], keys[-1], "none"])["stock"] == [0, 4_999, None]
    memory = make.online_store(store)._columns(store.config)
    while memory.round() is not None:
        pass
    assert memory.report().views["shop_facts"].rows == 5_000
    assert memory.report().views["shop_facts"].complete
    assert make.read(store, "facts:stock", keys=keys)["stock"] == numbers


def test_a_store_of_any_other_kind_is_read_by_key_and_swept(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's SQLite store, taken for one that can do no more than Feast's interface."""
    store = make.columnar(tmp_path)
    online = make.online_store(store)

    def memory_and_writer(config: Any) -> tuple[Memory, TellingWriter]:
        source = OtherSource(online._for_reading(config), SqliteOnlineStore())
        memory = Memory(source, freshness_s=1.0, sweep_s=30.0, limit_nbytes=2**30)
        return memory, TellingWriter(online._store(config), online._for_writing(config), source, memory)

    monkeypatch.setattr(online, "_memory_and_writer", memory_and_writer)
    view = make.view_of(tmp_path, {"price": Float64, "stock": Int64})
    store.apply([make.item_entity(), view])
    for hours, price in ((2, 2.0), (1, 1.0)):  # the store itself would take the older one
        make.write(
            store, view, "a", make.NOW.replace(hour=hours), price=make.number(price), stock=Value(int64_val=1)
        )
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [2.0, None]
    make.write(store, view, "b", price=make.number(5.0))
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [2.0, 5.0]
    make.write(make.plain(tmp_path), view, "a", price=make.number(9.0))
    memory = online._columns(store.config)
    assert make.read(store, "facts:price", keys=["a"])["price"] == [2.0]
    memory._next_sweep = 0.0
    while memory.round() is not None:
        pass
    assert make.read(store, "facts:price", keys=["a", "b"])["price"] == [9.0, 5.0]
    # It can't list its documents, so the search is left to the store behind it, which says what it lacks.
    with pytest.raises(ValueError, match="enable either vector search or text search"):
        online.retrieve_online_documents_v2(store.config, view, ["price"], [1.0], 1)
    with pytest.raises(ValueError, match="not enabled"):
        online.retrieve_online_documents(store.config, view, ["price"], [1.0], 1)
