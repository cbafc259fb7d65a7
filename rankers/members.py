"""The rankers that make up another one: how options name them, and the folder each is saved in."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from explorank.rankers.data import RankingData
from explorank.rankers.errors import CorruptRanker, InvalidTraining
from explorank.rankers.names import ranker_class
from explorank.rankers.ranker import TrainableRanker

MemberOptions: TypeAlias = Mapping[str, Any]
"""`use`, a name or a class; `features`, the columns it takes, all by default; and its own options."""

_FOLDER: Final = "members"
_WAY_OUT: Final = "Restore an older copy of the folder, or train again."


def checked_members(members: Iterable[Any], *, at_least: int) -> tuple[MemberOptions, ...]:
    """Return the members as a tuple; raise `InvalidTraining` for what is no member, or none that can be trained."""
    listed = tuple(members)
    if len(listed) < at_least:
        raise InvalidTraining(
            f"`members` names {len(listed)}, and there must be {at_least} or more to be put together. Name others."
        )
    for member in listed:  # as YAML or a notebook has them
        if not isinstance(member, Mapping) or "use" not in member:
            raise InvalidTraining(
                f"`members` holds {member!r}, which does not say what ranker it is. Write a mapping with `use`, such "
                "as {use: lightgbm, objective: binary}."
            )
        Plan.of(member)  # now, and not once the data were read
    return listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A member before it is trained."""

    use: str
    """What it is saved under."""
    trainable: type[TrainableRanker]
    options: Any
    """An instance of `trainable.Options`."""
    features: tuple[str, ...] | None = None
    """The columns it takes; None for all."""

    @classmethod
    def of(cls, member: MemberOptions) -> Self:
        """Return the plan of a member; raise `InvalidTraining` for names and options that do not exist."""
        own = {name: value for name, value in member.items() if name not in ("use", "features")}
        trainable = ranker_class(member["use"])
        features = member.get("features")
        if isinstance(features, str):
            raise InvalidTraining(
                f"The member {member['use']!r} takes the features {features!r}, which is one text and would be read "
                f"letter by letter. Write a list: [{features}]."
            )
        return cls(
            use=member["use"] if isinstance(member["use"], str) else "",
            trainable=trainable,
            options=_options(trainable.Options, own, str(member["use"])),
            features=None if features is None else tuple(features),
        )

    def columns_of(self, data: RankingData) -> RankingData:
        """Return `data` with this member's columns alone; raise `InvalidTraining` naming one that is not there."""
        if self.features is None:
            return data
        self.check_columns(data)
        places = [data.feature_names.index(name) for name in self.features]
        return replace(
            data,
            features=data.features[:, places],
            feature_names=self.features,
            categorical=tuple(name for name in data.categorical if name in self.features),
        )

    def check_columns(self, data: RankingData) -> None:
        """Raise `InvalidTraining` naming the columns that this member takes and `data` has not."""
        if self.features is None:
            return
        unknown = [name for name in self.features if name not in data.feature_names]
        if unknown or not self.features:
            raise InvalidTraining(
                f"The member {self.use or self.trainable.__name__!r} takes the features "
                f"{', '.join(unknown) or '[]'}, which the {data.called} data has not. It has "
                f"{', '.join(data.feature_names)}."
            )


def _options(options: type[Any], given: Mapping[str, Any], use: str) -> Any:
    """Return an instance of a dataclass from what YAML holds; a field that is a dataclass itself may be a mapping."""
    known = [field.name for field in dataclasses.fields(options)]
    hints = typing.get_type_hints(options)
    values = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."
            raise InvalidTraining(
                f"The member {use!r} has no option {name!r}, so what it asks for would not happen. {hint}"
            )
        nested = dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping)
        values[name] = _options(hints[name], value, f"{use}.{name}") if nested else value
        if not _is_of(values[name], hints[name]):
            raise InvalidTraining(
                f"The member {use!r} has {name}={value!r}, which is no {_in_words(hints[name])}, so it could not be "
                "trained so. Correct the value."
            )
    return options(**values)


def _is_of(value: Any, hint: Any) -> bool:
    """Say whether a value from YAML is of a type; what a choice may be is left to the options' own checks."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(value, part) for part in parts)
    if origin is tuple:
        listed = isinstance(value, (list, tuple))
        return listed and (parts[-1] is not ... or all(_is_of(one, parts[0]) for one in value))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_is_of(one, parts[1]) for one in value.values())
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) and hint is not Any else True


def _in_words(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return f"list of {_in_words(parts[0])}"
    if origin is Mapping:
        return "mapping"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, parts))
    named = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return named.get(hint, "mapping of its options")


@dataclass(frozen=True, slots=True)
class Member:
    """A trained member."""

    use: str
    """The name it is loaded by."""
    ranker: TrainableRanker

    @property
    def facts(self) -> dict[str, str]:
        """What the whole remembers of it, to know it again."""
        manifest = self.ranker.manifest
        return {
            "use": self.use,
            "version": manifest.version,
            "model_sha256": manifest.model_sha256,
            "feature_hash": manifest.feature_hash,
        }


def save_members(members: Iterable[Member], folder: Path) -> None:
    """Write each member into a folder of its own below `folder`."""
    for number, member in enumerate(members):
        member.ranker.save(folder / _FOLDER / str(number))


def load_members(facts: Iterable[Mapping[str, str]], folder: Path) -> tuple[Member, ...]:
    """Return the members that `save_members` wrote; raise `CorruptRanker` for one that is not the one it was."""
    members = []
    for number, known in enumerate(facts):
        home = folder / _FOLDER / str(number)
        try:
            trainable = ranker_class(known["use"])
        except InvalidTraining as error:
            raise CorruptRanker(f"{home} holds a ranker that this process does not know. {error}") from error
        member = Member(known["use"], trainable.load(home))
        if member.facts != dict(known):
            raise CorruptRanker(
                f"{home / 'manifest.json'} is intact, and of another ranker than the one that was trained here, so its "
                f"scores would be put together wrongly. {_WAY_OUT}"
            )
        members.append(member)
    return tuple(members)
