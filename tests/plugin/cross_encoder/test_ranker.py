"""Texts are read as torch reads them, items that came after training too, and each text's part is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank.cross_encoder import CrossEncoderOptions, CrossEncoderRanker
from explorank.cross_encoder.training import RowDraws
from explorank.rankers import InvalidTraining, RankingData, features_for, score_data, taught_by
from explorank.retrieval.encoding import TextRanker, TextRanking

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def options(tiny: Path) -> CrossEncoderOptions:
    return CrossEncoderOptions(
        model=str(tiny), steps=60, learning_rate=1e-2, history=3, max_tokens=24, device="cpu"
    )


@pytest.fixture(scope="module")
def ranker(past: Callable[..., RankingData], options: CrossEncoderOptions) -> CrossEncoderRanker:
    return CrossEncoderRanker.fit(past(0), options=options, seed=1)


@pytest.mark.slow
def test_the_graph_says_what_torch_says(
    past: Callable[..., RankingData],
    options: CrossEncoderOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model as it was trained, behind transformers' own tokenizer, is the independent reading."""
    from explorank.cross_encoder import training
    from explorank.rankers.neural.export import to_onnx

    kept: list[Any] = []
    train = training.train_cross_encoder

    def keeping(*arguments: object, **named: object) -> object:
        model, metrics = train(*arguments, **named)  # type: ignore[arg-type]
        kept.append(model)
        return model, metrics

    monkeypatch.setattr(training, "train_cross_encoder", keeping)
    data, new = past(0), past(1).take([0, 1, 2, 3])
    ranker = CrossEncoderRanker.fit(data, options=replace(options, steps=3), seed=1)
    by_torch = TextRanker(kept[0], TextRanking(history=3, max_tokens=24), {})
    assert new.histories is not None
    assert new.item_ids is not None
    assert max(len(history) for history in new.histories) == 3
    items = new.item_ids.reshape(4, 10)
    expected = [
        by_torch.log_odds(
            [new.item_texts[item] for item in history], [new.item_texts[item] for item in row.tolist()]
        )
        for history, row in zip(new.histories, items, strict=True)
    ]
    # Three rows of ten are liked, and three are drawn for each liked one: log(3/7) + log(3) more.
    shift = np.log(3 / 7) + np.log(3)
    found = ranker.log_odds(features_for(ranker, new))
    np.testing.assert_allclose(found, np.concatenate(expected) + shift, atol=1e-5)
    # The same weights give the same graph, or nobody could tell two trainings from one.
    ranker.save(tmp_path)
    again = to_onnx(training.PairNetwork(kept[0].model, 24))
    assert again == (tmp_path / "model.onnx").read_bytes()


def test_scores_are_probabilities_as_they_come_true(
    ranker: CrossEncoderRanker, past: Callable[..., RankingData]
) -> None:
    new = past(1)
    scores = score_data(ranker, new)
    assert ((scores > 0) & (scores < 1)).all()
    # 800 rows of which 0.3 are liked; the training draws one in four.
    assert abs(scores.mean() - new.labels.mean()) < 0.08


def test_an_item_that_came_after_training_is_read(
    ranker: CrossEncoderRanker, past: Callable[..., RankingData]
) -> None:
    texts = {
        "new-sea": "a story of tide and storm",
        "new-space": "a story of moon and comet",
        "sea-1": "orbit",
    }
    told = ranker.with_item_texts(texts)
    history = ["crime-1", "unheard-of"]
    before = ranker.score(ranker.read_ids(["new-sea", "new-space", "sea-1"], history))
    assert before[0] == pytest.approx(before[1], abs=1e-6)  # both are unknown
    after = told.score(told.read_ids(["new-sea", "new-space", "sea-1"], history))
    assert after[0] > 0.5 > after[1]
    assert after[2] < before[2]  # what it is called now goes before what it was called in training
    known = [f"{kind}-{number}" for kind in ("crime", "bread") for number in range(10)]
    np.testing.assert_allclose(
        told.score(told.read_ids(known, history)), ranker.score(ranker.read_ids(known, history)), atol=1e-6
    )
    assert told.manifest is ranker.manifest
    # Data bring their texts with them.
    data = replace(past(1).take([0]), item_ids=["new-sea", "new-space", *["sea-1"] * 8], item_texts=texts)
    alone = score_data(ranker, replace(data, histories=[history]))
    np.testing.assert_allclose(alone[:3], after, atol=1e-6)


