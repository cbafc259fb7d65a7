"""Tables that people bring: read whole, or refused by name."""

from pathlib import Path

import pandas as pd
import pytest

from explorank.errors import DataError, RetrievalError
from explorank.pipeline.tables import past_interactions, read_table


@pytest.mark.parametrize("suffix", [".parquet", ".pq", ".csv", ".tsv"])
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame(
        {"item_id": ["007", "b, c"], "text": ["Tea\tand milk", "Ünïcode"], "price": [1.5, 2.0]}
    )
    path = tmp_path / f"items{suffix}"
    if suffix in {".parquet", ".pq"}:
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)

    pd.testing.assert_frame_equal(read_table(path), table)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("absent.parquet", None),
        ("absent.csv", None),
        ("torn.parquet", b"PAR1 and then nothing"),
        ("empty.csv", b""),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n"),
        ("latin.csv", "user_id,text\n1,Café\n".encode("latin-1")),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match=f"{name} could not be read as a table"):
        read_table(path)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(DataError, match="could not be read"):
        read_table(tmp_path / "folder.csv")


def test_another_format_is_refused_with_the_formats_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither \.parquet nor \.csv nor \.tsv"):
        read_table(tmp_path / "interactions.xlsx")


def test_past_interactions_are_typed_and_in_order_of_time() -> None:
    table = pd.DataFrame({"user_id": [2, 1], "item_id": ["b", "a"], "timestamp": [86_400, 0.5]})

    events = past_interactions(table)

    assert events["user_id"].tolist() == ["1", "2"]
    assert events["item_id"].tolist() == ["a", "b"]
    assert events["timestamp"].tolist() == [
        pd.Timestamp("1970-01-01 00:00:00.5", tz="UTC"),
        pd.Timestamp("1970-01-02", tz="UTC"),
    ]
    assert events["value"].tolist() == [1.0, 1.0]


def test_interactions_without_a_time_are_refused() -> None:
    with pytest.raises(RetrievalError, match="timestamp"):
        past_interactions(pd.DataFrame({"user_id": [1], "item_id": [1]}))
