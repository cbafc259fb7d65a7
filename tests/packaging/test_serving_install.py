"""A serving install holds what answering needs and nothing of what building and training need."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow  # the first run installs an environment


@pytest.mark.parametrize("module", ["torch", "sentence_transformers", "matplotlib"])
def test_training_packages_are_absent(serving_environment, tmp_path, module) -> None:
    find = f"import importlib.util; print(importlib.util.find_spec({module!r}))"

    assert serving_environment.run("-c", find, cwd=tmp_path) == "None\n"


@pytest.mark.parametrize(
    "module", ["explorank", "explorank.hooks.exploration", "explorank.retrieval", "explorank.rankers"]
)
def test_imports(serving_environment, tmp_path, module) -> None:
    serving_environment.run("-W", "error", "-c", f"import {module}", cwd=tmp_path)


def test_requirements_fit_together(serving_environment, tmp_path) -> None:
    serving_environment.run("-m", "pip", "check", cwd=tmp_path)


# ---- an installation that another machine built ---------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(installation_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the prepared installation, as it would be carried to a serving machine."""
    return Path(shutil.copytree(installation_folder, tmp_path_factory.mktemp("shipped") / "books"))


@pytest.fixture(scope="module")
def host(
    serving_environment, shipped: Path, reserved_port: Callable[[], AbstractContextManager[int]]
) -> Iterator[httpx.Client]:
    """What asks the running `explorank serve` of the serving environment."""
    said = shipped / "serve.log"
    with reserved_port() as port, said.open("w") as log:
        server = subprocess.Popen(
            [serving_environment.explorank, "serve", "--port", str(port)],
            cwd=shipped,
            env=serving_environment.variables,
            stdout=log,
            stderr=log,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                deadline = time.monotonic() + 300
                while not _ready(client):
                    assert server.poll() is None, said.read_text()
                    assert time.monotonic() < deadline, said.read_text()
                    time.sleep(0.1)
                yield client
        finally:
            server.terminate()
            server.wait(300)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def test_it_ranks_with_everything_that_was_built(host: httpx.Client) -> None:
    decision = host.post("/v1/rank", json={"user_id": "reader-1", "slots": 6}).json()

    assert len(decision["items"]) == 6
    assert decision["fallbacks"] == []
    assert decision["mode"] == "live"
    assert all(decision["versions"][part] for part in ("catalogue", "ranker"))
    sources = {source for item in decision["items"] for source in item["sources"]}
    assert "similar_to_history" in sources


def test_it_takes_rewards_and_counts(host: httpx.Client) -> None:
    decision = host.post("/v1/rank", json={"user_id": "reader-2", "slots": 6}).json()

    answer = host.post("/v1/rewards", json={"decision_id": decision["decision_id"], "slot": 2}).json()

    assert (answer["accepted"], answer["rejected"]) == (1, 0)
    metrics = host.get("/metrics").text
    assert 'explorank_rewards_total{result="accepted"} 1.0' in metrics


def test_building_says_what_to_install(serving_environment, shipped: Path) -> None:
    (shipped / "new.csv").write_text("item_id,text\nsea-99,A book that nobody embedded yet\n")

    built = subprocess.run(
        [serving_environment.explorank, "build", "--items", "new.csv"],
        cwd=shipped,
        env=serving_environment.variables,
        capture_output=True,
        text=True,
        check=False,
    )

    assert built.returncode == 1
    assert "explorank[train]" in built.stderr
    assert "Traceback" not in built.stderr
