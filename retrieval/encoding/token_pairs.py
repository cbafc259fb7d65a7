"""What a cross-encoder reads, put together by arrays: a history and a candidate, as tokens that were made ahead.

Each text is tokenised once. A pair is then a gather over the tokens of its parts, in the order and between the special
tokens that the model's own tokenizer would set: no text is touched while somebody waits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.errors import EncoderUnavailable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NO_TEXT: Final = 0
"""The row of the empty text."""
_SEPARATOR: Final = "|"
"""Between the texts of a history, as `history_text` has it."""
_AT_ONCE: Final = 10_000


class TokenTable:
    """The tokens of texts by row; row 0 is the empty text."""

    def __init__(self, tokens: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
        """Take the tokens (t,) of all texts but row 0, one after another, and where each ends, (n,)."""
        self.tokens: Final = tokens
        self.ends: Final = ends

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Self:
        """Return the table of texts (n,), whose rows begin with 1."""
        ends = np.cumsum([len(one) for one in lists], dtype=np.int64) if lists else np.zeros(0, np.int64)
        total = int(ends[-1]) if len(ends) else 0
        return cls(np.fromiter((token for one in lists for token in one), np.int32, total), ends)

    def __len__(self) -> int:
        """Return how many texts there are, row 0 left out."""
        return len(self.ends)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(n,) where each text begins."""
        return self.ends - self.sizes

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(n,) how many tokens each text has."""
        return np.diff(self.ends, prepend=0)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the table of some rows, from 1, in the order given."""
        sizes, starts = self.sizes[rows - 1], self.starts[rows - 1]
        return type(self)(self.tokens[_runs(starts, sizes)], np.cumsum(sizes))

    def and_then(self, other: TokenTable) -> Self:
        """Return this table with the texts of another behind its own."""
        tokens = np.concatenate([self.tokens, other.tokens])
        return type(self)(tokens, np.concatenate([self.ends, len(self.tokens) + other.ends]))


@dataclass(frozen=True, slots=True)
class TokenPairs:
    """`n` pairs as a model takes them, padded to the longest one, (n, length) int64 each."""

    tokens: NDArray[np.int64]
    present: NDArray[np.int64]
    """1 where there is a token, 0 where there is padding."""
    kinds: NDArray[np.int64]
    """Which of the two texts a token is of, as the model was taught to tell them apart; 0 where it was not."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Tokens of the model's own before, between or behind the two texts."""

    tokens: tuple[int, ...]
    kinds: tuple[int, ...]


