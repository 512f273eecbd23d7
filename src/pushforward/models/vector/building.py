"""What the vector models share: data scaling in front, and a law that bends where one coordinate cannot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pushforward.numerics.checks import check_integer
from pushforward.transforms import Chain, MaskedAutoregressive, Monotone, Standardize, Transform, Transformer

__all__ = ["autoregressive_layers", "vector_chain"]


def vector_chain(
    features: int, layers: Iterable[Transform], *, context: int = 0, standardize: bool = True, bend: bool = False
) -> Chain:
    """Standardization, then the paper's layers.

    Args:
        features: D.
        layers: the paper's transforms, data side first.
        context: width of the context.
        standardize: put :class:`~pushforward.transforms.Standardize` first, so that raw data may enter.
        bend: with one feature, append an elementwise spline. Affine laws need other coordinates to depend on: alone
            they only shift and scale, and the density would be the base's whatever the data.

    Returns:
        The chain.
    """
    transforms: list[Transform] = [Standardize(features)] if standardize else []
    transforms += list(layers)
    if bend and features == 1:
        transforms.append(Monotone(features, context=context))
    return Chain(*transforms)


def autoregressive_layers(features: int, law: Transformer, layers: int, **options: Any) -> list[Transform]:
    """Masked autoregressive layers of one law, the order of the coordinates reversed from layer to layer.

    Args:
        features: D.
        law: of each coordinate.
        layers: how many.
        options: of each :class:`~pushforward.transforms.MaskedAutoregressive`.

    Returns:
        The layers.
    """
    orders = (None, "reverse")
    return [
        MaskedAutoregressive(features, law, order=orders[k % 2], **options)
        for k in range(check_integer("layers", layers))
    ]
