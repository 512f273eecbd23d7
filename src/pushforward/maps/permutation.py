"""Fixed reorderings of the coordinates."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.maps.core import Map, Shape, Step
from pushforward.numerics import Noise
from pushforward.registry import register

__all__ = ["Permutation", "Reverse"]


@register("maps")
class Permutation(Map):
    """z_i = x_{order[i]} along the last dimension; contribution 0.

    The order lives in the buffer ``permutation``, so a saved model keeps it whatever the seed.

    Args:
        features: event shape; the last dimension is reordered.
        order: a permutation of 0, ..., D - 1; None draws one.
        seed: of the drawn order.

    Raises:
        ConfigError: if ``order`` is no permutation.

    Example:
        >>> import torch
        >>> from pushforward.maps import Permutation
        >>> Permutation(3, order=(2, 0, 1)).encode(torch.tensor([10.0, 11.0, 12.0])).z
        tensor([12., 10., 11.])
    """

    domain = None
    codomain = None
    permutation: Tensor

    def __init__(self, features: int | Shape, order: tuple[int, ...] | None = None, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.order, self.seed = features, order, seed
        width = _last(self.in_shape, "Permutation")
        if order is None:
            places = list(range(width))
            random.Random(seed).shuffle(places)
        else:
            places = list(order)
        if sorted(places) != list(range(width)):
            raise ConfigError(f"order must hold each of 0, ..., {width - 1} once; got {order!r}.")
        self.register_buffer("permutation", torch.tensor(places, dtype=torch.int64))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Reorder the last dimension."""
        return Step(x.index_select(-1, self.permutation), self.no_volume(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Put the last dimension back in its own order."""
        return z.index_select(-1, torch.argsort(self.permutation))


@register("maps")
class Reverse(Map):
    """z_i = x_{D - 1 - i} along the last dimension; contribution 0. MAF reverses the order after every layer.

    Args:
        features: event shape; the last dimension is reversed.

    Example:
        >>> import torch
        >>> from pushforward.maps import Reverse
        >>> Reverse(3).encode(torch.tensor([10.0, 11.0, 12.0])).z
        tensor([12., 11., 10.])
    """

    domain = None
    codomain = None

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features
        _last(self.in_shape, "Reverse")

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Reverse the last dimension."""
        return Step(x.flip(-1), self.no_volume(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Reverse the last dimension again."""
        return z.flip(-1)


def _last(shape: Shape, owner: str) -> int:
    if not shape:
        raise ConfigError(f"{owner} needs an event of at least one dimension; got the shape ().")
    return shape[-1]
