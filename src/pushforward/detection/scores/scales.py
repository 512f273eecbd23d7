"""Where the coordinates of z lie, and which part of log p belongs to which scale of a multi-scale flow."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from pushforward.maps import Flatten, Map
from pushforward.maps.core import Shape
from pushforward.maps.multiscale import FactorOut

__all__ = ["latent_blocks"]


def latent_blocks(chain: Iterable[Map], shape: Shape) -> list[Shape]:
    """The shapes whose coordinates z lists one after the other: of a multi-scale flow one a scale, the coarsest first.

    A vector that was an image before keeps that image's shape, as far as maps keep its width.

    Args:
        chain: the maps, data side first.
        shape: of the data.
    """
    blocks = [shape]
    for part in chain:
        if isinstance(part, FactorOut):
            leaves = (part.in_shape[0] - part.kept, *part.in_shape[1:])
            inner = part.inner if isinstance(part.inner, Iterable) else [part.inner]
            blocks = [*latent_blocks(inner, part.inner.in_shape), leaves]
        elif not isinstance(part, Flatten) and part.out_shape not in (part.in_shape, (sum(map(prod, blocks)),)):
            blocks = [part.out_shape]
    return blocks
