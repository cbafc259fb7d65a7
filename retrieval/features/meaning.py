"""What the numbers of a feature mean, to tell when they mean something else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

_OF_TEXTS: Final = re.compile(r"text (\d+) ([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the numbers of one feature are: amounts, ages, or codes of texts and of which."""

    kind: str
    """`number`, `time`, `text`, or `not served`; what cannot be read is as it was written."""
    texts: int = 0
    """How many texts have codes."""
    digest: str = ""
    """Of those texts in the order of their codes; empty where numbers are no codes."""

    @classmethod
    def of_codes(cls, texts: Sequence[str]) -> Self:
        """Return the meaning of codes of `texts`, which are in the order of their codes."""
        return cls("text", len(texts), _digest(texts))

    @classmethod
    def read(cls, written: str) -> Self:
        """Return the meaning that was written as `str` gives it."""
        found = _OF_TEXTS.fullmatch(written)
        return cls(written) if found is None else cls("text", int(found[1]), found[2])

    def __str__(self) -> str:
        """Return it as a text, such as `number` or `text 12 6f1c…`, for `read`."""
        return f"{self.kind} {self.texts} {self.digest}" if self.is_category else self.kind

    @property
    def is_category(self) -> bool:
        """Whether the numbers are codes without an order."""
        return bool(self.digest)

    @property
    def is_without_codes(self) -> bool:
        """Whether the numbers will be codes, and no text has one yet."""
        return self.is_category and not self.texts

    def holds(self, now: Self, texts: Sequence[str]) -> bool:
        """Say whether numbers that meant this still do, now that they mean `now` and `texts` have codes.

        Texts that got their codes later change nothing.
        """
        if not (self.is_category and now.is_category):
            return self == now
        return len(texts) >= self.texts and _digest(texts[: self.texts]) == self.digest


NOT_SERVED: Final = Meaning("not served")


def _digest(texts: Sequence[str]) -> str:
    content = json.dumps(list(texts), ensure_ascii=False).encode()
    return hashlib.blake2b(content, digest_size=6).hexdigest()
