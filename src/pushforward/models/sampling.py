"""Arguments of methods that draw samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Size

from pushforward.errors import ConfigError, KindError
from pushforward.numerics.checks import check_integer, is_integer

if TYPE_CHECKING:
    from pushforward.distributions.base import Distribution
    from pushforward.transforms.base import Transform

__all__ = ["check_rsample", "check_sample_shape", "seeded_generator"]


def check_rsample(parts: Iterable[Transform | Distribution]) -> None:
    """Refuse to draw samples with gradients from parts through which none passes.

    Raises:
        KindError: naming the first such part.
    """
    for part in parts:
        if not part.has_rsample:
            raise KindError(f"samples of {type(part).__name__} carry no gradient: call sample() instead.")


def check_sample_shape(sample_shape: int | tuple[int, ...]) -> Size:
    """The shape of the samples that are asked for.

    Raises:
        ConfigError: if a size is negative or no integer.
    """
    sizes = tuple(sample_shape) if isinstance(sample_shape, (tuple, list)) else (sample_shape,)
    if not all(is_integer(size) and size >= 0 for size in sizes):
        raise ConfigError(f"sample_shape must be a number of samples, or a tuple of them; got {sample_shape!r}.")
    return Size(int(size) for size in sizes)


def seeded_generator(
    seed: int | None, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator that is given, or a new one with the seed.

    With neither, the seed comes from torch's global generator.

    Raises:
        ConfigError: if both are given, the seed is no integer, or the generator is not one of torch.
    """
    if seed is not None and generator is not None:
        raise ConfigError("give a seed or a generator, not both.")
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise ConfigError(f"generator must be a torch.Generator; got {generator!r:.80}: give a number as seed=.")
        return generator
    if seed is None:
        seed = int(torch.randint(2**62, ()).item())
    return torch.Generator(device).manual_seed(check_integer("seed", seed, None) % 2**64)
