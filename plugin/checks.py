"""Looks an installation over before it serves: settings, plugins, features, index and ranker must fit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from explorank.artefacts import ArtefactStore
from explorank.assembly import CALIBRATION, CATALOGUE, RANKER, build_policy, collect_components, load_ranker
from explorank.budgets import columns_of
from explorank.builtin.retrieval import SIMILARITY
from explorank.catalogues import catalogue_loader
from explorank.crosses import Crosses
from explorank.errors import USER_ERRORS
from explorank.exploration_features import (
    REPRESENTATION,
    SCORE,
    ExplorationFeatures,
    exploration_columns,
)
from explorank.hooks.exploration import Calibration
from explorank.hooks.feedback import read_log
from explorank.hooks.registry import Registry
from explorank.model_card import ModelCard
from explorank.pipeline.encoders import adapter_folder
from explorank.pipeline.features import feature_access, served_columns
from explorank.pipeline.modalities import how_joined
from explorank.pipeline.tables import read_table
from explorank.pipeline.teaching import Teacher
from explorank.rankers import LightGBMRanker, Ranker, id_columns_of
from explorank.rankers.fused import FusedRanker
from explorank.retrieval import Catalogue
from explorank.retrieval.encoding import Adapter
from explorank.retrieval.features import FeatureAccess, Meaning
from explorank.settings import Settings, resolve_component, resolve_ranker

Verdict: TypeAlias = Literal["ok", "warning", "wrong"]

_MUCH: Final = 0.1
"""The share of the users that tells what the baseline earns soon enough."""
_ASKED: Final = 200
"""How many items the online store is asked for, as many as a request may have."""
_LOG_BYTES: Final = 1 << 20
"""Below so much space, SQLite soon finds none for its journal."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    detail: str


