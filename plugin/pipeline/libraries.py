"""Which versions of libraries a result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_LIBRARIES: Final = (
    "explorank", "numpy", "pandas", "feast", "lightgbm", "scikit-learn", "torch", "onnxruntime",
    "sentence-transformers",
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of those libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
