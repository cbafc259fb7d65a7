"""The nouns of the contract, all of them columnar: one object per request, arrays inside.

Shapes: `n` candidates, `d` features, `k` slots, `m` rewards. Slots count from 0. Item ids are strings
throughout the stage; the policies accept any hashable ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from itertools import chain, compress, count
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from explorank.hooks.errors import InvalidBatch

CONTRACT_VERSION: Final = 1
"""Grows by defaulted arguments and new hooks only; a plugin may ask for a minimum."""

Ids: TypeAlias = NDArray[Any]
BoolArray: TypeAlias = NDArray[np.bool_]
FloatArray: TypeAlias = NDArray[np.float64]
IndexArray: TypeAlias = NDArray[np.int64]
FeatureArray: TypeAlias = NDArray[np.float32]

OFFSETS: Final = "offsets"
"""Under this name, among the columns that a policy read, a record keeps what was expected of each candidate."""

REPRESENTATION: Final = "representation"
"""Under this name, among its versions, a record keeps whose last layer the features hold."""

Settled: TypeAlias = tuple[tuple[object, ...], BoolArray]
"""What static guards said of candidates, (n,), after whom was asked and what about; `static_mask` keeps it."""

Mode: TypeAlias = Literal["off", "shadow", "apprentice", "live"]
Arm: TypeAlias = Literal["explore", "baseline", "holdout"]
SlotMethod: TypeAlias = Literal["score", "explore"]


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Allowance:
    """What limits leave of exploration to one request; settled before anything is drawn."""

    slots: tuple[int, ...]
    """The slots that may explore; the others hold the best by score."""
    explorable: BoolArray | None = None  # (n,)
    """Which candidates an explored slot may choose from, beside the guards; `None`: all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRequest:
    """One question to the ranking stage: who asks, where, for how many slots."""

    decision_id: str
    slots: int
    user_id: str | None = None
    """`None` is an anonymous visitor; their session may stand in `context["history"]`, oldest first."""
    surface: str = "default"
    time: float = 0.0
    """When the request was made, in seconds since the Unix epoch."""
    context: Mapping[str, Any] = field(default_factory=_empty)
    """What the host knows of the request, extended by `ranking_enrich_request`."""
    exclude: frozenset[str] = frozenset()
    """Item ids this request must not answer with, as a block list of its own."""
    similar_to: str | None = None
    """Ask for items like this one, instead of items for the user's history."""
    guard_state: Mapping[str, Any] = field(default_factory=_empty)
    """What guards read of the outside, taken once per request, so that all slots see the same."""
    allowance: Allowance | None = None
    """What limits leave to `ranking_explore`; `None` where none is set. A slate beyond it is refused."""
    hurried: str = ""
    """Why `ranking_score` should take a cheaper way if it has one; empty where it need not."""


