"""The losses that move items nearer to the histories they continue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from explorank.retrieval.encoding.batches import Batch
from explorank.retrieval.encoding.behaviour import NO_ITEM, history_weights
from explorank.retrieval.encoding.distillation import LessonBatch


def contrastive_loss(
    vectors: Tensor,
    batch: Batch,
    *,
    scale: float,
    decay: float,
    dims: Sequence[int] = (),
    popularity_correction: bool = False,
) -> Tensor:
    r"""Return the multiple-negatives ranking loss of a batch, a mean over its pairs (Henderson et al., 2017).

    `vectors` (u, d) are the batch's items. A pair's history is one vector, as in serving: the sum of its items' unit
    vectors with weights that decay. Its loss is the cross-entropy of the liked item's cosine, times `scale`, among
    those of the other columns that are no positives of the same user. `dims` adds up the losses of the vectors'
    first dimensions, each made unit vectors of their own (Matryoshka, Kusupati et al., 2022); none means all d.

    With `popularity_correction`, \(\log p_j\) of each item's share of the pairs is taken off its logit. Items come
    into a batch as often as they are liked, so that without it popular items are pushed away as often as they are
    drawn near, and the vectors learn what belongs together and nothing of popularity (Yi et al., 2019).
    """
    device = vectors.device
    weights = torch.from_numpy(history_weights(batch.histories, decay)).to(device)
    places = torch.from_numpy(batch.histories).clamp(min=0).to(device)
    columns = torch.from_numpy(batch.columns).to(device)
    masked = torch.from_numpy(batch.masked).to(device)
    positives = torch.from_numpy(batch.positives).to(device)
    shift = torch.from_numpy(batch.log_share).to(device) if popularity_correction else 0.0
    total = vectors.new_zeros(())
    sizes = dims or (vectors.shape[1],)
    for size in sizes:
        units = normalize(vectors[:, :size], dim=1)
        interests = normalize(torch.einsum("bh,bhd->bd", weights, units[places]), dim=1)
        logits = scale * interests @ units[columns].T - shift
        total = total + cross_entropy(logits.masked_fill(masked, -torch.inf), positives)
    return total / len(sizes)


def margin_loss(vectors: Tensor, batch: LessonBatch, *, scale: float, decay: float) -> Tensor:
    r"""Return the mean squared error of a student's margins by a teacher's (MarginMSE, Hofstätter et al., 2020).

    `vectors` (u, d) are the batch's items. A margin is \(s(h, i^+) - s(h, i)\), of the liked item and another one
    after the same history: of the teacher in log-odds, of the student in cosines times `scale`, histories as in
    `contrastive_loss`. Margins leave the teacher its own offset. Those of its negatives, drawn evenly, are in the
    unit that the student has with `popularity_correction`: the logarithm of how likely an item is to be liked.
    """
    device = vectors.device
    weights = torch.from_numpy(history_weights(batch.histories, decay)).to(device)
    histories = torch.from_numpy(batch.histories).clamp(min=0).to(device)
    candidates = torch.from_numpy(batch.candidates).to(device)
    taught = torch.from_numpy(batch.log_odds).to(device)
    units = normalize(vectors, dim=1)
    interests = normalize(torch.einsum("bh,bhd->bd", weights, units[histories]), dim=1)
    found = scale * torch.einsum("bd,bcd->bc", interests, units[candidates.clamp(min=0)])
    there = (candidates[:, 1:] != NO_ITEM).to(vectors.dtype)
    errors = (found[:, :1] - found[:, 1:]) - (taught[:, :1] - taught[:, 1:])
    return (errors.square() * there).sum() / there.sum().clamp(min=1.0)
