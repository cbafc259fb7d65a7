"""What a cross-encoder says of candidates, and vectors that learn it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import Encoder, InvalidOption, InvalidTable
from explorank.retrieval.encoding import (
    Behaviour,
    FineTuning,
    Lessons,
    TextRanker,
    TextRanking,
    fine_tune_encoder,
    teach,
)
from explorank.retrieval.encoding.behaviour import NO_ITEM
from explorank.retrieval.encoding.distillation import LessonBatch, LessonBatches

torch = pytest.importorskip("torch")

from explorank.retrieval.encoding.losses import margin_loss  # noqa: E402 - torch

OPTIONS = FineTuning(hidden=16, steps=60, batch_size=16, learning_rate=0.01, looks=1, lessons=16)


def sixth(angle: int) -> list[float]:
    """Return the unit vector at so many sixths of a turn."""
    return [float(np.cos(angle * np.pi / 3)), float(np.sin(angle * np.pi / 3))]


@pytest.fixture(scope="module")
def teacher(model: Path, behaviour: Behaviour) -> TextRanker:
    return TextRanker.fit(Encoder(model, device="cpu"), behaviour, options=TextRanking(steps=2, history=2))


def test_the_loss_is_the_square_of_what_margins_differ_by() -> None:
    # Cosines with the history are 1/2 for the liked item, -1 and 1 for the others; times 4: 2, -4 and 4.
    vectors = torch.tensor([sixth(0), sixth(1), sixth(3), [3.0, 0.0]])
    batch = LessonBatch(
        items=np.arange(4),
        histories=np.array([[NO_ITEM, 0]]),
        candidates=np.array([[1, 2, 3, NO_ITEM]]),
        log_odds=np.array([[7.0, 2.0, 8.0, 0.0]], np.float32),  # margins of 5 and -1, beside 6 and -2
    )
    loss = margin_loss(vectors, batch, scale=4.0, decay=0.9)
    assert float(loss) == pytest.approx((1.0**2 + 1.0**2) / 2)
    # The teacher's own offset does not count.
    shifted = replace(batch, log_odds=batch.log_odds + 3.0)
    assert float(margin_loss(vectors, shifted, scale=4.0, decay=0.9)) == pytest.approx(float(loss))
    agreed = replace(batch, log_odds=np.array([[2.0, -4.0, 4.0, 0.0]], np.float32))
    assert float(margin_loss(vectors, agreed, scale=4.0, decay=0.9)) == pytest.approx(0.0, abs=1e-9)


def test_a_teacher_reads_the_liked_item_and_others(teacher: TextRanker, behaviour: Behaviour) -> None:
    lessons = teach(teacher, behaviour, pairs=5, candidates=4, seed=1)
    assert lessons.items.shape == lessons.log_odds.shape == (5, 4)
    np.testing.assert_array_equal(lessons.items[:, 0], behaviour.positives[lessons.pairs])
    liked = behaviour.liked.toarray()[behaviour.users[lessons.pairs]]
    assert not np.take_along_axis(liked, lessons.items[:, 1:], axis=1).any()
    pair = lessons.pairs[2]
    history = [behaviour.texts[row] for row in behaviour.histories[pair] if row != NO_ITEM]
    candidates = [behaviour.texts[row] for row in lessons.items[2]]
    probabilities = teacher.score(history, candidates)
    np.testing.assert_allclose(1 / (1 + np.exp(-lessons.log_odds[2])), probabilities, rtol=1e-5)
    again = teach(teacher, behaviour, pairs=5, candidates=4, seed=1)
    assert again.digest == lessons.digest != teach(teacher, behaviour, pairs=5, candidates=4).digest


def test_who_likes_almost_all_has_fewer_candidates(teacher: TextRanker) -> None:
    small = Behaviour.from_histories([["a", "b"]], {"a": "storm", "b": "tide", "c": "rye"})
    lessons = teach(teacher, small, candidates=5)
    assert lessons.items.tolist() == [[1, 2, NO_ITEM, NO_ITEM, NO_ITEM]]
    batch = LessonBatches(lessons, small, 8, seed=0)[0]
    assert batch.items.tolist() == [0, 1, 2]
    assert batch.candidates.tolist() == [[1, 2, NO_ITEM, NO_ITEM, NO_ITEM]]


def test_vectors_learn_what_the_teacher_knows_and_no_user_did(
    encoder: Encoder, behaviour: Behaviour, tmp_path: Path
) -> None:
    # By the texts and by what users did, sea does not go with space; this teacher finds that it does.
    kinds = np.array([item.partition("-")[0] for item in behaviour.item_ids])
    rng = np.random.default_rng(0)
    newest = kinds[behaviour.histories[:, -1]]
    pairs = np.flatnonzero(newest == "sea")[:40]
    space, bread = np.flatnonzero(kinds == "space"), np.flatnonzero(kinds == "bread")
    items = np.column_stack([rng.choice(space, len(pairs)), rng.choice(bread, len(pairs))])
    log_odds = np.tile(np.array([6.0, -6.0], np.float32), (len(pairs), 1))
    lessons = Lessons(pairs, items, log_odds, behaviour.digest)

    def margin(name: str, **more: Lessons) -> float:
        fine_tune_encoder(encoder, behaviour, tmp_path / name, options=OPTIONS, **more)
        vectors = Encoder(encoder.model, adapter=tmp_path / name, device="cpu").encode(behaviour.texts)
        sea = vectors[kinds == "sea"].mean(axis=0)
        return float((vectors[space] @ sea).mean() - (vectors[bread] @ sea).mean())

    assert margin("without") < -0.1
    assert margin("with", lessons=lessons) > margin("without") + 0.2


def test_lessons_on_other_pairs_are_refused(
    encoder: Encoder, behaviour: Behaviour, valid: Behaviour, tmp_path: Path
) -> None:
    lessons = Lessons(np.array([0]), np.array([[0, 1]]), np.zeros((1, 2), np.float32), valid.digest)
    with pytest.raises(InvalidTable, match=r"lessons are on other pairs.*Call `teach`"):
        fine_tune_encoder(encoder, behaviour, tmp_path / "adapter", lessons=lessons, options=OPTIONS)


def test_too_little_to_teach_is_refused(teacher: TextRanker, behaviour: Behaviour) -> None:
    with pytest.raises(InvalidOption, match="candidates=1 teach nothing"):
        teach(teacher, behaviour, candidates=1)
    with pytest.raises(InvalidOption, match="distillation=-1"):
        FineTuning(distillation=-1.0)
