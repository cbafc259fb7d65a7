"""Training moves what is liked together nearer, ends the same when cut off, and refuses what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import AdapterMismatch, CorruptArtefact, Encoder, InvalidOption, InvalidTable
from explorank.retrieval.encoding import (
    Adapter,
    Behaviour,
    FineTuning,
    Pretraining,
    fine_tune_encoder,
    pretrain_encoder,
    recall_at,
)
from explorank.retrieval.encoding.adapter import HEAD_WEIGHTS, LORA_WEIGHTS

LORA = FineTuning(
    body="lora",
    head="none",
    rank=4,
    alpha=8,
    steps=30,
    batch_size=32,
    learning_rate=1e-2,
    popularity_correction=False,
)
HEAD = FineTuning(head="linear", steps=60, batch_size=64, learning_rate=1e-2, popularity_correction=False)


class CutOff(Exception):
    pass


def cut_off_after(steps: int) -> object:
    def progress(done: int, total: int) -> None:
        if done == steps:
            raise CutOff

    return progress


@pytest.fixture(scope="module")
def lora(
    model: Path, behaviour: Behaviour, valid: Behaviour, tmp_path_factory: pytest.TempPathFactory
) -> Adapter:
    folder = tmp_path_factory.mktemp("lora")
    return fine_tune_encoder(
        Encoder(model, device="cpu"), behaviour, folder, valid=valid, options=LORA, seed=1
    )


def adapted(model: Path, adapter: Adapter, behaviour: Behaviour) -> np.ndarray:
    return Encoder(model, adapter=adapter.folder, device="cpu").encode(behaviour.texts)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_brings_together_what_is_liked_together(
    head: str, encoder: Encoder, model: Path, behaviour: Behaviour, valid: Behaviour, tmp_path: Path
) -> None:
    adapter = fine_tune_encoder(encoder, behaviour, tmp_path, valid=valid, options=replace(HEAD, head=head))
    before, after = encoder.encode(behaviour.texts), adapted(model, adapter, behaviour)
    assert recall_at(before, valid, decay=0.9, k=12) < 0.85
    assert recall_at(after, valid, decay=0.9, k=12) > 0.95
    assert adapter.metrics["loss_at_last"] < adapter.metrics["loss_at_first"]
    assert adapter.window == (1.0, 2.0)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)


def test_lora_brings_together_what_is_liked_together(
    lora: Adapter, encoder: Encoder, model: Path, behaviour: Behaviour, valid: Behaviour
) -> None:
    before, after = encoder.encode(behaviour.texts), adapted(model, lora, behaviour)
    assert recall_at(before, valid, decay=0.9, k=12) < 0.85
    assert recall_at(after, valid, decay=0.9, k=12) > 0.95
    assert lora.metrics["loss_at_last"] < lora.metrics["loss_at_first"]
    # sea and bread are liked by the same people, sea and crime are not, and no word says so.
    kinds = np.array([item.partition("-")[0] for item in behaviour.item_ids])
    centre = {kind: after[kinds == kind].mean(axis=0) for kind in ("sea", "bread", "crime")}
    assert centre["sea"] @ centre["bread"] > centre["sea"] @ centre["crime"] + 0.2


def test_the_same_seed_gives_the_same_adapter(
    lora: Adapter, encoder: Encoder, behaviour: Behaviour, valid: Behaviour, tmp_path: Path
) -> None:
    again = fine_tune_encoder(encoder, behaviour, tmp_path / "again", valid=valid, options=LORA, seed=1)
    other = fine_tune_encoder(encoder, behaviour, tmp_path / "other", valid=valid, options=LORA, seed=2)
    assert again.version == lora.version != other.version


@pytest.mark.parametrize("options", [LORA, replace(HEAD, noise=0.3)], ids=["lora", "head"])
def test_a_run_that_was_cut_off_ends_as_it_would_have(
    options: FineTuning, encoder: Encoder, behaviour: Behaviour, valid: Behaviour, tmp_path: Path
) -> None:
    whole = fine_tune_encoder(encoder, behaviour, tmp_path / "whole", valid=valid, options=options, seed=1)
    steps: list[int] = []
    with pytest.raises(CutOff):
        fine_tune_encoder(
            encoder,
            behaviour,
            tmp_path / "cut",
            valid=valid,
            options=options,
            seed=1,
            checkpoint=tmp_path / "checkpoint",
            progress=cut_off_after(options.steps // 2 + 1),
        )
    assert not (tmp_path / "cut").exists()
    resumed = fine_tune_encoder(
        encoder,
        behaviour,
        tmp_path / "cut",
        valid=valid,
        options=options,
        seed=1,
        checkpoint=tmp_path / "checkpoint",
        progress=lambda done, total: steps.append(done),
    )
    assert steps[0] > 1
    assert resumed.version == whole.version
    without_time = [{**one.metrics, "seconds": 0.0} for one in (resumed, whole)]
    assert without_time[0] == without_time[1]


def test_another_runs_checkpoint_is_refused(encoder: Encoder, behaviour: Behaviour, tmp_path: Path) -> None:
    few = replace(HEAD, steps=4)
    checkpoint = tmp_path / "checkpoint"
    fine_tune_encoder(encoder, behaviour, tmp_path / "a", options=few, checkpoint=checkpoint)
    with pytest.raises(InvalidOption, match="checkpoint of another run"):
        fine_tune_encoder(encoder, behaviour, tmp_path / "b", options=few, seed=7, checkpoint=checkpoint)
    content = bytearray((checkpoint / "checkpoint.safetensors").read_bytes())
    content[-5] ^= 1
    (checkpoint / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(CorruptArtefact, match=r"checkpoint\.safetensors is damaged"):
        fine_tune_encoder(encoder, behaviour, tmp_path / "a", options=few, checkpoint=checkpoint)


def test_validation_that_gets_worse_leaves_the_encoder_as_it_is(
    encoder: Encoder, model: Path, behaviour: Behaviour, texts: dict[str, str], tmp_path: Path
) -> None:
    # The item to foresee is among the nearest from the start, and it cannot get better than that.
    nearest = encoder.encode(behaviour.texts)
    other = int(np.argsort(-nearest @ nearest[0])[1])
    valid = Behaviour.from_histories([["sea-0", behaviour.item_ids[other]]], texts)
    adapter = fine_tune_encoder(encoder, behaviour, tmp_path, valid=valid, options=HEAD)
    assert adapter.metrics["best_step"] == 0
    np.testing.assert_allclose(adapted(model, adapter, behaviour), encoder.encode(behaviour.texts), atol=1e-6)


def test_fingerprints_and_the_cache_tell_versions_apart(
    lora: Adapter, model: Path, behaviour: Behaviour, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.db"
    plain = Encoder(model, cache=cache, device="cpu")
    changed = Encoder(model, adapter=lora.folder, cache=cache, device="cpu")
    cut = Encoder(model, adapter=lora.folder, truncate_dim=8, cache=cache, device="cpu")
    assert len({plain.fingerprint, changed.fingerprint, cut.fingerprint}) == 3
    assert changed.fingerprint == Encoder(model, adapter=lora.folder, device="cpu").fingerprint
    before, after = plain.encode(behaviour.texts), changed.encode(behaviour.texts)
    assert not np.allclose(before, after, atol=1e-2)
    np.testing.assert_array_equal(
        plain.encode(behaviour.texts), before
    )  # not what the adapted one has cached
    assert lora.version in changed.name


def test_a_head_reads_no_text_again(
    encoder: Encoder, model: Path, behaviour: Behaviour, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.db"
    before = Encoder(model, cache=cache, device="cpu").encode(behaviour.texts)
    adapter = fine_tune_encoder(encoder, behaviour, tmp_path / "head", options=replace(HEAD, steps=5))
    adapted = Encoder(model, adapter=adapter.folder, cache=cache, device="cpu")
    after = adapted.encode(behaviour.texts)
    assert adapted._loaded is None  # all came from the cache
    assert not np.allclose(before, after, atol=1e-3)


def test_first_dimensions_are_unit_vectors(
    encoder: Encoder, model: Path, behaviour: Behaviour, valid: Behaviour, tmp_path: Path
) -> None:
    options = replace(HEAD, dims=(4, 32))
    adapter = fine_tune_encoder(encoder, behaviour, tmp_path / "a", valid=valid, options=options)
    short = Encoder(model, adapter=adapter.folder, truncate_dim=4, device="cpu")
    vectors = short.encode(behaviour.texts)
    assert vectors.shape == (40, 4)
    assert short.dim == 4
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # Trained for it, four dimensions tell more than four that were not.
    plain = Encoder(model, truncate_dim=4, device="cpu").encode(behaviour.texts)
    assert recall_at(plain, valid, decay=0.9, k=12) < 0.85
    assert recall_at(vectors, valid, decay=0.9, k=12) > 0.9
    with pytest.raises(InvalidOption, match="truncate_dim=33 is more than the 32 dimensions"):
        Encoder(model, truncate_dim=33, device="cpu").encode(["a story"])
    with pytest.raises(InvalidOption, match="asks for more dimensions than the 32"):
        fine_tune_encoder(encoder, behaviour, tmp_path / "b", options=replace(HEAD, dims=(64,)))


def test_an_adapter_of_another_model_is_refused(lora: Adapter, other_model: Path) -> None:
    wrong = Encoder(other_model, adapter=lora.folder, device="cpu")
    with pytest.raises(AdapterMismatch, match="was trained on"):
        _ = wrong.fingerprint
    with pytest.raises(AdapterMismatch, match="another one"):
        wrong.encode(["a story of tide"])


@pytest.mark.parametrize("file", [LORA_WEIGHTS, "adapter_config.json", "adapter.json"])
def test_damage_is_found(file: str, lora: Adapter, model: Path, tmp_path: Path) -> None:
    for one in lora.folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    content = bytearray((tmp_path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CorruptArtefact, match=file):
        Encoder(model, adapter=tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CorruptArtefact, match=file):
        Adapter.load(tmp_path)


def test_a_changed_fact_is_found(lora: Adapter, tmp_path: Path) -> None:
    for one in lora.folder.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    manifest = json.loads((tmp_path / "adapter.json").read_bytes())
    manifest["content"]["base_fingerprint"] = "0" * 64
    (tmp_path / "adapter.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtefact, match="seal does not fit"):
        Adapter.load(tmp_path)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers
def test_peft_loads_the_layers_too(lora: Adapter, model: Path, behaviour: Behaviour) -> None:
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(model), device="cpu")
    PeftModel.from_pretrained(theirs[0].auto_model, lora.folder)
    found = theirs.encode(list(behaviour.texts), show_progress_bar=False)
    ours = Encoder(model, adapter=lora.folder, device="cpu").encode(behaviour.texts)
    np.testing.assert_allclose(found, ours, atol=1e-5)


def test_hard_negatives_are_taken_along(encoder: Encoder, behaviour: Behaviour, tmp_path: Path) -> None:
    few = replace(HEAD, steps=3)
    plain = fine_tune_encoder(encoder, behaviour, tmp_path / "a", options=few)
    hard = fine_tune_encoder(
        encoder, behaviour, tmp_path / "b", options=replace(few, hard_negatives=3, hard_after=2)
    )
    assert plain.version != hard.version
    assert hard.metrics["loss_at_first"] > plain.metrics["loss_at_first"]  # more to be told from


def test_guessing_words_gets_better_and_fine_tuning_goes_on_from_it(
    encoder: Encoder, model: Path, behaviour: Behaviour, tmp_path: Path
) -> None:
    options = Pretraining(rank=4, alpha=8, steps=60, batch_size=20, learning_rate=1e-2)
    pretrained = pretrain_encoder(encoder, behaviour.texts, tmp_path / "words", options=options)
    assert pretrained.metrics["loss_at_last"] < 0.9 * pretrained.metrics["loss_at_first"]
    again = pretrain_encoder(encoder, behaviour.texts, tmp_path / "again", options=options)
    assert again.version == pretrained.version

    start = Encoder(model, adapter=pretrained.folder, device="cpu")
    few = replace(LORA, steps=2, learning_rate=1e-9)
    tuned = fine_tune_encoder(start, behaviour, tmp_path / "tuned", options=few)
    assert tuned.lineage == (pretrained.version,)
    np.testing.assert_allclose(
        adapted(model, tuned, behaviour), adapted(model, pretrained, behaviour), atol=1e-4
    )
    headed = fine_tune_encoder(start, behaviour, tmp_path / "headed", options=replace(HEAD, steps=2))
    assert headed.lora is not None
    assert headed.lora_digest == pretrained.lora_digest


def test_masking_spares_what_is_no_word(model: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    from explorank.retrieval.encoding.pretraining import mask_tokens

    tokenizer = AutoTokenizer.from_pretrained(model)
    features = tokenizer(["a story of tide", "rye"] * 500, padding=True, return_tensors="pt")
    torch.manual_seed(1)
    ids, attention = features["input_ids"], features["attention_mask"]
    read, wanted = mask_tokens(ids, attention, tokenizer, 0.15)
    guessed = wanted != -100
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    assert not (guessed & special).any()
    assert torch.equal(read[~guessed], ids[~guessed])
    assert torch.equal(wanted[guessed], ids[guessed])
    assert int(guessed.sum()) / int((~special).sum()) == pytest.approx(0.15, abs=0.02)
    assert float((read[guessed] == tokenizer.mask_token_id).float().mean()) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": "frozen", "head": "none"}, "nothing to train"),
        ({"steps": 0}, "steps=0"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"decay": 1.5}, r"not in \(0, 1\]"),
        ({"noise": -1.0}, "is a length"),
        ({"hard_negatives": -1}, "count items"),
        ({"dims": (0,)}, "below 1"),
    ],
)
def test_options_that_train_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        FineTuning(**options)  # type: ignore[arg-type]


def test_other_items_in_validation_are_refused(
    encoder: Encoder, behaviour: Behaviour, tmp_path: Path
) -> None:
    valid = Behaviour.from_histories([["x", "y"]], {"x": "a", "y": "story"})
    with pytest.raises(InvalidTable, match="over other items"):
        fine_tune_encoder(encoder, behaviour, tmp_path, valid=valid, options=HEAD)


def test_training_leaves_the_callers_randomness_alone(
    encoder: Encoder, behaviour: Behaviour, tmp_path: Path
) -> None:
    import torch

    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fine_tune_encoder(encoder, behaviour, tmp_path, options=replace(LORA, steps=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_the_packaged_model(behaviour: Behaviour, tmp_path: Path) -> None:
    encoder = Encoder(cache=tmp_path / "cache.db", device="cpu")
    options = FineTuning(
        body="lora",
        head="linear",
        rank=4,
        alpha=8,
        steps=6,
        batch_size=16,
        learning_rate=1e-3,
        popularity_correction=False,
    )
    adapter = fine_tune_encoder(encoder, behaviour, tmp_path / "a", options=options)
    assert adapter.metrics["loss_at_last"] < adapter.metrics["loss_at_first"]
    vectors = Encoder(adapter=adapter.folder, cache=tmp_path / "cache.db", device="cpu").encode(
        behaviour.texts
    )
    assert vectors.shape == (40, 384)
    assert (tmp_path / "a" / HEAD_WEIGHTS).exists()
    assert (tmp_path / "a" / LORA_WEIGHTS).stat().st_size < 3_000_000