class ItemTable(Protocol):
    """Items in an order of their own: a catalogue, say."""

    @property
    def item_ids(self) -> Ids:
        """(N,) which differ; the very same array for as long as the table lives."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where candidates stand in a table of items, so that whoever holds the table looks no ids up."""

    table: ItemTable
    rows: IndexArray  # (n,)
    """Rows of the table, which differ."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Deduplicated candidate items, each with the set of retrievers that found it."""

    item_ids: Ids  # (n,)
    source_names: tuple[str, ...] = ()
    source_bits: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # (n,)
    """Bit j of row i says that `source_names[j]` found item i."""
    retrieval_scores: FeatureArray = field(default_factory=lambda: np.zeros(0, np.float32))  # (n,)
    """The best score any retriever gave, NaN where none gave one; falling order is the last fallback."""
    places: Places | None = field(default=None, compare=False)
    """Where the items stand in the table that they were found in, if they all were found in one."""
    _id_list: list[Any] | None = field(default=None, init=False, repr=False, compare=False)
    """`item_ids` as plain Python values, where they are known already."""
    settled: Settled | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, item_ids: ArrayLike, source: str, scores: ArrayLike | None = None) -> Candidates:
        """Return the candidates of a single source, the first of equal ids kept."""
        ids = np.asarray(item_ids)
        if ids.size == 0:
            ids = np.zeros(0, dtype="<U1")
        values = (
            np.full(len(ids), np.nan, np.float32) if scores is None else np.asarray(scores, dtype=np.float32)
        )
        if values.shape != ids.shape or ids.ndim != 1:
            raise InvalidBatch(
                f"Source {source!r} returned {values.shape} scores for {ids.shape} item ids; both must be "
                "(n,). Return one score per item, or no scores at all."
            )
        found = cls(ids, (source,), np.ones(len(ids), np.uint64), values)
        if found._distinct:
            return found
        _, first = np.unique(ids, return_index=True)
        first.sort()
        return found.take(first)

    @classmethod
    def union(cls, parts: Iterable[Candidates]) -> Candidates:
        """Return every item of `parts` once, in order of first appearance, with all its sources."""
        parts = [part._completed() for part in parts if len(part)]
        if not parts:
            return cls(np.zeros(0, dtype="<U1"))
        if len(parts) == 1 and parts[0]._distinct:
            return parts[0]
        names = tuple(dict.fromkeys(name for part in parts for name in part.source_names))
        if len(names) > 64:
            raise InvalidBatch(f"{len(names)} candidate sources in one request; at most 64 fit. Merge some.")
        ids = np.concatenate([part.item_ids for part in parts])
        scores = np.concatenate([part.retrieval_scores for part in parts])
        bits = np.concatenate([part._bits_under(names) for part in parts])
        listed = list(chain.from_iterable(part.id_list for part in parts))
        first_at: dict[Any, int] = {}
        first = np.fromiter(map(first_at.setdefault, listed, count()), np.int64, count=len(listed))
        again = np.flatnonzero(first != np.arange(len(listed)))
        np.bitwise_or.at(bits, first[again], bits[again])
        np.fmax.at(scores, first[again], scores[again])
        kept = np.fromiter(first_at.values(), np.int64, count=len(first_at))
        return cls(ids[kept], names, bits[kept], scores[kept])._listed(list(first_at))

    @property
    def id_list(self) -> list[Any]:
        """`item_ids` as plain Python values, for whoever looks them up one by one; made once."""
        known = self._id_list
        if known is None:
            known = self.item_ids.tolist()
            self._listed(known)
        return known

    def settle(self, settled: Settled | None) -> Candidates:
        """Keep what static guards said, for the ranking that is made of these candidates."""
        object.__setattr__(self, "settled", settled)
        return self

    def _listed(self, id_list: list[Any] | None) -> Candidates:
        object.__setattr__(self, "_id_list", id_list)
        return self

    @property
    def _distinct(self) -> bool:
        return self.places is not None or len(set(self.id_list)) == len(self)

    def _completed(self) -> Candidates:
        """Return the same with sources and a score for each item, none and NaN where none were given."""
        n = len(self)
        bits, scores = self.source_bits, self.retrieval_scores
        if len(bits) == len(scores) == n:
            return self
        if len(bits) not in {0, n} or len(scores) not in {0, n}:
            raise InvalidBatch(
                f"{n} candidates with {len(bits)} source bits and {len(scores)} scores; give one for each, or none."
            )
        return Candidates(
            self.item_ids,
            self.source_names,
            bits if len(bits) else np.zeros(n, np.uint64),
            scores if len(scores) else np.full(n, np.nan, np.float32),
            self.places,
        )._listed(self._id_list)

    def _bits_under(self, names: tuple[str, ...]) -> NDArray[np.uint64]:
        if names[: len(self.source_names)] == self.source_names:
            return self.source_bits
        bits = np.zeros(len(self), np.uint64)
        for position, name in enumerate(self.source_names):
            found = (self.source_bits >> np.uint64(position)) & np.uint64(1)
            bits |= found << np.uint64(names.index(name))
        return bits

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Candidates:
        """Return the candidates at `rows`, a mask or indices."""
        listed = None
        if rows.dtype == np.bool_:
            if rows.all():
                return self
            listed = self._id_list and list(compress(self._id_list, rows.tolist()))
        places = self.places and Places(self.places.table, self.places.rows[rows])
        taken = Candidates(
            self.item_ids[rows],
            self.source_names,
            self.source_bits[rows],
            self.retrieval_scores[rows],
            places,
        )
        return taken._listed(listed).settle(self.settled and (self.settled[0], self.settled[1][rows]))

    def head(self, limit: int) -> Candidates:
        """Return the first `limit` candidates, all where there are no more."""
        if len(self) <= limit:
            return self
        return Candidates(
            self.item_ids[:limit],
            self.source_names,
            self.source_bits[:limit],
            self.retrieval_scores[:limit],
            self.places and Places(self.places.table, self.places.rows[:limit]),
        )._listed(self._id_list and self._id_list[:limit])

    def sources_of(self, rows: IndexArray) -> tuple[tuple[str, ...], ...]:
        """Return the names of the sources that found the items at `rows` (k,), a tuple for each."""
        if not len(self.source_bits):
            return ((),) * len(rows)
        names: dict[int, tuple[str, ...]] = {}  # few combinations of sources occur
        found = self.source_bits[rows].tolist()
        for bits in set(found):
            names[bits] = tuple(name for place, name in enumerate(self.source_names) if bits >> place & 1)
        return tuple(names[bits] for bits in found)

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, slots=True)
class Features:
    """Named feature columns of the candidates; a missing value is NaN."""

    names: tuple[str, ...]
    values: FeatureArray  # (n, d)

    def __post_init__(self) -> None:
        """Check the shape against the names."""
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise InvalidBatch(
                f"Feature values of shape {self.values.shape} for {len(self.names)} names; the shape must be "
                f"(n, {len(self.names)}), one column per name."
            )

    @classmethod
    def empty(cls, n: int) -> Features:
        """Return no columns for `n` candidates."""
        return cls((), np.zeros((n, 0), np.float32))

    @classmethod
    def join(cls, parts: Sequence[Features], n: int) -> Features:
        """Return the columns of all parts side by side; raise `InvalidBatch` where `check_joinable` does."""
        cls.check_joinable(parts, n)
        if not parts:
            return cls.empty(n)
        if len(parts) == 1:
            return parts[0]
        names = tuple(chain.from_iterable(part.names for part in parts))
        return cls(names, np.concatenate([part.values for part in parts], axis=1))

    @staticmethod
    def check_joinable(parts: Sequence[Features], n: int) -> None:
        """Raise `InvalidBatch` where the parts share a name or have not one row for each of `n` candidates."""
        names = [name for part in parts for name in part.names]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InvalidBatch(
                f"Feature columns {twice} come from more than one plugin; each column has one owner, or "
                "their order would decide its value. Rename one of them."
            )
        for part in parts:
            if len(part.values) != n:
                raise InvalidBatch(
                    f"Feature columns {list(part.names)} have {len(part.values)} rows for {n} candidates; "
                    "return one row per candidate, in the candidates' order."
                )

    def column(self, name: str) -> FeatureArray:
        """Return column `name`, (n,)."""
        return self.values[:, self.names.index(name)]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Features:
        """Return the features at `rows`, a mask or indices."""
        return Features(self.names, self.values[rows])


