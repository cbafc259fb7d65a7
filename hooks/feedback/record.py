"""A decision as bytes: JSON for what is small, raw arrays for what is wide, nothing pickled.

Stored as it was served, to the last bit, except for what replay does not need: `guard_state` and `allowance`
are left out (what came of them stands in `eligible`, `support` and the slots' methods), and values
of the context that JSON does not know become their nearest JSON (tuples lists, sets sorted lists, others
their `repr`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.types import DecisionRecord, Fallback, Ids, RankingRequest, Slate

RECORD_VERSION: Final = 1
"""Of the byte layout; it stands in every record and is checked when one is read."""


def encode(record: DecisionRecord) -> bytes:
    """Return `record` as bytes; raise `InvalidBatch` where its ids, time or context cannot be stored."""
    if not math.isfinite(record.request.time):
        raise InvalidBatch(
            f"Decision {record.decision_id!r} was made at {record.request.time!r}; without a finite time no "
            "horizon can be counted from it. Give seconds since the Unix epoch."
        )
    named: dict[str, NDArray[Any]] = {
        "scores": record.scores,
        "baseline_order": record.baseline_order,
        "feature_rows": record.feature_rows,
        "features": record.features,
        **{f"column.{name}": column for name, column in record.columns.items()},
    }
    request = record.request
    meta: dict[str, Any] = {
        "version": RECORD_VERSION,
        "request": {
            "decision_id": request.decision_id,
            "slots": request.slots,
            "user_id": request.user_id,
            "surface": request.surface,
            "time": request.time,
            "context": _fragment(request.context),
            "exclude": sorted(request.exclude),
            "similar_to": request.similar_to,
        },
        "mode": record.mode,
        "arm": record.arm,
        "ids": _encode_ids(record.item_ids, named),
        "slate": _encode_slate("slate", record.slate, named),
        "shadow": None if record.shadow is None else _encode_slate("shadow", record.shadow, named),
        "feature_names": record.feature_names,
        "columns": list(record.columns),
        "sources": record.sources,
        "fallbacks": [(f.step, f.plugin, f.reason, f.action) for f in record.fallbacks],
        "versions": dict(record.versions),
        "propensity_known": record.propensity_known,
        "held_back": record.held_back,
    }
    try:
        return arrays.dumps(meta, named)
    except TypeError as error:
        raise _not_storable(record, error) from error


def decode(data: bytes) -> DecisionRecord:
    """Return the decision in `data`, arrays read-only; raise `CorruptState` for damaged or foreign bytes."""
    meta, named = arrays.loads(data)
    if meta.get("version") != RECORD_VERSION:
        raise CorruptState(
            f"A decision record of layout {meta.get('version')!r}; this installation reads layout "
            f"{RECORD_VERSION}. Read the log with the version of explorank that wrote it."
        )
    request = dict(meta["request"])
    request["exclude"] = frozenset(request["exclude"])
    item_ids = _decode_ids(meta["ids"], named)
    n = len(item_ids)
    return DecisionRecord(
        request=RankingRequest(**request),
        mode=meta["mode"],
        arm=meta["arm"],
        item_ids=item_ids,
        scores=named["scores"],
        slate=_decode_slate("slate", meta["slate"], named, n),
        baseline_order=named["baseline_order"],
        feature_names=tuple(meta["feature_names"]),
        feature_rows=named["feature_rows"],
        features=named["features"],
        columns={name: named[f"column.{name}"] for name in meta["columns"]},
        shadow=None if meta["shadow"] is None else _decode_slate("shadow", meta["shadow"], named, n),
        sources=tuple(tuple(names) for names in meta["sources"]),
        fallbacks=tuple(Fallback(*parts) for parts in meta["fallbacks"]),
        versions=meta["versions"],
        propensity_known=meta["propensity_known"],
        held_back=meta["held_back"],
    )


def _encode_slate(name: str, slate: Slate, named: dict[str, NDArray[Any]]) -> dict[str, Any]:
    named[f"{name}.order"] = slate.order
    named[f"{name}.propensities"] = slate.propensities
    named[f"{name}.eligible"] = np.packbits(slate.eligible, axis=1)
    named[f"{name}.support"] = np.packbits(slate.support, axis=1)
    return {
        "method": slate.method,
        "policy": slate.policy,
        "policy_version": slate.policy_version,
        "seed": str(slate.seed),  # may be wider than the 64 bits of a JSON integer here
        "floor": slate.floor,
        "strategies": slate.strategies,
        "reads": slate.reads,
    }


def _decode_slate(name: str, meta: dict[str, Any], named: dict[str, NDArray[Any]], n: int) -> Slate:
    return Slate(
        order=named[f"{name}.order"],
        propensities=named[f"{name}.propensities"],
        method=tuple(meta["method"]),
        policy=meta["policy"],
        policy_version=meta["policy_version"],
        eligible=np.unpackbits(named[f"{name}.eligible"], axis=1, count=n).view(np.bool_),
        support=np.unpackbits(named[f"{name}.support"], axis=1, count=n).view(np.bool_),
        seed=int(meta["seed"]),
        floor=meta["floor"],
        strategies=tuple(meta["strategies"]),
        reads=tuple(meta["reads"]),
    )


def _encode_ids(item_ids: Ids, named: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Store text one byte per character where all are Latin-1: a quarter of NumPy's width."""
    if item_ids.dtype.kind == "O" and all(isinstance(item, str) for item in item_ids):
        item_ids = item_ids.astype(np.str_)
    if item_ids.dtype.kind == "U":
        characters = np.ascontiguousarray(item_ids, dtype=item_ids.dtype.newbyteorder("="))
        codes = characters.view(np.uint32).reshape(len(item_ids), -1) if item_ids.size else None
        if codes is not None and int(codes.max()) < 256:
            named["ids"] = codes.astype(np.uint8)
            return {"text": item_ids.dtype.itemsize // 4}
    named["ids"] = item_ids
    return {}


def _decode_ids(meta: dict[str, Any], named: dict[str, NDArray[Any]]) -> Ids:
    stored = named["ids"]
    if "text" not in meta:
        return stored
    width = meta["text"]
    ids: Ids = stored.astype(np.uint32).reshape(-1).view(f"=U{width}")
    ids.flags.writeable = False
    return ids


def _fragment(context: Mapping[str, Any]) -> orjson.Fragment:
    try:
        return orjson.Fragment(
            orjson.dumps(
                dict(context), default=_nearest, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
            )
        )
    except TypeError as error:
        raise InvalidBatch(
            f"The request's context cannot be written as JSON ({error}), so that the decision cannot be "
            "logged. Keep to text, numbers within 64 bits, lists and mappings."
        ) from error


def _nearest(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(value, key=repr)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return repr(value)


def _not_storable(record: DecisionRecord, error: TypeError) -> InvalidBatch:
    return InvalidBatch(
        f"Decision {record.decision_id!r} cannot be stored: {error}. Item ids must be text or numbers of "
        "one type, and names must be valid Unicode."
    )
