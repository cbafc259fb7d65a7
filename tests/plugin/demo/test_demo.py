"""`explorank demo` from end to end on own data, as a newcomer runs it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from explorank.settings import load_settings

pytestmark = pytest.mark.slow  # each run applies Feast and loads the encoder

SECTIONS = [
    "What happened",
    "Ranking accuracy on what users liked later",
    "The exploration loop: a simulation",
    "One decision in full",
    "Serve it and ask it",
]
STAGES = [
    "prepare a folder",
    "feast apply, materialize",
    "embed and index",
    "train the ranker",
    "measure accuracy",
    "explore (simulated)",
    "rank for real users, in shadow mode",
    "go live, take feedback, learn",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shop with spaces")


@pytest.fixture(scope="module")
def told(place: Path, shop, run_demo) -> str:
    """What the demo printed on the shop's tables; its folder is `place`/demo."""
    done = run_demo(place, shop)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def page(place: Path, told: str) -> str:
    assert told
    return (place / "demo" / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Checks that elements are closed in order, and notes headings and whatever a browser would load."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.loaded: list[str] = []
        self.scripts = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attributes:
            local = value is None or value.startswith("#")
            if name in {"src", "href", "xlink:href", "data", "action", "srcset"} and not local:
                self.loaded.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


# ---- what is told ---------------------------------------------------------------------------------------


def test_every_stage_is_told_in_order(told: str) -> None:
    assert re.findall(r"^✓ (.+) \(\d+\.\d s\)$", told, re.MULTILINE) == STAGES


def test_it_fits_eighty_columns(told: str) -> None:
    lines = told.partition("Serve it")[0].splitlines()  # commands are not broken, so that they can be copied

    assert max(map(len, lines)) <= 80
    assert "\n\n\n" not in told


def test_the_tables_are_told(told: str) -> None:
    for row in ("popular", "retrieval alone", "retrieval + LightGBM"):
        assert re.search(rf"^ *{re.escape(row)} +0\.\d{{3}} \[0\.\d{{3}}, 0\.\d{{3}}\]", told, re.MULTILINE)
    for row in ("no exploration", "ε-greedy", "Beta Thompson", "linear, greedy", "linear Thompson"):
        assert re.search(rf"^ *{row} +\d+ ", told, re.MULTILINE)
    assert "a simulation" in told


# ---- the report -----------------------------------------------------------------------------------------


def test_the_report_is_one_whole_page_that_loads_nothing(page: str) -> None:
    parsed = Page(page)

    assert parsed.open == []
    assert parsed.loaded == []
    assert parsed.scripts == 0
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert page.count("<svg") == 3


def test_the_report_has_every_section(page: str) -> None:
    assert Page(page).headings == SECTIONS
    assert "one global split in time" in page
    assert "the visits are made up" in page


def test_titles_are_text_and_never_markup(page: str) -> None:
    assert re.search(r"(Tea|Bread|Soap|Candle|Cheese|Paper) &lt;b&gt;\d&lt;/b&gt;", page)
    assert "<b>" not in page


def test_the_decision_shows_sources_scores_features_and_propensities(page: str) -> None:
    decision = page.partition("One decision in full")[2].partition("Serve it")[0]

    assert decision.count("features as served to the policy") == 10
    propensities = [float(value) for value in re.findall(r'<td class="number">(\d\.\d{4})</td>', decision)]
    assert len(propensities) == 10
    assert all(0.0 < value <= 1.0 for value in propensities)
    assert decision.count('class="explore"') == 3
    assert "similar_to_history" in decision


def test_extra_columns_of_every_type_became_features(place: Path, told: str) -> None:
    assert told
    [manifest] = (place / "demo" / ".explorank" / "artefacts" / "ranker").glob("*/manifest.json")
    names = set(json.loads(manifest.read_text(encoding="utf-8"))["content"]["feature_names"])

    assert {"item_price", "item_maker", "item_tags_organic", "item_in_season", "item_weight"} <= names
    assert {"user_age", "user_newsletter", "item_events", "user_mean_value", "similarity"} <= names


# ---- what is printed works ------------------------------------------------------------------------------


def printed_commands(told: str) -> list[str]:
    return [line.strip() for line in told.partition("ask it from another terminal:\n")[2].splitlines()]


def shell(command: str, folder: Path) -> Any:
    """Run a printed command as a shell does and return the JSON it answered with."""
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_printed_commands_work(
    place: Path, told: str, running: Callable[[Path], AbstractContextManager[int]]
) -> None:
    serve, rank, reward = printed_commands(told)
    assert ":8080/" in rank
    program, *arguments, settings = shlex.split(serve)
    assert shutil.which(program) is not None
    assert arguments == ["serve", "--config"]

    with running(place / settings) as port:
        decision = shell(rank.replace(":8080/", f":{port}/"), place)
        answer = shell(
            reward.replace(":8080/", f":{port}/").replace("DECISION_ID", decision["decision_id"]), place
        )

    assert len(decision["items"]) == 5
    assert decision["mode"] == "live"
    assert decision["fallbacks"] == []
    assert answer["results"][0]["result"] == "accepted"


# ---- the folder -----------------------------------------------------------------------------------------


def test_running_again_on_sparse_tables_as_csv(place: Path, told: str, shop, demo_here) -> None:
    """No users, no values, times to come, an endless price, and titles that are missing."""
    assert told
    events = shop["interactions"].drop(columns="value")
    goods = shop["items"].assign(price=float("inf"))
    fewer = {
        "interactions": events.assign(timestamp=events["timestamp"] + pd.Timedelta(days=4_000)),
        "items": goods.assign(title=goods["title"].where(goods.index > 30)),
    }

    done = demo_here(place, fewer, suffix=".csv")

    assert (done.returncode, done.stderr) == (0, "")
    assert load_settings(place / "demo" / "explorank.yaml").features.positive_from == 1.0
    assert Page((place / "demo" / "report.html").read_text(encoding="utf-8")).headings == SECTIONS


def test_a_folder_with_other_files_is_refused(tmp_path: Path, shop, demo_here) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("mine")

    done = demo_here(tmp_path, shop)

    assert done.returncode == 1
    assert "demo holds other files, which the demo would overwrite" in done.stderr
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder(tmp_path: Path, shop, demo_here) -> None:
    (tmp_path / "report").write_text("mine")

    done = demo_here(tmp_path, shop, "--folder", "report")

    assert done.returncode == 1
    assert "report is a file" in done.stderr


# ---- awkward data: a sentence, never a traceback --------------------------------------------------------


def test_interactions_need_items(tmp_path: Path, shop, demo_here) -> None:
    done = demo_here(tmp_path, {"interactions": shop["interactions"]})

    assert done.returncode == 1
    assert "needs both --interactions and --items" in done.stderr
