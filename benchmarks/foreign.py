"""Environments of their own for other libraries, and programs that run in them.

    python -m benchmarks.foreign                    (builds what is missing of all of them, minutes)

Each is a virtual environment under `build/environments/`, with the versions below and nothing of this project:
what runs there is this repository's source, by another interpreter, with numpy and that library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[1]
ENVIRONMENTS: Final = REPOSITORY / "build" / "environments"
_NUMPY: Final = "numpy==2.4.6"
_SCIENCE: Final = (_NUMPY, "scipy==1.17.1", "scikit-learn==1.9.1", "joblib==1.6.0")
PINS: Final[dict[str, tuple[str, ...]]] = {
    "mabwiser": ("mabwiser==2.7.4", *_SCIENCE, "pandas==3.1.1"),
    "contextualbandits": ("contextualbandits==0.3.30", *_SCIENCE, "pandas==3.1.1"),
    "bayesianbandits": ("bayesianbandits==1.5.0", *_SCIENCE),
    "vowpalwabbit": ("vowpalwabbit==9.11.9", _NUMPY),
    "gittins": ("gittins==2.0.1", _NUMPY),
    # Data sets: river's and scikit-learn's packaged ones; obp's wheel carries the Open Bandit logs (it is
    # installed without what it needs, and never imported).
    "data": ("river==0.26.1", *_SCIENCE),
}
LIBRARIES: Final = tuple(name for name in PINS if name != "data")
_WITHOUT_NEEDS: Final[dict[str, tuple[str, ...]]] = {"data": ("obp==0.4.1",)}


def interpreter(name: str) -> Path:
    """Return the Python of the environment `name`; raise `FileNotFoundError` where it is not built."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not _complete(name):
        raise FileNotFoundError(
            f"The environment of {name!r} is not built, or not with the pinned versions, so it cannot be "
            "compared with. Build it: python -m benchmarks.foreign"
        )
    return python


def available(names: Sequence[str]) -> list[str]:
    """Return those of `names` whose environments are built."""
    return [name for name in names if _complete(name)]


def surroundings() -> dict[str, str]:
    """Return the environment variables of a program there: one thread, this source, nobody else's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **threads, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}


def build(name: str) -> None:
    """Build the environment `name` anew, unless it has the pinned versions."""
    if _complete(name):
        return
    folder = ENVIRONMENTS / name
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)  # noqa: S603 - our own path
    subprocess.run([*pip, *PINS[name]], check=True)  # noqa: S603 - pinned above
    for requirement in _WITHOUT_NEEDS.get(name, ()):
        subprocess.run([*pip, "--no-deps", requirement], check=True)  # noqa: S603 - pinned above
    _stamp(name).write_text(_wanted(name), encoding="utf-8")


def _wanted(name: str) -> str:
    return "\n".join((*PINS[name], *_WITHOUT_NEEDS.get(name, ())))


def _stamp(name: str) -> Path:
    return ENVIRONMENTS / name / ".pins"


def _complete(name: str) -> bool:
    stamp = _stamp(name)
    return stamp.exists() and stamp.read_text(encoding="utf-8") == _wanted(name)


def main() -> None:
    """Build all environments; one that cannot be built does not keep the others from it."""
    failed = []
    for name in PINS:
        try:
            build(name)
        except subprocess.CalledProcessError as error:
            failed.append(f"{name}: {error}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
