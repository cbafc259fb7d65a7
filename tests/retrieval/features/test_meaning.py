"""What numbers mean is compared as values, and written as a text that reads back the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval.features import Meaning

TEXTS = st.lists(st.text(max_size=3), unique=True, max_size=5)


@given(TEXTS)
def test_what_was_written_reads_back(texts: list[str]) -> None:
    for meaning in (Meaning.of_codes(texts), Meaning("number"), Meaning("time")):
        assert Meaning.read(str(meaning)) == meaning


@given(TEXTS, TEXTS)
def test_codes_hold_while_the_first_texts_are_the_same(former: list[str], now: list[str]) -> None:
    held = Meaning.of_codes(former).holds(Meaning.of_codes(now), now)
    assert held == (now[: len(former)] == former)


def test_what_catalogues_hold_is_read_as_before() -> None:
    """BLAKE2b of '["evening", "morning"]', 6 bytes, as an earlier version wrote it."""
    written = "text 2 63d259007e7b"
    assert Meaning.read(written) == Meaning.of_codes(["evening", "morning"])
    assert str(Meaning.of_codes(["evening", "morning"])) == written


@pytest.mark.parametrize("written", ["text", "text two 0a", "text 2", "texture 1 0a", "other", ""])
def test_what_cannot_be_read_holds_for_nothing_else(written: str) -> None:
    meaning = Meaning.read(written)
    assert str(meaning) == written
    for now in (Meaning.of_codes(["a"]), Meaning("number")):
        assert not meaning.holds(now, ["a"])


def test_codes_are_no_amounts() -> None:
    codes, none_yet, amounts = Meaning.of_codes(["a"]), Meaning.of_codes([]), Meaning("number")
    assert (codes.is_category, none_yet.is_category, amounts.is_category) == (True, True, False)
    assert (codes.is_without_codes, none_yet.is_without_codes, amounts.is_without_codes) == (
        False, True, False,
    )  # fmt: skip
    assert not codes.holds(amounts, [])
    assert not amounts.holds(codes, ["a"])
