"""What each task's outputs lose, and how the losses of several tasks add up."""

from __future__ import annotations

from collections.abc import Callable

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

    def __init__(self, tasks: Tasks, weighting: TaskWeighting, distillation: float = 0.0) -> None:
        """Take the tasks, how their losses add up, and the weight of a teacher's word in each."""
        super().__init__()
        self.tasks = tasks
        self.distillation = distillation
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
        """Return the loss of each task; 0 for an outcome that no row of the batch knows.

        What a teacher says of rows is foreseen by the same loss, which is added with its weight.
        """
        outcomes = batch.outcomes
        for place, head in enumerate(self.tasks.heads[1:]):
            if head.entire_space:
                # Nothing follows on a label of 0, whether or not the log says so.
                followed = outcomes[:, place].masked_fill(batch.labels == 0, 0.0)
                outcomes = torch.cat(
                    [outcomes[:, :place], followed[:, None], outcomes[:, place + 1 :]], dim=1
                )
        losses = self._of(outputs, batch.labels, outcomes, batch)
        if batch.teacher is None:
            return losses
        taught = self._of(outputs, batch.teacher[:, 0], batch.teacher[:, 1:], batch)
        return [own + self.distillation * told for own, told in zip(losses, taught, strict=True)]

    def _of(self, outputs: Tensor, labels: Tensor, outcomes: Tensor, batch: Batch) -> list[Tensor]:
        """Return the loss of each task by labels (n,) and outcomes (n, t - 1), of which NaN teaches nothing."""
        label = outputs[:, 0]
        kind = self.tasks.heads[0].kind
        if kind == "binary":
            losses = [_known_mean(_cross_entropy, label, labels, batch)]
        else:
            within = listwise if kind == "listwise" else pairwise
            losses = [within(label, labels, batch)]
        for place, head in enumerate(self.tasks.heads[1:], start=1):
            losses.append(_outcome_loss(head, outputs[:, place], outcomes[:, place - 1], label, batch))
        return losses


def listwise(scores: Tensor, labels: Tensor, batch: Batch) -> Tensor:
    """Return the softmax cross-entropy within requests (ListNet's top-one; Cao et al. 2007), gains normalised.

    A row's weight multiplies its gain; requests without a gain count nothing, nor do rows whose label is NaN.
    """
    known, labels = _known(labels)
    gains = labels if batch.weights is None else labels * batch.weights
    gains = batch.padded(gains)
    masked = batch.padded(scores) + (1.0 - batch.padded(known)) * _MASKED
    log_shares = torch.log_softmax(masked, dim=1)
    total = gains.sum(dim=1)
    losses = -(gains * log_shares).sum(dim=1) / total.clamp(min=1e-12)
    weights = (total > 0).to(scores.dtype)
    if batch.weights is not None:
        weights = weights * total / batch.padded(labels).sum(dim=1).clamp(min=1e-12)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)


def pairwise(scores: Tensor, labels: Tensor, batch: Batch) -> Tensor:
    """Return the mean of log(1 + exp(s_j - s_i)) over pairs of a request with label i above label j (BPR; Rendle 2009).

    A pair counts by the weight of its better row; rows whose label is NaN are in none.
    """
    known, labels = _known(labels)
    labels, present = batch.padded(labels), batch.padded(known)
    padded = batch.padded(scores)
    better = (labels.unsqueeze(2) > labels.unsqueeze(1)) & (present.unsqueeze(2) * present.unsqueeze(1) > 0)
    counts = better.to(scores.dtype)
    if batch.weights is not None:
        counts = counts * batch.padded(batch.weights).unsqueeze(2)
    losses = functional.softplus(padded.unsqueeze(1) - padded.unsqueeze(2))
    return (losses * counts).sum() / counts.sum().clamp(min=1e-12)


def _outcome_loss(head: Task, output: Tensor, values: Tensor, label: Tensor, batch: Batch) -> Tensor:
    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.square(outputs - (targets - head.center) / head.scale)

    def of_both(outputs: Tensor, targets: Tensor) -> Tensor:
        both = (functional.logsigmoid(label) + functional.logsigmoid(outputs)).clamp(max=_CERTAIN)
        return -(targets * both + (1 - targets) * torch.log(-torch.expm1(both)))

    losses = squared if head.kind == "regression" else of_both if head.entire_space else _cross_entropy
    return _known_mean(losses, output, values, batch)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def _known_mean(
    losses: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor, batch: Batch
) -> Tensor:
    """Return the weighted mean of `losses` (n,) over the rows whose target (n,) is known, 0 without any."""
    known, targets = _known(targets)
    weights = known if batch.weights is None else known * batch.weights
    return (losses(outputs, targets) * weights).sum() / weights.sum().clamp(min=1e-12)


def _known(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 for each target (n,) that is not NaN, and the targets with 0 in the place of those that are."""
    known = ~torch.isnan(targets)
    return known.to(targets.dtype), torch.where(known, targets, torch.zeros_like(targets))
