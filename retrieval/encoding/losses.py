"""The losses that move items nearer to the histories they continue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from explorank.retrieval.encoding.batches import Batch
from explorank.retrieval.encoding.behaviour import history_weights


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
