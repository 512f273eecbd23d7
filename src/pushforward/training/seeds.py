"""Seeds as functions of the user's seed, the purpose and the step, so that a resumed run needs no generator state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch

from pushforward.numerics import check_integer, splitmix

__all__ = ["Purpose", "generator", "mix", "preserved", "seed_loading", "seed_step"]


class Purpose(IntEnum):
    """What a seed is for. Different purposes get independent seeds."""

    SPLIT = 1
    SHUFFLE = 2
    LOADING = 3
    STEP = 4
    LOSS = 5
    INITIALIZE = 6
    REFRESH = 7
    HELD_OUT = 8


def mix(*parts: int) -> int:
    """A seed of 63 bits computed from integers with SplitMix64: equal integers give equal seeds, others independent
    ones.

    >>> mix(0, Purpose.STEP, 1) == mix(0, Purpose.STEP, 1), mix(0, Purpose.STEP, 1) == mix(0, Purpose.STEP, 2)
    (True, False)
    """
    state = 0
    for part in parts:
        if type(part) is not int:  # an integer of numpy would overflow
            part = check_integer("seed", part, None)
        state = splitmix.mix((state + part + splitmix.GOLDEN) & splitmix.WORD)
    return state >> 1


def generator(*parts: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator with the seed that :func:`mix` computes."""
    result = torch.Generator(device)
    result.manual_seed(mix(*parts))
    return result


def seed_step(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device``, which dropout uses."""
    # torch.manual_seed seeds every kind of device and takes 400 us; a generator's own method takes 2.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[_index(device)].manual_seed(seed)


def seed_loading(seed: int) -> None:
    """Seed the generators that data sets use: the global ones of torch (CPU), numpy and Python."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  data sets use the legacy global generator


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Restore every global generator that training seeds to the caller's state at the end of the ``with`` block."""
    devices = [_index(device)] if device.type == "cuda" else []
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
