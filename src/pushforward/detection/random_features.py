"""Image features from a small convolutional network with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, InputError
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.transforms.base import Shape
from pushforward.transforms.validation import image_shape

__all__ = ["RandomFeatures"]


class RandomFeatures(nn.Module):
    """A network with random weights: convolutions of stride 2 with ReLU, and a linear layer. The weights depend on the seed only.

    These features are used by the gate of InFlow (Kumar et al. 2021, following an example of alibi-detect).

    Args:
        shape: image shape (channels, height, width), with a height and width of at least 2^len(widths).
        outputs: number of features.
        widths: numbers of channels of the convolutions.
        levels: number of gray levels; images are divided by ``levels - 1``.
        seed: seed of the weights.

    Raises:
        ConfigError: for invalid sizes.

    Example:
        >>> import torch
        >>> from pushforward.detection import RandomFeatures
        >>> RandomFeatures((1, 28, 28))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 32])
    """

    def __init__(
        self, shape: Shape, outputs: int = 32, widths: tuple[int, ...] = (8, 16, 32), levels: int = 256, seed: int = 0
    ) -> None:
        super().__init__()
        channels, height, width = image_shape(shape, "RandomFeatures")
        widths = check_widths("widths", widths)
        if min(height, width) < 2 ** len(widths):
            raise ConfigError(
                f"{len(widths)} convolutions of stride 2 need a height and width of at least {2 ** len(widths)}; got {shape}."
            )
        self.shape, self.outputs, self.widths = (
            (channels, height, width),
            check_integer("outputs", outputs),
            widths,
        )
        self.levels, self.seed = check_integer("levels", levels), seed
        layers: list[nn.Module] = []
        with seeded(seed):
            for size in widths:
                layers += [nn.Conv2d(channels, size, 4, stride=2, padding=1, dtype=torch.float32), nn.ReLU()]
                channels, height, width = size, height // 2, width // 2
            layers += [nn.Flatten(), nn.Linear(channels * height * width, outputs, dtype=torch.float32)]
        self.body = nn.Sequential(*layers).requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, outputs)`` of images ``(n, *shape)`` of any dtype, differentiable with respect to the images.

        Raises:
            InputError: for anything but such images.
        """
        if not isinstance(x, Tensor) or x.dim() != 4 or tuple(x.shape[1:]) != self.shape:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"RandomFeatures reads a tensor of images (n, {', '.join(map(str, self.shape))}); got {found}."
            )
        weight = next(self.body.parameters())
        return self.body(x.to(weight.dtype) / max(self.levels - 1, 1))
