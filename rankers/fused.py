"""What all rankers that are made of others share: columns, identity, files."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.rankers._fits import Fits
from explorank.rankers.applying import (
    id_columns_of,
    is_listwise,
    is_prompt,
    knowing_texts,
    places_of,
    reads_texts,
)
from explorank.rankers.data import RankingData
from explorank.rankers.errors import CorruptRanker, InvalidTraining
from explorank.rankers.explanation import Explanation
from explorank.rankers.manifest import (
    MANIFEST_FILE,
    WAY_OUT,
    RankerManifest,
    column_scales,
    feature_hash,
    read_intact,
)
from explorank.rankers.members import Member, load_members, save_members
from explorank.rankers.ranker import IdReadingRanker, Progress

_FORMAT: Final = "explorank.fusion/1"
_FUSION_FILE: Final = "fusion.json"


class FusedRanker(ABC):
    """A ranker made of others; immutable, and safe for use from many threads where its members are.

    A subclass says what it learns beside its members (`_train`), and how their scores become one (`_combine`,
    `explain`). Its features are those that any member takes, in the order of the data. Columns that a member computes
    from ids come last, named after the member: `0.item`.

    Saved are `manifest.json`, `fusion.json` with what was learnt beside the members, and `members/0`, `members/1`, …,
    each as it saves itself.
    """

    name: ClassVar[str]
    """The name in YAML."""
    Options: ClassVar[type[Any]]

    def __init__(
        self, members: Sequence[Member], learnt: Mapping[str, Any], manifest: RankerManifest
    ) -> None:
        """Take trained members, and what was learnt beside them, as JSON can hold it; use `fit` or `load`."""
        self._members: Final = tuple(members)
        self._learnt: Final = dict(learnt)
        self._arrays: Final = {
            name: np.array(value, np.float64) for name, value in learnt.items() if isinstance(value, list)
        }
        self._manifest: Final = manifest
        names = manifest.feature_names
        self._places: Final = [
            places_of(_columns(number, one), names) for number, one in enumerate(self._members)
        ]
        self._id_columns: Final = tuple(
            f"{number}.{column}"
            for number, member in enumerate(self._members)
            for column in id_columns_of(member.ranker)
        )
        self._listwise: Final = any(is_listwise(member.ranker) for member in self._members)

    @classmethod
    def fit(
        cls,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: Any = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Train the members, and what joins them; `valid`, a later slice, is what each member stops on.

        With `checkpoint`, members that were trained before a run was cut off are not trained again. Raises
        `InvalidTraining` for data or options that no useful ranker can come from.
        """
        options = options or cls.Options()
        total = cls._number_of_fits(options)
        fits = Fits(
            data, valid, options=options, seed=seed, total=total, progress=progress, checkpoint=checkpoint
        )
        members, learnt, metrics = cls._train(fits, options)
        return cls._assembled(members, learnt, data, metrics)

    @property
    def manifest(self) -> RankerManifest:
        """What the ranker says of itself."""
        return self._manifest

    @property
    def members(self) -> tuple[Member, ...]:
        """The rankers it is made of, in the order of its options."""
        return self._members

    @property
    def prompt(self) -> bool:
        """Whether every member's scoring waits for nothing."""
        return all(is_prompt(member.ranker) for member in self._members)

    @property
    def listwise(self) -> bool:
        """Whether a row's score depends on the rows beside it, because a member's does."""
        return self._listwise

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The columns that members compute from ids, such as `0.item`; none for most."""
        return self._id_columns

    def read_ids(self, item_ids: Sequence[str], history: Sequence[str]) -> NDArray[np.float32]:
        """Return the columns (n, c) of all members that read ids, side by side."""
        parts = [
            member.ranker.read_ids(item_ids, history)
            for member in self._members
            if isinstance(member.ranker, IdReadingRanker)
        ]
        return np.hstack(parts) if parts else np.zeros((len(item_ids), 0), np.float32)

    @property
    def reads_texts(self) -> bool:
        """Whether a member reads what items are called."""
        return any(reads_texts(member.ranker) for member in self._members)

    def with_item_texts(self, texts: Mapping[str, str]) -> Self:
        """Return this ranker, its members knowing what items are called; this one stays as it is."""
        members = [replace(member, ranker=knowing_texts(member.ranker, texts)) for member in self._members]
        return type(self)(members, self._learnt, self._manifest)

    def check(self, names: Sequence[str]) -> None:
        """Raise `FeatureMismatch`, listing every difference, unless `names` are this ranker's features."""
        self._manifest.check(names)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return one score per row, (n,) float64, for features (n, d) float32; NaN is missing.

        Raises `FeatureMismatch` where d is not the number of features.
        """
        return self._combine(self._member_scores(features))

    @abstractmethod
    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return what each feature adds to each row's score, from what it adds to those of the members."""

    def save(self, folder: str | Path) -> None:
        """Write the manifest, what was learnt beside the members, and each member in a folder of its own."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_members(self._members, folder)
        (folder / _FUSION_FILE).write_bytes(_content(self.name, self._members, self._learnt))
        (folder / MANIFEST_FILE).write_text(self._manifest.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the ranker that `save` wrote; raise `CorruptRanker` naming the file that is not intact."""
        folder = Path(folder)
        manifest = RankerManifest.read(folder / MANIFEST_FILE)
        if manifest.name != cls.name:
            raise CorruptRanker(
                f"{folder / MANIFEST_FILE} is of a {manifest.name!r} ranker, and a {cls.name!r} is read here. Name "
                "the ranker that was trained, or train again."
            )
        file = folder / _FUSION_FILE
        content = read_intact(file, manifest.model_sha256, "members could be put together in any way")
        fusion = json.loads(content)
        if fusion["format"] != _FORMAT:
            raise CorruptRanker(
                f"{file} is written as {fusion['format']!r}, and this version reads {_FORMAT!r}. {WAY_OUT}"
            )
        members = load_members(fusion["members"], folder)
        wanted = {column for number, member in enumerate(members) for column in _columns(number, member)}
        if not wanted <= set(manifest.feature_names) or manifest.feature_hash != feature_hash(
            manifest.feature_names, manifest.categorical
        ):
            raise CorruptRanker(
                f"{folder / MANIFEST_FILE} lists other features than the members take, so columns would be mixed up. "
                f"{WAY_OUT}"
            )
        return cls(members, fusion["learnt"], manifest)

    @classmethod
    def _assembled(
        cls,
        members: Sequence[Member],
        learnt: Mapping[str, Any],
        data: RankingData,
        metrics: Mapping[str, float],
    ) -> Self:
        """Return the ranker with a manifest that says it was trained on `data` just now."""
        taken = {name for member in members for name in member.ranker.manifest.feature_names}
        base = [place for place, name in enumerate(data.feature_names) if name in taken]
        ids = [f"{i}.{name}" for i, member in enumerate(members) for name in id_columns_of(member.ranker)]
        names = (*(data.feature_names[place] for place in base), *ids)
        mean, std = column_scales(data.features[:, base])
        manifest = RankerManifest.of(
            _content(cls.name, members, learnt),
            name=cls.name,
            objective=_objective(members),
            feature_names=names,
            categorical=tuple(name for name in data.categorical if name in taken),
            feature_mean=(*mean, *(0.0 for _ in ids)),
            feature_std=(*std, *(1.0 for _ in ids)),
            training_window=data.window,
            metrics={"rows": float(len(data)), "members": float(len(members)), **metrics},
        )
        return cls(members, learnt, manifest)

    @classmethod
    @abstractmethod
    def _number_of_fits(cls, options: Any) -> int:
        """Return how often `_train` fits a member."""

    @classmethod
    @abstractmethod
    def _train(cls, fits: Fits, options: Any) -> tuple[list[Member], dict[str, Any], dict[str, float]]:
        """Return members, what is learnt beside them, as JSON can hold it, and metrics."""

    @abstractmethod
    def _combine(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) from the members' scores (n, members)."""

    def _explained(self, features: NDArray[np.float32]) -> list[Explanation]:
        """Return the members' explanations, on this ranker's features."""
        features = self._manifest.check_matrix(features)
        return [
            self._spread(member.ranker.explain(features[:, places]), places)
            for member, places in zip(self._members, self._places, strict=True)
        ]

    def _member_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        features = self._manifest.check_matrix(features)
        scores = np.empty((len(features), len(self._members)), order="F")
        for number in range(len(self._members)):
            scores[:, number] = self._score_member(number, features)
        return scores

    def _score_member(self, number: int, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return a member's scores (n,), for this ranker's features."""
        return self._members[number].ranker.score(features[:, self._places[number]])

    def _spread(self, part: Explanation, places: NDArray[np.int64] | slice) -> Explanation:
        """Return a member's explanation on this ranker's features, 0 for those that it does not take."""
        attributions = np.zeros((len(part.base), len(self._manifest.feature_names)))
        attributions[:, places] = part.attributions
        return replace(part, feature_names=self._manifest.feature_names, attributions=attributions)


def weighted(parts: Sequence[Explanation], weights: NDArray[np.float64], offset: float = 0.0) -> Explanation:
    """Return the explanation of `offset` + Σ weight · score, which sums to it exactly."""
    scaled = [part.on_score_scale() for part in parts]
    methods = list(dict.fromkeys(part.method for part in scaled))
    return Explanation(
        feature_names=parts[0].feature_names,
        attributions=np.sum([w * part.attributions for w, part in zip(weights, scaled, strict=True)], axis=0),
        base=offset + np.sum([w * part.base for w, part in zip(weights, scaled, strict=True)], axis=0),
        method=" and ".join(methods),
    )


def row_sums(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of each row of (n, c), added from left to right: to the last bit the same in any batch."""
    total = np.zeros(len(columns))
    for column in columns.T:
        total += column
    return total


def check_folds(folds: int) -> None:
    """Raise `InvalidTraining` unless there are two folds or more."""
    if folds < 2:
        raise InvalidTraining(
            f"folds={folds}: members are judged on requests they have not seen, for which two parts are the least. Set "
            "2 or more; 5 is usual."
        )


def scales_of(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each member's scores (n, members), 1 where they do not vary."""
    deviation = scores.std(axis=0)
    return scores.mean(axis=0), np.where(deviation > 0, deviation, 1.0)


def _columns(number: int, member: Member) -> list[str]:
    """Return the columns of the whole that a member takes, in its order."""
    ids = id_columns_of(member.ranker)
    return [f"{number}.{name}" if name in ids else name for name in member.ranker.manifest.feature_names]


def _content(name: str, members: Sequence[Member], learnt: Mapping[str, Any]) -> bytes:
    facts = [member.facts for member in members]
    fusion = {"format": _FORMAT, "name": name, "members": facts, "learnt": learnt}
    return json.dumps(fusion, indent=1).encode()


def _objective(members: Sequence[Member]) -> str:
    return "+".join(dict.fromkeys(member.ranker.manifest.objective for member in members))
