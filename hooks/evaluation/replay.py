"""Replay: what a frozen policy does with a decision, from the decision's record alone.

A record holds every candidate's id and score, who was eligible at each slot, and the features of every item
that had a probability above 0 at some slot or was shown, with the columns that the policy read of them.
Items outside that support have neither, so a policy is replayed *over the logged support*: at an explored
slot it chooses among the items that could have been drawn there, as if the guards had allowed no others.

For the policy that made the slate nothing changes. A closed form has its support in the eligible items that
it gives a probability to; a Thompson policy's floor makes its support the whole eligible pool, and a pool
formed from itself is itself, with the same tie-breaking keys and the same draws (see `thompson`). Hence it
rebuilds the slate and the propensities to the last bit (on another machine, to rounding).

For any other policy the numbers are those of the target *restricted to the logged support*: they sum to 1
over it, and evaluation with them estimates that restricted target. Slots that did not explore have
probability 1, because the same rule fills them whatever the policy: a record says nothing about other scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explorank.hooks.errors import InvalidBatch
from explorank.hooks.exploration.policy import Policy
from explorank.hooks.exploration.process import SlotProcess
from explorank.hooks.types import (
    OFFSETS,
    REPRESENTATION,
    BoolArray,
    DecisionRecord,
    FeatureArray,
    FloatArray,
    IndexArray,
    RankingBatch,
    Slate,
)


def target_propensities(
    record: DecisionRecord, policy: Policy[Any], state: Any, draws_seed: int | None = None
) -> FloatArray:
    """Return the probability the target gives to what each slot showed, given the slots above, (k,) float64.

    The target is a policy with a frozen state. `draws_seed` seeds its posterior draws; `None` takes the
    record's own seed, with which the logging policy gets its logged propensities back. A target whose
    distribution depends on its draws may be averaged over several seeds. Entries after an impossible item
    are 0.

    Raises `InvalidBatch` where the policy needs features or columns that the record does not hold.
    """
    seed = record.slate.seed if draws_seed is None else draws_seed
    return _process(record, policy, state, seed).conditionals(record.slate.order)


def replay(record: DecisionRecord, policy: Policy[Any], state: Any) -> Slate:
    """Return the slate that the policy draws from the record's candidates with the record's seed.

    With the policy and the state that made the record, this is the very slate that was logged. With others
    it is what they would have shown, over the logged support; it is shorter than the logged slate where the
    items it chose earlier leave a slot without any.

    Raises `InvalidBatch` where the policy needs features or columns that the record does not hold.
    """
    return _process(record, policy, state, record.slate.seed).run(len(record.slate))


class _Logged:
    """Eligibility as it was logged, slot by slot."""

    def __init__(self, slate: Slate) -> None:
        self._slate = slate
        self.possible: BoolArray = np.logical_or.reduce(slate.eligible, axis=0)
        self.varies = True
        self.explorable: BoolArray | None = None

    def at(self, slot: int, placed: IndexArray, free: BoolArray) -> BoolArray:  # noqa: ARG002 - `free` tells
        eligible: BoolArray = free & self._slate.eligible[slot]
        return eligible

    def contending(self, slot: int, eligible: BoolArray) -> BoolArray:
        contending: BoolArray = eligible & self._slate.support[slot]
        return contending


def _process(record: DecisionRecord, policy: Policy[Any], state: Any, seed: int) -> SlotProcess:
    slate = record.slate
    explored = frozenset(slot for slot, method in enumerate(slate.method) if method == "explore")
    reads_features = policy.needs_features or "features" in policy.reads
    batch = RankingBatch(
        record.item_ids,
        features=_features(record, policy.name) if reads_features and explored else None,
        scores=record.scores,
        columns=_columns(record, tuple(name for name in policy.reads if name != OFFSETS)),
        feature_names=record.feature_names,
        offsets=_columns(record, (OFFSETS,)).get(OFFSETS),
        representation=record.versions.get(REPRESENTATION, ""),
    )
    return SlotProcess(policy, state, batch, _Logged(slate), explored, seed)


def _columns(record: DecisionRecord, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """Return those of the columns that were logged, (n,) each, zeros where none will be read."""
    columns: dict[str, FloatArray] = {}
    for name in names:
        if name in record.columns:
            columns[name] = np.zeros(len(record.item_ids))
            columns[name][record.feature_rows] = record.columns[name]
    return columns


def _features(record: DecisionRecord, policy: str) -> FeatureArray:
    """Return the features of all candidates, (n, d), zeros where none were logged and none will be read."""
    support = record.slate.support.any(axis=0)
    logged = np.zeros(len(record.item_ids), dtype=np.bool_)
    logged[record.feature_rows] = True
    lacking = support & ~logged
    if lacking.any():
        item = record.item_ids.tolist()[int(np.argmax(lacking))]
        raise InvalidBatch(
            f"The record of decision {record.decision_id!r} has no features of item {item!r}, which could "
            f"have been shown; {policy!r} cannot say how likely it finds it. Evaluate policies without "
            "features here, or leave the decision out."
        )
    features = np.zeros((len(record.item_ids), record.features.shape[1]), np.float32)
    features[record.feature_rows] = record.features
    return features
