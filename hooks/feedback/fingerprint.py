"""What a learner's state depends on, as one word: another policy or other rules never meet it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Set
from typing import Any

import orjson

from explorank.hooks.exploration.policy import Policy
from explorank.hooks.feedback.observer import Observer
from explorank.hooks.feedback.outcomes import RewardRules


def fingerprint_of(
    policy: Policy[Any],
    rules: RewardRules,
    feature_version: str | None,
    observer: Observer | None,
    *,
    warm_start: bool,
) -> str:
    """Return the same word for equal options, in any process."""
    parameters = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    described = {
        "policy": policy.name,
        "parameters": parameters,
        "rules": rules,
        "feature_version": feature_version,
        "warm_start": warm_start,
    }
    if observer is not None:
        described["observer"] = observer.fingerprint
    text = orjson.dumps(
        described, default=_described, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    )
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _described(value: object) -> object:
    # The repr of a set differs between processes.
    return sorted(value, key=repr) if isinstance(value, Set) else repr(value)
