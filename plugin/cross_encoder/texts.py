"""What items are called, as tokens by code: 1 for the first id in ascending order, and so on; 0 is no text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from explorank.rankers import InvalidTraining
from explorank.rankers.neural.items import ItemVocabulary
from explorank.retrieval.encoding import PairTokenizer, TokenTable


@dataclass(frozen=True, slots=True)
class KnownTexts:
    """The items whose texts are known; the code of an item is its row in the table."""

    items: ItemVocabulary
    table: TokenTable

    @classmethod
    def of(cls, texts: Mapping[str, Any], tokenizer: PairTokenizer) -> Self:
        """Return the texts of items by id; raise `InvalidTraining` for one that is no text."""
        odd = next((item for item, text in texts.items() if not isinstance(text, str)), None)
        if odd is not None:
            raise InvalidTraining(
                f"The text of item {odd!r} is {texts[odd]!r}, and no text, so nothing could be read. Leave the item "
                "out, or say what it is called."
            )
        items = ItemVocabulary.of(texts.keys(), 1)
        return cls(items, tokenizer.tokenize([texts[item] for item in items.ids.tolist()]))

    def overlaid(self, newer: KnownTexts) -> Self:
        """Return all texts of both, the newer one of an item that both know."""
        kept = np.flatnonzero(newer.items.codes(self.items.ids) == 0) + 1
        ids = np.concatenate([newer.items.ids, self.items.ids[kept - 1]])
        order = np.argsort(ids, kind="stable")
        table = newer.table.and_then(self.table.take(kept)).take(order + 1)
        return type(self)(ItemVocabulary(ids[order]), table)
