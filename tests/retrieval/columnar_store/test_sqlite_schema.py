"""What is added to the file of Feast's SQLite store, where several add it at once."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

from explorank.retrieval.columnar_store.sources.sqlite_file import written_at_once
from explorank.retrieval.columnar_store.sources.sqlite_schema import is_set_up, set_up, use_wal

VIEW = "shop_facts"
TABLE = f"CREATE TABLE {VIEW} (entity_key BLOB, feature_name TEXT, value BLOB, event_ts INTEGER)"


def test_several_may_be_the_first_to_set_a_file_up(tmp_path: Path) -> None:
    """One opening in twenty kept the mode in which readers and the writer wait for each other."""
    modes = set()

    def opened(path: Path, together: Barrier) -> None:
        with closing(
            sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60.0)
        ) as connection:
            together.wait()
            use_wal(connection)
            modes.update(connection.execute("PRAGMA journal_mode").fetchone())
            with written_at_once(connection):
                set_up(connection, VIEW)
            assert is_set_up(connection, VIEW)

    with ThreadPoolExecutor(3) as pool:
        for number in range(40):
            path = tmp_path / f"{number}.db"
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(TABLE)
            together = Barrier(3)
            for opening in [pool.submit(opened, path, together) for _ in range(3)]:
                opening.result()
    assert modes == {"wal"}


def test_a_file_that_may_not_be_changed_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(TABLE)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        use_wal(connection)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
