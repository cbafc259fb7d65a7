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
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Within the block torch draws by `seed`, and a CUDA `device` adds up in an order that is the same each time.

    The caller's own draws and choice of algorithms go on undisturbed after it.
    """
    on_cuda = device.type == "cuda"
    if on_cuda:  # torch refuses matrix products without it, where the same result each time is asked for
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    asked = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    # `manual_seed` reaches every device, so each one's draws are put back.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else []):
        torch.manual_seed(seed)
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
