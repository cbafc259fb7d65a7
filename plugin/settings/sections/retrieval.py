"""Where candidates come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from explorank.retrieval.collaborative import ImplicitALSOptions, SASRecOptions, TwoTowerOptions
from explorank.settings.sections.component import RetrieverComponent
from explorank.settings.sections.section import Fraction, Milliseconds, Name, Positive, Section
from explorank.settings.validation import rule_broken


class GpuSettings(Section):
    """How the index lies on GPUs, where there are any."""

    spread: Literal["copies", "shards"] = "copies"
    """With several GPUs: `copies` puts the whole index on each, and they share the queries; `shards` puts a part on
    each, for an index that does not fit on one."""
    float16: bool = False
    """Hold in half precision what is held in full precision otherwise: half the memory, cosines good to three
    digits."""
    wait_ms: Milliseconds = 100.0
    """How long a search waits for the GPU, in milliseconds; after that the CPU does it."""


class IndexSettings(Section):
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


class ByUseSettings(Section):
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


class TrendingSettings(Section):
    """What is popular lately, for `trending`."""

    days: Positive = 7
    """Over how many days interactions are counted: a window that `explorank features` writes statistics of, 7 or 30.
    As of the last build. Of a table that `explorank build --items` is given, the column `recent_popularity` counts
    instead."""


class LearnedEmbeddingsSettings(Section):
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


class ModalitySettings(Section):
    """Vectors of the items that you computed elsewhere, of images or sound say, beside those of their texts."""

    words: ClassVar[str] = "a modality such as `{feature: item_images:vector, weight: 0.3}`"
    """How messages and the reference describe it."""

    feature: Name
    """The array feature that holds an item's vector, as Feast writes it: `VIEW:FEATURE`. Where `explorank build
    --items` is given a table with a column of that name, or of the part after the colon, it is read from there."""
    weight: Fraction | None = None
    """The share of the items' likeness that it makes up; what all modalities leave is the text's. `null` is for
    `fusion: gated`, which learns it."""


class RetrievalSettings(Section):
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
    """What joins the texts' vectors, as `fusion` says. Where an item has no vector of a kind, the rest speaks for it.
    Takes effect with `explorank build`."""
    fusion: Literal["weighted", "gated"] = "weighted"
    """`weighted` makes a cosine of two items the weighted mean of theirs by text and by each modality. `gated` lets
    `explorank adapt` learn from what users liked how much each tells, for each item and dimension: it needs `adapter`,
    and no weights. Takes effect with `explorank adapt`, and then `explorank build`."""
    index: IndexSettings = IndexSettings()
    """The index over the embeddings."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The weight of each item of the history relative to the next newer one; 1 weighs all alike."""
    by_use: ByUseSettings | None = None
    """What has the same users; `null` leaves it unknown."""
    trending: TrendingSettings | None = None
    """What is popular lately, for the retriever of that name; `null` leaves it unknown. Takes effect with `explorank
    build`."""
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
        if self.fusion == "gated":
            self._check_gate()
        else:
            self._check_weights()
        return self

    def _check_weights(self) -> None:
        weights = [modality.weight for modality in self.modalities if modality.weight is not None]
        if len(weights) < len(self.modalities):
            without = next(modality.feature for modality in self.modalities if modality.weight is None)
            raise rule_broken(
                f"gives `{without}` no weight, so its share is not clear. Set `weight`, or `fusion: gated` to learn it "
                "from what users liked.",
                "modalities",
            )
        if not sum(weights) < 1:
            raise rule_broken(
                "has weights that leave the text no share. Lower them: together they must stay below 1.",
                "modalities",
            )

    def _check_gate(self) -> None:
        if not self.modalities:
            raise rule_broken(
                "`gated` joins texts with modalities, and none is named. Name some under `modalities`, or leave it "
                "out.",
                "fusion",
            )
        weighted = [modality.feature for modality in self.modalities if modality.weight is not None]
        if weighted:
            raise rule_broken(
                f"gives `{weighted[0]}` a weight, which means nothing to a gate that is learnt. Leave `weight` out, or "
                "set `fusion: weighted`.",
                "modalities",
            )
        if self.adapter is None:
            raise rule_broken(
                "`gated` reads its gate from an adapter, and there is none. Set `adapter: published`, and run "
                "`explorank adapt`.",
                "fusion",
            )
