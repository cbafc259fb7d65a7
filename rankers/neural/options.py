"""How networks are built and trained; the fields are the options in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

from explorank.rankers.errors import InvalidTraining

NeuralObjective: TypeAlias = Literal["binary", "listwise", "pairwise"]
TaskWeighting: TypeAlias = Literal["mean", "uncertainty"]
Structure: TypeAlias = Literal["stacked", "parallel"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Trunk: TypeAlias = Literal["tuned", "frozen"]
Scales: TypeAlias = Literal["own", "taken"]

# Read by pydantic where settings are checked; this package itself does not need pydantic.
_FOR_SETTINGS: Final[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FOR_SETTINGS

    epochs: int = 20
    """Passes over the data at most."""
    patience: int = 3
    """Training stops after so many epochs without a better metric on the later slice; the best epoch is kept."""
    batch_rows: int = 1024
    """Rows per batch, about: the rows of a request stay together."""
    accumulate: int = 1
    """Batches whose gradients are summed up for one step."""
    learning_rate: float = 2e-3
    """Of AdamW at its height, between warm-up and decay."""
    warmup: float = 0.05
    """The share of all steps over which the learning rate rises from 0; then it falls by a cosine."""
    weight_decay: float = 0.01
    """Decoupled (Loshchilov and Hutter, 2019), on matrices and embeddings alone."""
    dropout: float = 0.1
    """The share of hidden units that a training step leaves out."""
    clip_norm: float = 5.0
    """Gradients longer than this are shortened to it; 0 leaves them."""
    unknown_rate: float = 0.02
    """The share of codes that a training step takes for unknown ones, so that the unknown has a trained embedding."""
    min_count: int = 2
    """Codes and items seen more seldom in training share the embedding of the unknown."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise on standardised features, in training alone."""
    distillation: float = 1.0
    """The weight of what a teacher says of rows beside what came of them (Hinton et al., 2015): the same loss with its
    probabilities in the place of labels. Without a teacher in the data it does not count."""
    adversarial: float = 0.0
    """The length of the adversarial step on embeddings (FGM; Miyato et al., 2017); 0 takes none."""
    device: Device = "auto"
    """Where it is trained: `auto` takes a CUDA device where there is one. It is served on the CPU."""
    mixed_precision: bool = True
    """Train in bfloat16 where the device is a CUDA one; never on the CPU."""
    num_threads: int = 1
    """Of torch while training on the CPU; another number may round sums differently."""
    quantize: bool = False
    """Serve int8 weights where the NDCG@10 on the later slice allows it."""
    quantize_tolerance: float = 0.002
    """The most that int8 may cost in NDCG@10."""

    def __post_init__(self) -> None:
        _whole(self, 1, "epochs", "patience", "batch_rows", "accumulate", "min_count", "num_threads")
        _at_least(
            self, 0, "weight_decay", "clip_norm", "noise", "distillation", "adversarial", "quantize_tolerance"
        )
        _one_of(self, "device", Device)
        if not self.learning_rate > 0:
            raise InvalidTraining(
                f"learning_rate={self.learning_rate} is not above 0, so nothing would be learnt. 0.001 is usual."
            )
        for name in ("warmup", "dropout", "unknown_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidTraining(
                    f"{name}={getattr(self, name)} is a share, and not in [0, 1); training would see nothing at 1."
                    " Choose a smaller one."
                )


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What is foreseen beside the label, and how that makes one score."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FOR_SETTINGS

    outcomes: tuple[str, ...] = ()
    """Names among the data's outcomes, each with a head of its own: 0 and 1 are foreseen as a probability, other
    values by least squares. NaN teaches nothing."""
    weighting: TaskWeighting = "mean"
    """How the tasks' losses add up: their mean, or weighted by learnt uncertainties (Kendall et al., 2018)."""
    entire_space: str = ""
    """The outcome that only follows on the label, as a purchase on a click: its head foresees both together,
    P(click) P(purchase | click), and learns from all rows (ESMM; Ma et al., 2018). Needs objective `binary`."""
    score: Mapping[str, float] = field(default_factory=lambda: {"label": 1.0})
    """The weight of each head in the score; `label` is the main one."""

    def __post_init__(self) -> None:
        _one_of(self, "weighting", TaskWeighting)
        known = ("label", *self.outcomes)
        if "label" in self.outcomes or len(set(known)) < len(known):
            raise InvalidTraining(
                f"outcomes={list(self.outcomes)} repeats a name, or takes `label`, which is the main head's; heads "
                "could not be told apart. Rename the outcome."
            )
        unknown = [name for name in (*self.score, self.entire_space) if name and name not in known]
        if unknown or self.entire_space == "label":
            raise InvalidTraining(
                f"{', '.join(unknown) or 'label'} in `score` or `entire_space` is no outcome; there would be no head "
                f"for it. The outcomes are {', '.join(self.outcomes) or 'none'}; `score` may name `label` too."
            )
        if not any(self.score.values()):
            raise InvalidTraining(
                f"score={dict(self.score)} weighs nothing, so every item would score the same. Weigh one head."
            )


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """What a network that begins as another domain's keeps of it; without such a start nothing here counts."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FOR_SETTINGS

    trunk: Trunk = "tuned"
    """Whether the layers between the inputs and the heads learn on, or stay as they were and are shared by both
    domains; embeddings and heads are each domain's own and always learn."""
    trunk_rate: float = 1.0
    """The learning rate of a tuned trunk, as a share of the others' (Howard and Ruder, 2018)."""
    scales: Scales = "taken"
    """Whether numbers are standardised as in the other domain, or by this domain's own data (Li et al., 2016): for
    columns in another unit or of another size, once there is enough of it to say how large they can be."""
    shared_codes: tuple[str, ...] = ()
    """Categorical columns, `item_code` among them, whose codes mean the same in both domains: their embeddings are
    taken over, also of codes that this domain's data does not hold. All others begin anew."""

    def __post_init__(self) -> None:
        _one_of(self, "trunk", Trunk)
        _one_of(self, "scales", Scales)
        if not 0 < self.trunk_rate <= 1:
            raise InvalidTraining(
                f"trunk_rate={self.trunk_rate} is a share of the learning rate, and not in (0, 1]. Choose 1 or less; "
                "a trunk that is not to move is trunk='frozen'."
            )


