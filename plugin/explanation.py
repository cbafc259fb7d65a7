"""Why a decision came out as it did: what the ranker saw in each item, what it reminded of, what exploration did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.assembly import RANKER, load_ranker
from explorank.builtin.rankers import CHEAPER
from explorank.builtin.request_context import USER
from explorank.builtin.retrieval import SIMILARITY, history_of
from explorank.errors import USER_ERRORS, InvalidRequest
from explorank.fallbacks import collecting_fallbacks
from explorank.hooks.registry import did_you_mean
from explorank.hooks.types import Candidates, DecisionRecord, Fallback, Features, SlotMethod
from explorank.item_texts import item_texts
from explorank.model_card import ModelCard
from explorank.rankers import (
    Explanation,
    Ranker,
    RankingData,
    features_for,
    is_listwise,
    knowing_texts,
    reads_texts,
)
from explorank.retrieval import Catalogue, interest_vector
from explorank.retrieval.features.vocabulary import Vocabularies

if TYPE_CHECKING:
    from explorank.assembly import Installation

_NEIGHBOURS: Final = 3
_SAME: Final = 1e-6
"""Two scores this near, relative to their size, come from the same columns, up to rounding."""
_PLAIN: Final = (str, int, float, bool, list, tuple, Mapping, type(None))


@dataclass(frozen=True, slots=True)
class FeaturePart:
    """What one feature added to a score."""

    name: str
    value: float | None
    """As the ranker read it; `None` is missing."""
    text: str | None
    """What the number stands for, where the feature is a text."""
    attribution: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item of the user's history."""

    item_id: str
    cosine: float
    """With the candidate, in the catalogue's space."""
    text: str = ""
    """The item's text, as the feature repository has it now; empty where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemExplanation:
    """Why one candidate stands where it does."""

    item_id: str
    score: float
    """As it was when the decision was made."""
    score_rank: int
    """From 1, among all candidates; equal scores share the best."""
    slot: int | None
    """Where it was answered, from 0; `None` where it was not."""
    baseline_slot: int | None
    """Where it would have stood without exploration; `None` where it would not."""
    method: SlotMethod | None
    """`score` holds the best by score, `explore` was drawn; `None` where it was not answered."""
    propensity: float | None
    """The probability of that choice, given the slots above."""
    choices: int | None
    """How many candidates that slot could have held."""
    strategy: str
    """The strategy that chose it, where the policy has some."""
    sources: tuple[str, ...]
    """The retrievers that found it; known of answered items."""
    policy_saw: Mapping[str, float]
    """The policy's columns as served, standardised; empty where it saw none of this item."""
    recomputed_score: float | None
    """What the same ranker gives for the columns below; `None` where it could not be asked."""
    as_served: bool
    """Whether that is the score of the decision, so that the columns are what was served."""
    method_of_attribution: str
    """`tree_shap`, `integrated_gradients`; empty without attributions."""
    base: float | None
    """The raw score that the attributions are added to."""
    link: str
    """From the raw score to the score: `identity` or `logistic`."""
    parts: tuple[FeaturePart, ...]
    """By size, the largest first; with `base` they sum to the raw score."""
    nearest: tuple[Neighbour, ...]
    """The items of the history at that time that are most like it."""
    text: str = ""
    """The item's text, as the feature repository has it now; empty where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionExplanation:
    """A decision and why; `notes` say what could not be known."""

    decision_id: str
    user_id: str | None
    surface: str
    time: float
    mode: str
    arm: str
    policy: str
    policy_version: int
    floor: float
    """The share of an explored slot's probability that is spread evenly."""
    held_back: str
    """Why a limit kept the request from exploring; empty where none did."""
    ranker: str
    """The version of the ranker that scored it; empty where none did."""
    artefact: str
    """The published version of that ranker; empty where it is no longer there."""
    candidates: int
    items: tuple[ItemExplanation, ...]
    fallbacks: tuple[Fallback, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-ready plain types."""
        return {
            **asdict(self),
            "items": [{**asdict(one), "policy_saw": dict(one.policy_saw)} for one in self.items],
        }


def explain_decision(
    installation: Installation, record: DecisionRecord, item_ids: Sequence[str] | None = None
) -> DecisionExplanation:
    """Return why `record` came out as it did, for `item_ids` or for the answered items.

    Scores, baseline and propensities are those of the log. The log does not hold the ranker's columns: similarities
    follow from the history that it does hold, and other features are read from the store of now; each item says whether
    they give the very score that was logged. Raises `InvalidRequest` for an item that was no candidate.
    """
    rows = _rows(record, item_ids)
    notes: list[str] = []
    ids = [str(item) for item in record.item_ids[rows].tolist()]
    artefact, ranker = _ranker_of(installation, record, notes)
    catalogue = installation.catalogue.get()
    history = history_of(record.request)
    columns, explanation, scores = None, None, None
    if ranker is not None and ids:
        try:
            # Where a score depends on the rows beside it, all of them are scored again.
            beside = np.arange(len(record.item_ids)) if is_listwise(ranker) else rows
            own = rows if is_listwise(ranker) else np.arange(len(rows))
            asked = [str(item) for item in record.item_ids[beside].tolist()]
            ranker = _knowing_texts(installation, ranker, {*asked, *history})
            features = _features(installation, record, beside, catalogue, history, notes)
            columns = _columns(ranker, features, asked, history)
            scores = ranker.score(columns)[own]
            explain = getattr(ranker, "explain", None)
            if explain is None:
                notes.append(f"The ranker {ranker.manifest.name!r} does not say what each feature adds.")
            else:
                explanation = explain(columns).take(own)
            columns = columns[own]
        except Exception as error:
            notes.append(f"What each feature adds could not be computed: {type(error).__name__}: {error}")
    items = tuple(
        _item(
            record,
            row,
            None if explanation is None or columns is None else (explanation, columns, number),
            None if scores is None else float(scores[number]),
            _vocabularies(installation),
            _nearest(catalogue, ids[number], history),
        )
        for number, row in enumerate(rows.tolist())
    )
    if scores is not None and not all(one.as_served for one in items):
        notes.append(
            "The ranker's columns are not in the log and were read from the store of now; where the score differs from "
            "that of the decision, features have changed since, and attributions explain the score of now."
        )
    items = _with_texts(installation, items)
    request, slate = record.request, record.slate
    return DecisionExplanation(
        decision_id=request.decision_id,
        user_id=request.user_id,
        surface=request.surface,
        time=request.time,
        mode=record.mode,
        arm=record.arm,
        policy=slate.policy,
        policy_version=slate.policy_version,
        floor=slate.floor,
        held_back=record.held_back,
        ranker=record.versions.get("ranker", ""),
        artefact=artefact,
        candidates=len(record.item_ids),
        items=items,
        fallbacks=record.fallbacks,
        notes=tuple(notes),
    )


def _rows(record: DecisionRecord, item_ids: Sequence[str] | None) -> NDArray[np.int64]:
    if item_ids is None:
        return record.slate.order
    known = {str(item): row for row, item in enumerate(record.item_ids.tolist())}
    absent = next((item for item in item_ids if item not in known), None)
    if absent is not None:
        raise InvalidRequest(
            f"Item {absent!r} was none of the {len(known)} candidates of decision {record.decision_id!r}, so nothing "
            f"was decided about it.{did_you_mean(absent, known)} Retrieval did not find it, or a filter took it out."
        )
    return np.array([known[item] for item in item_ids], np.int64)


def _ranker_of(
    installation: Installation, record: DecisionRecord, notes: list[str]
) -> tuple[str, Ranker | None]:
    """Return the artefact's version and the ranker that scored the decision, where it is still there."""
    served = record.versions.get("ranker", "")
    wanted = served.removesuffix(CHEAPER)
    if wanted != served:
        notes.append(
            "There was too much to do, so the ranker took its cheaper way; attributions are of the whole one."
        )
    if not wanted:
        notes.append(
            "No trained ranker scored this decision: the host gave the scores, or the order is retrieval's."
        )
        return "", None
    store = installation.artefacts
    load = load_ranker(installation.settings, installation.registry)
    for version in reversed(store.versions(RANKER)):
        try:
            folder = store.pointer(RANKER).parent / version
            card = ModelCard.read(folder)
            if card is not None and card.version != wanted:
                continue
            ranker = load(store.verify(RANKER, version))
        except (*USER_ERRORS, OSError):
            continue  # what is damaged explains nothing; an intact copy may lie further back
        if ranker.manifest.version == wanted:
            return version, ranker
    notes.append(f"Ranker {wanted}, which scored this decision, is no longer published, or damaged.")
    return "", None


def _knowing_texts(installation: Installation, ranker: Ranker, items: set[str]) -> Ranker:
    return knowing_texts(ranker, item_texts(installation.settings, items)) if reads_texts(ranker) else ranker


def _columns(
    ranker: Ranker, features: Features, item_ids: Sequence[str], history: Sequence[str]
) -> NDArray[np.float32]:
    """Return what the ranker scores, (n, d) in the order of its manifest."""
    request = RankingData(
        features=features.values,
        feature_names=features.names,
        labels=np.zeros(len(item_ids)),
        groups=np.array([len(item_ids)]),
        item_ids=np.asarray(item_ids, np.str_),
        histories=(tuple(history),),
        called="served",
    )
    return np.ascontiguousarray(features_for(ranker, request))


def _features(
    installation: Installation,
    record: DecisionRecord,
    rows: NDArray[np.int64],
    catalogue: Catalogue | None,
    history: Sequence[str],
    notes: list[str],
) -> Features:
    """Return the columns of the candidates at `rows`: what is known now, as old as it was then.

    What follows from the logged history is computed from that.
    """
    fallbacks: list[Fallback] = []
    bare = replace(record.request, context=MappingProxyType({}))
    with collecting_fallbacks(fallbacks):
        fresh = installation.engine.enrich_request(bare, fallbacks).context
        # The log holds JSON: an object that a plugin put there has to be made anew.
        logged = {
            name: value
            for name, value in record.request.context.items()
            if name != USER and isinstance(fresh.get(name), _PLAIN)
        }
        request = replace(bare, context=MappingProxyType({**fresh, **logged}))
        candidates = Candidates.of(record.item_ids[rows], "log")
        features = installation.engine.enrich(request, candidates, fallbacks)
    notes.extend(f"{one.plugin} could not be asked ({one.reason}): {one.action}." for one in fallbacks)
    if catalogue is None or SIMILARITY not in features.names:
        return features
    if catalogue.version != record.versions.get("catalogue"):
        notes.append("The catalogue was built anew since; similarities are those of now.")
    similar_to = record.request.similar_to
    anchors = catalogue.rows(history if similar_to is None else [similar_to])
    anchors = anchors[anchors >= 0]
    values = features.values.copy()
    column = features.names.index(SIMILARITY)
    values[:, column] = np.nan
    if len(anchors):
        decay = installation.settings.retrieval.decay
        vector = (
            interest_vector(catalogue.vectors_at(anchors), decay)
            if similar_to is None
            else catalogue.vectors[anchors[0]]
        )
        values[:, column] = catalogue.cosines(vector, candidates.id_list)
    crosses = installation.engine.crosses
    plain = [place for place, name in enumerate(features.names) if name not in crosses.names]
    return crosses.extend(Features(tuple(features.names[place] for place in plain), values[:, plain]))


def _item(
    record: DecisionRecord,
    row: int,
    explained: tuple[Explanation, NDArray[np.float32], int] | None,
    recomputed: float | None,
    vocabularies: Vocabularies | None,
    nearest: tuple[Neighbour, ...],
) -> ItemExplanation:
    slate, score = record.slate, float(record.scores[row])
    slot = _place(slate.order, row)
    seen = _place(record.feature_rows, row)
    return ItemExplanation(
        item_id=str(record.item_ids[row]),
        score=score,
        score_rank=1 + int((record.scores > score).sum()),
        slot=slot,
        baseline_slot=_place(record.baseline_order, row),
        method=None if slot is None else slate.method[slot],
        propensity=None if slot is None else float(slate.propensities[slot]),
        choices=None if slot is None else int(slate.support[slot].sum()),
        strategy="" if slot is None or not slate.strategies else slate.strategies[slot],
        sources=() if slot is None or not record.sources else record.sources[slot],
        policy_saw={}
        if seen is None or not record.features.size
        else dict(zip(record.feature_names, record.features[seen].tolist(), strict=True)),
        recomputed_score=recomputed,
        as_served=recomputed is not None and math.isclose(recomputed, score, rel_tol=_SAME, abs_tol=_SAME),
        method_of_attribution="" if explained is None else explained[0].method,
        base=None if explained is None else float(explained[0].base[explained[2]]),
        link="identity" if explained is None else explained[0].link,
        parts=() if explained is None else _parts(*explained, vocabularies),
        nearest=nearest,
    )


def _parts(
    explanation: Explanation, columns: NDArray[np.float32], number: int, vocabularies: Vocabularies | None
) -> tuple[FeaturePart, ...]:
    parts = [
        FeaturePart(
            name,
            None if math.isnan(value) else float(value),
            _text(vocabularies, name, value),
            float(attribution),
        )
        for name, value, attribution in zip(
            explanation.feature_names, columns[number].tolist(), explanation.attributions[number], strict=True
        )
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.attribution)))


