"""How good each candidate is: rankers that know their features and refuse others."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from explorank.rankers._checkpoint import run_identity
from explorank.rankers.applying import (
    features_for,
    id_columns_of,
    is_listwise,
    is_prompt,
    knowing_texts,
    places_of,
    reads_texts,
    score_data,
)
from explorank.rankers.data import RankingData
from explorank.rankers.errors import (
    CorruptRanker,
    FeatureMismatch,
    InvalidProbabilities,
    InvalidTraining,
    MissingDependency,
    RankerError,
    UnsupportedModel,
)
from explorank.rankers.explanation import Explanation
from explorank.rankers.manifest import RankerManifest, feature_hash
from explorank.rankers.names import RANKERS, register_ranker
from explorank.rankers.position_bias import examination_from_random_slots
from explorank.rankers.ranker import (
    AdaptableRanker,
    ExplainingRanker,
    HurriedRanker,
    IdReadingRanker,
    MeteredProgress,
    Progress,
    Ranker,
    RepresentingRanker,
    TextReadingRanker,
    TrainableRanker,
    UncertainRanker,
    report_metrics,
)
from explorank.rankers.teaching import learns_from_teacher, taught_by, taught_out_of_fold

if TYPE_CHECKING:
    from explorank.rankers.bagging import Bagging, BaggingOptions
    from explorank.rankers.blend import Blend, BlendOptions
    from explorank.rankers.calibrated import Calibrated, CalibratedOptions
    from explorank.rankers.calibration import (
        ReliabilityCurve,
        expected_calibration_error,
        plot_reliability,
        reliability_curve,
    )
    from explorank.rankers.forest import Forest
    from explorank.rankers.lightgbm_ranker import LightGBMOptions, LightGBMRanker
    from explorank.rankers.lightgbm_search import Search, Trial, search_lightgbm
    from explorank.rankers.neural.dcn_ranker import DCNRanker
    from explorank.rankers.neural.options import (
        DCNOptions,
        SequenceOptions,
        TaskOptions,
        TrainingOptions,
        TransferOptions,
    )
    from explorank.rankers.neural.sequence_ranker import SequenceRanker
    from explorank.rankers.reciprocal_rank import ReciprocalRank, ReciprocalRankOptions
    from explorank.rankers.rerank import Rerank, RerankOptions
    from explorank.rankers.scoring import Scoring
    from explorank.rankers.stack import Stack, StackOptions

__all__ = [
    "RANKERS",
    "AdaptableRanker",
    "Bagging",
    "BaggingOptions",
    "Blend",
    "BlendOptions",
    "Calibrated",
    "CalibratedOptions",
    "CorruptRanker",
    "DCNOptions",
    "DCNRanker",
    "ExplainingRanker",
    "Explanation",
    "FeatureMismatch",
    "Forest",
    "HurriedRanker",
    "IdReadingRanker",
    "InvalidProbabilities",
    "InvalidTraining",
    "LightGBMOptions",
    "LightGBMRanker",
    "MeteredProgress",
    "MissingDependency",
    "Progress",
    "Ranker",
    "RankerError",
    "RankerManifest",
    "RankingData",
    "ReciprocalRank",
    "ReciprocalRankOptions",
    "ReliabilityCurve",
    "RepresentingRanker",
    "Rerank",
    "RerankOptions",
    "Scoring",
    "Search",
    "SequenceOptions",
    "SequenceRanker",
    "Stack",
    "StackOptions",
    "TaskOptions",
    "TextReadingRanker",
    "TrainableRanker",
    "TrainingOptions",
    "TransferOptions",
    "Trial",
    "UncertainRanker",
    "UnsupportedModel",
    "examination_from_random_slots",
    "expected_calibration_error",
    "feature_hash",
    "features_for",
    "id_columns_of",
    "is_listwise",
    "is_prompt",
    "knowing_texts",
    "learns_from_teacher",
    "places_of",
    "plot_reliability",
    "reads_texts",
    "register_ranker",
    "reliability_curve",
    "report_metrics",
    "run_identity",
    "score_data",
    "search_lightgbm",
    "taught_by",
    "taught_out_of_fold",
]

_LATE: Final = {
    "Bagging": "explorank.rankers.bagging",
    "BaggingOptions": "explorank.rankers.bagging",
    "Blend": "explorank.rankers.blend",
    "BlendOptions": "explorank.rankers.blend",
    "Calibrated": "explorank.rankers.calibrated",
    "CalibratedOptions": "explorank.rankers.calibrated",
    "Forest": "explorank.rankers.forest",
    "LightGBMOptions": "explorank.rankers.lightgbm_ranker",
    "LightGBMRanker": "explorank.rankers.lightgbm_ranker",
    "ReciprocalRank": "explorank.rankers.reciprocal_rank",
    "ReciprocalRankOptions": "explorank.rankers.reciprocal_rank",
    "ReliabilityCurve": "explorank.rankers.calibration",
    "Rerank": "explorank.rankers.rerank",
    "RerankOptions": "explorank.rankers.rerank",
    "Scoring": "explorank.rankers.scoring",
    "Search": "explorank.rankers.lightgbm_search",
    "Stack": "explorank.rankers.stack",
    "StackOptions": "explorank.rankers.stack",
    "Trial": "explorank.rankers.lightgbm_search",
    "expected_calibration_error": "explorank.rankers.calibration",
    "plot_reliability": "explorank.rankers.calibration",
    "reliability_curve": "explorank.rankers.calibration",
    "search_lightgbm": "explorank.rankers.lightgbm_search",
    "DCNOptions": "explorank.rankers.neural.options",
    "DCNRanker": "explorank.rankers.neural.dcn_ranker",
    "SequenceOptions": "explorank.rankers.neural.options",
    "SequenceRanker": "explorank.rankers.neural.sequence_ranker",
    "TaskOptions": "explorank.rankers.neural.options",
    "TrainingOptions": "explorank.rankers.neural.options",
    "TransferOptions": "explorank.rankers.neural.options",
}
"""Where these stand. LightGBM and numba cost a second to import, which whoever reads a manifest need not pay."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
