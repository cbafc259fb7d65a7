"""What an explorank.yaml may hold. The docstring under each field is its entry in the reference."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from explorank.errors import Problem
from explorank.hooks.registry import ComponentKind
from explorank.retrieval.collaborative import ImplicitALSOptions, SASRecOptions, TwoTowerOptions
from explorank.settings.annotations import Accepts
from explorank.settings.validation import rule_broken
from explorank.settings.yaml_file import Document, KeyPath

FORMAT_VERSION: Final = 1

Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[float, Field(gt=0)]
Slot = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    """Frozen and strict: a misspelt key or a value of another type is an error, never a guess."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Component(_Section):
    """A part that a plugin registers under a name; the keys beside `use` are the part's own options."""

    model_config = ConfigDict(extra="allow")
    kind: ClassVar[ComponentKind]
    """What it is to the registry."""
    words: ClassVar[str] = "`{use: NAME, …}`"
    """How messages and the reference describe it."""

    use: Name
    """The name that a plugin registered."""

    _origin: tuple[Document, KeyPath] | None = PrivateAttr(default=None)

    @property
    def origin(self) -> tuple[Document, KeyPath]:
        """The document that the component stands in, and where; an empty one for a default."""
        return self._origin or (Document({}), (self.kind,))

    def stand_at(self, document: Document, path: KeyPath) -> None:
        """Remember where the component stands, so that a later error can name the line."""
        self._origin = (document, path)

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the component; they are checked once it is known (`resolve_component`)."""
        return dict(self.__pydantic_extra__ or {})

    def __eq__(self, other: object) -> bool:
        """Compare what is said, wherever it was written."""
        return (
            isinstance(other, Component)
            and self.kind == other.kind
            and self.model_dump() == other.model_dump()
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.use))


class PolicyComponent(Component):
    """The exploration policy."""

    kind: ClassVar[ComponentKind] = "policy"


class GuardComponent(Component):
    """A rule that decides which items a slot may hold."""

    kind: ClassVar[ComponentKind] = "guard"


class RetrieverComponent(Component):
    """A source of candidates."""

    kind: ClassVar[ComponentKind] = "retriever"

    k: Positive = 100
    """How many candidates to ask this retriever for."""


class TeacherComponent(Component):
    """A ranker that another one learns from."""

    kind: ClassVar[ComponentKind] = "ranker"
    words: ClassVar[str] = "a ranker `{use: NAME, …}` with its options"

    cross_fit: Annotated[int, Field(ge=2)] = 5
    """Into how many parts the users are cut. The rows of each are scored by a teacher that was trained on the other
    parts, since one is surer of rows that it was trained on than it should be."""
    pseudo_labels: Annotated[int, Field(ge=0)] = 0
    """At most how many items each past request has besides, of those that the configured retrievers would have found
    and that are neither liked nor drawn to tell the liked from: of these the teacher's word is all that is learnt. 0
    has none. For training from interactions."""


class RankerComponent(Component):
    """The model that scores candidates."""

    kind: ClassVar[ComponentKind] = "ranker"

    budget_ms: Milliseconds = 200.0
    """How long scoring may take, in milliseconds. Later scores are dropped: the last good ranker answers, or
    the order of retrieval. Rankers that only compute, as all of Explorank's own do, are called without it."""
    taught_by: TeacherComponent | None = None
    """Another ranker, whose probabilities `explorank train` lets this one learn from too, with the weight
    `training.distillation`; for `dcn` and `sequence`. It is trained for that alone, and does not serve."""


CrossKind: TypeAlias = Literal["difference", "equal", "product", "ratio"]


class CrossSettings(_Section):
    """A column that follows from two others, in training and serving alike."""

    words: ClassVar[str] = "a cross such as `{name: age_gap, kind: difference, of: [item_age, user_age]}`"
    """How messages and the reference describe it."""

    name: Name
    """What the ranker and `exploration.features` know the column by."""
    kind: CrossKind
    """`difference` is the first less the second; `ratio` the first by the second, missing where that is 0; `equal` is
    1 where both hold the same number or code and 0 where they differ; `product` is both multiplied."""
    of: Annotated[list[Name], Field(min_length=2, max_length=2)]
    """The two columns: of items, of users, `similarity`, or an earlier cross."""


