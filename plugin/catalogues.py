"""The catalogue as the settings want it: how its index is built, and how it is loaded to serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from explorank.artefacts import published_checksums
from explorank.retrieval import Catalogue, GpuOptions, SimilarToHistory
from explorank.settings import Settings

_NEIGHBOURS: Final = 100
"""What recall is measured at where no retriever searches the index."""


def catalogue_loader(settings: Settings) -> Callable[[Path], Catalogue]:
    """Return what loads a catalogue from a folder that `ArtefactStore.verify` found intact just before.

    Gigabytes are not read twice for that: what the store computed is compared with the catalogue's own manifest.
    """
    device, options = settings.retrieval.index.device, gpu_options(settings)
    return lambda folder: Catalogue.load(folder, device, checksums=published_checksums(folder), gpu=options)


def gpu_options(settings: Settings) -> GpuOptions:
    """Return how the index lies on the GPUs, if there are any."""
    gpu = settings.retrieval.index.gpu
    return GpuOptions(spread=gpu.spread, float16=gpu.float16, wait_ms=gpu.wait_ms)


def neighbours(settings: Settings, retriever: str = SimilarToHistory.name) -> int:
    """Return how many neighbours requests ask of the index of `retriever`: what its recall has to hold for."""
    asked = [one.k for one in settings.retrieval.retrievers if one.use == retriever]
    return min(max(asked, default=_NEIGHBOURS), settings.retrieval.candidates)
