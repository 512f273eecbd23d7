"""Reshaping of images: blocks of pixels to channels, images to patches, events to vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import Noise
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import image_shape

__all__ = ["Flatten", "Patches", "Squeeze"]


@register("transforms")
class Squeeze(Transform):
    """Each 2 x 2 block of pixels becomes four channels: (C, H, W) to (4 C, H / 2, W / 2); contribution 0.

    With a, b, c, d the pixels of a block, row by row, the order of the new channels is

    - "glow": a, b, c, d of the first channel, then of the second, ... (Kingma and Dhariwal 2018, and the inner squeeze of
      Real NVP);
    - "checkerboard": a of all channels, then d, b and c of all channels, so that the first half of the new channels has the
      pixels of one color of a checkerboard (the order in which Real NVP factors out; Dinh et al. 2016, sec. 3.6).

    Args:
        features: (channels, height, width), with even height and width.
        order: "glow" or "checkerboard".

    Raises:
        ConfigError: for an odd height or width, or an unknown order.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Squeeze
        >>> image = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> Squeeze((1, 2, 2)).encode(image).z.flatten()
        tensor([1., 2., 3., 4.])
        >>> Squeeze((1, 2, 2), "checkerboard").encode(image).z.flatten()
        tensor([1., 4., 2., 3.])
    """

    domain = None
    codomain = None
    valid_on_manifold = angle_preserving = True
    index_buffers = ("permutation",)
    permutation: Tensor

    def __init__(self, features: Shape, order: str = "glow") -> None:
        channels, height, width = image_shape(features, "Squeeze")
        if height % 2 or width % 2:
            raise ConfigError(
                f"Squeeze needs images whose height and width are even; got {height} x {width}: pad or crop the images, or "
                "use fewer scales."
            )
        check_choice("order", order, ("glow", "checkerboard"))
        super().__init__((channels, height, width), (4 * channels, height // 2, width // 2))
        self.features, self.order = features, order
        permutation = torch.arange(4 * channels)
        if order == "checkerboard":  # a, d, b, c of all channels
            grid = permutation.reshape(channels, 2, 2).movedim(0, -1)
            permutation = torch.cat((grid[0, 0], grid[1, 1], grid[0, 1], grid[1, 0]))
        self.register_buffer("permutation", permutation)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, C, H, W)`` to ``(*batch, 4 C, H / 2, W / 2)``."""
        batch, (channels, height, width) = self.batch_shape(x), self.out_shape
        blocks = x.reshape(*batch, channels // 4, height, 2, width, 2).movedim((-3, -1), (-4, -3))
        z = blocks.reshape(*batch, channels, height, width)
        return Step(z if self.order == "glow" else z.index_select(-3, self.permutation), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, 4 C, H / 2, W / 2)`` to ``(*batch, C, H, W)``."""
        batch, (channels, height, width) = z.shape[:-3], self.out_shape
        if self.order != "glow":
            z = z.index_select(-3, torch.argsort(self.permutation))
        blocks = z.reshape(*batch, channels // 4, 2, 2, height, width).movedim((-4, -3), (-3, -1))
        return blocks.reshape(*batch, *self.in_shape)


@register("transforms")
class Flatten(Transform):
    """An event of any shape as a vector of its coordinates; contribution 0.

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Flatten
        >>> Flatten((1, 2, 2)).encode(torch.zeros(3, 1, 2, 2)).z.shape
        torch.Size([3, 4])
    """

    domain = None
    codomain = None
    valid_on_manifold = angle_preserving = True

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features
        self.out_shape = (math.prod(self.in_shape),)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, *features)`` to ``(*batch, D)``."""
        return Step(x.reshape(*self.batch_shape(x), *self.out_shape), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, D)`` to ``(*batch, *features)``."""
        return z.reshape(*z.shape[:-1], *self.in_shape)


@register("transforms")
class Patches(Transform):
    """(channels, height, width) to (patches, channels * patch^2), patches in raster order; contribution 0.

    Args:
        features: (channels, height, width).
        patch: height and width of a patch; both sides of the image must be multiples of it.

    Raises:
        ConfigError: if the event is not an image, or the patch does not divide it.

    Example:
        >>> import torch
        >>> Patches((1, 4, 4), patch=2).encode(torch.arange(16.0).reshape(1, 1, 4, 4)).z[0, 1]
        tensor([2., 3., 6., 7.])
    """

    domain = codomain = None
    _counts = True

    def __init__(self, features: Shape, patch: int = 2) -> None:
        super().__init__(features)
        check_integer("patch", patch)
        if len(self.in_shape) != 3 or self.in_shape[1] % patch or self.in_shape[2] % patch:
            raise ConfigError(
                f"features must be (channels, height, width), with height and width multiples of {patch}; got {features!r}."
            )
        self.features, self.patch = features, patch
        channels, height, width = self.in_shape
        self.grid = (height // patch, width // patch)
        self.out_shape = (self.grid[0] * self.grid[1], channels * patch**2)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, C, H, W)`` to ``(*batch, patches, C patch^2)``."""
        blocks = x.unflatten(-1, (self.grid[1], self.patch)).unflatten(-3, (self.grid[0], self.patch))
        # (c, rows, p, columns, p) to (rows, columns, c, p, p)
        tokens = blocks.transpose(-3, -2).movedim(-5, -3)
        return Step(tokens.flatten(-3).flatten(-3, -2), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, patches, C patch^2)`` to ``(*batch, C, H, W)``."""
        blocks = z.unflatten(-2, self.grid).unflatten(-1, (self.in_shape[0], self.patch, self.patch))
        # (rows, columns, c, p, p) to (c, rows, p, columns, p)
        return blocks.movedim(-3, -5).transpose(-3, -2).flatten(-2).flatten(-3, -2)
