"""How good each candidate is: rankers that know their features and refuse others."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from explorank.rankers.data import RankingData
from explorank.rankers.errors import (
    CorruptRanker,
    FeatureMismatch,
    InvalidTraining,
    RankerError,
    UnsupportedModel,
)
from explorank.rankers.explanation import Explanation
from explorank.rankers.manifest import RankerManifest, feature_hash
from explorank.rankers.ranker import (
    ExplainingRanker,
    IdReadingRanker,
    Progress,
    Ranker,
    RepresentingRanker,
    TrainableRanker,
    UncertainRanker,
)

if TYPE_CHECKING:
    from explorank.rankers.forest import Forest
    from explorank.rankers.lightgbm_ranker import LightGBMOptions, LightGBMRanker
    from explorank.rankers.neural.dcn_ranker import DCNRanker
    from explorank.rankers.neural.options import DCNOptions, SequenceOptions, TaskOptions, TrainingOptions
    from explorank.rankers.neural.sequence_ranker import SequenceRanker
    from explorank.rankers.scoring import Scoring

__all__ = [
    "CorruptRanker",
    "DCNOptions",
    "DCNRanker",
    "ExplainingRanker",
    "Explanation",
    "FeatureMismatch",
    "Forest",
    "IdReadingRanker",
    "InvalidTraining",
    "LightGBMOptions",
    "LightGBMRanker",
    "Progress",
    "Ranker",
    "RankerError",
    "RankerManifest",
    "RankingData",
    "RepresentingRanker",
    "Scoring",
    "SequenceOptions",
    "SequenceRanker",
    "TaskOptions",
    "TrainableRanker",
    "TrainingOptions",
    "UncertainRanker",
    "UnsupportedModel",
    "feature_hash",
]

_LATE: Final = {
    "Forest": "explorank.rankers.forest",
    "LightGBMOptions": "explorank.rankers.lightgbm_ranker",
    "LightGBMRanker": "explorank.rankers.lightgbm_ranker",
    "Scoring": "explorank.rankers.scoring",
    "DCNOptions": "explorank.rankers.neural.options",
    "DCNRanker": "explorank.rankers.neural.dcn_ranker",
    "SequenceOptions": "explorank.rankers.neural.options",
    "SequenceRanker": "explorank.rankers.neural.sequence_ranker",
    "TaskOptions": "explorank.rankers.neural.options",
    "TrainingOptions": "explorank.rankers.neural.options",
}
"""Where these stand. LightGBM and numba cost a second to import, which whoever reads a manifest need not pay."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
