"""The single place that imports FAISS, and the few calls that depend on which build of it is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from types import ModuleType
from typing import Final

from explorank.retrieval.errors import FaissUnavailable

_DISTRIBUTION: Final = re.compile(r"faiss[-_.](cpu|gpu([-_.](cu\d+|cuvs))*)", re.IGNORECASE)


def installed_distributions() -> list[str]:
    """Return the installed distributions that provide the module `faiss`."""
    names = (distribution.metadata["Name"] for distribution in metadata.distributions())
    return sorted({name for name in names if name and _DISTRIBUTION.fullmatch(name)})


@cache
def load_faiss() -> ModuleType:
    """Return the module `faiss`; raise `FaissUnavailable` where none or more than one provides it."""
    found = installed_distributions()
    if len(found) > 1:
        raise FaissUnavailable(
            f"{' and '.join(found)} are both installed; all of them write into the same module `faiss`, and "
            "what loads is a mixture. Remove them with `pip uninstall "
            + " ".join(found)
            + "` and install one "
            "with `pip install 'explorank[cpu]'` or `pip install 'explorank[gpu]'`."
        )
    try:
        return import_module("faiss")
    except ImportError as error:
        raise FaissUnavailable(
            "No usable FAISS is installed, and candidates are searched with it. Install it with "
            "`pip install 'explorank[cpu]'`, or `pip install 'explorank[gpu]'` for a CUDA GPU (that one runs "
            "without a GPU too)."
        ) from error
    except (RuntimeError, OSError) as error:  # a GPU build whose CUDA libraries are missing or cut off
        raise FaissUnavailable(
            f"{' '.join(found)} is installed and does not load: {error}. Candidates are searched with it. Install "
            "what it names, or FAISS anew with `pip install --force-reinstall 'explorank[gpu]'`."
        ) from error


def gpu_count() -> int:
    """Return how many GPUs FAISS can use: 0 in a CPU build, and in a GPU build without a GPU."""
    return int(getattr(load_faiss(), "get_num_gpus", int)())


@contextmanager
def one_thread() -> Iterator[None]:
    """Search on the calling thread only: OpenMP threads beside request threads cost more than they bring.

    OpenMP keeps the setting per thread, so it is set at each use; that takes a quarter of a microsecond.
    """
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    if before == 1:  # as where a process only serves
        yield
        return
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
