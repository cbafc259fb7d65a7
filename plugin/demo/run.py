"""Runs the main job stage by stage, telling what happens."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from explorank.cli.console import progress
from explorank.demo import terminal
from explorank.demo.accuracy import held_out_queries, measure_accuracy
from explorank.demo.data import DemoData
from explorank.demo.report import write_html
from explorank.demo.result import DemoResult, Step
from explorank.demo.serving import rank_in_shadow, rank_live
from explorank.demo.simulation import simulate
from explorank.demo.visitors import MIN_RATED, visitors_of
from explorank.demo.workplace import prepare_folder, write_settings
from explorank.exploration_features import ExplorationFeatures
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.features import feature_access, prepare_features
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.train import TrainOptions, train_ranker
from explorank.rankers import Ranker
from explorank.retrieval import Catalogue
from explorank.settings import Settings


class Demo:
    """One run, in a folder of its own that can be served afterwards."""

    def __init__(self, data: DemoData, folder: Path, console: Console, *, seeds: int) -> None:
        self._data = data
        self._folder = folder
        self._console = console
        self._seeds = seeds
        self._config = folder / "explorank.yaml"
        self._result = DemoResult(
            data_name=data.name,
            data_note=(
                f"{len(data.interactions):,} interactions of {data.interactions['user_id'].nunique():,} users with "
                f"{len(data.items):,} items, {data.interactions['timestamp'].min():%Y-%m-%d} to "
                f"{data.interactions['timestamp'].max():%Y-%m-%d}."
            ),
            positive_from=data.positive_from,
            split=f"{data.split:%Y-%m-%d %H:%M} UTC",
        )

    def run(self) -> Path:
        """Run every stage and return the report's path; data that cannot be used raises before the long ones."""
        result, console = self._result, self._console
        terminal.print_title(result, console)
        queries = held_out_queries(self._data)
        settings = self._prepare()
        catalogue, ranker = self._build_and_train(settings)
        self._measure(settings, queries, catalogue, ranker)
        terminal.print_accuracy(result, console)
        self._simulate(settings, queries, catalogue, ranker)
        terminal.print_simulation(result, console)
        self._serve(queries)
        terminal.print_decision(result, console)
        path = self._folder / "report.html"
        result.commands = self._commands(settings)
        write_html(result, path)
        terminal.print_end(result, path, console)
        return path

    def _prepare(self) -> Settings:
        data = self._data
        with self._step("prepare a folder") as step:
            prepare_folder(self._folder)
            settings = write_settings(self._config, data, "shadow")
            step.detail = f"{self._folder}: explorank.yaml and a Feast repository"
        with self._step("feast apply, materialize") as step:
            built = prepare_features(settings, data.interactions, data.items, data.users, until=data.split)
            step.detail = "rows: " + ", ".join(f"{view} {rows:,}" for view, rows in built.rows.items())
        return settings

    def _build_and_train(self, settings: Settings) -> tuple[Catalogue, Ranker]:
        data = self._data
        with self._step("embed and index") as step:
            _, catalogue = build_catalogue(settings, until=data.split, progress=step.report)
            step.detail = (
                f"{len(catalogue):,} items, encoder {catalogue.encoder_name}, index {catalogue.index.kind}"
            )
        with self._step("train the ranker") as step:
            options = TrainOptions(queries=QueryOptions(positive_from=data.positive_from))
            ranker, trained = train_ranker(settings, data.past, options=options, progress=step.report)
            step.detail = (
                f"{trained.queries:,} past requests, {trained.rows:,} point-in-time rows, "
                f"{len(trained.features)} features; stopped early on the {trained.validation_queries:,} latest"
            )
        return catalogue, ranker

    def _measure(
        self, settings: Settings, queries: pd.DataFrame, catalogue: Catalogue, ranker: Ranker
    ) -> None:
        with self._step("measure accuracy") as step:
            self._result.accuracy = measure_accuracy(
                queries, feature_access(settings), catalogue, ranker, decay=settings.retrieval.decay, seed=0
            )
            self._result.test_users = len(queries)
            step.detail = f"{len(queries)} users, whole catalogue"

    def _simulate(
        self, settings: Settings, queries: pd.DataFrame, catalogue: Catalogue, ranker: Ranker
    ) -> None:
        with self._step("explore (simulated)") as step:
            visitors = visitors_of(
                self._data,
                queries,
                feature_access(settings),
                catalogue,
                ranker,
                ExplorationFeatures(settings.exploration.features),
                decay=settings.retrieval.decay,
            )
            if not visitors:
                step.detail = f"left out: no user has {MIN_RATED} items after the split to choose from"
                return
            self._result.visitors = len(visitors)
            self._result.runs = runs = simulate(visitors, seeds=self._seeds, progress=step.report)
            step.detail = f"{len(runs)} runs of {len(runs[0].coverage):,} visits"

    def _serve(self, queries: pd.DataFrame) -> None:
        with self._step("rank for real users, in shadow mode") as step:
            step.detail = rank_in_shadow(self._config, queries)
        with self._step("go live, take feedback, learn") as step:
            write_settings(self._config, self._data, "live")
            step.detail, self._result.decision = rank_live(self._config, self._data, queries)

    def _commands(self, settings: Settings) -> list[str]:
        """Return what serves the folder and asks it, as a shell takes it."""
        decision = self._result.decision
        question = {"user_id": None if decision is None else decision.user_id, "slots": 5}
        reward = {"decision_id": "DECISION_ID", "slot": 0, "kind": "click"}
        address = f"http://{settings.server.host}:{settings.server.port}/v1"
        return [
            f"{_program()} serve --config {shlex.quote(str(self._config))}",
            *(
                f"curl -s --json {shlex.quote(json.dumps(body, ensure_ascii=False))} {address}/{path}"
                for body, path in ((question, "rank"), (reward, "rewards"))
            ),
        ]

    @contextmanager
    def _step(self, name: str) -> Iterator[_OpenStep]:
        began = time.perf_counter()
        with progress(name) as report:
            step = _OpenStep(report)
            yield step
        done = Step(name, step.detail, time.perf_counter() - began)
        self._result.steps.append(done)
        terminal.print_step(done, self._console)


@dataclass(slots=True)
class _OpenStep:
    report: Callable[[int, int], None]
    detail: str = ""


def _program() -> str:
    """Return how to call this very installation from the shell at hand."""
    script = Path(sys.executable).with_name("explorank")
    if shutil.which("explorank") == str(script):
        return "explorank"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m explorank"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))
