"""The index against exact search, and against everything that must never come out of it."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from explorank.retrieval import CorruptArtefact, FaissIndex, FaissUnavailable, InvalidOption, InvalidVectors
from explorank.retrieval._faiss import gpu_count, installed_distributions, load_faiss
from explorank.retrieval._index_kinds import candidate_kinds

KINDS = ("flat", "sq8", "hnsw", "ivf_pq", "ivf_sq8", "ivf_flat")
DIM = 16


def unit(rows: int, seed: int, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(rows: int, start: int = 0) -> list[str]:
    return [f"item-{row}" for row in range(start, start + rows)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(1_200, seed=1)


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, vectors: np.ndarray) -> FaissIndex:
    return FaissIndex.build(vectors, names(len(vectors)), kind=request.param)


def test_four_vectors_in_the_plane() -> None:
    index = FaissIndex.build([[1, 0], [0, 2], [-3, 0], [1, 1]], ["east", "north", "west", "north-east"])
    ids, similarities = index.search([[2.0, 0.0], [0.0, 5.0]], k=3)
    assert ids.tolist() == [["east", "north-east", "north"], ["north", "north-east", ids[1, 2]]]
    np.testing.assert_allclose(similarities, [[1, 0.5**0.5, 0], [1, 0.5**0.5, 0]], atol=1e-6)
    ids, similarities = index.search([2.0, 0.0], k=9, exclude={"east", "nowhere"})
    assert ids.tolist() == ["north-east", "north", "west"]
    np.testing.assert_allclose(similarities, [0.5**0.5, 0, -1], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "least"), [("flat", 1.0), ("sq8", 0.97), ("hnsw", 0.97), ("ivf_pq", 0.95), ("ivf_sq8", 0.95)]
)
def test_recall_against_exact_search(kind: str, least: float) -> None:
    vectors, queries = unit(5_000, seed=2, dim=32), unit(50, seed=3, dim=32)
    truth = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :50]
    index = FaissIndex.build(vectors, np.arange(5_000), kind=kind)
    found, similarities = index.search(queries, 50)
    recall = np.mean([np.isin(truth[row], found[row]).mean() for row in range(len(queries))])
    assert recall >= least
    exact = np.take_along_axis(queries @ vectors.T, found, axis=1)
    np.testing.assert_allclose(similarities, exact, atol=0.03)
    assert (np.diff(similarities, axis=1) <= 1e-6).all()


@pytest.mark.parametrize(
    ("count", "dim", "kinds"),
    [
        (0, 384, ("flat",)),
        (10_000, 384, ("flat",)),
        (10_001, 384, ("ivf_pq", "ivf_sq8", "sq8", "ivf_flat")),
        (10_001, 25, ("ivf_sq8", "sq8", "ivf_flat")),
        (100_000, 384, ("ivf_pq", "ivf_sq8", "sq8", "ivf_flat")),
        (100_001, 384, ("ivf_pq", "ivf_sq8", "ivf_flat")),
        (100_001, 25, ("ivf_sq8", "ivf_flat")),
    ],
)
def test_auto_tries_what_suits_the_size(count: int, dim: int, kinds: tuple[str, ...]) -> None:
    assert candidate_kinds("auto", count, dim, "cpu") == kinds


def test_auto_on_a_gpu_is_exact_while_that_is_fast() -> None:
    assert candidate_kinds("auto", 100_000, 384, "gpu") == ("flat",)
    assert candidate_kinds("auto", 100_001, 384, "gpu") == ("ivf_flat",)


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_search_returns_exactly_what_is_allowed(vectors: np.ndarray, data: st.DataObject, kind: str) -> None:
    index = _shared(kind, vectors)
    k = data.draw(st.one_of(st.integers(0, 30), st.integers(1_100, 1_500)))
    hidden = data.draw(st.one_of(st.integers(0, 20), st.integers(1_150, 1_200)))
    exclude = [*names(hidden), "unknown"]
    ids, similarities = index.search(vectors[:2], k, exclude=exclude)
    assert ids.shape == similarities.shape == (2, min(k, 1_200 - hidden))
    assert np.isfinite(similarities).all()
    for row in ids.tolist():
        assert len(set(row)) == len(row)
        assert set(row) <= set(names(1_200 - hidden, start=hidden))


_built: dict[str, FaissIndex] = {}


def _shared(kind: str, vectors: np.ndarray) -> FaissIndex:
    if kind not in _built:
        _built[kind] = FaissIndex.build(vectors, names(len(vectors)), kind=kind)
    return _built[kind]


class Lifecycle(RuleBasedStateMachine):
    """Adds, removals, saving and searching in any order, beside a plain dictionary."""

    kind: str
    folder: Path

    @initialize()
    def build(self) -> None:
        start = unit(1_000, seed=5, dim=8)
        self.index = FaissIndex.build(start, names(1_000), kind=self.kind)
        self.model = dict(zip(names(1_000), start, strict=True))
        self.made = 1_000

    @rule(count=st.integers(1, 5), seed=st.integers(0, 99))
    def add(self, count: int, seed: int) -> None:
        vectors, ids = unit(count, seed, dim=8), names(count, start=self.made)
        self.index.add(vectors, ids)
        self.model.update(zip(ids, vectors, strict=True))
        self.made += count

    @rule(count=st.sampled_from([1, 7, 400]), data=st.data())
    def remove(self, count: int, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, self.made))
        gone = [name for name in names(count, start) if name in self.model]
        assert self.index.remove([*names(count, start), "unknown"]) == len(gone)
        for name in gone:
            del self.model[name]

    @rule()
    def restore_a_removed_one(self) -> None:
        missing = next((name for name in names(self.made) if name not in self.model), None)
        if missing is not None:
            vector = unit(1, seed=77, dim=8)
            self.index.add(vector, [missing])
            self.model[missing] = vector[0]

    @rule()
    def save_and_load(self) -> None:
        self.index.save(self.folder / "index")
        self.index = FaissIndex.load(self.folder / "index")

    @rule(k=st.sampled_from([1, 10, 5_000]), seed=st.integers(0, 99), hidden=st.sampled_from([0, 3, 300]))
    def search(self, k: int, seed: int, hidden: int) -> None:
        exclude = set(list(self.model)[:hidden])
        ids, similarities = self.index.search(unit(1, seed, dim=8)[0], k, exclude=exclude)
        allowed = set(self.model) - exclude
        assert len(ids) == min(k, len(allowed))
        assert set(ids.tolist()) <= allowed
        truth = [float(self.model[name] @ unit(1, seed, dim=8)[0]) for name in ids.tolist()]
        np.testing.assert_allclose(similarities, truth, atol=0.05)

    @invariant()
    def sizes_agree(self) -> None:
        if hasattr(self, "model"):
            assert len(self.index) == len(self.model)


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_changes(kind: str, tmp_path: Path) -> None:
    machine = type("Machine", (Lifecycle,), {"kind": kind, "folder": tmp_path})
    limits = settings(max_examples=8, stateful_step_count=15)
    run_state_machine_as_test(machine, settings=limits)


def test_a_removed_and_added_item_has_its_new_vector(index: FaissIndex, vectors: np.ndarray) -> None:
    index.remove(["item-3"])
    index.add(-vectors[3][None, :], ["item-3"])
    ids, similarities = index.search(-vectors[3], 1)
    assert ids.tolist() == ["item-3"]
    assert similarities[0] == pytest.approx(1, abs=0.03)


def test_growing_from_nothing_and_back() -> None:
    index = FaissIndex.build(np.zeros((0, 3)), [])
    assert index.search([1, 0, 0], 5)[0].tolist() == []
    assert index.search(np.eye(3), 5)[0].shape == (3, 0)
    index.add([[1, 0, 0], [0, 1, 0]], [10, 20])
    assert index.search([1, 0, 0], 5)[0].tolist() == [10, 20]
    assert index.remove([10, 20, 30]) == 2
    assert index.search([1, 0, 0], 5)[0].tolist() == []
    index.add([[0, 0, 1]], ["a much longer name"])
    assert index.search([1, 0, 1], 5)[0].tolist() == ["a much longer name"]


def test_no_queries_and_no_neighbours(index: FaissIndex, vectors: np.ndarray) -> None:
    assert index.search(vectors[:0], 5)[0].shape == (0, 0)
    assert index.search(vectors[:3], 0)[0].shape == (3, 0)
    assert index.search(vectors[0], 0)[0].shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_answers_are_equal(kind: str, vectors: np.ndarray, tmp_path: Path) -> None:
    index = FaissIndex.build(vectors, np.arange(1_200) * 3, kind=kind)
    index.remove([0, 3, 6])
    index.save(tmp_path)
    loaded = FaissIndex.load(tmp_path)
    assert (loaded.kind, loaded.dim, len(loaded)) == (kind, DIM, 1_197)
    for before, after in zip(index.search(vectors[:5], 40), loaded.search(vectors[:5], 40), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["index.faiss", "ids.npy", "states.npy", "index.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_named_and_refused(
    name: str, damage: str, vectors: np.ndarray, tmp_path: Path
) -> None:
    FaissIndex.build(vectors[:20], names(20)).save(tmp_path)
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    with pytest.raises(CorruptArtefact, match=name):
        FaissIndex.load(tmp_path)


def test_checksums_that_somebody_has_computed_are_believed(vectors: np.ndarray, tmp_path: Path) -> None:
    FaissIndex.build(vectors[:20], names(20)).save(tmp_path)
    checksums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    file = tmp_path / "index.faiss"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # within a vector, so that the file can be read all the same
    file.write_bytes(content)
    assert len(FaissIndex.load(tmp_path, checksums=checksums)) == 20
    for wrong in (None, checksums | {"index.faiss": "0"}, {}):
        with pytest.raises(CorruptArtefact, match="is damaged"):
            FaissIndex.load(tmp_path, checksums=wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_vectors_that_are_not_finite_are_named(value: float) -> None:
    vectors = np.eye(3)
    vectors[1, 2] = value
    with pytest.raises(InvalidVectors, match="'b'"):
        FaissIndex.build(vectors, ["a", "b", "c"])
    index = FaissIndex.build(np.eye(3), ["a", "b", "c"])
    with pytest.raises(InvalidVectors, match="'e'"):
        index.add(vectors, ["d", "e", "f"])
    with pytest.raises(InvalidVectors, match="query 1"):
        index.search(vectors, 1)
    with np.errstate(over="ignore"):
        single = vectors[1].astype(np.float32)
    for query in (vectors[1], single):
        with pytest.raises(InvalidVectors, match="query 0"):
            index.search(query, 1)
    assert len(index) == 3


@pytest.mark.parametrize(
    ("vectors", "ids", "said"),
    [
        ([[1, 0], [0, 0]], ["a", "b"], "'b' is zero"),
        ([[1, 0], [0, 1]], ["a", "a"], "'a' occurs more than once"),
        ([[1, 0]], ["a", "b"], "2 ids"),
        ([1, 0], ["a", "b"], "one row per id"),
        ([[1, 0], [0, 1]], ["a", 1], "all strings or all integers"),
        ([[1, 0], [0, 1]], [True, False], "all strings or all integers"),
        ([[1, 0], [0, 1]], [0.5, 1.5], "all strings or all integers"),
        ([[1, 0], [0, 1]], "ab", "is one id"),
        ([[1, 0], [0, 1]], ["a", "a\0"], "NUL"),
        ([[1, 0]], [2**64], "64 bits"),
    ],
)
def test_input_that_cannot_be_indexed(vectors: list[list[float]], ids: list[object], said: str) -> None:
    with pytest.raises(InvalidVectors, match=said):
        FaissIndex.build(vectors, ids)


def test_additions_that_do_not_fit_change_nothing() -> None:
    index = FaissIndex.build(np.eye(3), ["a", "b", "c"])
    with pytest.raises(InvalidVectors, match="'a' is in the index already"):
        index.add(np.eye(3)[:2], ["d", "a"])
    with pytest.raises(InvalidVectors, match="2 dimensions"):
        index.add(np.eye(2), ["d", "e"])
    with pytest.raises(InvalidVectors, match="by strings"):
        index.add(np.eye(3), [1, 2, 3])
    with pytest.raises(InvalidVectors, match="by strings"):
        index.search(np.eye(3)[0], 3, exclude=[1])
    index.add(np.zeros((0, 3)), [])
    assert sorted(index.search([1, 1, 1], 9)[0].tolist()) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["sq8", "ivf_sq8"])
def test_kinds_that_learn_need_something_to_learn_from(kind: str) -> None:
    with pytest.raises(InvalidOption, match="999 are too few"):
        FaissIndex.build(unit(999, seed=6), np.arange(999), kind=kind)


def test_options_outside_their_range() -> None:
    index = FaissIndex.build(np.eye(2), [1, 2])
    with pytest.raises(InvalidOption, match="fewer than no"):
        index.search([1, 0], -1)
    with pytest.raises(InvalidOption, match="'tree' is none of"):
        FaissIndex.build(np.eye(2), [1, 2], kind="tree")
    with pytest.raises(InvalidOption, match="'tpu' is none of"):
        FaissIndex.build(np.eye(2), [1, 2], device="tpu")
    with pytest.raises(InvalidOption, match="no GPU form"):
        FaissIndex.build(np.eye(2), [1, 2], kind="hnsw", device="gpu")


def test_searches_beside_changes(vectors: np.ndarray) -> None:
    index = FaissIndex.build(vectors, names(1_200), kind="sq8")
    index.remove(names(200, start=1_000))
    problems: list[object] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            ids, _ = index.search(vectors[5], 1_200, exclude=["item-0"])
            present = set(ids.tolist())
            if len(ids) not in (999, 1_199) or "item-0" in present or len(present) != len(ids):
                problems.append(len(ids))

    readers = [threading.Thread(target=search) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(30):
        index.add(vectors[1_000:], names(200, start=1_000))
        index.remove(names(200, start=1_000))
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []


def test_searching_leaves_the_callers_threads_alone(index: FaissIndex, vectors: np.ndarray) -> None:
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        index.search(vectors[0], 5)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_exactly_one_distribution_is_installed_here() -> None:
    assert len(installed_distributions()) == 1


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU to use")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(FaissUnavailable, match="sees no GPU"):
        FaissIndex.build(np.eye(2), [1, 2], device="gpu")
    assert FaissIndex.build(np.eye(2), [1, 2], device="auto").device == "cpu"
