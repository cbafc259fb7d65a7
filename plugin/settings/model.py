"""What an explorank.yaml holds as a whole, and what its sections must agree on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from explorank.errors import Problem
from explorank.settings.annotations import Accepts
from explorank.settings.sections.component import GuardComponent, RankerComponent
from explorank.settings.sections.exploration import ExplorationSettings
from explorank.settings.sections.features import DataSettings, FeatureSettings
from explorank.settings.sections.feedback import FeedbackSettings
from explorank.settings.sections.retrieval import RetrievalSettings
from explorank.settings.sections.section import Name, Section
from explorank.settings.sections.server import LimitSettings, LoadSettings, PluginSettings, ServerSettings
from explorank.settings.validation import rule_broken
from explorank.settings.yaml_file import Document, KeyPath

FORMAT_VERSION: Final = 1


def _known_version(version: int) -> int:
    if version != FORMAT_VERSION:
        raise rule_broken(
            f"{version} is a format that this version of Explorank does not know; it knows {FORMAT_VERSION}. "
            f"Install the version that the file was written for, or write `version: {FORMAT_VERSION}`."
        )
    return version


class Settings(Section):
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
    plugins: dict[Name, PluginSettings] = {}  # noqa: RUF012 - pydantic copies defaults
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
        if "trending" in by_name and self.retrieval.trending is None:
            raise rule_broken(
                "`trending` asks for what is popular lately, and nothing says over how many days, so it would find "
                "nothing. Set `retrieval.trending: {days: 7}`.",
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
