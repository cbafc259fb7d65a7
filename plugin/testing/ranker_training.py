"""Whether a ranker learns what can be learnt, the same each time, says so, and refuses what teaches nothing."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.registry import Registry
from explorank.rankers import InvalidTraining, RankingData, feature_hash, id_columns_of, score_data
from explorank.settings.components import options_of
from explorank.testing.demands import demand, refused
from explorank.testing.options import WORD
from explorank.testing.ranker_cases import RankerCases

_HASH = re.compile(r"[0-9a-f]{64}")


class _CutOff(BaseException):
    """What stops a run in its middle, as a power cut would: nothing but `BaseException` catches it."""


class RankerTrainingTests(RankerCases):
    """The part of `RankerTests` about `fit`, `Options` and `manifest`."""

    def test_it_learns_a_known_signal(self) -> None:
        """On new requests the order is nearer to a perfect one than to chance, by `least_skill`, in NDCG.

        A ranker that passes all other tests and fails this one scores noise.
        """
        unseen = self.unseen()
        ranker = self.fitted()
        found = _ndcg(score_data(ranker, unseen), unseen)
        rng = np.random.default_rng(5)
        chance = float(np.mean([_ndcg(rng.random(len(unseen)), unseen) for _ in range(20)]))
        skill = (found - chance) / (1.0 - chance)
        demand(
            skill >= self.least_skill,
            f"Ranker {ranker.manifest.name!r} reaches an NDCG of {found:.3f} on new requests where chance has "
            f"{chance:.3f}: {skill:.0%} of the way to a perfect order, and {self.least_skill:.0%} is due.",
        )

    def test_the_same_seed_gives_the_same_ranker(self) -> None:
        """Trained twice on the same data with the same seed, scores are equal to the last bit, and so are versions.

        Otherwise nobody could say afterwards which ranker made a decision.
        """
        one, two = self.fitted(), self.fit()
        rows = self.rows(one)
        demand(
            np.array_equal(one.score(rows), two.score(rows)) and one.manifest.version == two.manifest.version,
            f"Ranker {one.manifest.name!r} trained twice with one seed gives versions {one.manifest.version} and "
            f"{two.manifest.version}, and scores that differ by up to "
            f"{np.abs(one.score(rows) - two.score(rows)).max():.3g}. Draw from generators of `seed`.",
        )

    def test_the_manifest_tells_what_it_was_trained_on(self) -> None:
        """The manifest holds the names it takes, in their order, their hash, window, name, version and finite metrics.

        Serving compares features with it; decisions record the version; people read the rest.
        """
        ranker, data = self.fitted(), self.make_data(0)
        manifest = ranker.manifest
        served = tuple(name for name in manifest.feature_names if name not in id_columns_of(ranker))
        for holds, otherwise in (
            (
                (served or id_columns_of(ranker))
                and served == tuple(name for name in data.feature_names if name in served),
                f"lists the features {served} of {data.feature_names}, in whose order they must stand",
            ),
            (
                manifest.feature_hash == feature_hash(manifest.feature_names, manifest.categorical),
                "has a feature_hash that is not `feature_hash(feature_names, categorical)`",
            ),
            (
                manifest.training_window == data.window,
                f"has the window {manifest.training_window} of {data.window}",
            ),
            (
                WORD.fullmatch(manifest.name),
                f"is named {manifest.name!r}; YAML needs a word of small letters",
            ),
            (manifest.version, "has no version"),
            (
                _HASH.fullmatch(manifest.model_sha256),
                f"has no SHA-256 of its model: {manifest.model_sha256!r}",
            ),
            (manifest.objective, "does not say what it was trained for"),
            (datetime.fromisoformat(manifest.created).tzinfo, f"has no moment in UTC: {manifest.created!r}"),
            (
                manifest.metrics and all(np.isfinite(value) for value in manifest.metrics.values()),
                f"has no metrics, or some that are no finite numbers: {dict(manifest.metrics)}",
            ),
        ):
            demand(holds, f"The manifest of {manifest.name!r} {otherwise}.")
        json.loads(manifest.to_json())

    def test_data_that_teach_nothing_are_refused(self) -> None:
        """Too few rows, labels of one value, and features that never vary raise `InvalidTraining`.

        What comes out of such a training would rank by chance, and nobody would notice.
        """
        data = self.make_data(0)
        for what, poor in (
            ("a single request", data.take([0])),
            ("no request", data.take([])),
            ("labels that are all 0", replace(data, labels=np.zeros(len(data)))),
            ("features that never vary", _without_variation(data)),
        ):
            with refused(InvalidTraining, f"A ranker is trained on {what}."):
                self.fit(poor)

    def test_wrong_options_are_refused(self) -> None:
        """Each of `invalid_options` raises `InvalidTraining`, when the options are made or when they are used."""
        options = self.options if self.options is not None else self._class().Options()
        for changes in self.invalid_options:
            with refused(InvalidTraining, f"{self._class().__name__} accepts {dict(changes)}."):
                self.fit(options=replace(options, **changes))

    def test_it_can_begin_as_another(self) -> None:
        """Where the class has `adapt`: another domain's data make another ranker, which says what it was trained on.

        The one that it began as must stay as it is, for it may be serving.
        """
        start = self.fitted()
        if not hasattr(start, "adapt"):
            return
        other = replace(self.make_data(2), window=(1_800_000_000.0, 1_800_086_400.0))
        rows = self.rows(start)
        before, version = start.score(rows), start.manifest.version
        adapted = start.adapt(other, seed=3).manifest
        name = start.manifest.name
        demand(
            np.array_equal(start.score(rows), before) and start.manifest.version == version,
            f"Ranker {name!r} has changed where another began as it. Copy what the other learns on.",
        )
        demand(
            adapted.version != version and adapted.training_window == other.window,
            f"Ranker {name!r} of version {version}, adapted to data of {other.window}, has version {adapted.version} "
            f"and the window {adapted.training_window}; it must learn from the data, and say so.",
        )

    def test_settings_can_name_its_options(self) -> None:
        """`Options` is a frozen dataclass with defaults, each field with a docstring, and the class registers.

        Settings, their JSON Schema and the reference page are made of it.
        """
        ranker_class = self._class()
        options = ranker_class.Options
        demand(
            is_dataclass(options),
            f"{ranker_class.__name__}.Options is no dataclass; it has no fields to set.",
        )
        made = options()
        first = fields(made)[0].name if fields(made) else ""
        with refused(
            FrozenInstanceError, f"{options.__name__} is not frozen; use `@dataclass(frozen=True)`."
        ):
            setattr(made, first or "anything", None)
        for option in options_of("retriever", options):
            demand(
                option.description,
                f"Option `{option.name}` of {options.__name__} is not documented; write a docstring under the field.",
            )
        Registry().ranker(self.fitted().manifest.name, ranker_class)

    def test_progress_is_told(self) -> None:
        """`progress` hears of steps done, which never fall and never exceed the steps there are, which stay the same.

        People watch a bar; one that never moves looks like a run that hangs.
        """
        told: list[tuple[int, int]] = []
        self.fit(progress=lambda done, of: told.append((done, of)))
        demand(told, f"{self._class().__name__} never calls `progress`.")
        done = [step for step, _ in told]
        demand(
            done == sorted(done) and {of for _, of in told} == {told[0][1]} and done[-1] <= told[0][1],
            f"{self._class().__name__} tells {told[:5]} … {told[-1]}; steps must rise to a total that stays.",
        )

    def test_a_run_that_was_cut_off_goes_on(self, tmp_path: Path) -> None:
        """Cut off before its end and begun again with the same checkpoint, training ends in the same ranker.

        With `resumes`, in fewer steps than before. A checkpoint of other data must not be gone on from.
        """
        steps: list[int] = []
        self.fit(progress=lambda done, _: steps.append(done))
        left = [max(len(steps) - 2, 1)]  # late, so that a ranker made of others has one that was finished

        def cut(done: int, of: int) -> None:  # noqa: ARG001 - `progress` is told both
            left[0] -= 1
            if left[0] <= 0:
                raise _CutOff

        try:
            self.fit(progress=cut, checkpoint=tmp_path / "run")
        except _CutOff:
            pass
        else:
            raise AssertionError(
                f"{self._class().__name__} swallows what `progress` raises; nobody could stop it."
            )
        again: list[int] = []
        resumed = self.fit(progress=lambda done, _: again.append(done), checkpoint=tmp_path / "run")
        whole = self.fitted()
        rows = self.rows(whole)
        demand(
            np.array_equal(resumed.score(rows), whole.score(rows))
            and resumed.manifest.version == whole.manifest.version,
            f"{self._class().__name__} ends in another ranker where it was cut off: scores differ by up to "
            f"{np.abs(resumed.score(rows) - whole.score(rows)).max():.3g}. Save what the rest of the run depends on, "
            "the state of generators and optimisers included.",
        )
        demand(
            not self.resumes or len(again) < len(steps),
            f"{self._class().__name__} resumes, by its own word, and took {len(again)} steps of {len(steps)} again.",
        )
        other = self.make_data(2)
        try:
            mixed = self.fit(other, checkpoint=tmp_path / "run")
        except InvalidTraining:
            return
        demand(
            np.array_equal(mixed.score(rows), self.fit(other).score(rows)),
            f"{self._class().__name__} goes on from the checkpoint of other data, and mixes the two. Refuse it, or "
            "start anew.",
        )


def _without_variation(data: RankingData) -> RankingData:
    """Return `data` in which no row differs from another, its ids included."""
    ids = None if data.item_ids is None else np.full(len(data), data.item_ids[0])
    histories = None if data.histories is None else ((),) * data.requests
    return replace(data, features=np.ones_like(data.features), item_ids=ids, histories=histories)


def _ndcg(scores: NDArray[np.float64], data: RankingData, k: int = 5) -> float:
    """Return the mean NDCG@k over requests in which anything was taken up, labels as gains."""
    values = []
    ends = np.cumsum(data.groups if data.groups is not None else np.array([len(data)]))
    for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        gains = data.labels[begin:end]
        discounts = 1.0 / np.log2(np.arange(min(k, len(gains))) + 2.0)
        best = np.sort(gains)[::-1][: len(discounts)] @ discounts
        if best > 0:
            order = np.argsort(-scores[begin:end], kind="stable")[: len(discounts)]
            values.append(gains[order] @ discounts / best)
    return float(np.mean(values))
