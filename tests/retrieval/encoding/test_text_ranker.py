"""A cross-encoder learns what is liked together from pairs of texts, and is itself again when it is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import CorruptArtefact, Encoder, InvalidOption
from explorank.retrieval.encoding import Behaviour, TextRanker, TextRanking
from explorank.retrieval.encoding.text_ranker import draw_negatives, history_text

OPTIONS = TextRanking(steps=150, batch_size=24, learning_rate=1e-2, history=3, max_tokens=32)


@pytest.fixture(scope="module")
def ranker(model: Path, behaviour: Behaviour) -> TextRanker:
    return TextRanker.fit(Encoder(model, device="cpu"), behaviour, options=OPTIONS, seed=1)


def test_it_learns_what_is_liked_together(ranker: TextRanker, texts: dict[str, str]) -> None:
    assert ranker.metrics["loss_at_last"] < 0.8 * ranker.metrics["loss_at_first"]
    of_kind = {
        kind: [texts[f"{kind}-{number}"] for number in range(10)] for kind in ("sea", "bread", "crime")
    }
    scores = ranker.score(of_kind["sea"][:3], of_kind["bread"] + of_kind["crime"])
    assert scores.shape == (20,)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[:10].mean() > scores[10:].mean() + 0.15  # sea with bread, which no text says


def test_a_candidate_counts_alone(ranker: TextRanker, texts: dict[str, str]) -> None:
    some = list(texts.values())[:7]
    together = ranker.score(some[:2], some)
    alone = [ranker.score(some[:2], [text])[0] for text in some]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert ranker.score(some[:2], []).shape == (0,)


def test_the_same_seed_and_a_resumed_run_give_the_same(
    ranker: TextRanker, model: Path, behaviour: Behaviour, texts: dict[str, str], tmp_path: Path
) -> None:
    class CutOff(Exception):
        pass

    def cut(done: int, total: int) -> None:
        if done == 70:
            raise CutOff

    encoder, some = Encoder(model, device="cpu"), list(texts.values())
    with pytest.raises(CutOff):
        TextRanker.fit(encoder, behaviour, options=OPTIONS, seed=1, checkpoint=tmp_path, progress=cut)
    resumed = TextRanker.fit(encoder, behaviour, options=OPTIONS, seed=1, checkpoint=tmp_path)
    np.testing.assert_array_equal(resumed.score(some[:3], some), ranker.score(some[:3], some))


def test_it_is_itself_when_loaded_and_damage_is_found(
    ranker: TextRanker, texts: dict[str, str], tmp_path: Path
) -> None:
    some = list(texts.values())
    ranker.save(tmp_path)
    loaded = TextRanker.load(tmp_path, device="cpu")
    np.testing.assert_allclose(loaded.score(some[:3], some), ranker.score(some[:3], some), atol=1e-6)
    assert loaded.options == OPTIONS
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptArtefact, match=r"model\.safetensors is damaged"):
        TextRanker.load(tmp_path)


def test_negatives_were_not_liked(behaviour: Behaviour) -> None:
    pairs = np.arange(50)
    rows, items, labels = draw_negatives(
        behaviour, pairs, 3, np.random.default_rng(1), np.ones(len(behaviour.item_ids), np.bool_)
    )
    assert len(rows) == 200
    liked = behaviour.liked.toarray()[behaviour.users[rows], items]
    np.testing.assert_array_equal(liked, labels == 1)
    np.testing.assert_array_equal(items[:50], behaviour.positives[:50])


def test_only_some_items_are_drawn_from() -> None:
    texts = {name: name for name in ("a", "b", "c", "d", "new")}
    behaviour = Behaviour.from_histories([["a", "b"], ["c", "d"]], texts, history=2)
    among = np.array([name != "new" for name in behaviour.item_ids])
    pairs = np.arange(len(behaviour))
    rows, items, labels = draw_negatives(behaviour, pairs, 4, np.random.default_rng(1), among)
    others = {
        (int(behaviour.users[row]), behaviour.item_ids[item])
        for row, item, label in zip(rows, items, labels, strict=True)
        if not label
    }
    assert others == {(0, "c"), (0, "d"), (1, "a"), (1, "b")}


def test_training_passes_over_what_nobody_liked(model: Path) -> None:
    texts, new = {"a": "storm", "b": "tide"}, {"c": "rye", "d": "oven"}
    losses = [
        TextRanker.fit(
            Encoder(model, device="cpu"),
            Behaviour.from_histories([["a", "b"]], read),
            options=replace(OPTIONS, steps=1),
        ).metrics["loss_at_first"]
        for read in (texts, texts | new)
    ]
    assert losses[0] == losses[1]


def test_a_user_who_likes_everything_has_no_negatives() -> None:
    behaviour = Behaviour.from_histories([["a", "b"]], {"a": "x", "b": "y"})
    _, items, labels = draw_negatives(
        behaviour, np.array([0]), 3, np.random.default_rng(1), np.ones(2, np.bool_)
    )
    assert (items.tolist(), labels.tolist()) == ([1], [1.0])


def test_the_newest_is_read_first() -> None:
    assert history_text(["old", "new"]) == "new | old"


def test_options_that_train_nothing_are_refused() -> None:
    with pytest.raises(InvalidOption, match="negatives=0"):
        TextRanking(negatives=0)
    with pytest.raises(InvalidOption, match="learning_rate=0"):
        TextRanking(learning_rate=0.0)