def _text(vocabularies: Vocabularies | None, name: str, value: float) -> str | None:
    texts = () if vocabularies is None else vocabularies.texts(name)
    return texts[int(value)] if not math.isnan(value) and 0 <= value < len(texts) else None


def _vocabularies(installation: Installation) -> Vocabularies | None:
    repository = installation.settings.repository_path
    return None if repository is None else Vocabularies.of_repository(repository)


def _nearest(catalogue: Catalogue | None, item_id: str, history: Sequence[str]) -> tuple[Neighbour, ...]:
    others = [item for item in dict.fromkeys(history) if item != item_id]
    if catalogue is None or not others:
        return ()
    row = int(catalogue.rows([item_id])[0])
    if row < 0:
        return ()
    cosines = catalogue.cosines(catalogue.vectors[row], others)
    order = np.argsort(-np.nan_to_num(cosines, nan=-np.inf), kind="stable")[:_NEIGHBOURS]
    return tuple(
        Neighbour(others[place], float(cosines[place])) for place in order if np.isfinite(cosines[place])
    )


def _with_texts(
    installation: Installation, items: tuple[ItemExplanation, ...]
) -> tuple[ItemExplanation, ...]:
    """Return the same, each item and neighbour with its text."""
    named = {one.item_id for one in items} | {near.item_id for one in items for near in one.nearest}
    texts = item_texts(installation.settings, named)
    return tuple(
        replace(
            one,
            text=texts.get(one.item_id, ""),
            nearest=tuple(replace(near, text=texts.get(near.item_id, "")) for near in one.nearest),
        )
        for one in items
    )


def _place(order: NDArray[np.int64], row: int) -> int | None:
    found = np.flatnonzero(order == row)
    return int(found[0]) if len(found) else None
