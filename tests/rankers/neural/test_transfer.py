"""A network that begins as another domain's: what it keeps, what is its own, and when that is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from explorank.rankers import (
    AdaptableRanker,
    CorruptRanker,
    DCNOptions,
    DCNRanker,
    InvalidTraining,
    RankingData,
    SequenceOptions,
    SequenceRanker,
    TaskOptions,
    TrainingOptions,
    TransferOptions,
    score_data,
)
from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.fitting import frame_of, new_training
from explorank.rankers.neural.options import Trunk
from explorank.rankers.neural.start import Start

Data = Callable[..., RankingData]

STILL = TrainingOptions(epochs=1, learning_rate=1e-12, weight_decay=0.0)
"""One epoch that moves nothing that float32 could show."""


class Adapted:
    """A network trained from a start, or from scratch, and not exported, which takes most of a small run's time."""

    def __init__(
        self,
        start: DCNRanker | None,
        data: RankingData,
        options: DCNOptions,
        *,
        progress: Callable[[int, int], None] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        begin = None if start is None else Start.of(start._artefact, options)
        plan, self.read = DCNRanker._plan(data, options, begin)
        self.training = new_training(plan, self.read, data, None, seed=0, checkpoint=checkpoint, start=begin)
        self.training.run(progress)

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.training.network.state_dict()

    def score(self, data: RankingData) -> NDArray[np.float64]:
        tasks = self.training.tasks
        frame = frame_of(self.training.network, self.read(data), data, tasks)
        return tasks.score(self.training.outputs(frame))


def weights(ranker: DCNRanker) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load(ranker._artefact.weights)
    return found


def small(**changes: Any) -> DCNOptions:
    plain: dict[str, Any] = {
        "objective": "binary",
        "hidden": (32, 16),
        "item_ids": True,
        "training": TrainingOptions(epochs=4, batch_rows=64),
    }
    return DCNOptions(**{**plain, **changes})


@pytest.fixture(scope="module")
def target(crossed_data: Data) -> RankingData:
    """Rows of another domain: other numbers, the kinds 0 to 20 alone, and other items."""
    data = crossed_data(400, seed=11)
    kept = data.features[:, 3] <= 20
    features, labels = data.features[kept], data.labels[kept]
    features[:, :2] = 5.0 + 3.0 * features[:, :2]
    items = np.array([f"other-{row % 7}" for row in range(len(labels))])
    return replace(data, features=features, labels=labels, item_ids=items)


def test_it_begins_as_the_start(dcn: DCNRanker, crossed_data: Data) -> None:
    transfer = TransferOptions(shared_codes=("kind", "item_code"))
    data = replace(crossed_data(50, seed=3), item_ids=np.array([f"item-{row % 3}" for row in range(50)]))
    adapted = dcn.adapt(data, options=small(training=STILL, transfer=transfer))
    # Also for the kinds and items that the 50 rows do not hold: their embeddings came along.
    other = replace(crossed_data(300, seed=4), item_ids=np.array([f"item-{row % 31}" for row in range(300)]))
    other.features[::7, 2] = np.nan
    np.testing.assert_allclose(score_data(adapted, other), score_data(dcn, other), atol=1e-5)


def test_a_sequence_ranker_begins_as_its_start_too(
    sequence: SequenceRanker,
    dense_stepping_data: Data,
    small_sequence_options: Callable[..., SequenceOptions],
) -> None:
    transfer = TransferOptions(shared_codes=("kind", "item_code"))
    options = replace(small_sequence_options(), training=STILL, transfer=transfer)
    few = dense_stepping_data(8, seed=8)
    adapted = sequence.adapt(few, options=options)
    other = dense_stepping_data(40, seed=9)
    np.testing.assert_allclose(score_data(adapted, other), score_data(sequence, other), atol=1e-5)


def test_a_frozen_trunk_is_shared_and_heads_and_embeddings_are_each_domains_own(
    dcn: DCNRanker, target: RankingData
) -> None:
    frozen = Adapted(dcn, target, small(transfer=TransferOptions(trunk="frozen", scales="own"))).weights
    tuned = Adapted(dcn, target, small(transfer=TransferOptions(trunk="tuned"))).weights
    before = weights(dcn)
    trunk = [name for name in before if name.startswith(("cross.", "deep."))]
    assert len(trunk) == 8
    for name in trunk:
        assert frozen[name].equal(before[name]), name
        assert not tuned[name].equal(before[name]), name
    assert not frozen["heads.weight"].equal(before["heads.weight"])
    # 3 kinds and 7 items, each column with a row for the unknown and one for the missing.
    assert len(frozen["table.weight"]) == 3 + 2 + 7 + 2
    assert not frozen["standardise.center"].equal(before["standardise.center"])
    assert frozen["standardise.flagged"].equal(before["standardise.flagged"])


def test_a_slower_trunk_moves_less(dcn: DCNRanker, target: RankingData) -> None:
    def moved(rate: float) -> float:
        after = Adapted(dcn, target, small(transfer=TransferOptions(trunk_rate=rate))).weights[
            "deep.0.weight"
        ]
        return float((after - weights(dcn)["deep.0.weight"]).norm())

    assert moved(0.05) < 0.2 * moved(1.0)


def test_with_little_data_it_is_better_than_from_scratch(dcn: DCNRanker, target: RankingData) -> None:
    # Whether a · b is positive cannot be told from 40 rows, and the start knows it.
    few = target.take(range(40))
    rest = target.take(range(40, len(target)))
    options = small(training=TrainingOptions(epochs=10, batch_rows=16))

    def accuracy(start: DCNRanker | None, trunk: Trunk = "tuned") -> float:
        adapted = Adapted(start, few, replace(options, transfer=TransferOptions(trunk=trunk, scales="own")))
        return float(((adapted.score(rest) > 0.5) == (rest.labels > 0.5)).mean())

    scratch = accuracy(None)
    assert accuracy(dcn, "tuned") > scratch + 0.15
    assert accuracy(dcn, "frozen") > scratch + 0.15


def test_the_manifest_says_where_it_comes_from_and_the_start_stays(
    dcn: DCNRanker, target: RankingData, tmp_path: Path
) -> None:
    before = dcn._artefact
    few = target.take(range(60))
    once = dcn.adapt(few)  # by the start's own options
    assert isinstance(once, AdaptableRanker)
    once.save(tmp_path)
    twice = DCNRanker.load(tmp_path).adapt(few)
    assert once.manifest.details["options"] == dcn.manifest.details["options"]
    assert once.manifest.details["lineage"] == [dcn.manifest.version]
    assert twice.manifest.details["lineage"] == [dcn.manifest.version, once.manifest.version]
    assert "lineage" not in dcn.manifest.details
    assert dcn._artefact is before


def test_a_new_task_has_a_new_head_and_the_old_one_is_kept(dcn: DCNRanker, target: RankingData) -> None:
    spent = 20.0 + 3.0 * target.features[:, 2].astype(np.float64)
    data = replace(target, outcomes={"spent": spent})
    options = small(training=STILL, tasks=TaskOptions(outcomes=("spent",)))
    both = Adapted(dcn, data, options).weights["heads.weight"]
    assert both.shape == (2, 16)
    np.testing.assert_allclose(both[0], weights(dcn)["heads.weight"][0], atol=1e-7)
    # Scores of another objective are no log-odds, so that head begins anew.
    ordered = replace(target.take(range(100)), groups=np.full(50, 2))
    other = Adapted(dcn, ordered, small(objective="listwise", training=STILL)).weights["heads.weight"]
    assert np.abs(other[0].numpy() - weights(dcn)["heads.weight"][0].numpy()).max() > 0.01


def test_a_run_that_was_cut_off_ends_as_it_would_have(
    dcn: DCNRanker, target: RankingData, tmp_path: Path
) -> None:
    class CutOffError(Exception):
        pass

    def cut(done: int, _: int) -> None:
        if done == 2:
            raise CutOffError

    few, options = target.take(range(100)), small(transfer=TransferOptions(trunk="frozen"))
    with pytest.raises(CutOffError):
        Adapted(dcn, few, options, checkpoint=tmp_path, progress=cut)
    with pytest.raises(CorruptRanker, match="cut off after epoch 2"):  # a run that begins otherwise
        DCNRanker.fit(few, options=options, checkpoint=tmp_path)
    resumed = Adapted(dcn, few, options, checkpoint=tmp_path).weights
    whole = Adapted(dcn, few, options).weights
    assert all(resumed[name].equal(value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": (32, 8)}, r"hidden=\(32, 8\) builds other layers .*\(\(32, 16\)\).*Set hidden as it was"),
        ({"cross_layers": 1}, "cross_layers=1 builds other layers"),
        ({"item_ids": False}, "item_ids=False builds other layers"),
        (
            {"transfer": TransferOptions(shared_codes=("colour",))},
            "shared_codes names 'colour'.*it has those of kind, item_code",
        ),
    ],
)
def test_options_that_do_not_fit_the_start_are_refused(
    change: dict[str, Any], message: str, dcn: DCNRanker, target: RankingData
) -> None:
    with pytest.raises(InvalidTraining, match=message):
        dcn.adapt(target, options=small(**change))


def test_options_of_another_ranker_are_refused(dcn: DCNRanker, target: RankingData) -> None:
    for train in (dcn.adapt, DCNRanker.fit):
        with pytest.raises(InvalidTraining, match=r"SequenceOptions are no options of DCNRanker.*DCNOptions"):
            train(target, options=SequenceOptions())


def test_data_with_other_columns_are_refused(dcn: DCNRanker, target: RankingData) -> None:
    renamed = replace(target, feature_names=("a", "b", "loudness", "kind"))
    with pytest.raises(
        InvalidTraining, match=r"without noise; with loudness beside them.*train from scratch"
    ):
        dcn.adapt(renamed, options=small())
    numeric = replace(target, categorical=())
    with pytest.raises(InvalidTraining, match="which are categorical, differs"):
        dcn.adapt(numeric, options=small())
    with pytest.raises(InvalidTraining, match="from one class alone"):
        dcn.adapt(replace(target, labels=np.zeros(len(target))), options=small())


def test_shares_that_move_nothing_are_refused() -> None:
    with pytest.raises(InvalidTraining, match=r"trunk_rate=0.*trunk='frozen'"):
        TransferOptions(trunk_rate=0.0)
    with pytest.raises(InvalidTraining, match=r"trunk='melted' is none of tuned, frozen"):
        TransferOptions(trunk="melted")  # type: ignore[arg-type]


CODES = st.sets(st.integers(0, 30), max_size=8).map(lambda codes: np.array(sorted(codes), np.float32))


@given(seen=CODES.filter(len), known=CODES)
def test_known_codes_keep_rows_of_their_own(seen: NDArray[np.float32], known: NDArray[np.float32]) -> None:
    layout = ColumnLayout.of(seen[:, None], ("kind",), ("kind",), 1, also={"kind": known})
    np.testing.assert_array_equal(layout.known[0], np.union1d(seen, known))
    every = np.concatenate([seen, known])
    rows = layout.table_places(every[:, None])[:, 0]
    assert ((rows >= 2) & (rows < layout.table_rows)).all()
    assert len(set(rows.tolist())) == len(set(every.tolist()))
