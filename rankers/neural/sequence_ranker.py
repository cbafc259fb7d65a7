"""A ranker that reads what the user took up before, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.data import RankingData
from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.items import (
    ITEM_CODE,
    ItemVocabulary,
    check_free,
    histories_of,
    history_columns,
    item_ids_of,
    without_padding,
)
from explorank.rankers.neural.options import SequenceOptions
from explorank.rankers.neural.plan import Plan, Readings
from explorank.rankers.neural.ranker import Feed, NeuralRanker, Rows
from explorank.rankers.neural.start import Start
from explorank.rankers.ranker import Progress

_ROWS_AT_ONCE: Final = 4_096


class SequenceRanker(NeuralRanker):
    """Target attention over the history (DIN; Zhou et al. 2018) beside a causal transformer of it (SASRec; Kang and
    McAuley 2018), and the dense features.

    Its columns are the data's features, `item_code`, and `history_01` … `history_L`, the newest last; a code is that of
    an item which training saw, or 0. The transformer runs once for rows in a row that share a history.
    """  # noqa: D205

    kind: ClassVar = "sequence"
    Options: ClassVar = SequenceOptions

    @classmethod
    def fit(
        cls,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: SequenceOptions | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> SequenceRanker:
        """Train on `data`, which has `item_ids` and `histories`; otherwise as `DCNRanker.fit`."""
        return cls._fit(data, valid, options or SequenceOptions(), seed, progress, checkpoint)

    def read_ids(self, item_ids: Sequence[str], history: Sequence[str]) -> NDArray[np.float32]:
        """Return `item_code` and the history's columns (n, 1 + L) for candidates (n,) and a history, oldest first.

        Items that training did not see have code 0 as candidates, and are passed over in the history.
        """
        columns = np.empty((len(item_ids), 1 + self._length), np.float32)
        columns[:, 0] = self._vocabulary.codes(item_ids)
        columns[:, 1:] = self._vocabulary.histories([history], self._length)[0]
        return columns

    def user_vector(self, history: Sequence[str]) -> NDArray[np.float32]:
        """Return the user's interest (k,) from a history, oldest first; zeros where no item of it is known.

        Its inner product with `item_vectors` is part of the representation, as the score of SASRec is.
        """
        # One candidate that nobody knows: ONNX Runtime multiplies no matrices without rows before 1.32.
        unknown: Feed = {
            "numbers": np.zeros((1, 1, len(self._layout.dense)), np.float32),
            "places": np.zeros((1, 1, len(self._layout.categorical)), np.int64),
            "items": np.zeros((1, 1), np.int64),
        }
        codes = self._vocabulary.histories([history], self._length)
        read = without_padding(codes) if self._shortens else codes
        (vectors,) = self._session.run(["user"], {**unknown, "histories": read})
        return np.ascontiguousarray(vectors[0])

    def item_vectors(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vector (n, k) of each row's item, for features (n, d) whose history does not matter."""
        return self._run(["item"], features)[0]

    @classmethod
    def _plan(
        cls, data: RankingData, options: SequenceOptions, start: Start | None = None
    ) -> tuple[Plan, Callable[[RankingData], Readings]]:
        ids = (ITEM_CODE, *history_columns(options.history))
        check_free(data.feature_names, ids)
        min_count = options.training.min_count
        also = None if start is None else start.shared_codes
        layout = ColumnLayout.of(data.features, data.feature_names, data.categorical, min_count, also=also)
        items = () if start is None else start.shared_items
        vocabulary = ItemVocabulary.of(_taken_up(data, cls.kind), min_count, also=items)

        def read(data: RankingData) -> Readings:
            return Readings(
                numbers=layout.numbers(data.features),
                places=layout.table_places(data.features),
                items=vocabulary.codes(item_ids_of(data, cls.kind)),
                histories=vocabulary.histories(histories_of(data, cls.kind), options.history),
            )

        plan = Plan(
            kind=cls.kind,
            options=options,
            feature_names=(*data.feature_names, *ids),
            categorical=(*data.categorical, *ids),
            id_columns=ids,
            layout=layout,
            vocabulary=vocabulary,
            content=_content(data, options.content),
        )
        return plan, read

    @property
    def _length(self) -> int:
        return int(self._manifest.details["options"]["history"])

    def _read(self, features: NDArray[np.float32]) -> Readings:
        first_id = features.shape[1] - 1 - self._length
        return Readings(
            numbers=self._layout.numbers(features[:, :first_id]),
            places=self._layout.table_places(features),
            items=self._codes(features[:, first_id]),
            histories=self._codes(features[:, first_id + 1 :]),
        )

    def _codes(self, columns: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return codes of items as they came in columns, 0 for what is none."""
        known = (columns >= 1) & (columns <= len(self._vocabulary))  # false for NaN
        return np.where(known, columns, 0).astype(np.int64)

    def _feeds(self, features: NDArray[np.float32]) -> Iterator[tuple[Rows, Feed]]:
        first_id = features.shape[1] - 1 - self._length
        numbers = self._layout.numbers(features[:, :first_id])
        places = self._layout.table_places(features)
        items, columns = self._codes(features[:, first_id]), features[:, first_id + 1 :]
        for first_rows, part in _blocks(columns):
            rows = _rows_of(first_rows, part)
            histories = self._codes(columns[first_rows])
            shape = (len(first_rows), len(part))
            yield (
                rows,
                {
                    "numbers": numbers[rows].reshape(*shape, numbers.shape[1]),
                    "places": places[rows].reshape(*shape, places.shape[1]),
                    "items": items[rows].reshape(shape),
                    "histories": without_padding(histories) if self._shortens else histories,
                },
            )

    @cached_property
    def _shortens(self) -> bool:
        # Graphs of earlier versions take histories of one length alone.
        return self._session.is_open("histories", 1)


def _blocks(histories: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.int64], range]]:
    """Yield the first rows (u,) of runs that share a history each, and which rows of each run go through the graph.

    Equal histories are looked for in neighbouring rows alone, where requests have them; runs of one length go through
    the graph together.
    """
    if not len(histories):
        return
    if (histories == histories[0]).all():
        starts, sizes = np.zeros(1, np.int64), np.array([len(histories)])
    else:
        starts = np.flatnonzero(np.r_[True, (histories[1:] != histories[:-1]).any(axis=1)])
        sizes = np.diff(np.r_[starts, len(histories)])
    for size in np.unique(sizes).tolist():
        of_size = starts[sizes == size]
        at_once = max(1, _ROWS_AT_ONCE // size)
        for first in range(0, len(of_size), at_once):
            for offset in range(0, size, _ROWS_AT_ONCE):
                yield of_size[first : first + at_once], range(offset, min(size, offset + _ROWS_AT_ONCE))


def _rows_of(first_rows: NDArray[np.int64], part: range) -> Rows:
    """Return the rows (u · m,) of a part of each run; a slice of one run, so that nothing is copied."""
    if len(first_rows) == 1:
        first = int(first_rows[0])
        return slice(first + part.start, first + part.stop)
    rows: NDArray[np.int64] = (first_rows[:, None] + np.asarray(part, np.int64)).ravel()
    return rows


def _taken_up(data: RankingData, kind: str) -> Iterator[str]:
    yield from item_ids_of(data, kind).tolist()
    for history in histories_of(data, kind):
        yield from history


def _content(data: RankingData, columns: Sequence[str]) -> tuple[int, ...]:
    numbers = [name for name in data.feature_names if name not in data.categorical]
    unknown = [name for name in columns if name not in numbers]
    if unknown:
        raise InvalidTraining(
            f"Content column {unknown[0]!r} is no numeric feature of the {data.called} data, so no item could be known "
            f"by it. The numeric ones are {', '.join(numbers) or 'none'}."
        )
    return tuple(numbers.index(name) for name in columns)
