"""The built-in rankers are held to what third parties are held to."""

from __future__ import annotations

from typing import Any

from explorank.rankers import (
    Bagging,
    BaggingOptions,
    Blend,
    BlendOptions,
    Calibrated,
    CalibratedOptions,
    LightGBMOptions,
    LightGBMRanker,
    ReciprocalRank,
    ReciprocalRankOptions,
    Rerank,
    RerankOptions,
    Stack,
    StackOptions,
)
from explorank.testing import RankerTests

TREES: dict[str, Any] = {"use": "lightgbm", "rounds": 15, "num_threads": 1, "params": {"num_leaves": 7}}
CLICKS: dict[str, Any] = TREES | {"objective": "binary"}


class TestLightGBM(RankerTests):
    ranker_class = LightGBMRanker
    options = LightGBMOptions(rounds=24, num_threads=1)
    resumes = True
    invalid_options = (
        {"rounds": 0},
        {"objective": "best"},
        {"monotone": {"nobody": 1}},
        {"position_bias": "weights"},
    )


class TestLightGBMBinary(RankerTests):
    ranker_class = LightGBMRanker
    options = LightGBMOptions(objective="binary", rounds=20, num_threads=1)


class TestBlend(RankerTests):
    ranker_class = Blend
    options = BlendOptions(members=(TREES, CLICKS | {"features": ["second", "first"]}), folds=2)
    invalid_options = (
        {"members": ()},
        {"members": ({"rounds": 3}, TREES)},
        {"members": ("lightgbm", TREES)},
        {"members": ({"use": "lihgtgbm"}, TREES)},
        {"members": ({"use": "lightgbm", "round": 3}, TREES)},
        {"members": (TREES | {"features": ["fourth"]}, TREES)},
        {"weights": (1.0,)},
        {"weights": (1.0, -1.0)},
        {"weights": (0.0, 0.0)},
        {"folds": 1},
        {"folds": 60},
    )
    resumes = True


class TestBlendOfGivenWeights(RankerTests):
    ranker_class = Blend
    options = BlendOptions(members=(TREES, CLICKS), weights=(1.0, 3.0))


class TestRerank(RankerTests):
    ranker_class = Rerank
    options = RerankOptions(first=TREES, then=CLICKS, top=6)
    resumes = True
    invalid_options = (
        {"top": 1},
        {"first": {"use": "lihgtgbm"}},
        {"then": {"rounds": 3}},
        {"then": "lightgbm"},
    )


class TestStack(RankerTests):
    ranker_class = Stack
    options = StackOptions(members=(TREES, CLICKS), folds=2)
    invalid_options = ({"meta": "forest"}, {"penalty": 0.0}, {"folds": 1})
    resumes = True


class TestLogisticStack(RankerTests):
    ranker_class = Stack
    options = StackOptions(members=(TREES, CLICKS), folds=2, meta="logistic")


class TestReciprocalRank(RankerTests):
    ranker_class = ReciprocalRank
    options = ReciprocalRankOptions(members=(TREES, CLICKS))
    invalid_options = ({"k": -1.0}, {"k": float("nan")}, {"members": (TREES,)})


class TestBagging(RankerTests):
    ranker_class = Bagging
    options = BaggingOptions(member=CLICKS, bags=3)
    invalid_options = ({"bags": 1}, {"member": {}})
    resumes = True


class TestIsotonic(RankerTests):
    ranker_class = Calibrated
    options = CalibratedOptions(member=TREES, folds=2)
    invalid_options = ({"method": "beta"}, {"folds": 0}, {"member": {"use": "nobody"}})
    resumes = True


class TestPlatt(RankerTests):
    ranker_class = Calibrated
    options = CalibratedOptions(member=CLICKS, folds=2, method="platt")


BLEND = {"use": "blend", "members": (TREES, CLICKS), "weights": (1, 1)}


class TestRankersOfRankers(RankerTests):
    """Members may themselves be made of others."""

    ranker_class = Calibrated
    options = CalibratedOptions(member=BLEND, folds=2)
