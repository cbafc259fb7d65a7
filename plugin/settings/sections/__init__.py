"""The sections of an explorank.yaml, a module for each. The docstring under a field is its entry in the reference."""

from explorank.settings.sections.component import (
    Component,
    GuardComponent,
    PolicyComponent,
    RankerComponent,
    RetrieverComponent,
    TeacherComponent,
)
from explorank.settings.sections.exploration import (
    BudgetSettings,
    CandidateRule,
    ConservativeSettings,
    ExplorationSettings,
    ForgettingSettings,
    SafetySettings,
    StabilitySettings,
    StopSettings,
)
from explorank.settings.sections.features import CrossKind, CrossSettings, DataSettings, FeatureSettings
from explorank.settings.sections.feedback import ExaminationSettings, FeedbackSettings, RewardKind
from explorank.settings.sections.retrieval import (
    ByUseSettings,
    GpuSettings,
    IndexSettings,
    LearnedEmbeddingsSettings,
    ModalitySettings,
    RetrievalSettings,
    TrendingSettings,
)
from explorank.settings.sections.server import (
    LimitSettings,
    LoadSettings,
    PluginSettings,
    ServerSettings,
    TokenSettings,
)

__all__ = [
    "BudgetSettings",
    "ByUseSettings",
    "CandidateRule",
    "Component",
    "ConservativeSettings",
    "CrossKind",
    "CrossSettings",
    "DataSettings",
    "ExaminationSettings",
    "ExplorationSettings",
    "FeatureSettings",
    "FeedbackSettings",
    "ForgettingSettings",
    "GpuSettings",
    "GuardComponent",
    "IndexSettings",
    "LearnedEmbeddingsSettings",
    "LimitSettings",
    "LoadSettings",
    "ModalitySettings",
    "PluginSettings",
    "PolicyComponent",
    "RankerComponent",
    "RetrievalSettings",
    "RetrieverComponent",
    "RewardKind",
    "SafetySettings",
    "ServerSettings",
    "StabilitySettings",
    "StopSettings",
    "TeacherComponent",
    "TokenSettings",
    "TrendingSettings",
]