class Columns(Mapping[str, NDArray[Any]]):
    """The columns of a request by name, (n,) each: features and whatever else is known; made when asked for."""

    __slots__ = ("_features", "_more", "n")

    def __init__(self, features: Features, more: Mapping[str, NDArray[Any]]) -> None:
        """Take features and further columns, whose names count where both have one.

        Raises `InvalidBatch` where their rows differ.
        """
        self.n: Final = len(features.values)
        for name, column in more.items():
            if len(column) != self.n:
                raise InvalidBatch(f"Column {name!r} has {len(column)} rows for {self.n} items.")
        self._features = features
        self._more = more

    def __getitem__(self, name: str) -> NDArray[Any]:
        found = self._more.get(name)
        if found is not None:
            return found
        if name not in self._features.names:
            raise KeyError(name)
        return self._features.column(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._features.names, *self._more)))

    def __len__(self) -> int:
        return len({*self._features.names, *self._more})


@dataclass(frozen=True, slots=True)
class Scores:
    """What a ranker says of the candidates: higher is better, the scale is its own."""

    values: FloatArray  # (n,)
    uncertainty: FloatArray | None = None  # (n,)
    version: str = ""
    """The model version that gave them, recorded with the decision."""
    representation: FeatureArray | None = None  # (n, h)
    """What a last hidden layer makes of each candidate, each column with mean 0 and deviation 1 over training."""


