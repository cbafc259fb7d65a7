"""What tests of several parts share: one small, real installation, built once per test run."""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# The same examples each time: a change is judged by what it does, not by what was drawn. A first example may compile.
settings.register_profile("explorank", derandomize=True, database=None, deadline=None)
settings.load_profile("explorank")

FEATURE_STORE = """\
project: shop
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
offline_store: {type: duckdb}
entity_key_serialization_version: 3
"""
TINY_BERT = Path(__file__).with_name("tiny_bert.py")
BUILD = Path(__file__).with_name("build_installation.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: workers take whole files, and none should end long after the others.

    `--no-loadscope-reorder` keeps xdist from beginning with those that have the most tests.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def module_at() -> Callable[[Path], ModuleType]:
    """Load a module by path, because test folders are no packages."""

    def load(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"{path.parent.name}_test_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses and inspect look for it
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def write_tiny_bert(module_at: Callable[[Path], ModuleType]) -> Callable[..., Path]:
    """Write an encoder of two small layers: `write_tiny_bert(folder, words, seed=1)` returns where it lies."""
    write: Callable[..., Path] = module_at(TINY_BERT).write_model
    return write


@pytest.fixture(scope="session")
def feast_repository() -> Callable[[Path, str], Path]:
    """Write somebody's own Feast repository into a folder, which is made; nothing is applied yet."""

    def write(folder: Path, definitions: str) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "feature_store.yaml").write_text(FEATURE_STORE, encoding="utf-8")
        (folder / "definitions.py").write_text(textwrap.dedent(definitions), encoding="utf-8")
        return folder

    return write


@contextmanager
def _reserved_port() -> Iterator[int]:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def reserved_port() -> Callable[[], AbstractContextManager[int]]:
    """Keep a port for a server that must be told which, while the block lasts.

    Bound and never listened on, it is handed out to nobody who asks for any; a server that names it, with
    `SO_REUSEADDR` as servers do, may listen there.
    """
    return _reserved_port


@contextmanager
def _running(settings: Path) -> Iterator[int]:
    """Serve an installation in a thread, as `explorank serve` does in a process; yield the port."""
    import httpx

    import explorank
    from explorank.host.runner import build_server

    server = build_server(explorank.load(settings), port=0, log_level="error")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code == 200
        yield port
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def running() -> Callable[[Path], AbstractContextManager[int]]:
    """Serve the installation of a settings file while the block lasts."""
    return _running


@pytest.fixture(scope="session")
def installation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder with `explorank.yaml`; read it, and work in a copy (`installation`).

    Parallel workers wait for the first one to build it. The tables it was built from lie in it as parquet.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "installation"
    with (shared / "installation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            # Built where it stays: Feast registers the parquet files under their absolute paths.
            folder.mkdir()
            done = subprocess.run(
                [sys.executable, str(BUILD), str(folder)],
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            )
            if done.returncode != 0:
                shutil.rmtree(folder)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


@pytest.fixture
def installation(installation_folder: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder for one test to serve from and write to.

    Applying its Feast repository anew takes `FeatureAccess.reset` first: its registry is the original's.
    """
    return Path(shutil.copytree(installation_folder, tmp_path / "installation"))