def test_the_history_is_read_and_told_apart_from_the_candidate(
    past: Callable[..., RankingData], options: CrossEncoderOptions
) -> None:
    """Who read of the sea likes whatever comes, and who read of crime does not: nothing of the candidate tells."""
    rng = np.random.default_rng(5)
    liked = rng.random(400) < 0.5
    histories = [
        (f"{'sea' if likes else 'crime'}-{number}",)
        for likes, number in zip(liked, rng.integers(0, 10, 400), strict=True)
    ]
    data = replace(
        past(0, count=40), item_ids=[f"bread-{number}" for number in rng.integers(0, 10, 400)],
        histories=histories, labels=liked, groups=None,
    )  # fmt: skip
    ranker = CrossEncoderRanker.fit(data, options=options, seed=2)
    columns = np.concatenate([ranker.read_ids(["bread-3"], [item]) for item in ("sea-1", "crime-1")])
    scores = ranker.score(columns)
    assert scores[0] > 0.8
    assert scores[1] < 0.2
    explained = ranker.explain(columns)
    assert explained.feature_names == ("candidate_text", "history_text_1", "history_text_2", "history_text_3")
    of_candidate, of_history, *of_none = explained.attributions.T
    assert of_history[0] > of_history[1] + 2.0
    assert np.ptp(of_candidate) < 0.5 * np.ptp(of_history)
    np.testing.assert_array_equal(of_none, np.zeros((2, 2)))  # where nothing is read, nothing is added
    np.testing.assert_allclose(explained.scores, scores, atol=1e-6)
    np.testing.assert_allclose(explained.base, ranker.log_odds(np.zeros((2, 4), np.float32)), atol=1e-6)


def test_columns_are_the_newest_first(ranker: CrossEncoderRanker) -> None:
    codes = ranker.read_ids(["sea-0"], ["sea-1", "sea-2", "nobody", "sea-3", "sea-4"])[0]
    of = {item: ranker.read_ids([item], [])[0, 0] for item in ("sea-0", "sea-2", "sea-3", "sea-4")}
    assert codes.tolist() == [of["sea-0"], of["sea-4"], of["sea-3"], of["sea-2"]]


def test_it_teaches(ranker: CrossEncoderRanker, past: Callable[..., RankingData]) -> None:
    new = past(1)
    np.testing.assert_array_equal(taught_by(ranker, new).teacher["label"], score_data(ranker, new))


def test_int8_serves_where_it_keeps_the_accuracy(
    past: Callable[..., RankingData], options: CrossEncoderOptions
) -> None:
    allowed = replace(options, quantize=True, quantize_tolerance=1.0)
    small = CrossEncoderRanker.fit(past(0), valid=past(2), options=allowed, seed=1)
    assert small.manifest.details["precision"]["kind"] == "int8"
    whole = CrossEncoderRanker.fit(past(0), valid=past(2), options=options, seed=1)
    scores, exact = score_data(small, past(1)), score_data(whole, past(1))
    assert not np.array_equal(scores, exact)
    assert np.corrcoef(scores, exact)[0, 1] > 0.95
    unproved = CrossEncoderRanker.fit(past(0), options=allowed, seed=1)
    assert unproved.manifest.details["precision"]["kind"] == "float32"
    assert "no validation groups" in unproved.manifest.details["precision"]["reason"]


def test_negatives_come_from_the_request_of_the_liked_row() -> None:
    request_of = np.repeat([0, 1, 2], [4, 2, 3])
    liked = np.array([1, 0, 0, 0, 1, 1, 0, 1, 0], np.bool_)  # the second request has none that was not
    draws = RowDraws(liked, request_of, 2, 3, seed=4)
    seen: list[int] = []
    for step in range(8):
        rows = draws[step]
        positives, others = rows[:2], rows[2:].reshape(2, 3)
        assert liked[positives].all()
        assert not liked[others].any()
        for row, drawn in zip(positives.tolist(), others, strict=True):
            if request_of[row] != 1:
                assert (request_of[drawn] == request_of[row]).all()
        seen += positives.tolist()
    for epoch in range(4):  # two steps of two
        assert sorted(seen[4 * epoch : 4 * epoch + 4]) == [0, 4, 5, 7]
    np.testing.assert_array_equal(draws[3], RowDraws(liked, request_of, 2, 3, seed=4)[3])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"item_ids": None}, "has no item_ids"),
        ({"histories": None}, "has no histories"),
        ({"item_texts": {}}, "no texts in `item_texts`"),
        ({"labels": np.full(800, 2.0)}, "hold 2.0"),
    ],
)
def test_data_without_what_is_read_are_refused(
    past: Callable[..., RankingData], options: CrossEncoderOptions, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidTraining, match=said):
        CrossEncoderRanker.fit(replace(past(0), **changes), options=options)


def test_a_text_that_is_none_is_refused(ranker: CrossEncoderRanker) -> None:
    with pytest.raises(InvalidTraining, match="text of item 'odd' is 3"):
        ranker.with_item_texts({"odd": 3})  # type: ignore[dict-item]


def test_serving_imports_neither_torch_nor_transformers(ranker: CrossEncoderRanker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    program = f"""
import sys
from explorank.cross_encoder import CrossEncoderRanker
ranker = CrossEncoderRanker.load({str(tmp_path)!r}).with_item_texts({{"new": "a story of tide"}})
assert 0 < ranker.score(ranker.read_ids(["new"], ["sea-1"]))[0] < 1
assert not {{"torch", "transformers", "sentence_transformers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
