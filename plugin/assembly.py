"""Builds a running installation from its settings: plugins, components, artefacts, log and learner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from explorank import __version__
from explorank.artefacts import ArtefactStore, Watched
from explorank.budgets import Budgets, counts_impressions, ledger_path, needs_ledger
from explorank.catalogues import catalogue_loader
from explorank.crosses import Crosses
from explorank.decider import Decider
from explorank.engine import Engine
from explorank.errors import SettingsError
from explorank.exploration_features import REPRESENTATION, ExplorationFeatures
from explorank.explorer import Explorer
from explorank.fallbacks import note_guard_error
from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration import (
    Calibration,
    Cascade,
    PerRepresentation,
    Policy,
    PositionBased,
    SlidingWindow,
)
from explorank.hooks.exploration.compiled import warm_up
from explorank.hooks.exploration.examination import Examination
from explorank.hooks.feedback import DecisionLog, KillSwitch, Learner
from explorank.hooks.guards import Guard, guard_name
from explorank.hooks.limits import SqliteExposures
from explorank.hooks.manager import RankingManager
from explorank.hooks.registry import Registry
from explorank.item_texts import told_of_items
from explorank.model_card import ModelCard
from explorank.rankers import Ranker, register_ranker
from explorank.recorder import Recorder
from explorank.retrieval import Catalogue
from explorank.reward_feed import RewardFeed
from explorank.safety import Safety
from explorank.services import Services
from explorank.settings import RankerComponent, Settings, resolve_component, resolve_components
from explorank.warm_start import WarmStart

logger = logging.getLogger(__name__)

CATALOGUE: Final = "catalogue"
RANKER: Final = "ranker"
CALIBRATION: Final = "calibration"
_REWARDS_S: Final = 0.25
"""How often a process looks at the rewards that others took."""
ENCODER: Final = "encoder"
"""Adapters of the text encoder. Only what builds a catalogue reads them: its vectors carry what they changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Everything that runs; made by `assemble`, ended by `close`."""

    settings: Settings
    registry: Registry
    manager: RankingManager
    engine: Engine
    exploration_features: ExplorationFeatures
    policy: Policy[Any]
    guards: tuple[Guard, ...]
    artefacts: ArtefactStore
    catalogue: Watched[Catalogue]
    ranker: Watched[Ranker]
    calibration: Watched[Calibration]
    log: DecisionLog
    learner: Learner[Any]
    recorder: Recorder
    decider: Decider
    budgets: Budgets
    exposures: SqliteExposures | None
    """The ledger of what visitors met; None where no limit needs one."""
    kill_switch: KillSwitch
    rewards_elsewhere: RewardFeed
    """What other processes were told of rewards."""
    safety: Safety | None
    """The limits on what exploration may cost, where any is set."""
    clock: Callable[[], float]
    not_started: dict[str, str]
    """Plugins whose start failed, each with the reason; they are asked nevertheless."""
    _scale: _Scale
    _refreshers: tuple[Refresher, ...]

    @property
    def scale(self) -> Mapping[str, tuple[float, float]]:
        """The training mean and standard deviation of each of the ranker's columns."""
        return self._scale.get()

    def refresh(self) -> None:
        """Take up newly published artefacts, and what other processes were told, now rather than within a second."""
        self.rewards_elsewhere.poll()
        _take_up_items(self.catalogue, self.ranker, partial(told_of_items, self.settings, self.catalogue))
        _take_up(self.ranker, self.exploration_features)
        self.calibration.refresh()

    def close(self) -> None:
        """Stop everything, in the reverse order of its start."""
        for refresher in self._refreshers:
            refresher.stop()
        self.learner.close()
        self.manager.call_each("ranking_shutdown")
        self.rewards_elsewhere.close()
        if self.exposures is not None:
            self.exposures.close()
        self.log.close()


def _take_up_items(
    catalogue: Watched[Catalogue], ranker: Watched[Ranker], tell: Callable[[Ranker], Ranker]
) -> None:
    """Take up a newly published catalogue, and tell the ranker what its items are called, if it reads that."""
    if not catalogue.refresh():
        return
    try:
        ranker.change(tell)
    except Exception as error:  # whatever is wrong with the texts, the ranker serves on with those it knows
        logger.warning("The ranker was not told what the items of the new catalogue are called: %s", error)


def _take_up(ranker: Watched[Ranker], features: ExplorationFeatures) -> None:
    """Take up a newly promoted ranker; tell once where nothing can be explored while it serves."""
    if ranker.refresh() and (misfit := features.misfit(ranker.get())):
        logger.warning("%s", misfit)


class _Scale:
    """The scale of the newest ranker: one object for all requests until another is taken up.

    So whoever prepares for it can tell at a glance that it is the same.
    """

    def __init__(self, ranker: Watched[Ranker]) -> None:
        self._ranker = ranker
        self._known: tuple[Ranker | None, Mapping[str, tuple[float, float]]] = None, {}

    def get(self) -> Mapping[str, tuple[float, float]]:
        ranker, known = self._ranker.get(), self._known
        if known[0] is not ranker:
            self._known = known = ranker, {} if ranker is None else ranker.manifest.scale
        return known[1]


