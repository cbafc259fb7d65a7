"""What a request gets without exploration: the best by score that the guards allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from explorank.hooks.types import IndexArray, Slate


class Baseline:
    """The order at once, since every record holds it; the slate where somebody shows it."""

    __slots__ = ("_build", "_slate", "order")

    def __init__(self, order: IndexArray, build: Callable[[], Slate]) -> None:
        """Take the rows of the candidates (k,) that `build` would return a slate of."""
        self.order = order
        self._build = build
        self._slate: Slate | None = None

    @classmethod
    def of(cls, slate: Slate) -> Self:
        """Return the baseline that `slate` is."""
        return cls(slate.order, lambda: slate)

    @property
    def slate(self) -> Slate:
        """The slate, the same one each time."""
        if self._slate is None:
            self._slate = self._build()
        return self._slate
