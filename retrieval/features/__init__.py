"""Features: built point in time from interactions, kept in a Feast repository, read as float32 numbers."""

from explorank.retrieval.features.builder import BuildReport, build_features
from explorank.retrieval.features.feast_access import FeatureAccess, OnlineFeatures, OnlineUser
from explorank.retrieval.features.meaning import Meaning
from explorank.retrieval.features.repository import copy_repository
from explorank.retrieval.features.tables import Interactions, interactions_of

__all__ = [
    "BuildReport",
    "FeatureAccess",
    "Interactions",
    "Meaning",
    "OnlineFeatures",
    "OnlineUser",
    "build_features",
    "copy_repository",
    "interactions_of",
]