class Refresher:
    """Calls what must be done again and again, one after the other, in the background.

    New artefacts are taken up so; the old ones serve until the new are verified.
    """

    def __init__(self, refreshes: Sequence[Callable[[], object]], interval_s: float) -> None:
        self._refreshes = refreshes
        self._interval_s = interval_s
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="explorank-refresher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a refresh that is under way finishes first."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            for refresh in self._refreshes:
                refresh()


def collect_components(settings: Settings, plugins: Sequence[object] = ()) -> tuple[RankingManager, Registry]:
    """Return the plugins that settings leave active, and all components they register."""
    manager = RankingManager()
    switches = settings.plugins
    budgets = {name: switch.budget_ms for name, switch in switches.items() if switch.budget_ms is not None}
    manager.load_entry_points(
        [name for name, switch in switches.items() if not switch.enabled], budget_ms=budgets
    )
    for plugin in plugins:
        manager.register(plugin)
    registry = Registry()
    manager.register_components(registry)
    for name in registry.names("ranker"):  # a ranker's own options, and its folder, may name others
        if isinstance(factory := registry.get("ranker", name), type):
            register_ranker(name, factory)
    return manager, registry


def assemble(settings: Settings, *, plugins: Sequence[object] = ()) -> Installation:
    """Return the running installation that `settings` describe; `plugins` join the installed ones.

    Raises `SettingsError` for a component that no plugin registers or that its options do not fit.
    """
    manager, registry = collect_components(settings, plugins)
    guards = resolve_components(settings.guards, registry)
    artefacts = ArtefactStore(settings.folder_path / "artefacts")
    catalogue = Watched(artefacts, CATALOGUE, catalogue_loader(settings))
    load = load_ranker(settings, registry)
    tell = partial(told_of_items, settings, catalogue)
    ranker: Watched[Ranker] = Watched(artefacts, RANKER, lambda folder: tell(load(folder)))
    calibration = Watched(artefacts, CALIBRATION, Calibration.load)
    features = ExplorationFeatures.of(settings, ranker.get)
    policy = build_policy(settings, registry, features.dim)
    warm_up()  # no request, and no step of the learner, should wait for a compiler
    clock = clock_of(settings)
    log = DecisionLog(settings.folder_path / "log", worker=None, durability=settings.feedback.durability)
    kill_switch = KillSwitch(settings.folder_path / "exploration.off")
    safety = Safety.of(settings, kill_switch)
    learner = open_learner(settings, policy, features, safety)
    learner.start(settings.feedback.learn_every_s, clock=clock)
    crosses = Crosses.of(settings)
    engine, recorder = Engine(manager, crosses), Recorder(log)
    rewards_elsewhere = RewardFeed(log, recorder)
    exposures = _open_exposures(settings)
    budgets = Budgets(settings, exposures, log, lambda: engine.enriched, clock)
    budgets.restore()
    guards = (*guards, *budgets.guards)
    gates = [*(() if safety is None else safety.gates)]
    explorer = Explorer(settings.exploration, engine, policy, guards, kill_switch, budgets, gates=gates)
    fingerprint = settings.fingerprint  # hashed once: settings never change, and each decision records it

    def versions() -> dict[str, str]:
        newest_ranker, newest_catalogue = ranker.get(), catalogue.get()
        return {
            "explorank": __version__,
            "settings": fingerprint,
            "ranker": "" if newest_ranker is None else newest_ranker.manifest.version,
            "catalogue": "" if newest_catalogue is None else newest_catalogue.version,
            "exploration_features": features.version,
            "guards": ",".join(f"{guard_name(guard)}@{getattr(guard, 'version', '')}" for guard in guards),
        }

    refreshes: list[list[Callable[[], object]]] = [
        [
            partial(_take_up_items, catalogue, ranker, tell),
            partial(_take_up, ranker, features),
            calibration.refresh,
        ]
    ]
    if exposures is not None:
        refreshes.append(
            [exposures.refresh, budgets.restore]
        )  # on a thread of its own: an index may take seconds to load
    installation = Installation(
        settings=settings,
        registry=registry,
        manager=manager,
        engine=engine,
        exploration_features=features,
        policy=policy,
        guards=guards,
        artefacts=artefacts,
        catalogue=catalogue,
        ranker=ranker,
        calibration=calibration,
        log=log,
        learner=learner,
        recorder=recorder,
        decider=Decider(
            explorer,
            recorder,
            engine,
            versions,
            budgets,
            WarmStart(calibration) if settings.exploration.warm_start else None,
        ),
        budgets=budgets,
        exposures=exposures,
        kill_switch=kill_switch,
        rewards_elsewhere=rewards_elsewhere,
        safety=safety,
        clock=clock,
        not_started={},
        _scale=_Scale(ranker),
        _refreshers=(
            *(Refresher(calls, interval_s=1.0) for calls in refreshes),
            Refresher([rewards_elsewhere.poll], interval_s=_REWARDS_S),
        ),
    )
    services = Services(
        registry=registry,
        catalogue=catalogue,
        ranker=ranker,
        policy=policy,
        state=lambda: learner.snapshot,
        guards=guards,
        on_guard_error=note_guard_error,
        rewards_elsewhere=rewards_elsewhere,
        clock=clock,
    )
    for result in manager.call_each("ranking_startup", settings=settings, services=services):
        if result.failure is None:
            continue
        # Isolation keeps a running stage alive; settings that cannot work are the owner's to mend, now.
        if isinstance(result.failure.error, SettingsError):
            installation.close()
            raise result.failure.error
        installation.not_started[result.plugin] = str(result.failure.error)
    return installation