class FeatureSettings(_Section):
    """The Feast repository that user and item features come from."""

    repository: Path = Path("feature_repo")
    """The folder that holds `feature_store.yaml`, relative to the settings file."""
    user_service: Name = "user_v1"
    """The feature service of user features."""
    item_service: Name = "item_v1"
    """The feature service of item features."""
    history_service: Name | None = "user_history_v1"
    """The feature service of users' recent items; `null` where the repository keeps no histories."""
    positive_from: float = 1.0
    """An interaction of at least this value is liked: training learns to foresee those, and retrieval looks for
    more like them."""
    crosses: list[CrossSettings] = []
    """Columns made of two others, for what neither says alone: how an item's price compares with what the user pays
    as a rule, say. A missing side makes the cross missing."""
    as_of: AwareDatetime | None = None
    """A fixed "now" for replaying historic data: the time to live of features is judged against it. `null` is
    the real time."""


class DataSettings(_Section):
    """What tables must be to be learnt from. A row that breaks a rule is put aside with the reason, never dropped."""

    value_from: float | None = None
    """The least that an interaction's `value` may be; `null` is no limit."""
    value_to: float | None = None
    """The most that it may be; `null` is no limit."""
    ranges: dict[Name, tuple[float, float]] = {"users.age": (0.0, 120.0)}
    """`items.COLUMN` or `users.COLUMN`: the least and the most that its numbers may be. Columns that a table lacks do
    not matter."""
    repeats: Literal["aside", "keep"] = "aside"
    """What becomes of interactions that equal an earlier one in user, item, time and value: `aside`, or `keep`, where
    times are so coarse that equal rows are several events."""
    burst_events: Positive = 120
    """Nobody interacts more often than this within `burst_s`; what does is put aside."""
    burst_s: Annotated[float, Field(gt=0)] = 60.0
    """The length of that window, in seconds."""
    day_events: Positive = 5_000
    """Whoever interacts more often than this within 24 hours is a bot: all of their interactions are put aside."""
    future_s: Annotated[float, Field(ge=0)] = 3_600.0
    """An interaction later than this many seconds from now is put aside; clocks may differ by a little."""
    most_aside: Share = 0.2
    """A table of which one rule would put aside more than this share is refused: it is rather read wrongly."""


class GpuSettings(_Section):
    """How the index lies on GPUs, where there are any."""

    spread: Literal["copies", "shards"] = "copies"
    """With several GPUs: `copies` puts the whole index on each, and they share the queries; `shards` puts a part on
    each, for an index that does not fit on one."""
    float16: bool = False
    """Hold in half precision what is held in full precision otherwise: half the memory, cosines good to three
    digits."""
    wait_ms: Milliseconds = 100.0
    """How long a search waits for the GPU, in milliseconds; after that the CPU does it."""


