"""Parts that plugins register, as the settings name them: `{use: NAME, …}`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, PrivateAttr

from explorank.hooks.registry import ComponentKind
from explorank.settings.sections.section import Milliseconds, Name, Positive, Section
from explorank.settings.yaml_file import Document, KeyPath


class Component(Section):
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
    """How long scoring may take, in milliseconds. Later scores are dropped: the ranker's cheaper way answers where it
    has one, such as the first of `rerank`, or else the order of retrieval. Rankers that only compute, as all of
    Explorank's own do but `cross_encoder`, are called without it."""
    taught_by: TeacherComponent | None = None
    """Another ranker, whose probabilities `explorank train` lets this one learn from too, with the weight
    `training.distillation`; for `dcn` and `sequence`. It is trained for that alone, and does not serve."""
