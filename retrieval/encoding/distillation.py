"""What a cross-encoder says of some candidates, as lessons for vectors that are compared in no time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.encoding.behaviour import NO_ITEM, Behaviour
from explorank.retrieval.encoding.options import Progress
from explorank.retrieval.errors import InvalidOption, InvalidTable

if TYPE_CHECKING:
    from explorank.retrieval.encoding.text_ranker import TextRanker


@dataclass(frozen=True, slots=True)
class Lessons:
    """How probable a teacher finds it that candidates are liked after a history; make it with `teach`."""

    pairs: NDArray[np.int64]
    """(m,) whose history it is: pairs of the behaviour."""
    items: NDArray[np.int64]
    """(m, 1 + k) rows of the liked item and of others; `NO_ITEM` where there are fewer."""
    log_odds: NDArray[np.float32]
    """(m, 1 + k) what the teacher says; 0 where there is no item."""
    of: str
    """The `digest` of the behaviour that the rows belong to."""

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def digest(self) -> str:
        """A hash of all of it: an interrupted run goes on only with the same lessons."""
        digest = hashlib.sha256(self.of.encode())
        for array in (self.pairs, self.items, self.log_odds):
            digest.update(f"{array.dtype}{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def check(self, behaviour: Behaviour) -> None:
        """Raise `InvalidTable` unless these are lessons on `behaviour`."""
        if self.of != behaviour.digest:
            raise InvalidTable(
                "The lessons are on other pairs than the training pairs, so their rows would mean other histories and "
                "items. Call `teach` with the behaviour that the encoder is trained on."
            )


def teach(
    teacher: TextRanker,
    behaviour: Behaviour,
    *,
    pairs: int = 2_000,
    candidates: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Lessons:
    """Return what `teacher` says of some pairs of `behaviour`, drawn evenly: a pass of its model per candidate.

    Of each pair it reads the item that was liked next and `candidates` - 1 others, drawn evenly from what the user does
    not like. Items that nobody liked are among them: what texts say of those is what it knows best. Raises
    `InvalidOption` for fewer than one pair or two candidates.
    """
    if pairs < 1 or candidates < 2:
        raise InvalidOption(
            f"pairs={pairs} and candidates={candidates} teach nothing: a lesson tells two candidates of one history "
            "apart. Set at least 1 and 2."
        )
    from explorank.retrieval.encoding.text_ranker import draw_negatives  # noqa: PLC0415 - torch

    generator = np.random.default_rng([seed, 2])
    drawn = np.sort(generator.permutation(len(behaviour))[:pairs])
    items = np.full((len(drawn), candidates), NO_ITEM, np.int64)
    all_items = np.ones(len(behaviour.item_ids), np.bool_)
    log_odds = np.zeros((len(drawn), candidates), np.float32)
    for row, pair in enumerate(drawn.tolist()):
        _, chosen, _ = draw_negatives(behaviour, np.array([pair]), candidates - 1, generator, all_items)
        history = behaviour.histories[pair]
        read = [behaviour.texts[place] for place in history[history != NO_ITEM]]
        items[row, : len(chosen)] = chosen
        log_odds[row, : len(chosen)] = teacher.log_odds(read, [behaviour.texts[place] for place in chosen])
        if progress is not None:
            progress(row + 1, len(drawn))
    return Lessons(drawn, items, log_odds, behaviour.digest)


@dataclass(frozen=True, slots=True)
class LessonBatch:
    """`b` lessons whose `u` distinct items are encoded once each."""

    items: NDArray[np.int64]
    """(u,) rows of the items; the arrays below count places in it."""
    histories: NDArray[np.int64]
    """(b, h), `NO_ITEM` where a history is shorter."""
    candidates: NDArray[np.int64]
    """(b, 1 + k), `NO_ITEM` where there are fewer."""
    log_odds: NDArray[np.float32]
    """(b, 1 + k) the teacher's."""


class LessonBatches:
    """Draws the lessons of each step; which ones follows from the seed and the step alone."""

    def __init__(self, lessons: Lessons, behaviour: Behaviour, size: int, *, seed: int) -> None:
        self._lessons = lessons
        self._behaviour = behaviour
        self._size = min(size, len(lessons))
        self._seed = seed

    def __getitem__(self, step: int) -> LessonBatch:
        """Return the lessons of a step, from 0."""
        generator = np.random.default_rng([self._seed, step, 3])
        rows = generator.choice(len(self._lessons), self._size, replace=False)
        histories = self._behaviour.histories[self._lessons.pairs[rows]]
        candidates = self._lessons.items[rows]
        named = np.concatenate([histories.ravel(), candidates.ravel()])
        items = np.unique(named[named != NO_ITEM])

        def places(of: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.where(of == NO_ITEM, NO_ITEM, np.searchsorted(items, of))

        return LessonBatch(items, places(histories), places(candidates), self._lessons.log_odds[rows])