class _Installed:
    """What is published, each part read and verified once however many checks ask for it."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.settings = settings
        self.store = ArtefactStore(settings.folder_path / "artefacts")
        self.registry = registry

    @cached_property
    def features(self) -> FeatureAccess | None:
        """The Feast repository; None where none is configured."""
        return None if self.settings.features is None else feature_access(self.settings)

    @property
    def served(self) -> frozenset[str]:
        """The columns that the stage serves to a ranker."""
        return served_columns(self.settings, self.features)

    @cached_property
    def catalogue(self) -> tuple[str, Catalogue] | None:
        """The current catalogue with its version; None where none is built."""
        current = self.store.current(CATALOGUE)
        if current is None:
            return None
        return current[0], catalogue_loader(self.settings)(self.store.verify(CATALOGUE, current[0]))

    @cached_property
    def ranker(self) -> tuple[str, Path, Ranker] | None:
        """The ranker that serves with its version and its folder; None where none is trained."""
        current = self.store.current(RANKER)
        if current is None:
            return None
        folder = self.store.verify(RANKER, current[0])
        return current[0], folder, load_ranker(self.settings, self.registry)(folder)


def run_checks(settings: Settings) -> Iterator[CheckResult]:
    """Yield what was found, part by part; a part that cannot be read is a finding, never an exception."""
    yield CheckResult("settings", "ok", str(settings.source))
    manager, registry = collect_components(settings)
    for plugin in manager.status():
        if plugin.state == "failed":
            yield CheckResult(f"plugin {plugin.name}", "wrong", plugin.last_error or "")
    yield CheckResult(
        "plugins", "ok", f"{sum(plugin.state == 'active' for plugin in manager.status())} active"
    )
    installed = _Installed(settings, registry)
    parts: list[tuple[str, Callable[[], Iterator[CheckResult]]]] = [
        ("components", lambda: _components(settings, registry, installed)),
        ("features", lambda: _features(installed)),
        ("catalogue", lambda: _catalogue(installed)),
        ("ranker", lambda: _ranker(installed)),
        ("safety", lambda: _safety(settings)),
        ("exploration.budget", lambda: _budget(installed)),
        ("calibration", lambda: _calibration(installed)),
        ("log", lambda: _log(settings)),
    ]
    for name, check in parts:
        try:
            yield from check()
        except USER_ERRORS as error:
            yield CheckResult(name, "wrong", str(error))


def _components(settings: Settings, registry: Registry, installed: _Installed) -> Iterator[CheckResult]:
    def newest() -> Ranker | None:
        return None if installed.ranker is None else installed.ranker[2]

    policy = build_policy(settings, registry, ExplorationFeatures.of(settings, newest).dim)
    guards = [resolve_component("guard", component, registry) for component in settings.guards]
    for component in settings.retrieval.retrievers:
        resolve_component("retriever", component, registry)
    yield CheckResult("policy", "ok", f"{policy.name}, mode {settings.exploration.mode}")
    yield CheckResult("guards", "ok", ", ".join(type(guard).__name__ for guard in guards) or "none")
    if settings.ranker is not None and settings.ranker.taught_by is not None:
        Teacher.of(settings.ranker, registry)
        detail = f"{settings.ranker.taught_by.use} teaches {settings.ranker.use}"
        yield CheckResult("ranker.taught_by", "ok", detail)


def _features(installed: _Installed) -> Iterator[CheckResult]:
    access = installed.features
    if access is None:
        yield CheckResult("features", "ok", "no Feast repository configured")
        return
    columns = len(access.item_names) + len(access.user_names)
    yield CheckResult(
        "features", "ok", f"{columns} columns from {access.item_service} and {access.user_service}"
    )


def _catalogue(installed: _Installed) -> Iterator[CheckResult]:
    settings = installed.settings
    if not settings.retrieval.retrievers:
        return
    if installed.catalogue is None:
        yield CheckResult("catalogue", "wrong", "not built, so nothing is retrieved; run `explorank build`")
        return
    version, catalogue = installed.catalogue
    yield CheckResult("catalogue", "ok", f"{version}: {len(catalogue):,} items, index {catalogue.index.kind}")
    yield from _encoder(settings, version, catalogue)
    yield from _adapter(settings, version, catalogue)
    yield from _modalities(settings, version, catalogue)
    yield from _learned(settings, version, catalogue)
    yield from _users_of_space(installed, version, catalogue)
    tuning = catalogue.index.tuning
    if tuning is not None and not tuning.reached:
        yield CheckResult(
            "recall of the index",
            "warning",
            f"{tuning.recall:.3f} of the {tuning.neighbours} nearest are found, {tuning.wanted_recall:g} were wanted",
        )
    if installed.features is None:
        return
    yield from _online_rows(installed.features, catalogue)
    content = installed.features.repository / "data" / "item_content.parquet"
    if content.exists():
        described = read_table(content)["item_id"].astype(str)
        absent = int((~catalogue.item_known(described.tolist())).sum())
        verdict: Verdict = "warning" if absent else "ok"
        yield CheckResult(
            "catalogue against items", verdict, f"{absent:,} of {len(described):,} items are not indexed"
        )


def _online_rows(access: FeatureAccess, catalogue: Catalogue) -> Iterator[CheckResult]:
    """Ask the online store for some items, as requests will: what was applied need not be there yet, or any more."""
    places = np.linspace(0, len(catalogue) - 1, min(len(catalogue), _ASKED)).astype(np.int64)
    asked = catalogue.item_ids[places].tolist()
    answer = access.items(asked)
    if not answer.names:
        return
    known = int((~np.isnan(answer.values)).any(axis=1).sum())
    told = f"{known:,} of {len(asked):,} items that were asked for have features"
    if answer.missing or answer.expired:
        told += f"; {answer.missing:,} rows are missing, {answer.expired:,} are older than their view's ttl"
    if answer.failed_views:
        told += f"; {', '.join(answer.failed_views)} could not be read"
    if answer.missing + answer.expired <= len(asked) / 2:
        yield CheckResult("online features", "ok", told)
        return
    yield CheckResult(
        "online features",
        "wrong" if answer.failed_views or not known else "warning",
        f"{told}. What is missing tells a ranker little: run `explorank features` (or `feast materialize`), or set "
        "`features.as_of` to replay historic data",
    )


def _encoder(settings: Settings, version: str, catalogue: Catalogue) -> Iterator[CheckResult]:
    """Compare the model that embedded the texts with the one that the settings name."""
    made, wanted = catalogue.made.encoder, settings.retrieval.encoder
    if made and made != wanted:
        yield CheckResult(
            "retrieval.encoder",
            "warning",
            f"the texts of {version} were embedded by {made}, and the settings name {wanted}; run `explorank build`",
        )


def _adapter(settings: Settings, version: str, catalogue: Catalogue) -> Iterator[CheckResult]:
    """Compare the adapter that the vectors were made with, and its gate, with the one that `build` would take."""
    made = catalogue.made.adapter
    if made is None:
        return
    try:
        folder = adapter_folder(settings)
        wanted = "" if folder is None else Adapter.load(folder).version
    except USER_ERRORS as error:  # what serves has no need of it
        yield CheckResult("retrieval.adapter", "warning", f"the next `explorank build` is refused: {error}")
        return
    if made != wanted:
        yield CheckResult(
            "retrieval.adapter",
            "warning",
            f"the vectors of {version} were made with {_named(made)}, and the settings ask for {_named(wanted)}; run "
            "`explorank build`",
        )
    elif made:
        yield CheckResult("retrieval.adapter", "ok", f"vectors of {_named(made)}")


def _named(adapter: str) -> str:
    return f"adapter {adapter}" if adapter else "no adapter"


def _modalities(settings: Settings, version: str, catalogue: Catalogue) -> Iterator[CheckResult]:
    """Compare what the vectors are made of with what the settings ask for."""
    made = catalogue.made.modalities
    wanted = {modality.feature: modality.weight for modality in settings.retrieval.modalities}
    if wanted != made:
        yield CheckResult(
            "retrieval.modalities",
            "warning",
            f"the vectors of {version} are made of {_told(made)}, and the settings ask for {_told(wanted)}; run "
            "`explorank build`",
        )
    elif wanted:
        yield CheckResult("retrieval.modalities", "ok", f"vectors of {_told(made)}")


def _told(modalities: Mapping[str, float | None]) -> str:
    """Return what vectors are made of, in words."""
    return " and ".join(["texts", *(how_joined(*one) for one in sorted(modalities.items()))])


def _learned(settings: Settings, version: str, catalogue: Catalogue) -> Iterator[CheckResult]:
    """Look whether the catalogue has what the settings let it learn from interactions."""
    if settings.retrieval.by_use is not None:
        table = catalogue.by_use
        if table is None:
            yield CheckResult(
                "retrieval.by_use",
                "wrong",
                f"{version} was built without a table of what has the same users, so `similar_by_use` finds nothing; "
                f"run `explorank build --interactions FILE`.{catalogue.made.reason_for('by_use')}",
            )
        else:
            detail = f"{table.known:,} of {len(catalogue):,} items have others of the same users"
            yield CheckResult("retrieval.by_use", "ok", detail)
    if settings.retrieval.trending is not None and catalogue.recent_popularity is None:
        yield CheckResult(
            "retrieval.trending",
            "wrong",
            f"{version} was built without counting what is popular lately, so `trending` finds nothing; run `explorank "
            "build`",
        )
    if settings.retrieval.learned_embeddings is not None:
        space = catalogue.embeddings
        if space is None:
            yield CheckResult(
                "retrieval.learned_embeddings",
                "wrong",
                f"{version} was built without a space learnt from interactions, so `learned_embeddings` finds "
                f"nothing; run `explorank build --interactions FILE`.{catalogue.made.reason_for('learned_embeddings')}",
            )
        else:
            detail = f"{space.known:,} of {len(catalogue):,} items have a place in the space of `{space.model.name}`"
            yield CheckResult("retrieval.learned_embeddings", "ok", detail)


def _users_of_space(installed: _Installed, version: str, catalogue: Catalogue) -> Iterator[CheckResult]:
    """Compare what the learnt space reads of users with what the settings ask for, and with what is served now."""
    learned, space = installed.settings.retrieval.learned_embeddings, catalogue.embeddings
    if learned is None or space is None:
        return
    name, reads = "retrieval.learned_embeddings.user_features", space.model.user_features
    if {*learned.user_features} != {*reads}:
        yield CheckResult(
            name,
            "warning",
            f"the space of {version} reads {_listed(reads)} of users, and the settings ask for "
            f"{_listed(learned.user_features)}; run `explorank build`",
        )
    learnt = {feature: Meaning.read(written) for feature, written in catalogue.made.user_features.items()}
    changed = {} if installed.features is None else installed.features.changed_users(learnt)
    if changed:
        told = "; ".join(
            f"{feature} was '{learnt[feature]}' and is '{now}'" for feature, now in changed.items()
        )
        yield CheckResult(
            name,
            "wrong",
            f"the space of {version} was learnt from features that mean something else now, so that it misplaces "
            f"users: {told}. Restore the features, or run `explorank build`",
        )
    elif reads and {*learned.user_features} == {*reads}:
        yield CheckResult(name, "ok", f"the space reads {_listed(reads)} of users, as served")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _ranker(installed: _Installed) -> Iterator[CheckResult]:
    settings = installed.settings
    if settings.ranker is None:
        yield CheckResult("ranker", "ok", "none configured: retrieval order")
        return
    # Raises what training would, though there may be nothing yet that is loaded with it.
    resolve_ranker(settings.ranker, installed.registry)
    if installed.ranker is None:
        yield CheckResult("ranker", "wrong", "not trained, so retrieval order is used; run `explorank train`")
        return
    version, folder, ranker = installed.ranker
    available = installed.served | {*id_columns_of(ranker)}
    ranker.check([name for name in ranker.manifest.feature_names if name in available])
    yield CheckResult("ranker", "ok", f"{version}: {len(ranker.manifest.feature_names)} columns, all served")
    card = ModelCard.read(folder)
    if card is not None and card.ranker != settings.ranker.use:
        yield CheckResult(
            "ranker kind",
            "warning",
            f"{card.ranker} serves, as it was promoted; `explorank train` would train {settings.ranker.use}, as the "
            "settings name it",
        )
    slow = dict.fromkeys(_reasons_for_slow_scoring(ranker))
    if slow:
        yield CheckResult("ranker speed", "warning", f"scored by LightGBM itself: {'; '.join(slow)}")
    yield from _encoder_of(card, ranker, installed)
    unknown = sorted(set(exploration_columns(settings, lambda: ranker)) - available - {SCORE, REPRESENTATION})
    if unknown:
        yield CheckResult(
            "exploration.features", "wrong", f"{unknown} are served by nobody; known: {sorted(available)}"
        )


def _reasons_for_slow_scoring(ranker: Ranker, within: str = "") -> Iterator[str]:
    """Yield why LightGBM itself scores, for the ranker and for those that it is made of."""
    if isinstance(ranker, LightGBMRanker) and ranker.scoring.method == "booster":
        yield f"{within}{ranker.scoring.reason}"
    if isinstance(ranker, FusedRanker):
        for number, member in enumerate(ranker.members):
            yield from _reasons_for_slow_scoring(member.ranker, f"{within}member {number}: ")


def _encoder_of(card: ModelCard | None, ranker: Ranker, installed: _Installed) -> Iterator[CheckResult]:
    """Compare the encoder that the ranker's similarities came from with the one that now serves them."""
    read = Crosses.of(installed.settings).made_of(SIMILARITY) & {*ranker.manifest.feature_names}
    if card is None or not card.encoder_fingerprint or not read or installed.catalogue is None:
        return
    _, catalogue = installed.catalogue
    if catalogue.encoder_fingerprint != card.encoder_fingerprint:
        yield CheckResult(
            "ranker encoder",
            "warning",
            f"the catalogue's vectors are of another encoder ({catalogue.encoder_name}) than those that "
            f"{', '.join(sorted(read))} came from in training, so the ranker reads them on another scale; run "
            "`explorank train`",
        )