class IndexSettings(_Section):
    """The FAISS index over the item embeddings."""

    kind: Literal["auto", "flat", "sq8", "hnsw", "ivf_pq", "ivf_sq8", "ivf_flat"] = "auto"
    """`flat` is exact; `sq8` takes a quarter of the memory; `hnsw` is fast but keeps the rows of removed items;
    `ivf_pq` is for millions, `ivf_sq8` and `ivf_flat` too, by longer codes and in full precision. `auto` is `flat` up
    to 10,000 items, and beyond the fastest that reaches `recall` on the items' own vectors."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to search; `auto` takes a GPU if FAISS finds one."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    """The share of the true nearest items that a search should find. `explorank build` tries out how much of the
    index has to be looked at for it; 1 is exact."""
    tune_s: Annotated[float, Field(gt=0)] = 60.0
    """How long `explorank build` may try things out for that, in seconds; the rest of the build comes on top."""
    gpu: GpuSettings = GpuSettings()
    """How the index lies on GPUs, where there are any."""


class ByUseSettings(_Section):
    """What has the same users: for `similar_by_use`, and for the rankers' column `similarity_by_use`.

    See [Similar by use](by-use.md).
    """

    interactions: Path | None = None
    """The table that `explorank build` learns it from, relative to the settings file: what users liked, by
    `features.positive_from`. `null` leaves it to `explorank build --interactions FILE`."""
    log: bool = False
    """`true` also learns from the decision log: what a user liked by all rewards that came for it."""
    model: Literal["auto", "ease", "item_knn"] = "auto"
    """`ease` weighs items against one another, and takes time and memory that grow fast with the items, 20,000 at
    most; `item_knn` is a shrunk cosine of their users. `auto` is `ease` up to 5,000 items."""
    neighbours: Positive = 50
    """How many items are kept for each, those of the greatest weight."""
    history: Positive = 50
    """How many of the latest items of a history count for the column, all alike."""


class LearnedEmbeddingsSettings(_Section):
    """A space of items and users that `explorank build` learns from interactions, for `learned_embeddings`.

    See [Learned embeddings](learned-embeddings.md).
    """

    model: Literal["als", "two_tower", "sasrec"] = "als"
    """`als` factorises who liked what, in seconds; it knows items that somebody liked by then. `two_tower` trains
    networks in torch, in minutes or more, reads the items' texts too, and so places items that nobody liked yet.
    `sasrec` trains a transformer in torch that reads what a user liked in its order, and foresees what comes next; it
    knows the items that `als` does."""
    interactions: Path | None = None
    """The table that it learns from, relative to the settings file: what users liked, by `features.positive_from`.
    `null` takes that of `by_use`, or leaves it to `explorank build --interactions FILE`."""
    log: bool = False
    """`true` also learns from the decision log: what earned a user's reward above 0."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the training; the same one gives the same space from the same interactions, on the same machine."""
    column: bool = False
    """`true` tells rankers of it by the column `similarity_learned`. `explorank train` then learns the space anew for
    each block of past requests, which takes `two_tower` and `sasrec` long."""
    history: Positive = 100
    """How many of the latest items of a history count for the column; `sasrec` reads those of its own `history` at
    most."""
    user_features: tuple[Name, ...] = ()
    """What the user tower of `two_tower` reads of users besides their history: columns of `features.user_service`, by
    name. Numbers are scaled and texts are categories; what is missing is told apart. Users without a history are found
    something by them. Takes effect with `explorank build`."""
    als: ImplicitALSOptions = ImplicitALSOptions()
    """How `als` learns."""
    two_tower: TwoTowerOptions = TwoTowerOptions()
    """How `two_tower` learns."""
    sasrec: SASRecOptions = SASRecOptions()
    """How `sasrec` learns."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.user_features and self.model != "two_tower":
            raise rule_broken(
                f"names columns of users, and `{self.model}` reads histories alone, so they would tell nothing. Set "
                "`model: two_tower`, or leave them out.",
                "user_features",
            )
        if len(set(self.user_features)) < len(self.user_features):
            raise rule_broken("names a column twice. Name each once.", "user_features")
        return self


class ModalitySettings(_Section):
    """Vectors of the items that you computed elsewhere, of images or sound say, beside those of their texts."""

    words: ClassVar[str] = "a modality such as `{feature: item_images:vector, weight: 0.3}`"
    """How messages and the reference describe it."""

    feature: Name
    """The array feature that holds an item's vector, as Feast writes it: `VIEW:FEATURE`. Where `explorank build
    --items` is given a table with a column of that name, or of the part after the colon, it is read from there."""
    weight: Fraction
    """The share of the items' likeness that it makes up. What all modalities leave is the text's."""


class RetrievalSettings(_Section):
    """Where candidates come from."""

    encoder: Name = "packaged"
    """The sentence-transformers model that embeds item texts, by name or path; `packaged` is the one that
    comes as a package and needs no download."""
    adapter: Literal["published"] | Path | None = None
    """What adapts the encoder to behaviour: `published` is what `explorank adapt` published last, or the folder of an
    adapter, relative to the settings file. `null` uses the encoder as it is. Takes effect with `explorank build`."""
    truncate_dim: Positive | None = None
    """Keep the first dimensions of each vector alone: smaller and faster to search. A model or an adapter that was
    trained for such a size loses little. `null` keeps all."""
    modalities: tuple[ModalitySettings, ...] = ()
    """What joins the texts' vectors, so that a cosine of two items is the weighted mean of theirs by each. Where an
    item has no vector of a kind, the rest speaks for it. Takes effect with `explorank build`."""
    index: IndexSettings = IndexSettings()
    """The index over the embeddings."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The weight of each item of the history relative to the next newer one; 1 weighs all alike."""
    by_use: ByUseSettings | None = None
    """What has the same users; `null` leaves it unknown."""
    learned_embeddings: LearnedEmbeddingsSettings | None = None
    """A space of items and users learnt from interactions; `null` learns none."""
    candidates: Positive = 300
    """At most this many candidates go to the ranker."""
    retrievers: tuple[RetrieverComponent, ...] = (
        RetrieverComponent(use="similar_to_history", k=200),
        RetrieverComponent(use="popular", k=100),
        RetrieverComponent(use="new_items", k=50),
    )
    """The sources of candidates; their answers are united by item id. An empty list is for a host that brings
    its own candidates."""

    @property
    def interactions(self) -> Path | None:
        """The table that `by_use` and `learned_embeddings` learn from; None where neither names one."""
        named = (part.interactions for part in (self.by_use, self.learned_embeddings) if part is not None)
        return next((path for path in named if path is not None), None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        learned = self.learned_embeddings
        if learned is not None and learned.interactions not in (None, self.interactions):
            raise rule_broken(
                f"`{learned.interactions}` is another table than `by_use.interactions`, and one build reads one. Name "
                "the same, or leave it out here.",
                "learned_embeddings",
                "interactions",
            )
        features = [modality.feature for modality in self.modalities]
        if len(set(features)) < len(features):
            raise rule_broken(
                "names a feature twice, so that its weight is not clear. Name each once.", "modalities"
            )
        if not sum(modality.weight for modality in self.modalities) < 1:
            raise rule_broken(
                "has weights that leave the text no share. Lower them: together they must stay below 1.",
                "modalities",
            )
        return self


class ConservativeSettings(_Section):
    """How much of what the baseline would have earned the exploring users' decisions keep, as a whole."""

    alpha: Fraction = 0.1
    """The share of the baseline's earnings that exploration may cost."""
    confidence: Fraction = 0.95
    """The probability with which that holds, at all times at once."""


class StopSettings(_Section):
    """When exploration stops by itself: where exploring users surely earn less than the others."""

    drop: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The tolerated fall, as a share of the mean of those who do not explore."""
    false_alarm: Fraction = 0.01
    """The probability of ever stopping without such a fall, however long exploration runs."""
    recent: Positive = 20_000
    """Beside all decisions since the last release of the kill switch, stretches of this many are compared, so
    that a good past does not hide a late fall."""


class SafetySettings(_Section):
    """What exploration may cost. Both limits compare explored decisions with those of users who never explore.

    `docs/safety.md` has their rules, bounds and false-alarm rates.
    """

    conservative: ConservativeSettings | None = None
    """Explore only as long as the exploring users' total stays above (1 - `alpha`) of the baseline's. `null` is
    no such limit."""
    stop: StopSettings | None = None
    """Engage the kill switch when the metric falls. `null` is no such limit."""
    metric: Name | None = None
    """The kind of reward that is guarded, in its own units; `null` is the weighted sum of all kinds."""
    minimum: float | None = None
    """A decision that earned less counts with this; `null` is the least that one slot may earn, 0 at most."""
    maximum: float | None = None
    """A decision that earned more counts with this; `null` is the most that one slot may earn. The nearer it is to
    what decisions really earn, the sooner the limits know."""
    window_s: Annotated[float, Field(gt=0)] | None = None
    """How long after a decision its rewards count for the limits, in seconds; `null` is `feedback.horizon_s`. No
    decision counts before, so a shorter one lets the limits act sooner."""

    @property
    def active(self) -> bool:
        """Whether any limit is set."""
        return self.conservative is not None or self.stop is not None


class CandidateRule(_Section):
    """What makes a candidate worth exploring. All keys of one rule must hold; a missing value fulfils none."""

    words: ClassVar[str] = "a rule such as `{impressions_below: 1000}`"
    """How messages and the reference describe it."""

    new_within_days: Annotated[float, Field(gt=0)] | None = None
    """The item is at most so many days old, by `age_column`. One without an age had no event yet, so it is new."""
    uncertainty_from: Annotated[float, Field(ge=0)] | None = None
    """The ranker's uncertainty is at least this; for rankers that give one."""
    impressions_below: Positive | None = None
    """The item stood in fewer answered slates than this, as counted since the key was first set."""
    column: Name | None = None
    """Any column of numbers that guards and policies can read; `at_least` and `below` refer to it."""
    at_least: float | None = None
    """The column's value is this or more."""
    below: float | None = None
    """The column's value is less than this."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        bounded = self.at_least is not None or self.below is not None
        if self.column is not None and not bounded:
            raise rule_broken(
                "has no bound, so that the rule says nothing. Add `at_least`, `below` or both.", "column"
            )
        if self.column is None and bounded:
            raise rule_broken(
                "bounds no column. Name the `column` that it is about.",
                "below" if self.at_least is None else "at_least",
            )
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise rule_broken("is empty, so that every candidate could be explored. Remove it, or add a key.")
        return self


class BudgetSettings(_Section):
    """How much is explored for one visitor, and with which items."""

    per_user_per_day: Positive | None = None
    """At most so many explored slots for one user, or one session (`context["session_id"]`) of an anonymous
    visitor, on one UTC day; a request with neither does not explore then. `null` is no cap."""
    candidates: tuple[CandidateRule, ...] | None = None
    """Any of these rules makes a candidate explorable; the others are shown by score only. Empty or `null`: all
    are."""
    age_column: Name = "item_first_event"
    """The column that holds the age of each item, in days; a time that Feast serves arrives as one."""


class StabilitySettings(_Section):
    """What a visitor who comes back sees of what was explored."""

    keep_s: Annotated[float, Field(gt=0)] | None = None
    """How long a visitor gets the same explored decision again, for the same question on the same surface, in
    seconds. `null`: each request is a decision of its own."""
    ignore_context: tuple[Name, ...] = ("history", "seen", "session_id")
    """The keys of `context` that do not make it another question; what plugins add never does."""
    rejections: tuple[Name, ...] = ()
    """The kinds of reward that mean "not for me": each hides its item from the visitor. They stand in
    `feedback.rewards` too."""
    rejected_s: Annotated[float, Field(gt=0)] = 604_800.0
    """How long a rejected item is hidden, on every surface and slot, baseline included, in seconds."""
    rest_s: Annotated[float, Field(gt=0)] | None = None
    """How long an item that was explored and earned nothing is not explored anew for that visitor, in seconds.
    `null`: at any time."""


class ForgettingSettings(_Section):
    """A window over the latest rewards, for a world that changes by steps."""

    window: Annotated[int, Field(ge=2)] = 50_000
    """How many of the latest rewards the policy knows at most; a multiple of `blocks`."""
    blocks: Annotated[int, Field(ge=2)] = 10
    """Rewards are forgotten a block at a time, so that at least the latest (1 - 1 / blocks) of the window are
    known."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window % self.blocks:
            raise rule_broken(
                f"{self.window} is no multiple of `blocks` ({self.blocks}), which are all of one size. Write "
                f"{max(self.window // self.blocks, 1) * self.blocks}.",
                "window",
            )
        return self


class ExplorationSettings(_Section):
    """What is explored, for whom, and how."""

    mode: Literal["off", "shadow", "apprentice", "live"] = "shadow"
    """`off`: the baseline only. `shadow`: exploration is computed and logged, the baseline is shown.
    `apprentice`: the same, and the policy learns from the baseline's rewards. `live`: what is explored is
    shown."""
    policy: PolicyComponent = PolicyComponent(use="epsilon_greedy")
    """The policy that fills the explored slots."""
    features: Literal["*"] | tuple[Name, ...] = ()
    """The columns that the policy sees, standardised; `"*"` is all of them. `score` is the ranker's score,
    `representation` all columns of a neural ranker's last hidden layer. A constant column is always added."""
    slots: Literal["all"] | tuple[Slot, ...] = "all"
    """The slots that explore, counted from 0. The others hold the best eligible item."""
    surfaces: Literal["all"] | tuple[Name, ...] = "all"
    """The surfaces of the host (`home`, `search`, …) on which exploration takes place."""
    share: Share = 1.0
    """The share of the users outside the holdout who get exploration, by a stable hash of the user."""
    holdout: Share = 0.05
    """The share of the users who never get exploration: what the others are compared with."""
    salt: Name = "explorank"
    """Part of the hash that puts users into groups; changing it reshuffles who is in which."""
    forgetting: ForgettingSettings | None = None
    """Lets the policy know the latest rewards only; `null` forgets nothing, unless the policy has a `half_life`.
    The policy's state must be a sum over rewards."""
    warm_start: bool = False
    """`true` begins from what the ranker knows: the policy learns what is earned beyond what the ranker's score
    stands for, by the map that `explorank calibrate` fits. Until there is one for the ranker that serves, nothing
    explores. The policy must be one that learns residuals."""
    safety: SafetySettings = SafetySettings()
    """What exploration may cost, and when it stops by itself."""
    budget: BudgetSettings = BudgetSettings()
    """How much is explored for one visitor, and with which items."""
    stability: StabilitySettings = StabilitySettings()
    """What a visitor who comes back sees of what was explored."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "live" and self.share == 1 and self.holdout == 0 and self.safety.active:
            limit = "stop" if self.safety.conservative is None else "conservative"
            raise rule_broken(
                "cannot work: `holdout` is 0 and `share` 1, so that every user explores and nothing tells what the "
                "baseline earns. Set `holdout: 0.05` or more, or lower `share`.",
                "safety",
                limit,
            )
        if self.slots != "all" and len(set(self.slots)) < len(self.slots):
            raise rule_broken("names a slot twice; name each slot once.", "slots")
        if self.holdout == 1 and self.mode == "live":
            raise rule_broken(
                "1 holds all users back, so that nothing is explored though `mode` is `live`. Lower it, or "
                "set `mode: shadow`.",
                "holdout",
            )
        return self


def _weight_alone(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"weight": value} if is_number else value


class RewardKind(_Section):
    """One kind of reward, such as a click or a purchase."""

    weight: float = 1.0
    """What one unit of this reward is worth beside the other kinds; the policy learns the weighted sum."""
    minimum: float = 0.0
    """Rewards below are refused."""
    maximum: float = 1.0
    """Rewards above are refused."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.minimum > self.maximum:
            raise rule_broken(
                f"{self.minimum} is above `maximum` ({self.maximum}), so that every reward would be refused. "
                "Swap them.",
                "minimum",
            )
        return self


RewardEntry = Annotated[
    RewardKind,
    BeforeValidator(_weight_alone, json_schema_input_type=float | RewardKind),
    Accepts("a number (the weight) or the keys `weight`, `minimum` and `maximum`"),
]


class ExaminationSettings(_Section):
    """Which slots are looked at, so that an item low in the slate is not punished for its place."""

    use: Literal["position_based", "cascade"]
    """`position_based`: each slot is looked at with a probability of its own. `cascade`: visitors look from the
    top down to their first click; a slate's slots then close together, at the horizon."""
    probabilities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """For `position_based`: how likely each slot is looked at, from the top; slots further down have the last
    one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.use == "position_based") != bool(self.probabilities):
            raise rule_broken(
                "is empty, and `position_based` needs one for each slot. Try `[1.0, 0.6, 0.4]`."
                if self.use == "position_based"
                else "is for `position_based`; a cascade knows by the clicks who looked. Remove it.",
                "probabilities",
            )
        return self


class FeedbackSettings(_Section):
    """What is logged and learnt from."""

    durability: Literal["process", "power"] = "process"
    """What an acknowledged decision or reward survives: `process`, the end of the process; `power`, also a
    power cut (each group commit waits for the disk)."""
    rewards: dict[Name, RewardEntry] = {"click": RewardKind()}
    """The kinds of reward; others are refused. `{click: 1.0}` is short for `{click: {weight: 1.0}}`."""
    horizon_s: Annotated[float, Field(gt=0)] = 86_400.0
    """How long after a decision rewards count, in seconds. Then a slot without any earns `default_reward`."""
    default_reward: float = 0.0
    """What a shown slot without any reward has earned at the horizon."""
    examination: ExaminationSettings | None = None
    """Which slots are looked at. `null` takes every slot that was shown for one that was looked at."""
    learn_every_s: Annotated[float, Field(gt=0)] = 1.0
    """How often the learner folds new rewards into the policy's state, in seconds."""

    @property
    def weights(self) -> dict[str, float]:
        """What one unit of each kind of reward is worth."""
        return {kind: rule.weight for kind, rule in self.rewards.items()}


class LimitSettings(_Section):
    """What a request may ask for at most; more is refused with a clear error."""

    slots: Positive = 1_000
    """Slots of one request."""
    candidates: Positive = 10_000
    """Candidates of one request, those that a host brings included."""
    body_bytes: Annotated[int, Field(ge=1_024)] = 1_048_576
    """Bytes of one HTTP request body."""


class LoadSettings(_Section):
    """What the HTTP host does when more is asked than it can answer in time.

    It then spends less on each request: half of the candidates, the fewest, the ranker's cheaper way, no ranker, no
    exploration, and at last it refuses with 503. Each answer names what it went without. See
    [Operations](operations.md#overload).
    """

    latency_ms: Milliseconds | None = None
    """Within this time of its arrival a request for a slate is answered or refused. `null` spends the whole
    effort on all of them, however long they wait."""
    candidates: Positive = 100
    """The fewest candidates that are ranked."""


class PluginSettings(_Section):
    """How one installed plugin takes part."""

    enabled: bool = True
    """`false` switches the plugin off without uninstalling it."""
    budget_ms: Milliseconds | None = None
    """How long each of the plugin's hooks may take, in milliseconds; later results are dropped. `null` is no
    limit."""
    options: dict[str, Any] = {}
    """What the plugin itself reads at start. Values from the environment arrive as secrets."""


def _fits_a_header(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", token.get_secret_value()):
        raise rule_broken(
            "is empty or holds spaces or characters beyond ASCII, so that no `Authorization` header could "
            "carry it. Set a long random token."
        )
    return token


Token = Annotated[SecretStr, AfterValidator(_fits_a_header), Accepts("secret text, best `{$env: NAME}`")]


class TokenSettings(_Section):
    """The bearer tokens of the HTTP host.

    Without any, the host is open to all who reach it; with one, a scope without its own takes the admin
    token only.
    """

    rank: Token | None = None
    """For ranking and exploring."""
    reward: Token | None = None
    """For impressions and rewards."""
    admin: Token | None = None
    """For everything, metrics included."""


class ServerSettings(_Section):
    """The HTTP host of `explorank serve`."""

    host: Name = "127.0.0.1"
    """The address to listen on. Beyond this machine (`0.0.0.0`), tokens are required: `admin`, which opens
    every scope, at least."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """The TCP port; 0 takes any free one."""
    tokens: TokenSettings = TokenSettings()
    """The bearer token of each scope."""
    workers: Positive = 1
    """Processes that answer, at most one for each core; they share the port and the folder."""
    threads: Positive = 1
    """How many requests a process works on at once. More than one helps where plugins wait for others or
    `feedback.durability` is `power`; else they only wait for each other."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        missing = [scope for scope in TokenSettings.model_fields if getattr(self.tokens, scope) is None]
        # The admin token alone keeps everyone else out.
        if "admin" in missing and not _is_loopback(self.host):
            raise rule_broken(
                f"`host: {self.host}` can be reached from other machines, so every scope needs a token; "
                f"missing: {', '.join(missing)}. Without it a scope would be open to anyone there, or to "
                f"none. Add `{missing[0]}: {{$env: EXPLORANK_{missing[0].upper()}_TOKEN}}` and the like, "
                "or listen on 127.0.0.1.",
                "tokens",
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _known_version(version: int) -> int:
    if version != FORMAT_VERSION:
        raise rule_broken(
            f"{version} is a format that this version of Explorank does not know; it knows {FORMAT_VERSION}. "
            f"Install the version that the file was written for, or write `version: {FORMAT_VERSION}`."
        )
    return version


class Settings(_Section):
    """One installation of Explorank."""

    version: Annotated[
        int,
        AfterValidator(_known_version),
        Accepts(f"`{FORMAT_VERSION}`"),
        Field(json_schema_extra={"const": FORMAT_VERSION}),
    ]
    """The version of this file's format; always 1 so far."""
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] = "explorank"
    """Names this installation in logs and metrics."""
    folder: Path = Path(".explorank")
    """Where artefacts, the log and the policies' state live, relative to the settings file."""
    features: FeatureSettings | None = None
    """The Feast repository. Leave it out to run without Feast, for a host that brings candidates and
    scores."""
    data: DataSettings = DataSettings()
    """What tables must be to be learnt from."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """Where candidates come from."""
    ranker: RankerComponent | None = RankerComponent(use="lightgbm", budget_ms=200.0)
    """The model that scores candidates. `null` shows the order of retrieval."""
    exploration: ExplorationSettings = ExplorationSettings()
    """What is explored, for whom, and how."""
    guards: tuple[GuardComponent, ...] = ()
    """Which items may be shown at all. Guards act before every choice, exploration or not."""
    feedback: FeedbackSettings = FeedbackSettings()
    """What is logged and learnt from."""
    limits: LimitSettings = LimitSettings()
    """What a request may ask for at most."""
    load: LoadSettings = LoadSettings()
    """What the HTTP host does under overload."""
    plugins: dict[Name, PluginSettings] = {}
    """Installed plugins by name. One that is not named here is active, without a time budget."""
    server: ServerSettings = ServerSettings()
    """The HTTP host."""

    _source: Path | None = PrivateAttr(default=None)
    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _document: Document = PrivateAttr(default_factory=lambda: Document({}))

    def stand_in(self, document: Document) -> None:
        """Remember where the settings come from and what their paths are relative to."""
        self._document = document
        self._source = document.source and document.source.absolute()
        self._base = document.base

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ranker is not None and not self.retrieval.retrievers:
            raise rule_broken(
                "is empty although a ranker is set, which would never get a candidate. Add a retriever such "
                "as `{use: popular}`, or write `ranker: null` if the host brings candidates and scores.",
                "retrieval",
                "retrievers",
            )
        if self.retrieval.candidates > self.limits.candidates:
            raise rule_broken(
                f"{self.retrieval.candidates} is above `limits.candidates` ({self.limits.candidates}). Lower "
                "it, or raise the limit.",
                "retrieval",
                "candidates",
            )
        by_name = {retriever.use for retriever in self.retrieval.retrievers}
        if "similar_by_use" in by_name and self.retrieval.by_use is None:
            raise rule_broken(
                "`similar_by_use` asks for interactions, which tell what has the same users, and nothing names any, "
                "so it would find nothing. Set `retrieval.by_use: {interactions: FILE}`.",
                "retrieval",
                "retrievers",
            )
        if "learned_embeddings" in by_name and self.retrieval.learned_embeddings is None:
            raise rule_broken(
                "`learned_embeddings` asks for a space learnt from interactions, and nothing names any, so it would "
                "find nothing. Set `retrieval.learned_embeddings: {interactions: FILE}`.",
                "retrieval",
                "retrievers",
            )
        learned = self.retrieval.learned_embeddings
        if learned is not None and learned.user_features and self.features is None:
            raise rule_broken(
                "names columns of users, and without a `features` section nothing serves any. Add one, as `explorank "
                "init` shows, or leave them out.",
                "retrieval",
                "learned_embeddings",
                "user_features",
            )
        self._check_safety()
        slots = self.exploration.slots
        if slots != "all" and slots and max(slots) >= self.limits.slots:
            raise rule_broken(
                f"slot {max(slots)} never exists: `limits.slots` is {self.limits.slots} and slots count from "
                "0. Remove it, or raise the limit.",
                "exploration",
                "slots",
            )
        self._check_stability()
        return self

    def _check_safety(self) -> None:
        metric, kinds = self.exploration.safety.metric, self.feedback.rewards
        if metric is not None and metric not in kinds:
            raise rule_broken(
                f"`{metric}` is no kind of reward under `feedback.rewards`, so that nothing would ever be earned; "
                f"known: {', '.join(f'`{kind}`' for kind in kinds) or 'none'}. Name one of them, or leave it out.",
                "exploration",
                "safety",
                "metric",
            )
        exploration = self.exploration
        if exploration.safety.conservative is not None and exploration.stability.keep_s is not None:
            raise rule_broken(
                "bounds what decisions earn, and with `stability.keep_s` an explored decision stands for several "
                "views while each view of a baseline is a decision of its own, so that the bound would not hold. "
                "Remove one of the two; `safety.stop` goes with `keep_s`, and notices a fall later.",
                "exploration",
                "safety",
                "conservative",
            )
        minimum, maximum = self.earning_bounds
        if exploration.safety.active and not minimum < maximum:
            raise rule_broken(
                f"a decision earns at least {minimum:g} and at most {maximum:g}, so that all would be worth the "
                "same. Set `minimum` and `maximum` to what a decision may earn.",
                "exploration",
                "safety",
            )

    @property
    def earning_weights(self) -> dict[str, float]:
        """What the limits on exploration count, each kind with its weight."""
        metric = self.exploration.safety.metric
        if metric is not None:
            return {metric: 1.0}
        return self.feedback.weights

    @property
    def earning_bounds(self) -> tuple[float, float]:
        """The least and the most that a decision counts with; where nothing is set, what one slot may earn."""
        safety, least, most = self.exploration.safety, 0.0, 0.0
        for kind, weight in self.earning_weights.items():
            rule = self.feedback.rewards[kind]
            ends = weight * rule.minimum, weight * rule.maximum
            least, most = least + min(0.0, *ends), most + max(0.0, *ends)
        return (
            least if safety.minimum is None else safety.minimum,
            most if safety.maximum is None else safety.maximum,
        )

    def _check_stability(self) -> None:
        stability, feedback = self.exploration.stability, self.feedback
        if unknown := sorted(set(stability.rejections) - feedback.rewards.keys()):
            raise rule_broken(
                f"names {unknown}, which `feedback.rewards` does not, so that such a reward is refused and hides "
                f"nothing. Add it there, such as `{unknown[0]}: 0`.",
                "exploration",
                "stability",
                "rejections",
            )
        if stability.keep_s is not None and stability.keep_s > feedback.horizon_s:
            raise rule_broken(
                f"{stability.keep_s:g} is beyond `feedback.horizon_s` ({feedback.horizon_s:g}): rewards for a "
                "decision that is served again after that would not be learnt. Lower it, or raise the horizon.",
                "exploration",
                "stability",
                "keep_s",
            )

    def problem(self, path: KeyPath, message: str) -> Problem:
        """Return what is wrong with the value at `path`, with its line where the settings came from a file."""
        return self._document.problem(path, message)

    @property
    def source(self) -> Path | None:
        """The file that the settings came from, absolute; `None` where they came from Python."""
        return self._source

    def path(self, relative: Path | str) -> Path:
        """Return `relative` as an absolute path, seen from the settings file's folder."""
        return self._base / relative

    @property
    def folder_path(self) -> Path:
        """Where artefacts, the log and the state live, absolute."""
        return self.path(self.folder)

    @property
    def repository_path(self) -> Path | None:
        """The Feast repository, absolute; `None` without Feast."""
        return None if self.features is None else self.path(self.features.repository)

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the SHA-256 of all effective values but the secret ones.

        Equal settings have equal fingerprints, whether a value was written or left to its default.
        """
        values = self.model_dump(mode="json", exclude={"server": {"tokens"}})
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
