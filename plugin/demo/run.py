"""Runs the main job stage by stage, telling what happens."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.markup import escape

from explorank.cli.console import progress
from explorank.demo import report
from explorank.demo.accuracy import measure_accuracy, test_queries
from explorank.demo.data import DemoData
from explorank.demo.result import DemoResult, ShownDecision, ShownItem, Step
from explorank.demo.simulation import Visitor, simulate
from explorank.errors import DataError
from explorank.exploration_features import ExplorationFeatures
from explorank.hooks.types import DecisionRecord, Features
from explorank.pipeline.build import build_catalogue
from explorank.pipeline.features import feature_access, prepare_features
from explorank.pipeline.queries import QueryOptions, interest_vectors
from explorank.pipeline.train import TrainOptions, feature_matrix, train_ranker
from explorank.rankers import LightGBMRanker
from explorank.retrieval import Catalogue
from explorank.retrieval.features import copy_repository
from explorank.settings import Settings, load_settings
from explorank.stage import Stage, load

_MARK = ".explorank-demo"
_SLOTS = 10
_LIVE_REQUESTS = 60
_SHADOW_REQUESTS = 5
_MIN_RATED = 10  # items a user must have rated after the split to visit the simulation
_EXPLORATION_FEATURES = ["score", "similarity", "item_mean_value", "item_positive_rate", "item_events"]


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
        self._texts = _texts(data.items)

    def run(self) -> Path:
        """Run every stage and return the report's path."""
        result, data = self._result, self._data
        self._console.rule(f"Explorank on {data.name}")
        self._console.print(escape(result.data_note))
        with self._step("folder") as step:
            settings = self._prepare_folder()
            step.detail = f"{self._folder}: explorank.yaml and a Feast repository"
        with self._step("feast apply, materialize") as step:
            features = prepare_features(settings, data.interactions, data.items, data.users, until=data.split)
            step.detail = ", ".join(f"{view} {rows:,} rows" for view, rows in features.rows.items())
        with self._step("embed and index") as step, progress("embedding") as bar:
            _, catalogue = build_catalogue(settings, until=data.split, progress=bar)
            step.detail = f"{len(catalogue):,} items, {catalogue.encoder_name}, index {catalogue.index.kind}"
        with self._step("train the ranker") as step, progress("training") as bar:
            options = TrainOptions(queries=QueryOptions(positive_from=data.positive_from))
            ranker, trained = train_ranker(settings, data.past, options=options, progress=bar)
            step.detail = (
                f"{trained.queries:,} past requests, {trained.rows:,} point-in-time rows, "
                f"{len(trained.features)} features; stopped early on the {trained.validation_queries:,} latest"
            )
        queries = test_queries(data)
        access = feature_access(settings)
        with self._step("measure accuracy") as step:
            decay = settings.retrieval.decay
            result.accuracy = measure_accuracy(queries, access, catalogue, ranker, decay=decay, seed=0)
            result.test_users = len(queries)
            step.detail = f"{len(queries)} users"
        report.print_accuracy(result, self._console)
        with self._step("exploration loop (simulated)") as step, progress("policies and seeds") as bar:
            visitors = self._visitors(settings, queries, catalogue, ranker)
            result.visitors = len(visitors)
            result.runs = simulate(visitors, seeds=self._seeds, progress=bar)
            step.detail = f"{len(result.runs)} runs of {len(result.runs[0].coverage):,} visits"
        report.print_simulation(result, self._console)
        with self._step("rank for real users, in shadow mode") as step:
            result.shadow_note = self._shadow(queries)
            step.detail = result.shadow_note
        with self._step("go live, take feedback, learn") as step:
            result.feedback_note = self._live(queries)
            step.detail = result.feedback_note
        report.print_decision(result, self._console)
        return self._finish()

    @contextmanager
    def _step(self, name: str) -> Iterator[_OpenStep]:
        step, began = _OpenStep(), time.perf_counter()
        yield step
        seconds = time.perf_counter() - began
        self._result.steps.append(Step(name, step.detail, seconds))
        self._console.print(
            f"[green]✓[/green] [bold]{escape(name)}[/bold] ({seconds:.1f} s) {escape(step.detail)}",
            highlight=False,
        )

    def _prepare_folder(self) -> Settings:
        folder = self._folder
        if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
            raise DataError(
                f"{folder} holds other files, which the demo would overwrite. Name another --folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).touch()
        for name in ("feature_repo", ".explorank/artefacts", ".explorank/log"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for stale in (folder / ".explorank").glob("state.db*"):
            stale.unlink()
        copy_repository(folder / "feature_repo")
        return self._write_settings("shadow")

    def _write_settings(self, mode: str) -> Settings:
        """Write the settings with the exploration mode; all else stays."""
        content = {
            "version": 1,
            "project": "demo",
            "features": {
                "repository": "feature_repo",
                "as_of": self._data.split.isoformat(),
                "positive_from": self._data.positive_from,
            },
            "exploration": {
                "mode": mode,
                "policy": {"use": "linear_thompson", "floor": 0.02},
                "features": _EXPLORATION_FEATURES,
                "slots": [2, 5, 8],
                "holdout": 0.0,
            },
            "guards": [{"use": "block_list"}, {"use": "already_seen"}],
            "feedback": {"rewards": {"click": 1.0}},
        }
        header = (
            "# Written by `explorank demo`. `as_of` lets the clock stand at the end of the past, so that features of\n"
            "# historic data do not expire; leave it out with data of today.\n"
        )
        self._config.write_text(header + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return load_settings(self._config)

    def _visitors(
        self, settings: Settings, queries: pd.DataFrame, catalogue: Catalogue, ranker: LightGBMRanker
    ) -> list[Visitor]:
        """Return the users of the simulation with their rated items, as the ranker saw them when asked."""
        rated = []
        by_user = dict(tuple(self._data.interactions.groupby("user_id")))
        for position, (user_id, asked) in enumerate(
            zip(queries["user_id"], queries["event_timestamp"], strict=True)
        ):
            events = by_user[user_id]
            later = events[events["timestamp"] >= asked].drop_duplicates("item_id")
            later = later[catalogue.item_known(later["item_id"].tolist())]
            if len(later) >= _MIN_RATED:
                rated.append(later.assign(query=position, event_timestamp=asked))
        if not rated:
            raise DataError(
                f"No user rated {_MIN_RATED} items after the split; the exploration loop needs some."
            )
        rows = pd.concat(rated, ignore_index=True)
        vectors = interest_vectors(queries, catalogue, settings.retrieval.decay)
        names, matrix = feature_matrix(feature_access(settings), catalogue, rows, vectors)
        scores = ranker.score(matrix)
        explored = ExplorationFeatures(settings.exploration.features)
        manifest = ranker.manifest
        scale = dict(
            zip(
                names, zip(manifest.feature_mean or (), manifest.feature_std or (), strict=True), strict=False
            )
        )
        visitors = []
        for _, group in rows.groupby("query", sort=True):
            at = group.index.to_numpy()
            seen = explored.matrix(Features(names, matrix[at]), scores[at], scale)
            assert seen is not None  # noqa: S101 - columns are configured
            visitors.append(
                Visitor(
                    item_ids=group["item_id"].to_numpy(dtype=np.str_),
                    scores=scores[at],
                    features=seen,
                    rewards=(group["value"].to_numpy() >= self._data.positive_from).astype(np.float64),
                )
            )
        return visitors

    def _shadow(self, queries: pd.DataFrame) -> str:
        """Rank for a few users; exploration is computed and logged, the baseline is shown."""
        with load(self._config) as stage:
            users = queries["user_id"].iloc[:_SHADOW_REQUESTS]
            records = [stage.decision(stage.rank(user_id=user, slots=_SLOTS).decision_id) for user in users]
        would = sum(
            int((record.shadow.order != record.slate.order).sum())
            for record in records
            if record.shadow is not None
        )
        return (
            f"{len(records)} users got the baseline; exploration would have shown other items in {would} of "
            f"{len(records) * _SLOTS} slots."
        )

    def _live(self, queries: pd.DataFrame) -> str:
        """Explore for real users; where they really rated a shown item later, that is the reward."""
        self._write_settings("live")
        later = self._data.future.set_index(["user_id", "item_id"])["value"].groupby(level=[0, 1]).last()
        rewards = 0
        with load(self._config) as stage:
            for user in queries["user_id"].iloc[:_LIVE_REQUESTS]:
                decision = stage.rank(user_id=user, slots=_SLOTS)
                stage.shown(decision.decision_id, decision.items)
                for item in decision.items:
                    rating = later.get((user, item))
                    if rating is not None:
                        liked = float(rating >= self._data.positive_from)
                        rewards += stage.reward(decision.decision_id, item_id=item, value=liked)
            before = stage.status()["policy_version"]
            learnt = stage.installation.learner.step(stage.installation.clock())
            after = stage.status()["policy_version"]
            user = str(queries["user_id"].iloc[0])
            self._result.decision = self._explain(stage, user, tuple(queries["liked"].iloc[0]))
        return (
            f"{min(_LIVE_REQUESTS, len(queries))} users ranked live; {rewards} shown items have a real rating, which "
            f"came back as a reward. The policy is at version {max(before, after)}"
            + (f" ({learnt} rewards in its last step)." if learnt else ".")
        )

    def _explain(self, stage: Stage, user: str, liked: tuple[str, ...]) -> ShownDecision:
        record = stage.decision(stage.rank(user_id=user, slots=_SLOTS).decision_id)
        return ShownDecision(
            decision_id=record.decision_id,
            user_id=user,
            policy=record.slate.policy,
            policy_version=record.slate.policy_version,
            mode=record.mode,
            candidates=len(record.item_ids),
            liked_before=tuple(self._texts.get(item, item) for item in liked[-5:]),
            items=tuple(self._shown_item(record, slot) for slot in range(len(record.slate))),
            versions={name: version for name, version in record.versions.items() if version},
        )

    def _shown_item(self, record: DecisionRecord, slot: int) -> ShownItem:
        row = int(record.slate.order[slot])
        item = str(record.item_ids[row])
        ranks = np.argsort(np.argsort(-record.scores, kind="stable"), kind="stable")
        kept = np.flatnonzero(record.feature_rows == row)
        values = record.features[kept[0]].tolist() if len(kept) else []
        return ShownItem(
            slot=slot,
            item_id=item,
            text=self._texts.get(item, item),
            score=float(record.scores[row]),
            propensity=float(record.slate.propensities[slot]),
            method=record.slate.method[slot],
            sources=record.sources[slot],
            baseline_rank=int(ranks[row]),
            features=dict(zip(record.feature_names, values, strict=False)),
        )

    def _finish(self) -> Path:
        result, path = self._result, self._folder / "report.html"
        decision = result.decision
        user = "1" if decision is None else decision.user_id
        result.commands = [
            f"explorank serve --config {self._config}",
            f'curl -s --json \'{{"user_id": "{user}", "slots": 5}}\' localhost:8080/v1/rank',
            'curl -s --json \'{"decision_id": "DECISION_ID", "slot": 0, "kind": "click"}\' localhost:8080/v1/rewards',
        ]
        report.write_html(result, path)
        total = sum(step.seconds for step in result.steps)
        self._console.print(
            f"[bold]Report:[/bold] {escape(str(path))} (all stages: {total:.0f} s)", highlight=False
        )
        self._console.print("Serve it and ask it:")
        for command in result.commands:
            self._console.print(f"  {escape(command)}", highlight=False, soft_wrap=True)
        return path


@dataclass(slots=True)
class _OpenStep:
    detail: str = ""


def _texts(items: pd.DataFrame) -> dict[str, str]:
    column = "title" if "title" in items else "text"
    return dict(zip(items["item_id"].astype(str), items[column].fillna("").astype(str), strict=True))
