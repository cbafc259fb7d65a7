"""The loss and its cached gradients, against the library's and against plain backpropagation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from explorank.retrieval.encoding import Behaviour
from explorank.retrieval.encoding.batches import Batch, Batches
from explorank.retrieval.encoding.gradient_cache import cached_backward
from explorank.retrieval.encoding.losses import contrastive_loss

TEXTS = {f"i{number}": f"{number}" for number in range(40)}


def distinct_pairs() -> Behaviour:
    """20 users, each with two items of their own, so that no negative is masked but what the pair itself holds."""
    return Behaviour.from_histories([[f"i{2 * user}", f"i{2 * user + 1}"] for user in range(20)], TEXTS)


def test_it_is_the_librarys_where_no_item_occurs_twice() -> None:
    try:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    except ImportError:  # before 6
        from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.util import cos_sim

    vectors = torch.randn(40, 8, requires_grad=True, generator=torch.Generator().manual_seed(1))
    batch = Batches(distinct_pairs(), 20, seed=0)[0]
    ours = contrastive_loss(vectors, batch, scale=20.0, decay=0.9)
    (gradient,) = torch.autograd.grad(ours, vectors)

    theirs = MultipleNegativesRankingLoss(nn.Identity(), scale=20.0, similarity_fct=cos_sim)
    anchors = vectors[torch.from_numpy(batch.histories[:, -1])]
    candidates = vectors[torch.from_numpy(batch.columns[batch.positives])]
    reference = theirs.compute_loss_from_embeddings([anchors, candidates], None)
    (expected,) = torch.autograd.grad(reference, vectors)
    assert float(ours.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def one_pair(*, masked: bool = False) -> Batch:
    """A history of item 0, item 1 liked, item 2 beside it."""
    return Batch(
        items=np.array([0, 1, 2]),
        histories=np.array([[0]]),
        positives=np.array([0]),
        columns=np.array([1, 2]),
        masked=np.array([[False, masked]]),
        log_share=np.log(np.array([0.75, 0.25], np.float32)),
    )


def test_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]])
    loss = contrastive_loss(vectors, one_pair(), scale=1.0, decay=1.0)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(0.0 - 0.6)))
    # What is popular has to be nearer for the same loss.
    corrected = contrastive_loss(vectors, one_pair(), scale=1.0, decay=1.0, popularity_correction=True)
    assert float(corrected) == pytest.approx(math.log(1 + math.exp(-0.6) * 0.75 / 0.25))
    assert float(contrastive_loss(vectors, one_pair(masked=True), scale=1.0, decay=1.0)) == 0.0
    # One dimension of item 2 is zero: its cosine is 0, the others' is 1.
    first = contrastive_loss(vectors, one_pair(), scale=1.0, decay=1.0, dims=(1,))
    assert float(first) == pytest.approx(math.log(1 + math.exp(-1.0)))
    both = contrastive_loss(vectors, one_pair(), scale=1.0, decay=1.0, dims=(1, 2))
    assert float(both) == pytest.approx((float(first) + float(loss)) / 2)


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_cached_gradients_are_those_of_one_large_batch(at_once: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(40, 6)
    layer = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    batch = Batches(distinct_pairs(), 20, seed=0)[0]

    def loss_of(vectors: torch.Tensor) -> torch.Tensor:
        return contrastive_loss(vectors, batch, scale=20.0, decay=0.9)

    whole = loss_of(layer(inputs))
    expected = torch.autograd.grad(whole, list(layer.parameters()))
    loss = cached_backward(
        lambda part: layer(inputs[part.start : part.stop]), 40, loss_of, at_once=at_once, seed=3
    )
    assert loss == pytest.approx(float(whole.detach()), rel=1e-6)
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_both_passes_drop_the_same_out() -> None:
    layer = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))
    seen: list[torch.Tensor] = []

    def embed(part: range) -> torch.Tensor:
        seen.append(layer(torch.ones(len(part), 6)))
        return seen[-1]

    cached_backward(embed, 4, lambda vectors: vectors.square().sum(), at_once=2, seed=9)
    torch.testing.assert_close(seen[0], seen[2])
    torch.testing.assert_close(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