def load_ranker(settings: Settings, registry: Registry) -> Callable[[Path], Ranker]:
    """Return how a published ranker is read from its folder: by the class that its card names.

    Without a card it is of the configured kind. What serves is what was promoted, so that another kind can be tried,
    and gone back from, while servers run.
    """
    configured = settings.ranker or RankerComponent(use="lightgbm")
    configured_class: Any = resolve_component("ranker", configured, registry)

    def load(folder: Path) -> Ranker:
        card = ModelCard.read(folder)
        name = configured.use if card is None else card.ranker
        ranker_class: Any = configured_class if name == configured.use else registry.get("ranker", name)
        ranker: Ranker = ranker_class.load(folder)
        return ranker

    return load


def build_policy(settings: Settings, registry: Registry, dim: int) -> Policy[Any]:
    """Return the configured policy; its `dim`, where it has one, follows the configured columns.

    Over a ranker's representation it knows each version of the ranker apart.
    """
    component = settings.exploration.policy
    supplied = {"dim": dim} if dim else {}
    policy: Policy[Any] = resolve_component("policy", component, registry, **supplied)
    if (forgetting := settings.exploration.forgetting) is not None:
        try:
            policy = SlidingWindow(policy, rewards=forgetting.window, blocks=forgetting.blocks)
        except InvalidPolicy as error:
            raise SettingsError([settings.problem(("exploration", "forgetting"), str(error))]) from error
    if settings.exploration.warm_start and not policy.learns_residuals:
        raise SettingsError(
            [
                settings.problem(
                    ("exploration", "warm_start"),
                    f"true, and {policy.name} learns whole rewards, not what they exceed an expectation by, so "
                    "that the ranker's scores would teach it nothing. Use linear_thompson, gaussian_thompson or "
                    "another policy that learns residuals, or write `warm_start: false`.",
                )
            ]
        )
    reads_features = policy.needs_features or "features" in policy.reads
    if reads_features and REPRESENTATION in settings.exploration.features:
        policy = PerRepresentation(policy)
    return policy


def examination_model(settings: Settings) -> Examination | None:
    """Return the configured model of which slots are looked at."""
    examination = settings.feedback.examination
    if examination is None:
        return None
    return PositionBased(examination.probabilities) if examination.use == "position_based" else Cascade()


def open_learner(
    settings: Settings, policy: Policy[Any], features: ExplorationFeatures, safety: Safety | None
) -> Learner[Any]:
    """Return the learner of an installation, at rest: nothing is learnt before `step` or `start`."""
    feedback = settings.feedback
    return Learner(
        settings.folder_path / "log",
        policy,
        state_path=settings.folder_path / "state.db",
        reward_weights=feedback.weights,
        horizon_s=feedback.horizon_s,
        default_reward=feedback.default_reward,
        feature_version=features.version if features.dim else None,
        observer=None if safety is None else safety.monitor,
        examination=examination_model(settings),
        warm_start=settings.exploration.warm_start,
    )


def learner_at_rest(settings: Settings) -> Learner[Any]:
    """Return the learner of an installation that is not assembled, for a command to ask something of."""
    _, registry = collect_components(settings)
    ranker: Watched[Ranker] = Watched(
        ArtefactStore(settings.folder_path / "artefacts"), RANKER, load_ranker(settings, registry)
    )
    features = ExplorationFeatures.of(settings, ranker.get)
    policy = build_policy(settings, registry, features.dim)
    safety = Safety.of(settings, KillSwitch(settings.folder_path / "exploration.off"))
    return open_learner(settings, policy, features, safety)


def _open_exposures(settings: Settings) -> SqliteExposures | None:
    """Return the ledger of what visitors met, with what is known of items by now; None where nobody asks it."""
    if not needs_ledger(settings):
        return None
    path = ledger_path(settings)
    exposures = SqliteExposures(path, counts_items=counts_impressions(settings))
    exposures.refresh()
    return exposures


def clock_of(settings: Settings) -> Callable[[], float]:
    """Return the clock: it stands still where `features.as_of` lets historic data be replayed."""
    as_of = None if settings.features is None else settings.features.as_of
    return time.time if as_of is None else as_of.timestamp
