"""From data to a trained artefact: what all neural rankers do alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from explorank.rankers._checkpoint import run_identity
from explorank.rankers.data import RankingData
from explorank.rankers.manifest import RankerManifest, column_scales, feature_hash
from explorank.rankers.neural.artefact import Artefact, pack_vocabulary
from explorank.rankers.neural.batches import Frame
from explorank.rankers.neural.checkpoint import NetworkCheckpoint
from explorank.rankers.neural.devices import seeded
from explorank.rankers.neural.export import Feed, Precision, choose_precision, to_onnx
from explorank.rankers.neural.layers import Standardise
from explorank.rankers.neural.networks import RankingNetwork, Sizes, build_network
from explorank.rankers.neural.plan import Plan, Readings
from explorank.rankers.neural.start import Start
from explorank.rankers.neural.tasks import Tasks, outcome_of
from explorank.rankers.neural.training import Trained, Training
from explorank.rankers.neural.transfer import standardise_after, take_over
from explorank.rankers.ranker import Progress


def fit_network(
    plan: Plan,
    read: Callable[[RankingData], Readings],
    data: RankingData,
    valid: RankingData | None,
    *,
    seed: int,
    progress: Progress | None,
    checkpoint: Path | None,
    start: Start | None = None,
) -> Artefact:
    """Return a network trained on `data`, in float32; with `start` it begins as another domain's."""
    training = new_training(plan, read, data, valid, seed=seed, checkpoint=checkpoint, start=start)
    return _artefact(plan, training, training.run(progress), data, start)


def new_training(
    plan: Plan,
    read: Callable[[RankingData], Readings],
    data: RankingData,
    valid: RankingData | None,
    *,
    seed: int,
    checkpoint: Path | None,
    start: Start | None = None,
) -> Training:
    """Return a run that has not begun."""
    tasks = Tasks.of(data, plan.options.objective, plan.options.tasks)
    readings = read(data)
    network = new_network(plan, readings, tasks, seed, start)
    saves = None
    if checkpoint is not None:
        former = None if start is None else start.version
        run = run_identity(data, valid, plan.options, seed, former, torch.__version__)
        saves = NetworkCheckpoint(checkpoint, run)
    return Training(
        network,
        tasks,
        frame_of(network, readings, data, tasks),
        options=plan.options.training,
        weighting=plan.options.tasks.weighting,
        trunk_rate=1.0 if start is None else plan.options.transfer.trunk_rate,
        seed=seed,
        valid=None if valid is None else (frame_of(network, read(valid), valid, tasks), valid),
        checkpoint=saves,
    )


def in_best_precision(
    artefact: Artefact, feeds: Sequence[Feed], accuracy: Callable[[Artefact], float] | None, tolerance: float
) -> Artefact:
    """Return the artefact with an int8 graph where that keeps its accuracy, and with the reason either way."""

    def of(model: bytes) -> Artefact:
        return replace(artefact, model=model)

    model, precision = choose_precision(
        artefact.model, feeds, None if accuracy is None else lambda model: accuracy(of(model)), tolerance
    )
    details = {**artefact.manifest.details, "precision": asdict(precision)}
    return replace(of(model), manifest=replace(artefact.manifest, details=details)).sealed()


def new_network(
    plan: Plan, readings: Readings, tasks: Tasks, seed: int, start: Start | None = None
) -> RankingNetwork:
    """Return an untrained network whose first weights follow from the seed and from what it starts as."""
    standardise = (
        Standardise.of(readings.numbers) if start is None else standardise_after(start, readings.numbers)
    )
    sizes = Sizes(
        numbers=standardise.columns,
        flagged=len(standardise.flagged),
        categorical=len(plan.layout.categorical),
        table_rows=plan.layout.table_rows,
        tasks=len(tasks.heads),
        items=len(plan.vocabulary),
        content=plan.content,
    )
    with seeded(seed):
        network: RankingNetwork = build_network(plan.options, sizes)
    network.standardise = standardise
    network.unknown_rows.copy_(torch.from_numpy(plan.layout.unknown_rows))
    if start is not None:
        take_over(network, plan, tasks, start)
    return network


def frame_of(network: RankingNetwork, readings: Readings, data: RankingData, tasks: Tasks) -> Frame:
    """Return some data as tensors, numbers standardised once for all epochs."""
    sizes = np.ones(len(data), np.int64) if data.groups is None else data.groups
    outcomes = [outcome_of(data, head.name) for head in tasks.heads[1:]]
    with torch.no_grad():
        numbers = network.standardise(torch.from_numpy(readings.numbers))
    return Frame(
        numbers=numbers,
        places=torch.from_numpy(readings.places),
        labels=_floats(data.labels),
        # So that a learning rate means the same whatever the weights' unit is.
        weights=None if data.weights is None else _floats(data.weights / data.weights.mean()),
        outcomes=_floats(np.stack(outcomes, axis=1) if outcomes else np.empty((len(data), 0))),
        teacher=_teacher(data, tasks),
        items=None if readings.items is None else torch.from_numpy(readings.items),
        histories=None if readings.histories is None else torch.from_numpy(readings.histories),
        starts=torch.from_numpy(np.cumsum(sizes) - sizes),
        sizes=torch.from_numpy(sizes),
    )


def _artefact(
    plan: Plan, training: Training, trained: Trained, data: RankingData, start: Start | None
) -> Artefact:
    network = training.network
    mean, std = column_scales(data.features)
    ids = len(plan.feature_names) - len(mean)
    weights = save({name: value.contiguous() for name, value in network.state_dict().items()})
    precision = Precision(kind="float32", reason="int8 was not asked for")
    metrics = {
        "rows": float(len(data)), "epochs": float(trained.epochs), "best_epoch": float(trained.best_epoch),
        "weights": float(sum(parameter.numel() for parameter in network.parameters())), **trained.metrics,
    }  # fmt: skip
    if (said := _teacher(data, training.tasks)) is not None:
        metrics["taught_rows"] = float((~torch.isnan(said)).any(dim=1).sum())
    manifest = RankerManifest(
        name=plan.kind,
        version="",
        objective=plan.options.objective,
        feature_names=plan.feature_names,
        feature_hash=feature_hash(plan.feature_names, plan.categorical),
        model_sha256="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        categorical=plan.categorical,
        # A code has no mean; 0 and 1 leave it as it is.
        feature_mean=mean + (0.0,) * ids,
        feature_std=std + (1.0,) * ids,
        training_window=data.window,
        metrics=metrics,
        details={
            "options": asdict(plan.options),
            "sizes": asdict(network.sizes),
            "tasks": training.tasks.to_json(),
            "id_columns": list(plan.id_columns),
            "precision": asdict(precision),
            **({} if start is None else {"lineage": list(start.lineage)}),
        },
    )
    artefact = Artefact(
        manifest=manifest,
        model=to_onnx(network),
        vocabulary=pack_vocabulary(plan.layout, plan.vocabulary),
        weights=weights,
    )
    return artefact.sealed()


def _teacher(data: RankingData, tasks: Tasks) -> Tensor | None:
    """Return how probable the data's teacher finds what each head foresees, (n, t); None where it has none."""
    said = [data.teacher.get(head.name) for head in tasks.heads]
    if all(column is None for column in said):
        return None
    silent = np.full(len(data), np.nan)
    return _floats(np.stack([silent if column is None else column for column in said], axis=1))


def _floats(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