@dataclass(frozen=True, slots=True)
class RankingBatch:
    """The candidates as a policy sees them.

    Raises `InvalidBatch` where shapes disagree, ids repeat, or a score or feature is not finite.
    """

    item_ids: Ids  # (n,) unique
    features: FeatureArray | None = None  # (n, d) finite
    scores: FloatArray | None = None  # (n,) finite; zeros when not given
    uncertainty: FloatArray | None = None  # (n,)
    columns: Mapping[str, NDArray[Any]] = field(default_factory=_empty)  # each (n,)
    """Whatever else guards and policies read, by name: `sources`, `age_s`, `category`, …"""
    feature_names: tuple[str, ...] = ()
    offsets: FloatArray | None = None  # (n,) finite
    """What is expected of each candidate before the policy has learnt anything, in the reward's unit: g(score).

    A policy that learns residuals adds its own expectation to it; others leave it alone."""
    representation: str = ""
    """The version of the network whose last layer `features` hold; empty where they hold none."""
    candidates: InitVar[Candidates | None] = None
    """Those that `item_ids` are the ids of, where the caller has them: what is known of them is not found out again."""
    id_list: Sequence[Any] = field(init=False, repr=False, compare=False)
    """`item_ids` as plain Python values, for whoever looks them up one by one."""
    settled: Settled | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self, candidates: Candidates | None) -> None:
        """Bring the arrays to their dtypes and check them."""
        ids = np.asarray(self.item_ids)
        if ids.ndim != 1:
            raise InvalidBatch(f"`item_ids` has shape {ids.shape}; it must be (n,).")
        n = len(ids)
        scores = np.zeros(n) if self.scores is None else np.ascontiguousarray(self.scores, dtype=np.float64)
        features = None if self.features is None else _single_precision(np.asarray(self.features))
        if scores.shape != (n,):
            raise InvalidBatch(f"`scores` has shape {scores.shape} for {n} items; it must be ({n},).")
        if features is not None and (features.ndim != 2 or len(features) != n):
            raise InvalidBatch(f"`features` has shape {features.shape} for {n} items; it must be ({n}, d).")
        id_list = ids.tolist() if candidates is None else candidates.id_list
        if candidates is not None:
            object.__setattr__(self, "settled", candidates.settled)
        # Guards were asked about a batch of these candidates, or of more, which was checked.
        checked = candidates is not None and candidates.settled is not None
        if not checked and n != len(set(id_list)):
            raise InvalidBatch(
                "`item_ids` holds an item twice; its propensity would be split between two rows. "
                "Deduplicate candidates before scoring (`Candidates.union` does)."
            )
        if self.scores is not None:
            _require_finite("scores", scores, ids)
        if features is not None:
            _require_finite("features", features, ids)
        if self.offsets is not None:
            offsets = np.ascontiguousarray(self.offsets, dtype=np.float64)
            if offsets.shape != (n,):
                raise InvalidBatch(f"`offsets` has shape {offsets.shape} for {n} items; it must be ({n},).")
            _require_finite("offsets", offsets, ids)
            object.__setattr__(self, "offsets", offsets)
        self._check_columns(n)
        object.__setattr__(self, "item_ids", ids)
        object.__setattr__(self, "id_list", id_list)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "features", features)

    def _check_columns(self, n: int) -> None:
        if isinstance(self.columns, Columns) and self.columns.n == n:
            return  # all of one length, as it has checked itself
        for name, column in self.columns.items():
            if len(column) != n:
                raise InvalidBatch(f"Column {name!r} has {len(column)} rows for {n} items.")

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def score_values(self) -> FloatArray:
        """The scores, (n,), never `None`."""
        assert self.scores is not None  # noqa: S101 - __post_init__ filled it
        return self.scores

    def column(self, name: str) -> NDArray[Any]:
        """Return column `name`, the uncertainty or the offsets, (n,); raise `InvalidBatch` where there is none."""
        if name == "uncertainty" and self.uncertainty is not None:
            return np.asarray(self.uncertainty)
        if name == OFFSETS and self.offsets is not None:
            return self.offsets
        if name not in self.columns:
            raise InvalidBatch(
                f"The candidates have no column {name!r} (there are {sorted(self.columns)}), and a policy "
                "reads it. Supply it with the candidates, or set the policy up without it."
            )
        return np.asarray(self.columns[name])


