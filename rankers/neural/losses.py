"""What each task's outputs lose, and how the losses of several tasks add up."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from explorank.rankers.neural.batches import Batch
from explorank.rankers.neural.options import TaskWeighting
from explorank.rankers.neural.tasks import Task, Tasks

_MASKED = -1e9
_CERTAIN = -1e-6
"""log P at most, so that the other outcome keeps a probability above 0 in float32."""


class TaskLosses(nn.Module):
    """The loss of a batch over all tasks.

    By uncertainty (Kendall et al. 2018, eq. 10, with s = log σ²): Σ e^{-s} L + s / 2 for a likelihood over classes and
    Σ e^{-s} L / 2 + s / 2 for least squares; each s is learnt. Otherwise the mean.
    """

    def __init__(self, tasks: Tasks, weighting: TaskWeighting) -> None:
        super().__init__()
        self.tasks = tasks
        self.log_variances = (
            nn.Parameter(torch.zeros(len(tasks.heads))) if weighting == "uncertainty" else None
        )

    def forward(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar, for outputs (n, t)."""
        losses = torch.stack(self.each(outputs, batch))
        if self.log_variances is None:
            return losses.mean()
        halves = torch.tensor([0.5 if head.kind == "regression" else 1.0 for head in self.tasks.heads])
        precision = torch.exp(-self.log_variances) * halves.to(losses.device)
        return (precision * losses + 0.5 * self.log_variances).sum()

    def each(self, outputs: Tensor, batch: Batch) -> list[Tensor]:
        """Return the loss of each task; 0 for an outcome that no row of the batch knows."""
        label = outputs[:, 0]
        kind = self.tasks.heads[0].kind
        if kind == "binary":
            losses = [_mean(_cross_entropy(label, batch.labels), batch.weights)]
        else:
            losses = [listwise(label, batch) if kind == "listwise" else pairwise(label, batch)]
        for place, head in enumerate(self.tasks.heads[1:], start=1):
            losses.append(_outcome_loss(head, outputs[:, place], batch.outcomes[:, place - 1], label, batch))
        return losses


def listwise(scores: Tensor, batch: Batch) -> Tensor:
    """Return the softmax cross-entropy within requests (ListNet's top-one; Cao et al. 2007), gains normalised.

    A row's weight multiplies its gain; requests without a gain count nothing.
    """
    gains = batch.labels if batch.weights is None else batch.labels * batch.weights
    gains = batch.padded(gains)
    masked = batch.padded(scores) + (1.0 - batch.present()) * _MASKED
    log_shares = torch.log_softmax(masked, dim=1)
    total = gains.sum(dim=1)
    losses = -(gains * log_shares).sum(dim=1) / total.clamp(min=1e-12)
    weights = (total > 0).to(scores.dtype)
    if batch.weights is not None:
        weights = weights * total / batch.padded(batch.labels).sum(dim=1).clamp(min=1e-12)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)


def pairwise(scores: Tensor, batch: Batch) -> Tensor:
    """Return the mean of log(1 + exp(s_j - s_i)) over pairs of a request with label i above label j (BPR; Rendle 2009).

    A pair counts by the weight of its better row.
    """
    labels, present = batch.padded(batch.labels), batch.present()
    padded = batch.padded(scores)
    better = (labels.unsqueeze(2) > labels.unsqueeze(1)) & (present.unsqueeze(2) * present.unsqueeze(1) > 0)
    counts = better.to(scores.dtype)
    if batch.weights is not None:
        counts = counts * batch.padded(batch.weights).unsqueeze(2)
    losses = functional.softplus(padded.unsqueeze(1) - padded.unsqueeze(2))
    return (losses * counts).sum() / counts.sum().clamp(min=1e-12)


def _outcome_loss(head: Task, output: Tensor, values: Tensor, label: Tensor, batch: Batch) -> Tensor:
    if head.entire_space:
        # Nothing follows on a label of 0, whether or not the log says so.
        values = torch.where(batch.labels == 0, torch.zeros_like(values), values)
    known = ~torch.isnan(values)
    targets = torch.where(known, values, torch.zeros_like(values))
    if head.kind == "regression":
        losses = torch.square(output - (targets - head.center) / head.scale)
    elif head.entire_space:
        both = (functional.logsigmoid(label) + functional.logsigmoid(output)).clamp(max=_CERTAIN)
        losses = -(targets * both + (1 - targets) * torch.log(-torch.expm1(both)))
    else:
        losses = _cross_entropy(output, targets)
    weights = known.to(output.dtype)
    return _mean(losses, weights if batch.weights is None else weights * batch.weights)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    return losses.mean() if weights is None else (losses * weights).sum() / weights.sum().clamp(min=1e-12)
