"""How good each candidate is: rankers that know their features and refuse others."""

from typing import TYPE_CHECKING, Any

from explorank.rankers.errors import CorruptRanker, FeatureMismatch, InvalidTraining, RankerError
from explorank.rankers.manifest import RankerManifest, feature_hash
from explorank.rankers.ranker import Ranker

if TYPE_CHECKING:
    from explorank.rankers.lightgbm_ranker import LightGBMRanker

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


def __getattr__(name: str) -> Any:
    # LightGBM brings pandas and costs a second to import, which whoever reads an error or a manifest need not pay.
    if name != "LightGBMRanker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from explorank.rankers.lightgbm_ranker import LightGBMRanker  # noqa: PLC0415 - see above

    return LightGBMRanker
