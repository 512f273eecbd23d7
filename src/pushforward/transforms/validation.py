"""Arguments that the constructors of transforms share: numbers for each feature, event shapes, and seeded initial values."""

from __future__ import annotations

import numbers

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_seed
from pushforward.transforms.base import Shape, as_shape

__all__ = ["PerFeature", "image_shape", "leaves", "per_feature", "seeded_normal", "vector_width"]

PerFeature = float | tuple
"""A number for all features, or a tuple (nested for images) that broadcasts to the event shape."""


def per_feature(value: PerFeature, shape: Shape, name: str) -> Tensor:
    """``value`` as a tensor of the event shape, in the default type.

    Raises:
        ConfigError: if it is no number or tuple of numbers, does not broadcast to the shape, or is not finite in the default type.
    """
    try:
        if not all(isinstance(number, numbers.Real) for number in leaves(value)):
            raise TypeError
        array = np.asarray(value, dtype=np.float64)
        if np.broadcast_shapes(array.shape, shape) != shape:
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name} must be a number, or a tuple that broadcasts to the event shape {shape}; got {value!r:.200}."
        ) from None
    dtype = torch.get_default_dtype()
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} must be finite; got {value!r}.")
    if (np.abs(array) > torch.finfo(dtype).max).any():
        raise ConfigError(f"{name} must be a number of {dtype}, the type of the weights; got {value!r}.")
    return torch.tensor(array.tolist(), dtype=dtype).expand(shape).clone()


def leaves(value: PerFeature) -> list[float]:
    """The numbers of a number or of a nested tuple, in order."""
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, (tuple, list)) else [value]


def vector_width(features: int | Shape, owner: str) -> int:
    """The width D of a vector event.

    Raises:
        ConfigError: for any other event shape.
    """
    shape = as_shape(features)
    if len(shape) != 1:
        raise ConfigError(f"{owner} transforms vectors, so features must be a width such as 6; got {features!r}.")
    return shape[0]


def image_shape(features: int | Shape, owner: str) -> tuple[int, int, int]:
    """The event shape of an image, (channels, height, width).

    Raises:
        ConfigError: for any other event shape.
    """
    shape = as_shape(features)
    if len(shape) != 3:
        raise ConfigError(
            f"{owner} transforms images, so features must be (channels, height, width); got {features!r}."
        )
    return shape[0], shape[1], shape[2]


def seeded_normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers that depend on the seed alone; uninitialized on the meta device."""
    tensor = torch.empty(shape)
    if not tensor.is_meta:
        tensor.copy_(torch.randn(shape, generator=torch.Generator("cpu").manual_seed(check_seed(seed)), device="cpu"))
    return tensor