def _safety(settings: Settings) -> Iterator[CheckResult]:
    exploration, (minimum, maximum) = settings.exploration, settings.earning_bounds
    if not exploration.safety.active:
        return
    baseline = 1.0 - (1.0 - exploration.holdout) * exploration.share
    detail = (
        f"a decision counts from {minimum:g} to {maximum:g}; {baseline:.0%} of the users are the baseline"
    )
    if exploration.stability.keep_s is not None:
        yield CheckResult(
            "safety",
            "warning",
            "with `stability.keep_s` an explored decision collects the rewards of several views and a baseline those "
            "of one, so that `stop` notices a fall later; false alarms stay as rare",
        )
    if baseline >= _MUCH:
        yield CheckResult("safety", "ok", detail)
    else:
        yield CheckResult(
            "safety", "warning", f"{detail}, so that the limits learn slowly; lower `share` at first"
        )


def _budget(installed: _Installed) -> Iterator[CheckResult]:
    """Look whether the columns that make a candidate explorable are served, where that can be known."""
    settings = installed.settings
    wanted = set(columns_of(settings))
    if not wanted or settings.features is None:
        return
    available = installed.served
    unknown = sorted(wanted - available - {"uncertainty"})
    if unknown:
        detail = f"`candidates` reads {unknown}, served by nobody but a plugin; known: {sorted(available)}"
        yield CheckResult("exploration.budget", "wrong", detail)
    if "uncertainty" in wanted and settings.ranker is not None and settings.ranker.use == "lightgbm":
        detail = (
            "`uncertainty_from` asks for what the lightgbm ranker does not give: it lets nobody be explored"
        )
        yield CheckResult("exploration.budget", "wrong", detail)
    elif not unknown:
        yield CheckResult("exploration.budget", "ok", f"reads {sorted(wanted)}")


