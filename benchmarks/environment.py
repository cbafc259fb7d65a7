"""The machine and the libraries of a run; and one thread for BLAS, whose settings it reads when it loads."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Chooses the kernels of another processor: what is measured with it holds for that one.
_KERNELS: Final = "OPENBLAS_CORETYPE"
_UNSET: Final = "BENCHMARK_UNSET_KERNELS"


def restart_with_one_thread() -> None:
    """Replace the process by one whose BLAS has one thread and its own choice of kernels, if need be."""
    wanted = dict.fromkeys(_THREADS, "1")
    if _KERNELS not in os.environ and wanted.items() <= os.environ.items():
        return
    environment = {**os.environ, **wanted}
    kernels = environment.pop(_KERNELS, None)
    if kernels is not None:
        environment[_UNSET] = kernels
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - itself, again


def describe() -> dict[str, Any]:
    """Return what the numbers of this run depend on."""
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    unset = os.environ.get(_UNSET)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "blas_threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "blas_kernels": "chosen by the library"
        + (f"; {_KERNELS} was set to {unset} and has been unset" if unset else f"; {_KERNELS} was not set"),
    }


def lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what `describe` found, and whatever was added to it, as a list in Markdown."""
    return [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", information.read_text()) if information.exists() else None
    return found[1].strip() if found else platform.processor()
