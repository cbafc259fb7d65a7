"""The training loop: the same for every network, and the same result for the same data, options and seed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.batches import Batch, Frame
from explorank.rankers.neural.checkpoint import NetworkCheckpoint, Progressed
from explorank.rankers.neural.devices import (
    device_named,
    generator_states,
    reproducible,
    restore_generators,
    threads,
)
from explorank.rankers.neural.judging import Judge
from explorank.rankers.neural.losses import TaskLosses
from explorank.rankers.neural.networks import RankingNetwork
from explorank.rankers.neural.options import TrainingOptions
from explorank.rankers.neural.tasks import Tasks
from explorank.rankers.ranker import Progress, report_metrics

_EVALUATED_ROWS: Final = 8_192
_NOT_YET: Final = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How a run ended; the network holds the weights of its best epoch."""

    epochs: int
    """Epochs done."""
    best_epoch: int
    """The epoch whose weights are kept, from 1."""
    metrics: Mapping[str, float]
    """Of those weights, on the later slice."""


class Training:
    """One run over one frame; `network` is trained in place."""

    def __init__(
        self,
        network: RankingNetwork,
        tasks: Tasks,
        frame: Frame,
        *,
        options: TrainingOptions,
        weighting: Any,
        trunk_rate: float = 1.0,
        seed: int,
        valid: tuple[Frame, RankingData] | None = None,
        checkpoint: NetworkCheckpoint | None = None,
    ) -> None:
        device = device_named(options.device)
        self._device = device
        self.network = network.to(device)
        self.tasks = tasks
        self._losses = TaskLosses(tasks, weighting, options.distillation).to(device)
        self._frame = frame.to(device)
        self._valid = None if valid is None else (valid[0].to(device), Judge.of(tasks, valid[1]))
        self._options = options
        self._seed = seed
        self._checkpoint = checkpoint
        self._mixed = options.mixed_precision and device.type == "cuda"
        self._per_batch = frame.requests_per_batch(options.batch_rows)
        self._trained = [
            (name, parameter)
            for name, parameter in (*self.network.named_parameters(), *self._losses.named_parameters())
            if parameter.requires_grad
        ]
        self._trunk_rate = trunk_rate
        self._optimizer = torch.optim.AdamW(self._parameter_groups(), lr=options.learning_rate, fused=True)
        batches = math.ceil(len(frame.sizes) / self._per_batch)
        self._steps = options.epochs * math.ceil(batches / options.accumulate)

    def run(self, progress: Progress | None = None) -> Trained:
        """Train until the metric on the later slice no longer improves, or no epoch is left."""
        with reproducible(self._seed, self._device), threads(self._options.num_threads):
            return self._run(progress)

    def _run(self, progress: Progress | None) -> Trained:
        epoch, step, best, best_epoch, finished = 0, 0, _NOT_YET, 0, False
        best_weights: dict[str, Tensor] = {}
        saved = None if self._checkpoint is None else self._checkpoint.load()
        if saved is not None:
            best_weights = self._restore(saved.tensors)
            epoch, step, best_epoch, finished = saved.epoch, saved.step, saved.best_epoch, saved.finished
            best = _NOT_YET if saved.best is None else saved.best
        while not finished:
            step = self._epoch(epoch, step)
            epoch += 1
            goal, measured = self._judge()
            if math.isnan(goal) or goal > best:
                best, best_epoch = (_NOT_YET if math.isnan(goal) else goal), epoch
                best_weights = {
                    name: value.detach().clone() for name, value in self.network.state_dict().items()
                }
            finished = epoch == self._options.epochs or epoch - best_epoch >= self._options.patience
            if self._checkpoint is not None:
                self._checkpoint.save(
                    Progressed(
                        tensors=self._tensors(best_weights),
                        epoch=epoch,
                        step=step,
                        best=None if best == _NOT_YET else best,
                        best_epoch=best_epoch,
                        finished=finished,
                    )
                )
            if progress is not None:
                progress(epoch, self._options.epochs)
                report_metrics(progress, epoch, {f"valid/{name}": value for name, value in measured.items()})
        self.network.load_state_dict(best_weights)
        self.network.eval()
        metrics = self._judge()[1]
        self.network.cpu()
        return Trained(epochs=epoch, best_epoch=best_epoch, metrics=metrics)

    def _epoch(self, epoch: int, step: int) -> int:
        """Train on each request once, in an order that follows from seed and epoch; return the steps done."""
        self.network.train()
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._frame.sizes))
        batches = self._frame.batches(torch.from_numpy(order), self._per_batch)
        pending, total = 0, torch.zeros((), device=self._frame.labels.device)
        for batch in batches:
            total += self._backward(batch)
            pending += 1
            if pending == self._options.accumulate:
                step, pending = self._step(step), 0
        if pending:
            step = self._step(step)
        if not torch.isfinite(total):
            raise InvalidTraining(
                f"The loss of epoch {epoch + 1} is {total.item()}: training ran away, and its weights mean nothing. "
                f"Lower learning_rate={self._options.learning_rate}, or set clip_norm."
            )
        return step

    def _backward(self, batch: Batch) -> Tensor:
        loss = self._loss(batch)
        (loss / self._options.accumulate).backward()  # type: ignore[no-untyped-call]
        if self._options.adversarial:
            with _moved_against(self.network.embeddings(), self._options.adversarial):
                (self._loss(batch) / self._options.accumulate).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        mixed = torch.autocast("cuda", dtype=torch.bfloat16) if self._mixed else contextlib.nullcontext()
        with mixed:
            outputs = self.network.rows(batch)
        loss: Tensor = self._losses(outputs.float(), batch)
        return loss

    def _step(self, step: int) -> int:
        if self._options.clip_norm:
            nn.utils.clip_grad_norm_([parameter for _, parameter in self._trained], self._options.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = (
                group["share"] * self._options.learning_rate * rate(step, self._steps, self._options.warmup)
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return step + 1

    def _judge(self) -> tuple[float, dict[str, float]]:
        """Return the goal on the later slice, of which more is better, and the metrics; NaN where there is none."""
        if self._valid is None:
            return math.nan, {}
        frame, judge = self._valid
        return judge.figure(self.outputs(frame))

    def outputs(self, frame: Frame) -> NDArray[np.float32]:
        """Return the network's outputs (n, t) for all rows of a frame."""
        self.network.eval()
        order = torch.arange(len(frame.sizes))
        with torch.inference_mode():
            parts = [
                self.network.rows(batch).float().cpu()
                for batch in frame.batches(order, frame.requests_per_batch(_EVALUATED_ROWS))
            ]
        outputs: NDArray[np.float32] = torch.cat(parts).numpy()
        return outputs

    def _parameter_groups(self) -> list[dict[str, Any]]:
        trunk = self.network.trunk()
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self._trained:
            share = self._trunk_rate if name in trunk else 1.0
            decay = self._options.weight_decay if parameter.ndim > 1 and name != "positions" else 0.0
            groups.setdefault((decay, share), []).append(parameter)
        return [
            {"params": parameters, "weight_decay": decay, "share": share}
            for (decay, share), parameters in groups.items()
        ]

    def _tensors(self, best_weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"losses.{name}": value for name, value in self._losses.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best_weights.items()}
        for place, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": value for name, value in moments.items()}
        return {**tensors, **generator_states(self._device)}

    def _restore(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take up a saved state; return the best weights so far."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
            }

        self.network.load_state_dict(part("network."))
        self._losses.load_state_dict(part("losses."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            place, _, moment = name.partition(".")
            moments.setdefault(int(place), {})[moment] = value
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        restore_generators(tensors, self._device)
        return part("best.")


def rate(step: int, steps: int, warmup: float) -> float:
    """Return the share of the highest learning rate at a step, from 0: a linear rise, then a cosine down to 0."""
    rising = max(1, round(warmup * steps)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@contextlib.contextmanager
def _moved_against(embeddings: list[Tensor], length: float) -> Iterator[None]:
    """Within the block embeddings stand a step of `length` further where the loss rises fastest."""
    kept = [parameter.detach().clone() for parameter in embeddings]
    with torch.no_grad():
        for parameter in embeddings:
            if parameter.grad is not None:
                norm = parameter.grad.norm()
                parameter.add_(length * parameter.grad / norm.clamp(min=1e-12))
    yield
    with torch.no_grad():
        for parameter, former in zip(embeddings, kept, strict=True):
            parameter.copy_(former)
