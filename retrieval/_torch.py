"""Where models are trained, and how that comes out the same each time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from explorank.retrieval.collaborative._training import Device
from explorank.retrieval.errors import InvalidOption


def device_named(name: Device) -> torch.device:
    """Return the device; raise `InvalidOption` for a CUDA one that is asked for and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidOption(
            "device='cuda', and torch finds no CUDA device here. Use 'auto' or 'cpu', or install a torch that fits "
            "the driver."
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch draws by `seed`; the caller's own draws go on undisturbed after it, on every device."""
    # Named one by one, as torch warns where it is left to find several by itself.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Do what `seeded` does, and have a CUDA `device` add up in an order that is the same each time."""
    on_cuda = device.type == "cuda"
    if on_cuda:  # torch refuses matrix products without it, where the same result each time is asked for
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    asked = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    with seeded(seed):
        torch.use_deterministic_algorithms(asked or on_cuda, warn_only=only_warned)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(asked, warn_only=only_warned)


def as_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    """Return a copy in C order, from whatever device: a view would go on being trained after its epoch."""
    return np.array(tensor.detach().cpu().numpy(), np.float32, order="C")
