"""What callers of the stage pass, checked where Python would take it for something else."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from explorank.errors import InvalidRequest
from explorank.hooks.types import RankingRequest
from explorank.seeds import new_decision_id

Id: TypeAlias = str | int
"""What stands for a user or an item; numbers are taken as texts."""


def request_of(
    *,
    user_id: Id | None,
    slots: int,
    most_slots: int,
    surface: str,
    time: float,
    context: Mapping[str, Any] | None,
    exclude: Iterable[Id],
    similar_to: Id | None,
) -> RankingRequest:
    """Return a new request; raise `InvalidRequest` naming the argument that no answer could fit.

    `slots` is any whole number from 0 to `most_slots`, numpy's too; `time` is in seconds since the Unix epoch.
    """
    try:
        count = operator.index(slots)
    except TypeError:
        raise InvalidRequest(f"slots={slots!r} is no whole number of slots. Pass an int.") from None
    if not 0 <= count <= most_slots:
        raise InvalidRequest(
            f"slots={slots}: a request asks for 0 to {most_slots} slots. Ask for fewer, or raise `limits.slots`."
        )
    if user_id is not None and not str(user_id):
        raise InvalidRequest(
            "user_id is empty: all visitors without an id would be one user, with one history, one group and one "
            "budget. Pass None for an anonymous visitor."
        )
    unwanted = id_texts(exclude, "exclude")
    # An item is no answer to the question what else is like it.
    similar = None if similar_to is None else str(similar_to)
    return RankingRequest(
        decision_id=new_decision_id(),
        slots=count,
        user_id=None if user_id is None else str(user_id),
        surface=surface,
        time=time,
        context=MappingProxyType(dict(context or {})),
        exclude=frozenset(unwanted if similar is None else [*unwanted, similar]),
        similar_to=similar,
    )


def id_texts(given: Iterable[Id], name: str) -> list[str]:
    """Return the ids of the argument `name` as texts; raise `InvalidRequest` where it is a text, not a list of ids."""
    if isinstance(given, str | bytes):
        raise InvalidRequest(
            f"{name} is {given!r}, whose letters would be taken for ids. Pass a list, even of one id: [{given!r}]."
        )
    return [str(item) for item in given]
