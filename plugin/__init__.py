"""Explorank: bandit exploration, with true propensities, for a ranking stage.

`load` gives a whole stage; `plugin` gives one plugin for a host's own pluggy manager.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explorank.decision import Decision
    from explorank.facade import ExplorankPlugin, plugin
    from explorank.settings import Settings, load_settings
    from explorank.stage import Stage, load

__version__ = _version("explorank")

__all__ = [
    "Decision",
    "ExplorankPlugin",
    "Settings",
    "Stage",
    "__version__",
    "load",
    "load_settings",
    "plugin",
]

_HOMES = {
    "Decision": "explorank.decision",
    "ExplorankPlugin": "explorank.facade",
    "Settings": "explorank.settings",
    "Stage": "explorank.stage",
    "load": "explorank.stage",
    "load_settings": "explorank.settings",
    "plugin": "explorank.facade",
}


def __getattr__(name: str) -> Any:
    # `import explorank` stays light: what needs pydantic, FAISS or LightGBM is imported when first asked for.
    if name not in _HOMES:
        raise AttributeError(f"module 'explorank' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only where an attribute is resolved

    return getattr(import_module(_HOMES[name]), name)
