"""Whether two requests ask the same, so that the same decision may answer both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from hashlib import blake2b
from typing import Any

import orjson

from explorank.hooks.types import RankingRequest


def question_of(request: RankingRequest, ignored: Collection[str] = ()) -> bytes:
    """Return 16 bytes that are equal where `similar_to` and the context are, its `ignored` keys left aside.

    A value that has no JSON counts by its `repr`; one whose `repr` differs each time makes every question a
    new one. Who asks, where and for how many slots is for the caller to compare.
    """
    context = {str(key): value for key, value in request.context.items() if key not in ignored}
    text = orjson.dumps(
        [request.similar_to, context],
        default=_nearest,
        option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS,
    )
    return blake2b(text, digest_size=16, person=b"explorank.asked").digest()


def _nearest(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(map(repr, value))
    return repr(value)