def _single_precision(features: NDArray[Any]) -> FeatureArray:
    """Return `features` as float32; one row that stands for all of them, by broadcasting, stays one row."""
    if features.ndim == 2 and len(features) > 1 and features.strides[0] == 0:
        return np.broadcast_to(features[:1].astype(np.float32), features.shape)
    return features.astype(np.float32, copy=False)


def _require_finite(name: str, values: NDArray[Any], ids: Ids) -> None:
    # One sum finds any NaN or infinity without allocating a mask; finite values may still overflow it.
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(float(values.sum())):
            return
    finite = np.isfinite(values)
    if finite.all():
        return
    row = int(np.argmin(finite.all(axis=1) if values.ndim == 2 else finite))
    raise InvalidBatch(
        f"`{name}` of item {ids.tolist()[row]!r} is not finite ({values[row].tolist()!r}); no distribution "
        "can be drawn from it. Impute missing features and drop items that cannot be scored."
    )


@dataclass(frozen=True, slots=True)
class Slate:
    """What is shown, slot by slot, and how probable each choice was.

    `propensities[s]` is the probability, given the slate above slot `s`, with which the process that ran
    chose the item at slot `s`. The product over the slots is the probability of the slate.
    """

    order: IndexArray  # (k,) rows of the batch
    propensities: FloatArray  # (k,)
    method: tuple[SlotMethod, ...]  # (k,)
    policy: str
    policy_version: int
    eligible: BoolArray  # (k, n) what the guards allowed at each slot, the slate above it removed
    support: BoolArray  # (k, n) what had a probability above 0 at each slot
    seed: int = 0
    floor: float = 0.0
    """The share of an explored slot's probability that is spread evenly over its support."""
    strategies: tuple[str, ...] = ()
    """(k,) which strategy chose the item, empty text where none did; `()` where the policy has none."""
    reads: tuple[str, ...] = ()
    """What the policy read of the batch beside scores and needed features; the record keeps it."""
    decision_id: str = ""
    """The decision that this is, where an earlier one is served again; empty where it is the request's own."""

    def __len__(self) -> int:
        return len(self.order)


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """What came back for shown items, as a policy learns from it.

    The optional columns are (m,); a policy names those it needs and refuses a batch without them.
    """

    item_ids: Ids  # (m,)
    values: FloatArray  # (m,)
    features: FeatureArray | None = None  # (m, d)
    decision_ids: Ids | None = None
    slots: IndexArray | None = None
    propensities: FloatArray | None = None
    offsets: FloatArray | None = None
    """What was expected before learning; the policy learns `values - offsets`."""
    examination: FloatArray | None = None
    """The probability that the slot was looked at; it weighs the row."""
    strategies: Ids | None = None
    times: FloatArray | None = None
    weights: FloatArray | None = None
    representations: Ids | None = None
    """The version of the network whose last layer each row's features hold; empty where they hold none."""

    def __post_init__(self) -> None:
        """Bring the arrays to their dtypes and check them."""
        ids = np.asarray(self.item_ids)
        values = np.asarray(self.values, dtype=np.float64)
        if ids.ndim != 1 or values.shape != ids.shape:
            raise InvalidBatch(
                f"`values` has shape {values.shape} for {ids.shape} item ids; both must be (m,)."
            )
        _require_finite("values", values, ids)
        features = None if self.features is None else np.asarray(self.features, dtype=np.float32)
        if features is not None:
            if features.ndim != 2 or len(features) != len(ids):
                raise InvalidBatch(f"`features` has shape {features.shape} for {len(ids)} rewards.")
            _require_finite("features", features, ids)
        for name in (
            "decision_ids",
            "slots",
            "propensities",
            "offsets",
            "examination",
            "strategies",
            "times",
            "weights",
            "representations",
        ):
            column = getattr(self, name)
            if column is None:
                continue
            column = np.asarray(column)
            if column.shape != ids.shape:
                raise InvalidBatch(f"`{name}` has shape {column.shape} for {len(ids)} rewards.")
            object.__setattr__(self, name, column)
        object.__setattr__(self, "item_ids", ids)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "features", features)

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, slots=True)
class Fallback:
    """One thing that did not work and what was done instead; part of the decision."""

    step: str
    """Where: `retrieve`, `enrich`, `filter`, `score`, `explore`, `log`, …"""
    plugin: str
    reason: str
    action: str
    """What the stage did instead, such as `skipped` or `retrieval order`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """All that evaluation, learning and replay need of one decision, as it is logged.

    Whoever reads only this can compute the probability that any frozen policy would have given to the
    slate, over the logged support.
    """

    request: RankingRequest
    mode: Mode
    arm: Arm
    item_ids: Ids  # (n,) deduplicated candidates
    scores: FloatArray  # (n,)
    slate: Slate
    baseline_order: IndexArray  # (k,) what would have been shown without exploration
    feature_names: tuple[str, ...] = ()
    feature_rows: IndexArray = field(default_factory=lambda: np.zeros(0, np.int64))  # (p,) rows of item_ids
    features: FeatureArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # (p, d) as served
    columns: Mapping[str, NDArray[Any]] = field(default_factory=_empty)  # each (p,)
    """What a policy read by name, of the rows in `feature_rows`."""
    shadow: Slate | None = None
    """The slate that exploration would have shown, where the mode or the arm kept it back."""
    sources: tuple[tuple[str, ...], ...] = ()  # (k,) of the shown items
    fallbacks: tuple[Fallback, ...] = ()
    versions: Mapping[str, str] = field(default_factory=_empty)
    """Of the ranker, index, settings, guards and package."""
    propensity_known: bool = True
    """False where a fallback makes the propensity unknown; evaluation leaves such a decision out."""
    held_back: str = ""
    """Why a limit kept the request from exploring, in all its slots or in some; those hold the best by score."""

    @property
    def decision_id(self) -> str:
        """The id that impressions and rewards refer to."""
        return self.request.decision_id

    @property
    def shown_ids(self) -> list[Any]:
        """The ids of the answered items, in slot order."""
        shown: list[Any] = self.item_ids[self.slate.order].tolist()
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """The host's word on what it really displayed for a decision, in order."""

    decision_id: str
    items_in_order: tuple[str, ...]
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """One reward for one slot of a decision. Equal `reward_id`s are one reward."""

    decision_id: str
    slot: int
    item_id: str
    kind: str
    value: float
    reward_id: str
    time: float
    """When it happened, in seconds since the Unix epoch; before its decision, it is taken for having come with it."""
    user_id: str | None = None
    """Whose decision it was, where the stage knows."""
