"""How good each candidate is: rankers that know their features and refuse others."""

from explorank.rankers.errors import CorruptRanker, FeatureMismatch, InvalidTraining, RankerError
from explorank.rankers.lightgbm_ranker import LightGBMRanker
from explorank.rankers.manifest import RankerManifest, feature_hash
from explorank.rankers.ranker import Ranker

__all__ = [
    "CorruptRanker",
    "FeatureMismatch",
    "InvalidTraining",
    "LightGBMRanker",
    "Ranker",
    "RankerError",
    "RankerManifest",
    "feature_hash",
]
