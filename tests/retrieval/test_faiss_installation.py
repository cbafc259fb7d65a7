"""FAISS is missing, or there twice: the message says what to install and what to remove."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from explorank.retrieval import FaissUnavailable
from explorank.retrieval._faiss import installed_distributions, load_faiss


@pytest.fixture(autouse=True)
def _forget_what_was_loaded() -> Iterator[None]:
    load_faiss.cache_clear()
    yield
    load_faiss.cache_clear()


def test_two_distributions_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("faiss-gpu-cu12", "faiss-gpu-cuvs", "faissy"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = installed_distributions()
    assert {"faiss-gpu-cu12", "faiss-gpu-cuvs"} < set(found)
    assert "faissy" not in found
    with pytest.raises(FaissUnavailable, match=r"pip uninstall .*faiss-gpu-cu12 faiss-gpu-cuvs"):
        load_faiss()


def test_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(FaissUnavailable, match=r"pip install 'explorank\[cpu\]'.*explorank\[gpu\]"):
        load_faiss()


def test_one_that_does_not_load_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faiss.py").write_text("raise RuntimeError('nvidia-cublas-cu12 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    with pytest.raises(
        FaissUnavailable, match=r"does not load: nvidia-cublas-cu12 is missing.*explorank\[gpu\]"
    ):
        load_faiss()


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("faiss", "torch", "sentence_transformers", "feast", "pandas")
    code = f"import sys, explorank.retrieval; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
