"""Layers and losses are the equations of their papers, worked out naively beside them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from explorank.rankers.neural.batches import Batch, Frame
from explorank.rankers.neural.layers import CrossNetwork, InterestTransformer, Standardise, TargetAttention
from explorank.rankers.neural.losses import TaskLosses, listwise, pairwise
from explorank.rankers.neural.tasks import Task, Tasks

nan = math.nan


@pytest.fixture(autouse=True)
def _same_draws() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_numbers_are_centred_scaled_flagged_and_kept_in_bounds() -> None:
    column = np.array([1.0, 3.0, nan, 1.0, 3.0], np.float32)
    layer = Standardise.of(np.stack([column, np.full(5, 7, np.float32), np.full(5, nan, np.float32)], axis=1))
    rows = torch.tensor([[1.0, 7.0, nan], [nan, 7.0, 5.0], [1e30, 0.0, math.inf]])
    # The first column's mean is 2 and its deviation 1; the others tell nothing, and only the first has a flag.
    assert layer(rows) == pytest.approx(torch.tensor([[-1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0.0]]), abs=1e-2)
    assert layer.column_of() == [0, 1, 2, 0]


def test_one_row_in_ten_thousand_does_not_set_the_scale() -> None:
    column = np.random.default_rng(0).standard_normal((10_000, 1)).astype(np.float32)
    column[0] = 1e9
    assert Standardise.of(column).scale.item() == pytest.approx(1.0, abs=0.05)


def test_cross_layers_are_the_equation() -> None:
    for rank in (0, 3):
        layer = CrossNetwork(5, layers=2, rank=rank)
        x0 = torch.randn(4, 5)
        x = x0
        for part in layer.layers:
            matrices = [one.weight for one in part] if rank else [part.weight]  # type: ignore[union-attr]
            weight = matrices[-1] @ matrices[0] if rank else matrices[0]
            bias = part[1].bias if rank else part.bias  # type: ignore[index]
            x = x0 * (x @ weight.T + bias) + x
        assert torch.allclose(layer(x0), x, atol=1e-6)


def test_attention_to_a_candidate_is_a_perceptron_of_both_and_their_product() -> None:
    layer = TargetAttention(4, units=3, length=5)
    history, targets, present = torch.randn(2, 5, 4), torch.randn(2, 6, 4), torch.ones(2, 5)
    present[1, :3] = 0
    found = layer(history, targets, present)
    weight = torch.cat([layer.of_history.weight, layer.of_target.weight, layer.of_product.weight], dim=1)
    for user in range(2):
        for row in range(6):
            expected = torch.zeros(4)
            for step in range(5):
                h, t = history[user, step], targets[user, row]
                unit = torch.relu(weight @ torch.cat([h, t, h * t]) + layer.of_history.bias)
                expected += present[user, step] * layer.weigh(unit) * h
            assert torch.allclose(found[user, row], expected / math.sqrt(5), atol=1e-5)


@pytest.mark.parametrize("ordered", [True, False])
def test_interest_reads_what_is_present_and_in_order_if_it_counts(ordered: bool) -> None:
    layer = InterestTransformer(8, length=6, layers=2, heads=2, dropout=0.0, ordered=ordered)
    history, present = torch.randn(3, 6, 8), torch.ones(3, 6)
    present[0], present[1, :4] = 0, 0
    found = layer(history, present)
    assert torch.equal(found[0], torch.zeros(8))
    elsewhere = torch.where(present[..., None] > 0, history, torch.randn(3, 6, 8))
    assert torch.allclose(layer(elsewhere, present), found, atol=1e-6)
    # As if there had been no padding at all.
    short = InterestTransformer(8, length=2, layers=2, heads=2, dropout=0.0, ordered=ordered)
    short.load_state_dict(layer.state_dict())
    assert torch.allclose(short(history[1:2, 4:], torch.ones(1, 2)), found[1:2], atol=1e-5)
    swapped = layer(history[2:, [1, 0, 2, 4, 3, 5]], present[2:])
    assert torch.allclose(swapped, found[2:], atol=1e-5) == (not ordered)


def test_the_newest_step_alone_comes_out_as_among_all() -> None:
    layer = InterestTransformer(8, length=6, layers=2, heads=2, dropout=0.0, ordered=True)
    history, present = torch.randn(3, 6, 8), torch.ones(3, 6)
    present[1, :4] = 0
    mask = torch.maximum((1 - present)[:, None] * -1e9 + layer.future, torch.tensor(-2e9))
    steps = history
    for block in layer.blocks:
        steps = block(steps, mask, False)
    assert torch.allclose(layer(history, present), layer.normal(steps)[:, -1], atol=1e-5)


def batch_of(sizes: list[int], **columns: Any) -> Batch:
    count = sum(sizes)
    starts = np.cumsum(sizes) - sizes
    labels = torch.tensor(columns.pop("labels"), dtype=torch.float32)
    frame = Frame(
        numbers=torch.zeros(count, 1),
        places=torch.zeros(count, 0, dtype=torch.int64),
        labels=labels,
        weights=columns.get("weights"),
        outcomes=columns.get("outcomes", torch.zeros(count, 0)),
        teacher=None,
        items=None,
        histories=None,
        starts=torch.from_numpy(starts),
        sizes=torch.tensor(sizes),
    )
    return frame.batch(torch.arange(len(sizes)))


@pytest.mark.parametrize("sizes", [[3, 3], [4, 2]])
def test_losses_within_requests_are_their_equations(sizes: list[int]) -> None:
    labels = [1.0, 0.0, 2.0, 0.0, 1.0, 0.0]
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    scores = torch.randn(6)
    batch = batch_of(sizes, labels=labels, weights=weights)
    lists, list_weights, pairs, pair_weights = 0.0, 0.0, 0.0, 0.0
    for start, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
        y, s = torch.tensor(labels[start : start + size]), scores[start : start + size]
        w = weights[start : start + size]
        gains = y * w
        share = float(gains.sum() / y.sum())
        lists += share * float(-(gains / gains.sum() * torch.log_softmax(s, 0)).sum())
        list_weights += share
        for i in range(size):
            for j in range(size):
                if y[i] > y[j]:
                    pairs += float(w[i] * -functional.logsigmoid(s[i] - s[j]))
                    pair_weights += float(w[i])
    assert listwise(scores, batch.labels, batch).item() == pytest.approx(lists / list_weights, rel=1e-5)
    assert pairwise(scores, batch.labels, batch).item() == pytest.approx(pairs / pair_weights, rel=1e-5)


def test_requests_without_a_gain_teach_nothing_and_are_no_error() -> None:
    scores = torch.randn(5, requires_grad=True)
    batch = batch_of([2, 3], labels=[0.0, 0.0, 0.0, 1.0, 0.0])
    (listwise(scores, batch.labels, batch) + pairwise(scores, batch.labels, batch)).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[:2].tolist() == [0.0, 0.0]
    assert (scores.grad[2:] != 0).all()
    nothing = batch_of([2], labels=[0.0, 0.0])
    assert listwise(scores[:2], nothing.labels, nothing).item() == 0.0
    assert pairwise(scores[:2], nothing.labels, nothing).item() == 0.0


def test_an_outcome_that_is_not_known_teaches_nothing() -> None:
    tasks = Tasks(
        (Task("label", "binary"), Task("buys", "binary"), Task("pays", "regression", 5.0, 2.0)), (1, 0, 0)
    )
    outcomes = torch.tensor([[1.0, nan], [nan, 9.0], [nan, nan]])
    batch = batch_of([1, 1, 1], labels=[1.0, 0.0, 1.0], outcomes=outcomes)
    outputs = torch.zeros(3, 3, requires_grad=True)
    losses = TaskLosses(tasks, "mean").each(outputs, batch)
    assert [loss.item() for loss in losses] == pytest.approx([math.log(2), math.log(2), 4.0])
    torch.stack(losses[1:]).sum().backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert (outputs.grad != 0).tolist() == [[False, True, False], [False, False, True], [False, False, False]]


def test_the_entire_space_learns_from_rows_without_the_label() -> None:
    tasks = Tasks((Task("label", "binary"), Task("buys", "binary", entire_space=True)), (1, 0))
    outcomes = torch.tensor([[nan], [1.0], [0.0], [nan]])
    batch = batch_of([1] * 4, labels=[0.0, 1.0, 1.0, 1.0], outcomes=outcomes)
    outputs = torch.randn(4, 2, dtype=torch.float64).float()
    both = (torch.sigmoid(outputs[:, 0]) * torch.sigmoid(outputs[:, 1])).double()
    expected = -(torch.log(1 - both[0]) + torch.log(both[1]) + torch.log(1 - both[2])) / 3
    assert TaskLosses(tasks, "mean").each(outputs, batch)[1].item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    certain = torch.full((4, 2), 50.0, requires_grad=True)
    TaskLosses(tasks, "mean")(certain, batch).backward()
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()


def test_uncertainty_settles_where_it_weighs_a_task_by_its_noise() -> None:
    tasks = Tasks((Task("label", "binary"), Task("pays", "regression")), (1, 0))
    batch = batch_of([1, 1], labels=[1.0, 0.0], outcomes=torch.tensor([[2.0], [-2.0]]))
    losses = TaskLosses(tasks, "uncertainty")
    assert losses.log_variances is not None
    optimizer = torch.optim.SGD(losses.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        losses(torch.zeros(2, 2), batch).backward()
        optimizer.step()
    # d/ds (e^-s L / 2 + s / 2) = 0 at s = log L, the error's variance; without the half, at s = log 2 L.
    assert losses.log_variances.tolist() == pytest.approx([math.log(2 * math.log(2)), math.log(4)], abs=1e-3)
