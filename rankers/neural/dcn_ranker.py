"""A deep and cross network over dense and categorical features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.items import ITEM_CODE, ItemVocabulary, check_free, item_ids_of
from explorank.rankers.neural.options import DCNOptions
from explorank.rankers.neural.plan import Plan, Readings
from explorank.rankers.neural.ranker import Feed, NeuralRanker, Rows
from explorank.rankers.neural.start import Start
from explorank.rankers.ranker import Progress

_ROWS_AT_ONCE: Final = 16_384
"""More rows are scored in parts, so that a matrix of all items needs no memory for all at once."""


class DCNRanker(NeuralRanker):
    """DCN-v2 (Wang et al. 2021): layers that cross features with one another, and a deep tower.

    Numbers are standardised within the network, categories and, by option, items have embeddings.
    """

    kind: ClassVar = "dcn"
    Options: ClassVar = DCNOptions

    @classmethod
    def fit(
        cls,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: DCNOptions | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> DCNRanker:
        """Train on `data`; stop when the metric on `valid`, a later slice, no longer improves.

        That metric is NDCG@10, or log loss where `valid` has no groups; the best epoch is kept. On the CPU the same
        data, seed and options give the same weights. `checkpoint` is a folder to go on from after a run was cut off.
        Needs the extra `train`. Raises `InvalidTraining` for data or options from which no useful ranker can come,
        `CorruptRanker` for a damaged checkpoint.
        """
        return cls._fit(data, valid, options or DCNOptions(), seed, progress, checkpoint)

    def read_ids(self, item_ids: Sequence[str], history: Sequence[str]) -> NDArray[np.float32]:  # noqa: ARG002
        """Return `item_code` (n, 1) for candidates (n,), 0 for items that training did not see; or no column."""
        if not self.id_columns:
            return np.empty((len(item_ids), 0), np.float32)
        return self._vocabulary.codes(item_ids).astype(np.float32)[:, None]

    @classmethod
    def _plan(
        cls, data: RankingData, options: DCNOptions, start: Start | None = None
    ) -> tuple[Plan, Callable[[RankingData], Readings]]:
        ids = (ITEM_CODE,) if options.item_ids else ()
        check_free(data.feature_names, ids)
        min_count = options.training.min_count
        taken_up = item_ids_of(data, cls.kind).tolist() if ids else ()
        vocabulary = ItemVocabulary.of(taken_up, min_count, also=() if start is None else start.shared_items)

        def matrix(data: RankingData) -> NDArray[np.float32]:
            if not ids:
                return data.features
            codes = vocabulary.codes(item_ids_of(data, cls.kind)).astype(np.float32)
            return np.concatenate([data.features, codes[:, None]], axis=1)

        names, categorical = (*data.feature_names, *ids), (*data.categorical, *ids)
        every = {ITEM_CODE: np.arange(1, len(vocabulary) + 1, dtype=np.float32)} if ids else {}
        also = None if start is None else start.shared_codes
        layout = ColumnLayout.of(matrix(data), names, categorical, min_count, every=every, also=also)
        plan = Plan(
            kind=cls.kind,
            options=options,
            feature_names=names,
            categorical=categorical,
            id_columns=ids,
            layout=layout,
            vocabulary=vocabulary,
        )
        return plan, lambda data: _readings(layout, matrix(data))

    def _read(self, features: NDArray[np.float32]) -> Readings:
        return _readings(self._layout, features)

    def _feeds(self, features: NDArray[np.float32]) -> Iterator[tuple[Rows, Feed]]:
        for start in range(0, len(features), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows = self._read(features[part])
            yield part, {"numbers": rows.numbers, "places": rows.places}


def _readings(layout: ColumnLayout, features: NDArray[np.float32]) -> Readings:
    return Readings(numbers=layout.numbers(features), places=layout.table_places(features))
