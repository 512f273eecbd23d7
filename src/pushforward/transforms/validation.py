"""What the constructors of transforms share: reading arguments that may be given per feature, and seeded starts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.transforms.base import Shape, as_shape

__all__ = ["PerFeature", "image_shape", "per_feature", "seeded_normal", "vector_width"]

PerFeature = float | tuple
"""A number for all features, or a tuple (nested for images) that broadcasts to the event shape."""


def per_feature(value: PerFeature, shape: Shape, name: str) -> Tensor:
    """``value`` spread over an event of this shape.

    Raises:
        ConfigError: if it does not fit, or is not finite.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
        if np.broadcast_shapes(array.shape, shape) != shape:
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name} must be a number, or a tuple that fits the event shape {shape}; got {value!r}."
        ) from None
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} must be finite; got {value!r}.")
    return torch.tensor(array.tolist(), dtype=torch.get_default_dtype()).expand(shape).clone()


def vector_width(features: int | Shape, owner: str) -> int:
    """The width D of an event that must be a vector.

    Raises:
        ConfigError: for any other event shape.
    """
    shape = as_shape(features)
    if len(shape) != 1:
        raise ConfigError(f"{owner} acts on vectors, so features must be a width such as 6; got {features!r}.")
    return shape[0]


def image_shape(features: int | Shape, owner: str) -> tuple[int, int, int]:
    """The event shape of an image, (channels, height, width).

    Raises:
        ConfigError: for any other event shape.
    """
    shape = as_shape(features)
    if len(shape) != 3:
        raise ConfigError(f"{owner} acts on images, so features must be (channels, height, width); got {features!r}.")
    return shape[0], shape[1], shape[2]


def seeded_normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers that depend on the seed alone; empty on the meta device, where values come later."""
    tensor = torch.empty(shape)
    if not tensor.is_meta:
        tensor.copy_(torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu"))
    return tensor
