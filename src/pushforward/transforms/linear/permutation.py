"""Fixed reorderings of the coordinates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Support
from pushforward.numerics import Noise
from pushforward.numerics.checks import check_indices, check_seed
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform

__all__ = ["Permutation", "Reverse", "inverse_permutation"]


@register("transforms")
class Permutation(Transform):
    """z_i = x_{order[i]} along one dimension of the event, by default the last; contribution 0.

    The order is stored in the buffer ``permutation``, so a saved model keeps it for any seed.

    Args:
        features: event shape.
        order: a permutation of 0, ..., D - 1; None draws one at random.
        seed: seed of the random order.
        dim: the dimension that is reordered, counted from the end: -1, or -3 for the channels of an image (C, H, W).

    Raises:
        ConfigError: if ``order`` is not a permutation, or the event has no such dimension.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Permutation
        >>> Permutation(3, order=(2, 0, 1)).encode(torch.tensor([10.0, 11.0, 12.0])).z
        tensor([12., 10., 11.])
    """

    domain = None
    codomain = None
    valid_on_manifold = angle_preserving = True
    index_buffers = ("permutation",)
    permutation: Tensor

    def __init__(
        self, features: int | Shape, order: tuple[int, ...] | None = None, seed: int = 0, dim: int = -1
    ) -> None:
        super().__init__(features)
        self.features, self.order, self.seed, self.dim = features, order, seed, dim
        width = _length(self.in_shape, dim, "Permutation")
        if order is None and torch.get_default_device().type == "meta":  # a loaded file sets the values later
            self.register_buffer("permutation", torch.empty(width, dtype=torch.int64))
            return
        check_seed(seed)
        if order is not None:
            check_indices("order", order, width, every=True)
        self.register_buffer("permutation", torch.tensor(self._positions(width), dtype=torch.int64))

    def _positions(self, width: int) -> list[int]:
        positions = list(range(width) if self.order is None else self.order)
        if self.order is None:
            random.Random(self.seed).shuffle(positions)
        return positions

    def map_support(self, box: Support) -> Support | None:
        """The box with its coordinates in the new order."""
        if not box.ends or box.within:
            return super().map_support(box)
        return replace(box, ends=tuple(box.ends[i] for i in self._positions(len(box.ends))))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Reorder the dimension."""
        return Step(x.index_select(self.dim, self.permutation), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Restore the order of the dimension."""
        return z.index_select(self.dim, torch.argsort(self.permutation))


@register("transforms")
class Reverse(Transform):
    """z_i = x_{D - 1 - i} along one dimension of the event, by default the last; contribution 0.

    MAF reverses the order of the coordinates after every layer; the simplest version of Glow reverses the channels.

    Args:
        features: event shape.
        dim: the dimension that is reversed, counted from the end: -1, or -3 for the channels of an image (C, H, W).

    Raises:
        ConfigError: if the event has no such dimension.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Reverse
        >>> Reverse(3).encode(torch.tensor([10.0, 11.0, 12.0])).z
        tensor([12., 11., 10.])
    """

    domain = None
    codomain = None
    valid_on_manifold = angle_preserving = True

    def __init__(self, features: int | Shape, dim: int = -1) -> None:
        super().__init__(features)
        self.features, self.dim = features, dim
        _length(self.in_shape, dim, "Reverse")

    def map_support(self, box: Support) -> Support | None:
        """The box with its coordinates in the reverse order."""
        return super().map_support(box) if not box.ends or box.within else replace(box, ends=box.ends[::-1])

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Reverse the dimension."""
        return Step(x.flip(self.dim), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Reverse the dimension again."""
        return z.flip(self.dim)


def inverse_permutation(order: Sequence[int]) -> Tensor:
    """The indices that restore the order of coordinates that were selected by ``order``."""
    positions = [0] * len(order)
    for position, index in enumerate(order):
        positions[index] = position
    return torch.tensor(positions, dtype=torch.int64)


def _length(shape: Shape, dim: int, owner: str) -> int:
    if not shape:
        raise ConfigError(f"{owner} needs an event of at least one dimension; got the shape ().")
    if not isinstance(dim, int) or isinstance(dim, bool) or not -len(shape) <= dim <= -1:
        raise ConfigError(
            f"dim must be an integer in -{len(shape)}, ..., -1, counted from the end of the event; got {dim!r}."
        )
    return shape[dim]