@dataclass(frozen=True, kw_only=True)
class DCNOptions:
    """A deep and cross network, version 2."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FOR_SETTINGS

    objective: NeuralObjective = "listwise"
    """`listwise` and `pairwise` order the rows of a request by the label; `binary` takes labels 0 and 1, and its
    scores are probabilities."""
    cross_layers: int = 2
    """Each multiplies the features once more with one another."""
    rank: int = 0
    """Of the cross layers' matrices; 0 leaves them whole."""
    hidden: tuple[int, ...] = (128, 64)
    """The widths of the deep tower."""
    structure: Structure = "stacked"
    """Whether the tower reads what the cross layers make, or the features beside them."""
    embedding_width: int = 16
    """Numbers per category."""
    item_ids: bool = False
    """Whether each item has an embedding of its own."""
    training: TrainingOptions = field(default_factory=TrainingOptions)
    """How it is trained."""
    tasks: TaskOptions = field(default_factory=TaskOptions)
    """What else is foreseen."""
    transfer: TransferOptions = field(default_factory=TransferOptions)
    """What is kept of another domain's network, where it begins as one."""

    def __post_init__(self) -> None:
        _one_of(self, "objective", NeuralObjective)
        _one_of(self, "structure", Structure)
        _whole(self, 0, "cross_layers", "rank")
        _whole(self, 1, "embedding_width")
        _check_widths(self.hidden)
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list says the same
        _check_entire_space(self.objective, self.tasks)


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """Target attention over the user's history beside a causal transformer of it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FOR_SETTINGS

    objective: NeuralObjective = "listwise"
    """As for `dcn`."""
    history: int = 50
    """The latest items of a history that are read."""
    width: int = 32
    """Numbers per item, and of the user's vector."""
    layers: int = 2
    """Of the transformer."""
    heads: int = 2
    """Of its attention; they divide `width`."""
    attention_width: int = 16
    """Hidden units of the activation unit that weighs each history item for a candidate."""
    hidden: tuple[int, ...] = (64, 32)
    """The widths of the tower over dense features, item, user and interest."""
    embedding_width: int = 8
    """Numbers per category."""
    content: tuple[str, ...] = ()
    """Numeric columns that describe the item: from them an item that training never saw has a vector."""
    ordered: bool = True
    """Whether the order of the history counts. Without it a history is a bag of items."""
    training: TrainingOptions = field(default_factory=TrainingOptions)
    """How it is trained."""
    tasks: TaskOptions = field(default_factory=TaskOptions)
    """What else is foreseen."""
    transfer: TransferOptions = field(default_factory=TransferOptions)
    """What is kept of another domain's network, where it begins as one."""

    def __post_init__(self) -> None:
        _one_of(self, "objective", NeuralObjective)
        _whole(self, 1, "history", "width", "layers", "heads", "attention_width", "embedding_width")
        _check_widths(self.hidden)
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list says the same
        _check_entire_space(self.objective, self.tasks)
        if self.width % self.heads:
            raise InvalidTraining(
                f"width={self.width} cannot be divided among heads={self.heads}. Choose a multiple."
            )


def _at_least(options: Any, lowest: int, *names: str) -> None:
    for name in names:
        if not getattr(options, name) >= lowest:
            raise InvalidTraining(
                f"{name}={getattr(options, name)} is below {lowest}; no network could be trained so. Raise it."
            )


def _whole(options: Any, lowest: int, *names: str) -> None:
    _at_least(options, lowest, *names)
    for name in names:
        if not _is_whole(getattr(options, name)):
            raise InvalidTraining(
                f"{name}={getattr(options, name)!r} is no whole number, so no count could ever reach it. Round it."
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral)


def _one_of(options: Any, name: str, choices: Any) -> None:
    if getattr(options, name) not in get_args(choices):
        raise InvalidTraining(
            f"{name}={getattr(options, name)!r} is none of {', '.join(get_args(choices))}. Name one of them."
        )


def _check_widths(hidden: tuple[int, ...]) -> None:
    if not hidden or not all(_is_whole(width) and width >= 1 for width in hidden):
        raise InvalidTraining(
            f"hidden={list(hidden)} names no layer, or one whose units are no whole number above 0; the last one is "
            "the representation that heads read. Name one width per layer, such as [64, 32]."
        )


def _check_entire_space(objective: NeuralObjective, tasks: TaskOptions) -> None:
    if tasks.entire_space and objective != "binary":
        raise InvalidTraining(
            f"entire_space={tasks.entire_space!r} multiplies probabilities, and the label's scores are none with "
            f"objective {objective!r}. Use objective 'binary'."
        )
