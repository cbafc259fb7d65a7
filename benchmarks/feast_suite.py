r"""The columnar store in Feast's own tests of online stores, over SQLite and over Redis.

Feast's repository brings the tests, `sdk/python/tests/integration/online_store`, and takes the stores to test
from a module like this one. In an environment of its own that has Explorank, `redis` and what those tests import
(Feast's extra `ci`), with `redis-server` on the path:

    git clone https://github.com/feast-dev/feast && cd feast/sdk/python
    PYTHONPATH=/path/to/explorank FULL_REPO_CONFIGS_MODULE=benchmarks.feast_suite IS_TEST=True \
        python -m pytest --integration tests/integration/online_store

The names choose the tests: `pgvector` and `milvus` those of searching in documents. Most files there are about one
store or need a container; `test_universal_*.py` and `test_push_features_to_online_store.py` are for all. Of these,
what names DynamoDB fails without its container, and `test_entity_ttl_online_store` sets a setting of Redis's own store
on the columnar one, which has no such setting.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.universal.feature_repos.universal.data_sources.file import (  # type: ignore[import-not-found]  # Feast's tests
    FileDataSourceCreator,
)
from tests.universal.feature_repos.universal.online_store_creator import (  # type: ignore[import-not-found]  # Feast's tests
    OnlineStoreCreator,
)

_TYPE: Final = "explorank.retrieval.columnar_store.ColumnarOnlineStore"


class OverSqlite(OnlineStoreCreator):  # type: ignore[misc]  # Feast has no types
    """A columnar store over a SQLite file of its own."""

    def create_online_store(self) -> dict[str, Any]:
        """Return the `online_store` section."""
        self.folder = tempfile.mkdtemp()
        path = str(Path(self.folder) / "online_store.db")
        return {"type": _TYPE, "backing": {"type": "sqlite", "path": path}}

    def teardown(self) -> None:
        """Delete the file."""
        shutil.rmtree(self.folder)


class OverRedis(OnlineStoreCreator):  # type: ignore[misc]  # Feast has no types
    """A columnar store over a Redis server of its own."""

    def create_online_store(self) -> dict[str, Any]:
        """Start the server; return the `online_store` section."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.server = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
            ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"],  # noqa: S607 - as installed
            stdout=subprocess.DEVNULL,
        )
        for _ in range(100):
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        backing = {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
        # One of the tests expects rows that are an hour old from a view whose ttl is five minutes.
        return {"type": _TYPE, "backing": backing, "enforce_ttl": False}

    def teardown(self) -> None:
        """Stop the server."""
        self.server.terminate()
        self.server.wait()


# The section is the creator's; the first part only has to differ between the stores.
AVAILABLE_ONLINE_STORES = {
    "sqlite": ({"type": _TYPE, "sweep_s": 1}, OverSqlite),
    "redis": ({"type": _TYPE, "sweep_s": 2}, OverRedis),
    "pgvector": ({"type": _TYPE, "sweep_s": 3}, OverSqlite),
    "milvus": ({"type": _TYPE, "sweep_s": 4}, OverRedis),
}
AVAILABLE_OFFLINE_STORES = [("local", FileDataSourceCreator)]
