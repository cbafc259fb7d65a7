"""Where a network is trained, and how that comes out the same each time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

import torch

from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.options import Device


def device_named(name: Device) -> torch.device:
    """Return the device; raise `InvalidTraining` for a CUDA one that is asked for and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidTraining(
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


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Within the block torch computes on the CPU with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generator_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Return where the draws stand, by name."""
    states = {"generator": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda_generator"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Go on drawing where `generator_states` stood; a device that did not draw then goes on as it is."""
    torch.set_rng_state(states["generator"])
    if device.type == "cuda" and "cuda_generator" in states:
        torch.cuda.set_rng_state(states["cuda_generator"], device)
