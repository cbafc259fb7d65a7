"""What a process that only serves sets for itself: one thread per request, and no long pauses for garbage."""

from __future__ import annotations

import gc
import os
from typing import Final

_THREADS: Final = (
    "OMP_NUM_THREADS",  # FAISS, LightGBM and whatever else uses OpenMP
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)
SHARED_FOLDER: Final = "EXPLORANK_METRICS_FOLDER"
"""The environment variable that names the folder where workers share their counters.

One of our own beside `PROMETHEUS_MULTIPROC_DIR`, which Feast sets as well, for a process that is alone.
"""
_ALLOCATIONS: Final = 50_000
"""So many more objects than there were, before the newest are looked at: a request alone passes the usual 700."""
_YOUNGER: Final = 20


def pin_threads() -> None:
    """Give native libraries one thread each, in this process and those it starts, where nothing else is set.

    Cores are for requests beside each other: two threads for one request gain nothing when all cores work, and
    wait for each other when they do. Must come before numpy is imported, since the libraries look once.
    """
    for name in _THREADS:
        os.environ.setdefault(name, "1")


def settle() -> None:
    """Keep the garbage collector away from what was loaded; to be called once all of it is.

    A full collection walks every object, libraries included, which takes longer than many requests (0.2 s with
    Feast imported). What is frozen is never walked again; what requests leave behind is found by counting references,
    all but rare cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, _YOUNGER, _YOUNGER)
