"""Bad rows are found by the rule that they break, put aside with the reason, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pandera")

from explorank.errors import DataError, RetrievalError
from explorank.pipeline.data_checks import check_tables
from explorank.pipeline.quarantine import keep_aside, usable_tables
from explorank.pipeline.tables import past_interactions
from explorank.settings import DataSettings, parse_settings

NOW = pd.Timestamp("2026-06-01", tz="UTC").timestamp()
RULES = DataSettings(most_aside=1.0)


def events(count: int = 60) -> pd.DataFrame:
    """Return good interactions of six users, an hour apart."""
    return pd.DataFrame(
        {
            "user_id": [f"user-{number % 6}" for number in range(count)],
            "item_id": [f"item-{number % 10}" for number in range(count)],
            "timestamp": pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC"),
            "value": [float(1 + number % 5) for number in range(count)],
        }
    )


def broken(table: pd.DataFrame, rules: DataSettings = RULES, **more: Any) -> dict[str, list[int]]:
    """Return the rows of the interactions that each rule puts aside."""
    checked = check_tables(rules, interactions=table, now=NOW, **more)
    aside = checked.aside.get("interactions")
    if aside is None:
        assert checked.interactions is table
        return {}
    found: dict[str, list[int]] = {}
    for row, reasons in zip(aside["row"], aside["reason"], strict=True):
        for reason in reasons.split("; "):
            found.setdefault(reason, []).append(row)
    kept = table.drop(table.index[sorted(set(aside["row"]))])
    pd.testing.assert_frame_equal(checked.interactions, kept.reset_index(drop=True))
    pd.testing.assert_frame_equal(
        aside.drop(columns=["reason", "row"]), table.iloc[aside["row"]].reset_index(drop=True)
    )
    return found


def test_good_rows_are_left_alone() -> None:
    table = events()
    assert broken(table) == {}
    assert check_tables(RULES, interactions=table, now=NOW).report.findings == ()


def test_each_rule_names_its_rows() -> None:
    table = events().astype({"user_id": object, "value": object})
    table.loc[3, "user_id"] = None
    table.loc[4, "item_id"] = ""
    table.loc[5, "timestamp"] = pd.NaT
    table.loc[6, "value"] = "much"
    table.loc[7, "value"] = float("inf")
    table.loc[8, "value"] = 9.0
    table.loc[9, "timestamp"] = pd.Timestamp("2026-06-02", tz="UTC")
    table.loc[11] = table.loc[10]
    assert broken(table, DataSettings(value_from=1.0, value_to=5.0, most_aside=1.0)) == {
        "missing id": [3, 4],
        "unreadable time": [5],
        "unreadable value": [6, 7],
        "value out of range": [8],
        "time travel: future": [9],
        "repeated": [11],
    }
    kept = check_tables(RULES, interactions=table, now=NOW).interactions
    assert kept is not None
    assert len(past_interactions(kept)) == len(kept)


@pytest.mark.parametrize("kind", [object, "string", "category"])
def test_ids_of_any_kind(kind: Any) -> None:
    table = events()
    table.loc[3, "user_id"] = None
    table["user_id"] = table["user_id"].astype(kind)
    assert broken(table) == {"missing id": [3]}
    numbers = events().assign(user_id=[*range(58), 1.5, np.nan])
    assert broken(numbers) == {"missing id": [58, 59]}


def test_clocks_may_differ_by_a_little() -> None:
    table = events()
    table.loc[0, "timestamp"] = pd.Timestamp(NOW + 3_500, unit="s", tz="UTC")
    table.loc[1, "timestamp"] = pd.Timestamp(NOW + 3_700, unit="s", tz="UTC")
    assert broken(table) == {"time travel: future": [1]}


def test_coarse_times_may_repeat() -> None:
    table = pd.concat([events(5), events(5)], ignore_index=True)
    assert broken(table) == {"repeated": [5, 6, 7, 8, 9]}
    assert broken(table, DataSettings(repeats="keep")) == {}


def test_interactions_before_their_item() -> None:
    items = pd.DataFrame(
        {
            "item_id": ["item-0", "item-1", "item-2"],
            "available_from": ["2026-01-01T11:00:00", None, "2025-01-01"],
            "title": "x",
        }
    )
    checked = check_tables(RULES, interactions=events(30), items=items, now=NOW)
    aside = checked.aside["interactions"]
    # `item-0` stands in rows 0, 10 and 20, an hour each; it came at 11 o'clock.
    assert aside["row"].tolist() == [0, 10]
    assert set(aside["reason"]) == {"time travel: before the item"}
    (unknown,) = [one for one in checked.report.findings if not one.put_aside]
    assert (unknown.rule, unknown.rows) == ("unknown item", 21)


def test_users_whom_the_table_of_users_lacks() -> None:
    table = events(4).assign(user_id=["12", "13", "14", "13"])
    users = pd.DataFrame({"user_id": [12, 13], "age": 40})
    report = check_tables(RULES, interactions=table, users=users, now=NOW).report
    assert [(one.rule, one.rows, one.put_aside) for one in report.findings] == [("unknown user", 1, False)]
    assert not report.striking
    report = check_tables(RULES, interactions=table, users=users.iloc[:1], now=NOW).report
    assert [one.rows for one in report.findings] == [3]
    assert report.striking


@pytest.mark.parametrize(
    ("values", "positive_from", "noted"),
    [
        ([1.0, 3.0, 5.0], 1.0, True),
        ([1.0, 3.0, 5.0], 3.0, False),
        ([1.0, 3.0, 5.0], None, False),
        ([1.0, 1.0, 1.0], 1.0, False),  # clicks, all of which are liked
    ],
)
def test_ratings_that_all_count_as_liked(
    values: list[float], positive_from: float | None, *, noted: bool
) -> None:
    report = check_tables(
        RULES, interactions=events(3).assign(value=values), now=NOW, positive_from=positive_from
    ).report
    assert [(one.rule, one.rows, one.put_aside) for one in report.findings] == (
        [("all liked", 3, False)] if noted else []
    )
    assert report.striking == noted


def burst(user: str, count: int, seconds: float) -> pd.DataFrame:
    begin = pd.Timestamp("2026-02-01", tz="UTC")
    return pd.DataFrame(
        {
            "user_id": user,
            "item_id": [f"item-{number % 10}" for number in range(count)],
            "timestamp": [begin + pd.Timedelta(seconds=number * seconds) for number in range(count)],
            "value": 1.0,
        }
    )


def test_bursts_and_bots() -> None:
    rules = DataSettings(burst_events=10, burst_s=60, day_events=40, most_aside=1.0)
    human = burst("human", 10, 1.0)
    assert broken(human, rules) == {}, "as many as are allowed"
    # Eleven within a minute, then one later: only the window is put aside.
    fast = pd.concat(
        [burst("fast", 11, 5.9), burst("fast", 1, 1).assign(timestamp=pd.Timestamp("2026-02-02", tz="UTC"))]
    )
    assert broken(fast.reset_index(drop=True), rules) == {"burst": list(range(11))}
    # More than forty within a day: all of the user's, a year before too.
    before = burst("bot", 1, 1).assign(timestamp=pd.Timestamp("2025-02-02", tz="UTC"))
    steady = pd.concat([before, burst("bot", 41, 600.0), human], ignore_index=True)
    assert broken(steady, rules) == {"bot": list(range(42))}


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 10),
)
def test_bursts_are_what_a_plain_count_finds(pairs: list[tuple[int, int]], most: int, seconds: int) -> None:
    table = pd.DataFrame(
        {"user_id": [str(user) for user, _ in pairs], "timestamp": [float(at) for _, at in pairs]}
    )
    table["item_id"] = [str(number) for number in range(len(table))]
    expected = set()
    for user, at in pairs:
        window = [
            row for row, (other, time) in enumerate(pairs) if other == user and at <= time < at + seconds
        ]
        if len(window) > most:
            expected.update(window)
    rules = DataSettings(burst_events=most, burst_s=seconds, most_aside=1.0)
    # Of a window with too many, every stretch of one more than are allowed is marked, so all of it.
    assert set(broken(table, rules).get("burst", [])) == expected


def test_items_and_users() -> None:
    items = pd.DataFrame(
        {
            "item_id": [1, 2, 2, 3],
            "title": ["a", " ", "c", "d"],
            "available_from": [None, "soon", None, "2026-01-01"],
        }
    )
    users = pd.DataFrame({"user_id": ["a", "b", None], "age": [7, 430, 5]})
    checked = check_tables(RULES, items=items, users=users, now=NOW)
    assert checked.aside["items"][["row", "reason"]].to_numpy().tolist() == [
        [1, "unreadable time"],
        [2, "repeated id"],
    ]
    assert checked.aside["users"][["row", "reason"]].to_numpy().tolist() == [
        [1, "age out of range"],
        [2, "missing id"],
    ]
    assert [(one.rule, one.rows) for one in checked.report.findings if not one.put_aside] == [("no text", 1)]
    assert json.loads(json.dumps(checked.report.to_dict()))["rows"] == {"items": 4, "users": 3}


def test_a_table_out_of_order_is_noted_and_one_sorted_by_user_is_not() -> None:
    table = events()
    shuffled = table.sample(frac=1.0, random_state=1)
    notes = check_tables(RULES, interactions=shuffled, now=NOW).report.findings
    assert [(one.rule, one.put_aside) for one in notes] == [("out of order", False)]
    by_user = table.sort_values(["user_id", "timestamp"])
    assert check_tables(RULES, interactions=by_user, now=NOW).report.findings == ()


def test_a_table_that_is_read_wrongly_is_refused() -> None:
    table = events()
    table["timestamp"] = (table["timestamp"].astype("int64") // 1_000_000).astype(np.int64)  # milliseconds
    with pytest.raises(
        DataError, match=r"60 rows \(100%\) of the interactions break the rule 'unreadable time'.*by 1000"
    ):
        check_tables(DataSettings(), interactions=table, now=NOW)
    with pytest.raises(RetrievalError, match="no column 'item_id'"):
        check_tables(RULES, interactions=table.drop(columns="item_id"), now=NOW)


def test_what_is_put_aside_lies_in_the_folder(tmp_path: Path) -> None:
    table = events().astype({"user_id": object})
    table.loc[3, "user_id"] = None
    table["mixed"] = [1, "a"] * 30
    settings = parse_settings({"version": 1}, tmp_path)

    usable = usable_tables(settings, interactions=table)

    assert usable.interactions is not None
    assert len(usable.interactions) == 59
    rows, report = usable.files
    assert rows.parent == tmp_path / ".explorank" / "quarantine"
    kept = pd.read_parquet(rows)
    assert kept[["row", "reason", "item_id"]].to_numpy().tolist() == [[3, "missing id", "item-3"]]
    assert json.loads(report.read_text())["findings"][0]["rule"] == "missing id"
    everything = check_tables(RULES, interactions=table, now=NOW)
    aside = pd.concat([everything.aside["interactions"], everything.aside["interactions"].assign(mixed=2)])
    keep_aside(
        type(everything)(**{**_fields(everything), "aside": {"interactions": aside}}), tmp_path / "mixed"
    )
    (mixed,) = (tmp_path / "mixed").glob("*.parquet")
    assert pd.read_parquet(mixed)["mixed"].tolist() == ["a", "2"]
    assert usable_tables(settings, interactions=events()).files == ()


def _fields(checked: Any) -> dict[str, Any]:
    return {name: getattr(checked, name) for name in ("interactions", "items", "users", "report", "aside")}
