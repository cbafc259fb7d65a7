"""The trained rankers that were published: which there are, which serves, and how to change that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION, RANKER, collect_components, load_ranker
from explorank.errors import USER_ERRORS, CorruptState, UnknownArtefact
from explorank.exploration_features import ExplorationFeatures
from explorank.hooks.exploration import Calibration
from explorank.model_card import ModelCard
from explorank.pipeline.features import served_columns
from explorank.rankers import Ranker, id_columns_of
from explorank.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One published ranker."""

    version: str
    """Of the artefact."""
    current: bool
    """Whether it serves."""
    previous: bool
    """Whether `roll_back` would make it serve."""
    promoted: str | None
    """When it became current last, in ISO 8601, UTC; `None` where it never was."""
    card: ModelCard | None
    """`None` where it was published without one, or its card is damaged."""
    calibration: str | None
    """The newest map of its scores to rewards; `None` where there is none, so that no warm start explores with it."""
    problem: str = ""
    """What is wrong with its card; empty where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """What serves from now on."""

    version: str
    former: str | None
    """What served until now."""
    calibration: str | None
    """The map of its scores to rewards that became current with it."""


class Models:
    """The published rankers of an installation; a running server takes up a change within a second."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = ArtefactStore(settings.folder_path / "artefacts")

    def list(self) -> list[Model]:
        """Return all versions, the oldest first."""
        current = self._store.current(RANKER)
        previous = self._store.previous(RANKER)
        promoted = {promotion.version: promotion.time for promotion in self._store.history(RANKER)}
        maps = self._calibrations()
        found = []
        for version in self._store.versions(RANKER):
            card, problem = None, ""
            try:
                card = ModelCard.read(self.folder(version))
            except USER_ERRORS as error:
                problem = str(error)
            found.append(
                Model(
                    version=version,
                    current=current is not None and current[0] == version,
                    previous=version == previous,
                    promoted=promoted.get(version),
                    card=card,
                    calibration=None if card is None else maps.get(card.version),
                    problem=problem,
                )
            )
        return found

    def resolve(self, given: str) -> str:
        """Return the version that `given` means: of the artefact, or of the ranker as decisions name it.

        A beginning that fits one alone is enough. Raises `UnknownArtefact` with the closest where none or several do.
        """
        try:
            return self._store.resolve(RANKER, given)
        except UnknownArtefact:
            for model in reversed(self.list()):  # the newest, where the same ranker was trained twice
                if given and model.card is not None and model.card.version.startswith(given):
                    return model.version
            raise

    def folder(self, version: str) -> Path:
        """Return where a version lies."""
        return self._store.pointer(RANKER).parent / version

    def promote(self, given: str, *, force: bool = False) -> Promoted:
        """Make a version serve, once it is intact, loads, and its columns are served; `force` spares the last.

        The newest map of its scores to rewards becomes current too. Raises `UnknownArtefact`, `DamagedArtefact`,
        `FeatureMismatch` naming the columns that nobody serves, and `SettingsError` where `exploration.features` asks
        for a last layer that it does not have.
        """
        version = self.resolve(given)
        ranker = self._checked(version, force=force)
        former = self._store.current(RANKER)
        self._store.set_current(RANKER, version)
        return self._with_calibration(version, ranker, former)

    def roll_back(self, *, force: bool = False) -> Promoted:
        """Make the version serve that did so before the current one; raise `UnknownArtefact` where there is none.

        It is looked over as `promote` does.
        """
        version = self._store.previous(RANKER)
        ranker = None if version is None else self._checked(version, force=force)
        former = self._store.current(RANKER)
        version = self._store.roll_back(RANKER)
        return self._with_calibration(version, ranker or self._checked(version, force=force), former)

    def _checked(self, version: str, *, force: bool) -> Ranker:
        _, registry = collect_components(self._settings)
        ranker = load_ranker(self._settings, registry)(self._store.verify(RANKER, version))
        if not force:
            served = served_columns(self._settings) | {*id_columns_of(ranker)}
            ranker.check([name for name in ranker.manifest.feature_names if name in served])
        ExplorationFeatures.of(self._settings, lambda: ranker)  # or no server would start with it
        return ranker

    def _with_calibration(self, version: str, ranker: Ranker, former: tuple[str, Path] | None) -> Promoted:
        fitting = self._calibrations().get(ranker.manifest.version)
        current = self._store.current(CALIBRATION)
        if fitting is not None and (current is None or current[0] != fitting):
            self._store.set_current(CALIBRATION, fitting)
        return Promoted(version=version, former=None if former is None else former[0], calibration=fitting)

    def _calibrations(self) -> dict[str, str]:
        """Return the newest intact map of each ranker's scores, by the ranker's own version."""
        newest = {}
        home = self._store.pointer(CALIBRATION).parent
        for version in self._store.versions(CALIBRATION):
            try:
                newest[Calibration.load(home / version).ranker] = version
            except (CorruptState, OSError):
                continue
        return newest
