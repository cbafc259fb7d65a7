"""Sends what a training measures to where people watch it: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, Protocol, TypeAlias

from explorank.errors import DataError
from explorank.rankers import report_metrics

_log = logging.getLogger(__name__)

TrackerName: TypeAlias = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training, as trackers name it."""

    project: str
    name: str
    """The ranker and when it was begun."""
    folder: Path
    """Where files of this run may be written."""
    options: Mapping[str, Any]
    """What it is trained with, JSON-ready."""


class Tracker(Protocol):
    """Takes what one training measures."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take numbers of one step."""

    def close(self, *, failed: bool) -> None:
        """End the run; nothing is told after that."""


class Monitor:
    """A progress that passes on what is measured: to the progress of the caller, and to all trackers."""

    def __init__(self, progress: Callable[[int, int], None] | None, trackers: Sequence[Tracker]) -> None:
        self._steps = 0
        self._progress = progress
        self._trackers = trackers

    def __call__(self, done: int, total: int) -> None:
        """Say how many steps are done and how many there are at most."""
        if self._progress is not None:
            self._progress(done, total)

    def measured(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take numbers of one step."""
        self._steps = max(self._steps, step)
        report_metrics(self._progress, step, metrics)
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def end(self, metrics: Mapping[str, float]) -> None:
        """Tell the trackers how well the finished ranker does, at the last step."""
        for tracker in self._trackers:
            tracker.log(self._steps, {f"final/{name}": value for name, value in metrics.items()})


class TensorBoard:
    """Writes event files, which `tensorboard --logdir` shows; needs `tensorboard`, not torch."""

    def __init__(self, run: Run) -> None:
        _imported("tensorboard")
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415 - an extra

        self._writer = EventFileWriter(str(run.folder))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar for each metric."""
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 - an extra
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 - an extra

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self, *, failed: bool) -> None:  # noqa: ARG002 - event files know no verdict
        """Flush the file."""
        self._writer.close()


class MLflow:
    """A run of MLflow, on whatever `MLFLOW_TRACKING_URI` names; needs the extra `mlflow`."""

    def __init__(self, run: Run) -> None:
        self._mlflow = _imported("mlflow")
        self._mlflow.set_experiment(run.project)
        self._mlflow.start_run(run_name=run.name)
        self._mlflow.log_params({name: str(value) for name, value in run.options.items()})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics under their names, `@` as `_at_`, which MLflow takes."""
        self._mlflow.log_metrics(
            {name.replace("@", "_at_"): value for name, value in metrics.items()}, step=step
        )

    def close(self, *, failed: bool) -> None:
        """End the run as finished or failed."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WeightsAndBiases:
    """A run of Weights & Biases; needs the extra `wandb`."""

    def __init__(self, run: Run) -> None:
        wandb = _imported("wandb")
        run.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=run.project, name=run.name, dir=str(run.folder), config=dict(run.options)
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics."""
        self._run.log(dict(metrics), step=step)

    def close(self, *, failed: bool) -> None:
        """End the run with an exit code of 1 where it failed."""
        self._run.finish(exit_code=int(failed))


_TRACKERS: Final[Mapping[TrackerName, Callable[[Run], Tracker]]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


_REQUIREMENTS: Final[Mapping[TrackerName, str]] = {
    "tensorboard": "explorank[train]",
    "mlflow": "explorank[mlflow]",
    "wandb": "explorank[wandb]",
}


_SET_UP: Final[Mapping[TrackerName, str]] = {
    "tensorboard": "See that --log-dir may be written",
    "mlflow": "Set MLFLOW_TRACKING_URI to a server or a database that answers",
    "wandb": "Run `wandb login`, or set WANDB_MODE=offline",
}


def default_trackers() -> tuple[TrackerName, ...]:
    """Return what is tracked with where nothing else is asked for: TensorBoard, where it is installed."""
    return ("tensorboard",) if importlib.util.find_spec("tensorboard") is not None else ()


def tracker_names(given: Collection[str]) -> tuple[TrackerName, ...]:
    """Return those of `given` that name a tracker; `none` names none."""
    return tuple(name for name in _TRACKERS if name in given)


def require_installed(names: Collection[TrackerName]) -> None:
    """Raise `DataError` for a tracker whose package is not installed."""
    for name in names:
        _imported(name)


@contextmanager
def tracking(names: Sequence[TrackerName], run: Run) -> Iterator[list[Tracker]]:
    """Yield the trackers of a run, which end with the block.

    Raises `DataError` for one that is not installed or cannot begin. One that fails later is warned of and told nothing
    more: hours of training are worth more than their curve.
    """
    trackers: list[Tracker] = []
    with ExitStack() as ends:
        for name in dict.fromkeys(names):
            tracker = _Forgiven(name, _begun(name, run))
            trackers.append(tracker)
            ends.push(_ending(tracker))
        yield trackers


def _begun(name: TrackerName, run: Run) -> Tracker:
    try:
        return _TRACKERS[name](run)
    except DataError:
        raise
    except Exception as error:  # whatever a client of somebody's server raises
        reason = str(error).rstrip(".")
        raise DataError(
            f"The tracker {name!r} could not begin a run: {reason}. Nothing was trained. {_SET_UP[name]}, or leave it "
            "out of --tracker."
        ) from error


class _Forgiven:
    """A tracker whose failures are warned of once, and end no training."""

    def __init__(self, name: TrackerName, tracker: Tracker) -> None:
        self._name = name
        self._tracker = tracker
        self._failed = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass numbers of one step on, unless an earlier step failed."""
        if not self._failed:
            self._try(lambda: self._tracker.log(step, metrics))

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._try(lambda: self._tracker.close(failed=failed))

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:  # as in `_begun`
            if not self._failed:
                _log.warning(
                    "The tracker %r failed and misses what follows; training goes on: %s", self._name, error
                )
            self._failed = True


def _ending(tracker: Tracker) -> Callable[[type[BaseException] | None, Any, Any], None]:
    """Return what tells a tracker how the block ended."""
    return lambda kind, _error, _trace: tracker.close(failed=kind is not None)


def _imported(name: TrackerName) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"The tracker {name!r} needs the package of that name, which is not installed ({error}); nothing was "
            f"trained. Run `pip install '{_REQUIREMENTS[name]}'`, or leave it out of --tracker."
        ) from error