class PairTokenizer:
    """Makes tokens of texts, and pairs of tokens; it needs the package `tokenizers`, and no torch.

    Equal to the model's own tokenizer where that splits texts at spaces before all else, as BERT's do. A pair of more
    than `max_tokens` loses the end of its history, which is what is oldest.
    """

    def __init__(self, definition: str, *, padding: int, max_tokens: int) -> None:
        """Take the content of a `tokenizer.json` and the token that pads.

        Raises `EncoderUnavailable` without `tokenizers`, or where it cannot read the content.
        """
        self.definition: Final = definition
        self.padding: Final = padding
        self.max_tokens: Final = max_tokens
        self._tokenizer = _load(definition)
        pair = self._tokenizer.encode(_SEPARATOR, _SEPARATOR)
        texts = [-1 if text is None else text for text in pair.sequence_ids]
        first, second = texts.index(0), texts.index(1)
        after_first, after_second = len(texts) - texts[::-1].index(0), len(texts) - texts[::-1].index(1)

        def special(start: int, end: int) -> SpecialTokens:
            return SpecialTokens(tuple(pair.ids[start:end]), tuple(pair.type_ids[start:end]))

        self.before: Final = special(0, first)
        self.between: Final = special(after_first, second)
        self.behind: Final = special(after_second, len(texts))
        self.kinds: Final = pair.type_ids[first], pair.type_ids[second]
        self.separator: Final = tuple(pair.ids[first:after_first])
        self.room: Final = max_tokens - len(texts) + len(self.separator) + (after_second - second)
        """How many tokens of the two texts fit into a pair."""

    @classmethod
    def of(cls, tokenizer: Any, max_tokens: int) -> Self:
        """Return that of a transformers tokenizer; raise `EncoderUnavailable` for one that is not a fast one."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise EncoderUnavailable(
                f"The tokenizer {type(tokenizer).__name__} is written in Python, and serving reads those that the "
                "package `tokenizers` reads. Name a model that has a `tokenizer.json`."
            )
        return cls(backend.to_str(), padding=int(tokenizer.pad_token_id), max_tokens=max_tokens)

    def tokenize(self, texts: Sequence[str]) -> TokenTable:
        """Return the tokens of texts (n,), of each as many as a pair has room for."""
        lists: list[list[int]] = []
        for start in range(0, len(texts), _AT_ONCE):
            part = self._tokenizer.encode_batch(
                list(texts[start : start + _AT_ONCE]), add_special_tokens=False
            )
            lists.extend(one.ids[: self.room] for one in part)
        return TokenTable.of(lists)

    def reader(self, table: TokenTable) -> PairReader:
        """Return what puts pairs of the texts of `table` together."""
        return PairReader(self, table)


class PairReader:
    """Puts pairs together of the texts of one table; immutable, and safe for use from many threads."""

    def __init__(self, tokenizer: PairTokenizer, table: TokenTable) -> None:
        """Take a tokenizer, and texts that it made tokens of."""
        # The special tokens are texts of their own, behind those of the table.
        marks = [tokenizer.before, tokenizer.between, tokenizer.behind]
        first, self._second = tokenizer.kinds
        own = TokenTable.of([*(mark.tokens for mark in marks), tokenizer.separator])
        self._before, self._between, self._behind, self._separator = range(len(table) + 1, len(table) + 5)
        every = table.and_then(own)
        self._tokens = every.tokens
        self._kinds = np.full(len(every.tokens), first)
        of_marks = [kind for mark in marks for kind in mark.kinds]
        self._kinds[len(table.tokens) : len(table.tokens) + len(of_marks)] = of_marks
        self._sizes, self._starts = np.r_[0, every.sizes], np.r_[0, every.starts]
        self._room, self._padding = tokenizer.room, tokenizer.padding

    def pairs(self, histories: NDArray[np.int64], candidates: NDArray[np.int64]) -> TokenPairs:
        """Return pairs of histories (n, h), the newest first, and candidates (n,): rows of the table, 0 for no text.

        Texts without a token are passed over.
        """
        rows, history = histories.shape
        # before, text, separator, text, …, between, candidate, behind
        parts = np.zeros((rows, 2 * history + 3), np.int64)
        parts[:, 0], parts[:, -3], parts[:, -2], parts[:, -1] = (
            self._before,
            self._between,
            candidates,
            self._behind,
        )
        parts[:, 1:-3:2] = histories
        filled = self._sizes[histories] > 0
        later = filled[:, 1:] & (np.cumsum(filled, axis=1)[:, :-1] > 0)
        parts[:, 2:-3:2] = np.where(later, self._separator, NO_TEXT)
        lengths = self._sizes[parts]
        read, room = lengths[:, 1:-3], self._room - lengths[:, -2:-1]
        lengths[:, 1:-3] = np.clip(room - (np.cumsum(read, axis=1) - read), 0, read)
        totals = lengths.sum(axis=1)
        shape = rows, int(totals.max(initial=0))
        row, column = np.repeat(np.arange(rows), totals), _runs(np.zeros(rows, np.int64), totals)
        places = _runs(self._starts[parts].ravel(), lengths.ravel())
        of_candidate = np.zeros(parts.shape, np.bool_)
        of_candidate[:, -2] = True
        second = np.repeat(of_candidate.ravel(), lengths.ravel())
        tokens, present, kinds = np.full(shape, self._padding), np.zeros(shape, int), np.zeros(shape, int)
        tokens[row, column] = self._tokens[places]
        present[row, column] = 1
        kinds[row, column] = np.where(second, self._second, self._kinds[places])
        return TokenPairs(tokens, present, kinds)


def _runs(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return start, start + 1, … of each run, one run after another."""
    before = np.cumsum(sizes) - sizes
    runs: NDArray[np.int64] = np.arange(int(sizes.sum())) + np.repeat(starts - before, sizes)
    return runs


def _load(definition: str) -> Tokenizer:
    # Its threads would take the processors from requests while a new catalogue is read.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise EncoderUnavailable(
            "The package tokenizers is not installed, and texts are read as its tokens. Run "
            "`pip install 'explorank[neural]'`."
        ) from error
    try:
        tokenizer = Tokenizer.from_str(definition)
    except Exception as error:  # the package raises nothing narrower
        raise EncoderUnavailable(
            f"The tokenizer cannot be read ({error}). Install the version of tokenizers that it was written with, or "
            "a later one, or train again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
