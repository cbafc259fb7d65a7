"""Gates whose answers are known: weights set by hand, and likes that the text does not explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import AdapterMismatch, CorruptArtefact, Encoder, InvalidOption, InvalidVectors
from explorank.retrieval.encoding import (
    Adapter,
    Behaviour,
    FineTuning,
    Gate,
    Lessons,
    fine_tune_encoder,
    fuse,
    pretrain_encoder,
    recall_at,
)
from explorank.retrieval.encoding.options import Pretraining

OPTIONS = FineTuning(steps=60, batch_size=64, learning_rate=1e-2)
GATED = replace(OPTIONS, head="gated")
GROUPS = {"sea": 0, "bread": 0, "crime": 1, "space": 1}


def kinds_of(items: tuple[str, ...]) -> np.ndarray:
    """Return vectors (n, 2) that tell who likes what."""
    return np.eye(2, dtype=np.float32)[[GROUPS[item.partition("-")[0]] for item in items]]


@pytest.fixture(scope="module")
def same_texts(texts: dict[str, str]) -> dict[str, str]:
    """Texts that are all alike and tell nothing apart."""
    return dict.fromkeys(texts, "a story")


@pytest.fixture(scope="module")
def train(histories: list[list[str]], same_texts: dict[str, str]) -> Behaviour:
    return Behaviour.from_histories([items[:8] for items in histories], same_texts, history=4)


@pytest.fixture(scope="module")
def later(histories: list[list[str]], same_texts: dict[str, str]) -> Behaviour:
    return Behaviour.from_histories(
        histories, same_texts, history=8, from_event=[8] * len(histories), window=(2.0, 3.0)
    )


@pytest.fixture(scope="module")
def text(model: Path, train: Behaviour) -> np.ndarray:
    return Encoder(model, device="cpu").encode(train.texts)


@pytest.fixture(scope="module")
def gate(text: np.ndarray, train: Behaviour, later: Behaviour) -> Gate:
    return Gate.fit(text, {"image": kinds_of(train.item_ids)}, train, valid=later, options=OPTIONS)


@pytest.fixture(scope="module")
def adapter(
    model: Path, train: Behaviour, later: Behaviour, tmp_path_factory: pytest.TempPathFactory
) -> Adapter:
    return fine_tune_encoder(
        Encoder(model, device="cpu"),
        train,
        tmp_path_factory.mktemp("gated"),
        valid=later,
        others={"image": kinds_of(train.item_ids)},
        options=GATED,
    )


def test_a_gate_of_weights_set_by_hand(tmp_path: Path) -> None:
    """With a gate of a half, (1, 0) of the text and the image turned to (0, 1) meet in the middle."""
    import torch

    from explorank.retrieval.encoding.adapter import HeadSpec
    from explorank.retrieval.encoding.heads import GatedHead

    head = GatedHead(2, 2)
    with torch.no_grad():
        head.gate.bias.zero_()
        head.other.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    gate = Gate(HeadSpec(kind="gated", dim=2, modalities=(("image", 2),)), head)
    text = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    joined = gate.join(text, {"image": np.array([[3, 0], [0, 0], [np.nan, 1]], np.float32)})
    half = 0.5**0.5
    np.testing.assert_allclose(joined, [[half, half], [1, 0], [0, 1]], atol=1e-6)
    gate.save(tmp_path)
    np.testing.assert_array_equal(
        Gate.load(tmp_path).join(text, {"image": np.zeros((3, 2), np.float32)}), text
    )


def test_a_gate_takes_up_what_the_text_does_not_say(
    gate: Gate, text: np.ndarray, train: Behaviour, later: Behaviour
) -> None:
    image = kinds_of(train.item_ids)
    joined = gate.join(text, {"image": image})
    assert joined.shape == text.shape
    assert recall_at(joined, later, decay=0.9, k=12) == 1.0
    np.testing.assert_array_equal(joined, fuse(text, {"image": image}, train, valid=later, options=OPTIONS))


def test_items_that_training_never_saw_are_joined_too(
    gate: Gate, text: np.ndarray, train: Behaviour, tmp_path: Path
) -> None:
    gate.save(tmp_path)
    loaded = Gate.load(tmp_path)
    known = loaded.join(text, {"image": kinds_of(train.item_ids)})
    new = loaded.join(text[:3], {"image": np.array([[5, 0.5], [0, 2], [0, 0]], np.float32)})
    likeness = new @ known.T
    of_first = kinds_of(train.item_ids)[:, 0] == 1
    assert likeness[0, of_first].min() > likeness[0, ~of_first].max() + 0.01
    assert likeness[1, ~of_first].min() > likeness[1, of_first].max() + 0.01
    # Of the last nothing but the text is known.
    assert np.isfinite(new[2]).all()


def test_the_order_of_the_modalities_does_not_matter(text: np.ndarray, train: Behaviour) -> None:
    image, sound = kinds_of(train.item_ids), np.ones((len(text), 3), np.float32)
    few = replace(OPTIONS, steps=3)
    one = Gate.fit(text, {"image": image, "sound": sound}, train, options=few)
    other = Gate.fit(text, {"sound": sound, "image": image}, train, options=few)
    assert one.spec == other.spec
    assert one.spec.modalities == (("image", 2), ("sound", 3))
    np.testing.assert_array_equal(
        one.join(text, {"sound": sound, "image": image}), other.join(text, {"image": image, "sound": sound})
    )


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({}, r"joins texts with 'image' \(2 values\) by a gate, and nothing is brought"),
        ({"picture": 2}, r"'picture' \(2 values\) is brought"),
        ({"image": 3}, r"'image' \(3 values\) is brought.*or adapt anew"),
        ({"image": 2, "sound": 1}, r"'image' \(2 values\), 'sound' \(1 values\) is brought"),
    ],
)
def test_other_modalities_are_refused_by_name(
    gate: Gate, text: np.ndarray, others: dict[str, int], message: str
) -> None:
    brought = {name: np.ones((len(text), length), np.float32) for name, length in others.items()}
    with pytest.raises(AdapterMismatch, match=message):
        gate.join(text, brought)


def test_rows_of_another_encoder_and_of_other_items_are_refused(gate: Gate, text: np.ndarray) -> None:
    with pytest.raises(AdapterMismatch, match="trained on text vectors of 32 values, and these have 16"):
        gate.join(text[:, :16], {"image": np.ones((len(text), 2), np.float32)})
    with pytest.raises(InvalidVectors, match="one row per item"):
        gate.join(text, {"image": np.ones((3, 2), np.float32)})


@pytest.mark.parametrize("file", ["head.safetensors", "adapter.json"])
def test_damage_is_found(gate: Gate, tmp_path: Path, file: str) -> None:
    gate.save(tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CorruptArtefact, match=file):
        Gate.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CorruptArtefact, match=file):
        Gate.load(tmp_path)


class CutOff(Exception):
    """Ends a training in the middle."""


def cut_off_at(step: int) -> Callable[[int, int], None]:
    def progress(done: int, _: int) -> None:
        if done == step:
            raise CutOff

    return progress


def test_a_gate_that_was_cut_off_ends_as_it_would_have(
    text: np.ndarray, train: Behaviour, later: Behaviour, tmp_path: Path
) -> None:
    others = {"image": kinds_of(train.item_ids)}

    def fit(checkpoint: Path | None, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        options = replace(OPTIONS, steps=10)
        gate = Gate.fit(
            text, others, train, valid=later, options=options, checkpoint=checkpoint, progress=progress
        )
        return gate.join(text, others)

    with pytest.raises(CutOff):
        fit(tmp_path, cut_off_at(7))
    with pytest.raises(InvalidOption, match="checkpoint of another run"):
        Gate.fit(text, {"image": 1 - others["image"]}, train, valid=later, checkpoint=tmp_path)
    np.testing.assert_array_equal(fit(tmp_path), fit(None))


def test_an_adapter_carries_its_gate(
    adapter: Adapter, gate: Gate, model: Path, train: Behaviour, later: Behaviour
) -> None:
    image = kinds_of(train.item_ids)
    encoder = Encoder(model, adapter=adapter.folder, device="cpu")
    vectors = encoder.encode(train.texts, others={"image": image})
    assert recall_at(vectors, later, decay=0.9, k=12) == 1.0
    # What comes before is what texts say by themselves: of items that are all alike, any is found.
    assert adapter.metrics["valid_recall_before"] == recall_at(
        encoder.encode_layers(train.texts), later, decay=0.9, k=4
    )
    assert dict(adapter.modalities) == {"image": 2}
    assert adapter.learnt_until == 3.0
    # The same gate as over vectors of any origin, with the same seed.
    expected = gate.join(encoder.encode_layers(train.texts), {"image": image})
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert encoder.dim == 32


def test_items_of_one_text_have_vectors_of_their_own(
    adapter: Adapter, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(model, adapter=adapter.folder, truncate_dim=8, device="cpu")
    image = np.array([[1, 0], [0, 1], [0, 0], [1, 0]], np.float32)
    texts = ["a story", "a story of tide", "a story", "a story"]
    at_once = encoder.encode(texts, others={"image": image})
    assert at_once.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(at_once, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(at_once[0], at_once[3], atol=1e-5)
    assert not np.allclose(at_once[0], at_once[2], atol=0.01)
    monkeypatch.setattr("explorank.retrieval.encoder._ROWS_AT_ONCE", 1)
    np.testing.assert_allclose(encoder.encode(texts, others={"image": image}), at_once, atol=1e-5)
    assert encoder.encode([], others={"image": image[:0]}).shape == (0, 8)


def test_an_encoder_asks_for_what_its_gate_joins(adapter: Adapter, model: Path) -> None:
    encoder = Encoder(model, adapter=adapter.folder, device="cpu")
    with pytest.raises(AdapterMismatch, match=r"joins texts with 'image' by a gate.*`others`"):
        encoder.encode(["a story"])
    with pytest.raises(AdapterMismatch, match="'sound'"):
        encoder.encode(["a story"], others={"sound": np.ones((1, 2), np.float32)})
    with pytest.raises(AdapterMismatch, match=r"no gate that would read it.*`concatenate`"):
        Encoder(model, device="cpu").encode(["a story"], others={"image": np.ones((1, 2), np.float32)})


def test_a_gate_sits_on_layers_that_were_changed(model: Path, train: Behaviour, tmp_path: Path) -> None:
    """On those that a pretrained adapter changed before, and on those that are trained with it."""
    words = Pretraining(rank=2, alpha=4, steps=1, batch_size=4)
    pretrain_encoder(
        Encoder(model, device="cpu"), ["a story of tide", "rye"], tmp_path / "words", options=words
    )
    start = Encoder(model, adapter=tmp_path / "words", device="cpu")
    others = {"image": kinds_of(train.item_ids)}
    for name, options in {
        "frozen": replace(GATED, steps=2),
        "lora": replace(GATED, steps=2, body="lora", batch_size=8),
    }.items():
        adapter = fine_tune_encoder(start, train, tmp_path / name, others=others, options=options)
        assert adapter.lora is not None
        vectors = Encoder(model, adapter=adapter.folder, device="cpu").encode(train.texts, others=others)
        assert vectors.shape == (len(train.texts), 32)
    assert Adapter.load(tmp_path / "frozen").lora_digest == start.adapter.lora_digest  # type: ignore[union-attr]
    assert Adapter.load(tmp_path / "lora").lora_digest != start.adapter.lora_digest  # type: ignore[union-attr]
    with pytest.raises(AdapterMismatch, match="has no gate"):
        Gate.load(tmp_path / "words")


def test_a_teacher_is_heard_of_what_the_gate_reads(model: Path, train: Behaviour, tmp_path: Path) -> None:
    """It likes after the first group what users do not; texts are all alike, so that the images alone can follow."""
    image = kinds_of(train.item_ids)
    first, second = (np.flatnonzero(image[:, group]) for group in (0, 1))
    pairs = np.flatnonzero(np.isin(train.positives, first))
    rng = np.random.default_rng(0)
    items = np.column_stack([rng.choice(second, len(pairs)), rng.choice(first, len(pairs))])
    log_odds = np.tile(np.array([6.0, -6.0], np.float32), (len(pairs), 1))
    lessons = Lessons(pairs, items, log_odds, train.digest)

    def margin(name: str, **more: Lessons) -> float:
        options = replace(GATED, distillation=10.0)
        encoder = Encoder(model, device="cpu")
        fine_tune_encoder(encoder, train, tmp_path / name, others={"image": image}, options=options, **more)
        adapted = Encoder(model, adapter=tmp_path / name, device="cpu")
        vectors = adapted.encode(train.texts, others={"image": image})
        likeness = vectors[first[0]] @ vectors.T
        return float(likeness[second].mean() - likeness[first].mean())

    assert margin("without") < -0.5
    assert margin("with", lessons=lessons) > margin("without") + 0.1


@pytest.mark.parametrize(("head", "others"), [("gated", None), ("mlp", {"image": 2})])
def test_a_gate_and_what_it_joins_come_together(
    head: str, others: dict[str, int] | None, model: Path, train: Behaviour, tmp_path: Path
) -> None:
    brought = None if others is None else {"image": kinds_of(train.item_ids)}
    options = replace(OPTIONS, head=head)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="a gate needs vectors to join"):
        fine_tune_encoder(Encoder(model, device="cpu"), train, tmp_path, others=brought, options=options)
