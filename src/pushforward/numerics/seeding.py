"""Random numbers of PyTorch's global generators that follow from a seed and leave the caller's state as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pushforward.numerics.checks import check_seed

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of the CPU and of all CUDA devices for the ``with`` block, and restore them at its end.

    >>> state = torch.get_rng_state()
    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with seeded(0):
    ...     again = torch.rand(2)
    >>> torch.equal(first, again), torch.equal(state, torch.get_rng_state())
    (True, True)
    """
    started = (
        torch.cuda.is_initialized()
    )  # only then the devices have a state to keep; asking for more would start the driver
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if started else []):
            torch.manual_seed(check_seed(seed))
            yield
    finally:
        if not started and torch.backends.cuda.is_built():
            # PyTorch notes the seed for devices that start later: make it the caller's again.
            torch.cuda.manual_seed_all(torch.initial_seed())