def _calibration(installed: _Installed) -> Iterator[CheckResult]:
    settings, store = installed.settings, installed.store
    if not settings.exploration.warm_start:
        return
    current = store.current(CALIBRATION)
    if current is None:
        yield CheckResult(
            "calibration",
            "warning",
            "none yet, so that nothing explores; run `explorank calibrate` once there are rewards",
        )
        return
    calibration = Calibration.load(store.verify(CALIBRATION, current[0]))
    serving = None if settings.ranker is None else installed.ranker
    version = "" if serving is None else serving[2].manifest.version
    if calibration.ranker != version:
        yield CheckResult(
            "calibration",
            "warning",
            f"{current[0]} maps scores of another ranker, so that nothing explores; run `explorank calibrate`",
        )
        return
    yield CheckResult(
        "calibration", "ok", f"{current[0]}: {calibration.method}, {len(calibration.scores)} knots"
    )


def _log(settings: Settings) -> Iterator[CheckResult]:
    folder = settings.folder_path / "log"
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if not os.access(nearest, os.W_OK):
        yield CheckResult("log", "wrong", f"{nearest} is not writable, so nothing would explore")
        return
    if (free := shutil.disk_usage(nearest).free) < _LOG_BYTES:
        yield CheckResult(
            "log", "wrong", f"the disk of {nearest} is full ({free:,} bytes left), so nothing would explore"
        )
        return
    modes = {entry.record.mode for entry in read_log(folder)} if folder.exists() else set[str]()
    yield CheckResult("log", "ok", str(folder))
    if settings.exploration.mode == "live" and not modes & {"shadow", "apprentice", "live"}:
        yield CheckResult(
            "mode", "warning", "live without a decision in shadow mode; look at some of those first"
        )
