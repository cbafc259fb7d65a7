"""The settings of an installation: explorank.yaml, checked strictly and explained in plain words."""

from explorank.settings.components import resolve_component, resolve_components
from explorank.settings.load import load_settings, parse_settings
from explorank.settings.model import (
    BudgetSettings,
    CandidateRule,
    Component,
    ExaminationSettings,
    ExplorationSettings,
    FeatureSettings,
    FeedbackSettings,
    ForgettingSettings,
    GuardComponent,
    IndexSettings,
    LimitSettings,
    PluginSettings,
    PolicyComponent,
    RankerComponent,
    RetrievalSettings,
    RetrieverComponent,
    RewardKind,
    ServerSettings,
    Settings,
    StabilitySettings,
    TokenSettings,
)
from explorank.settings.schema import json_schema
from explorank.settings.template import template

__all__ = [
    "BudgetSettings",
    "CandidateRule",
    "Component",
    "ExaminationSettings",
    "ExplorationSettings",
    "FeatureSettings",
    "FeedbackSettings",
    "ForgettingSettings",
    "GuardComponent",
    "IndexSettings",
    "LimitSettings",
    "PluginSettings",
    "PolicyComponent",
    "RankerComponent",
    "RetrievalSettings",
    "RetrieverComponent",
    "RewardKind",
    "ServerSettings",
    "Settings",
    "StabilitySettings",
    "TokenSettings",
    "json_schema",
    "load_settings",
    "parse_settings",
    "resolve_component",
    "resolve_components",
    "template",
]
