"""Layers of a spline flow on vectors some of whose coordinates are angles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pushforward.distributions import Distribution, Normal, Product, Uniform
from pushforward.errors import ConfigError
from pushforward.numerics.checks import is_integer
from pushforward.transforms import (
    Blocks,
    Chain,
    CircularSplineTransformer,
    Coupling,
    LULinear,
    Monotone,
    Permutation,
    SplineTransformer,
    Standardize,
    Transform,
)

__all__ = ["by_kind", "check_angles", "identity", "layers_with_angles"]


def check_angles(features: int, circular: bool | tuple[int, ...]) -> tuple[int, ...]:
    """The coordinates that are angles, in order.

    Raises:
        ConfigError: for an index out of range or repeated, or a truth value for each coordinate.
    """
    if isinstance(circular, (bool, np.bool_)):
        return tuple(range(features)) if circular else ()
    listed = list(circular) if isinstance(circular, (tuple, list)) else []
    if not listed or not all(is_integer(i) and 0 <= i < features for i in listed) or len(set(listed)) < len(listed):
        raise ConfigError(
            f"circular must be True, False, or the indices of the angles among 0, ..., {features - 1}, each once; got {circular!r}."
        )
    return tuple(sorted(int(i) for i in listed))


def by_kind(
    features: int,
    angles: tuple[int, ...],
    numbers: Callable[[int], Transform],
    circle: Callable[[int], Transform],
) -> Blocks:
    """Transforms of numbers and of angles in the order of the columns, each made by a function of its width."""
    chosen = set(angles)
    groups = itertools.groupby(range(features), lambda i: i in chosen)
    return Blocks(*((circle if is_angle else numbers)(len(list(group))) for is_angle, group in groups))


def identity(width: int) -> Transform:
    """A vector as it is."""
    return Permutation(width, tuple(range(width)))


def layers_with_angles(
    features: int,
    angles: tuple[int, ...],
    *,
    layers: int,
    spline: SplineTransformer,
    linear: str,
    standardize: bool,
    **network: Any,
) -> tuple[list[Transform], Distribution]:
    """Transforms of numbers and angles, and a base that is normal for the numbers and uniform for the angles.

    First each angle has a circular spline with free parameters. Then numbers come first and angles last, and each layer is a
    coupling of the numbers and one of the angles, between which the coordinates of each kind are mixed.

    Args:
        features: D.
        angles: some of the coordinates, but not all.
        layers: number of pairs of couplings.
        spline: transformer of the numbers; circular splines have as many bins.
        linear: "lu", "permutation" or "none", as in :class:`~pushforward.models.NSF`; LU layers mix the numbers only.
        standardize: standardize the numbers first.
        network: options of each :class:`~pushforward.transforms.Coupling`.
    """
    circle = CircularSplineTransformer(spline.bins)
    numbers = tuple(sorted(set(range(features)) - set(angles)))
    scale = Standardize if standardize else identity
    first = by_kind(features, angles, scale, lambda width: Monotone(width, circle))
    transforms: list[Transform] = [first, Permutation(features, (*numbers, *angles))]
    last = tuple(range(len(numbers), features))
    for k in range(layers):
        if linear != "none" and features > 2:
            transforms.append(Blocks(_mixed(len(numbers), linear, k), Permutation(len(angles), seed=k)))
        for transformer, group in ((spline, tuple(range(len(numbers)))), (circle, last)):
            changed = group[k % 2 :: 2] if len(group) > 1 else group
            mask = tuple(sorted(set(range(features)) - set(changed)))
            transforms.append(Coupling(features, transformer, mask=mask, angles=last, **network))
    if linear == "lu":
        transforms.append(Blocks(LULinear(len(numbers)), identity(len(angles))))
    return transforms, Product(Normal(len(numbers)), Uniform(len(angles), -math.pi, math.pi))


def _mixed(width: int, linear: str, seed: int) -> Transform:
    permutation = Permutation(width, seed=seed)
    return Chain(permutation, LULinear(width)) if linear == "lu" else permutation
