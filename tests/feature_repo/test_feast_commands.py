"""`feast apply`, `materialize-incremental` and `serve`, as typed in a fresh clone."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

REPOSITORY = Path(__file__).parents[2] / "feature_repo"
FEAST = Path(sys.executable).with_name("feast")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "feature_repo"
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns("*.db", "__pycache__"))
    feast(folder, "apply")
    feast(folder, "materialize-incremental", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return folder


@pytest.fixture(scope="module")
def server(clone: Path, reserved_port: Callable[[], AbstractContextManager[int]]) -> Iterator[httpx.Client]:
    log = clone.parent / "serve.log"
    with reserved_port() as port, log.open("w") as output:
        process = subprocess.Popen(
            [FEAST, "serve", "--port", str(port)],
            cwd=clone,
            env=environment(clone),
            stdout=output,
            stderr=output,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                await_health(client, process, log)
                yield client
        finally:
            process.terminate()
            process.wait(timeout=300)


def environment(clone: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(clone.parent)}


def feast(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [FEAST, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def await_health(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(3_000):
        assert process.poll() is None, log.read_text()
        try:
            if client.get("/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"feast serve did not answer within five minutes: {log.read_text()}")


def ask(client: httpx.Client, service: str, **entities: list[str]) -> dict[str, list[object]]:
    answer = client.post("/get-online-features", json={"feature_service": service, "entities": entities})
    assert answer.status_code == httpx.codes.OK, answer.text
    body = answer.json()
    names = body["metadata"]["feature_names"]
    return {name: result["values"] for name, result in zip(names, body["results"], strict=True)}


def test_serve_answers_what_was_materialised(server: httpx.Client) -> None:
    values = ask(server, "item_v1", item_id=["tide", "nobody"])
    # Four interactions with the tide clock: 5, 4, 1 and 5.
    assert values["item_events"] == [4, None]
    assert values["item_mean_value"] == [3.75, None]
    assert values["item_binding"] == ["paper", None]


def test_serve_answers_a_history_newest_last(server: httpx.Client) -> None:
    values = ask(server, "user_history_v1", user_id=["bo"])
    assert values["history_items"] == [["fern", "reef", "loaf", "mole"]]


def test_a_pushed_counter_is_served(server: httpx.Client) -> None:
    now = datetime.now(UTC).isoformat()
    row = {"user_id": "ada", "event_timestamp": now, "created_timestamp": now}
    lists = {"history_items": ["tide", "loaf"], "history_values": [5.0, 1.0], "history_times": [1.0, 2.0]}
    pushed = server.post(
        "/push",
        json={
            "push_source_name": "user_history_push",
            "df": {name: [value] for name, value in (row | lists).items()},
            "to": "online",
        },
    )
    assert pushed.status_code == httpx.codes.OK, pushed.text
    assert ask(server, "user_history_v1", user_id=["ada"])["history_items"] == [["tide", "loaf"]]
