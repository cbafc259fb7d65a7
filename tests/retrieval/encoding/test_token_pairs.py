"""Pairs that arrays put together are those that the model's own tokenizer makes of the texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorank.retrieval import Encoder, EncoderUnavailable
from explorank.retrieval.encoding import PairTokenizer, TokenTable
from explorank.retrieval.encoding.text_ranker import history_text


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return Encoder(model, device="cpu").load_cross_encoder(32).tokenizer


@pytest.mark.parametrize("longest", [32, 18, 12])
def test_pairs_are_those_of_the_models_own_tokenizer(
    tokenizer: Any, texts: dict[str, str], longest: int
) -> None:
    own = PairTokenizer.of(tokenizer, longest)
    read = [*list(texts.values())[:12], "rye", "what nobody knows"]
    reader = own.reader(own.tokenize(read))
    random = np.random.default_rng(8)
    candidates = random.integers(1, len(read) + 1, 60)
    histories = np.where(
        np.arange(4) < random.integers(0, 5, 60)[:, None], random.integers(1, len(read) + 1, (60, 4)), 0
    )
    pairs = reader.pairs(histories, candidates)
    for row, (history, candidate) in enumerate(zip(histories, candidates, strict=True)):
        newest_last = [read[code - 1] for code in history[::-1] if code]
        due = tokenizer(
            [history_text(newest_last)],
            [read[candidate - 1]],
            truncation="only_first",
            max_length=longest,
        )
        length = len(due["input_ids"][0])
        assert pairs.tokens[row, :length].tolist() == due["input_ids"][0]
        assert pairs.kinds[row, :length].tolist() == due["token_type_ids"][0]
        assert pairs.present[row].tolist() == [1] * length + [0] * (pairs.present.shape[1] - length)
        assert (pairs.tokens[row, length:] == tokenizer.pad_token_id).all()
    assert pairs.tokens.shape[1] <= longest


def test_a_candidate_that_fills_the_pair_leaves_no_room_for_the_history(tokenizer: Any) -> None:
    own = PairTokenizer.of(tokenizer, 8)  # three of which are the model's own
    reader = own.reader(own.tokenize(["rye oven yeast flour tide storm moon", "orbit"]))
    (tokens,) = reader.pairs(np.array([[2]]), np.array([1])).tokens
    words = tokenizer.convert_ids_to_tokens(tokens.tolist())
    assert words == ["[CLS]", "[SEP]", "rye", "oven", "yeast", "flour", "tide", "[SEP]"]


def test_texts_without_tokens_are_passed_over(tokenizer: Any) -> None:
    own = PairTokenizer.of(tokenizer, 32)
    reader = own.reader(own.tokenize(["orbit", "", "rye"]))
    (tokens,) = reader.pairs(np.array([[2, 1, 0, 3]]), np.array([2])).tokens
    assert tokenizer.convert_ids_to_tokens(tokens.tolist()) == [
        "[CLS]",
        "orbit",
        "[UNK]",
        "rye",
        "[SEP]",
        "[SEP]",
    ]  # fmt: skip - the tiny model does not know the bar
    assert reader.pairs(np.zeros((0, 3), np.int64), np.zeros(0, np.int64)).tokens.shape == (0, 0)


def test_tables_are_cut_and_joined_by_row() -> None:
    table = TokenTable.of([[1, 2], [], [3]]).and_then(TokenTable.of([[4, 5, 6]]))
    assert len(table) == 4
    taken = table.take(np.array([4, 2, 1]))
    assert (taken.tokens.tolist(), taken.ends.tolist()) == ([4, 5, 6, 1, 2], [3, 3, 5])
    empty = TokenTable.of([])
    assert (len(empty), empty.sizes.tolist()) == (0, [])


def test_what_is_no_tokenizer_is_told() -> None:
    with pytest.raises(EncoderUnavailable, match="tokenizer cannot be read"):
        PairTokenizer("{}", padding=0, max_tokens=8)
    with pytest.raises(EncoderUnavailable, match="written in Python"):
        PairTokenizer.of(object(), 8)
