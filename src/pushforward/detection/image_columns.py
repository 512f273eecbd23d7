"""A few properties of images as the columns of a table: brightness, contrast, sharpness, colors."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pushforward.data import Column, Schema

__all__ = ["image_columns", "image_schema"]

_PLAIN = ("brightness", "contrast", "sharpness")
_COLORS = ("red", "green", "blue")
_BATCH = 1024


def image_schema(channels: int) -> Schema:
    """The columns that :func:`image_columns` gives for images with so many channels."""
    return Schema(tuple(Column(name, "numeric") for name in (*_PLAIN, *(_COLORS if channels >= 3 else ()))))


def image_columns(images: Tensor) -> np.ndarray:
    """Properties of images, in the units of their pixels: numbers that a person sees, to compare sets of images.

    The gray image is the mean of the channels, of the first three if there are more. Brightness is the mean of its pixels,
    contrast their standard deviation, sharpness the mean absolute difference of neighbors; red, green and blue are the means
    of the first three channels.

    Args:
        images: ``(n, channels, height, width)``.

    Returns:
        ``(n, 6)``; ``(n, 3)`` for fewer than three channels.

    Example:
        >>> import torch
        >>> image_columns(torch.full((1, 1, 4, 4), 7, dtype=torch.uint8)).tolist()
        [[7.0, 0.0, 0.0]]
    """
    parts = [_columns(part) for part in images.split(_BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, len(image_schema(images.shape[1]))))


def _columns(images: Tensor) -> np.ndarray:
    x = images.double()
    gray = x[:, :3].mean(1)
    down, right = gray.diff(dim=1).abs().flatten(1), gray.diff(dim=2).abs().flatten(1)
    sharpness = (down.sum(1) + right.sum(1)) / max(1, down.shape[1] + right.shape[1])
    flat = gray.flatten(1)
    mean = flat.mean(1)
    found = [mean, (flat - mean[:, None]).square().mean(1).sqrt(), sharpness]
    if x.shape[1] >= 3:
        found += list(x[:, :3].mean((2, 3)).T)
    return np.stack([values.numpy() for values in found], axis=1)
