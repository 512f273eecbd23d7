"""Parts that the models of vectors share: standardization, and stacks of coupling and autoregressive layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_integer, is_integer
from pushforward.transforms import Chain, Coupling, MaskedAutoregressive, Monotone, Standardize, Transform, Transformer

__all__ = ["autoregressive_layers", "check_features", "coupling_layers", "vector_chain"]


def vector_chain(
    features: int,
    layers: Iterable[Transform],
    *,
    context: int = 0,
    standardize: bool = True,
    spline_for_one_feature: bool = False,
) -> Chain:
    """Standardization, then the layers of the paper.

    Args:
        features: D.
        layers: transforms, in the order in which data pass through them.
        context: width of the context.
        standardize: put :class:`~pushforward.transforms.Standardize` first, so that the model accepts raw data.
        spline_for_one_feature: with one feature, append an elementwise spline. An affine coupling of one coordinate has
            no other coordinate to depend on: it can only shift and scale, so the density would keep the shape of the
            base.

    Returns:
        The chain.
    """
    transforms: list[Transform] = [Standardize(features)] if standardize else []
    transforms += list(layers)
    if spline_for_one_feature and features == 1:
        transforms.append(Monotone(features, context=context))
    return Chain(*transforms)


def autoregressive_layers(features: int, transformer: Transformer, layers: int, **options: Any) -> list[Transform]:
    """Masked autoregressive layers with one transformer; the order of the coordinates is reversed from layer to layer.

    Args:
        features: D.
        transformer: of each coordinate.
        layers: number of layers.
        options: arguments of each :class:`~pushforward.transforms.MaskedAutoregressive`.

    Returns:
        The layers.
    """
    check_integer("features", features)
    return [
        MaskedAutoregressive(features, transformer, order="reverse" if k % 2 else None, **options)
        for k in range(check_integer("layers", layers))
    ]


def coupling_layers(features: int, transformer: Transformer, layers: int, **options: Any) -> list[Transform]:
    """Coupling layers with one transformer; the two halves of the coordinates are exchanged from layer to layer.

    Args:
        features: D.
        transformer: of each transformed coordinate.
        layers: number of layers.
        options: arguments of each :class:`~pushforward.transforms.Coupling`.

    Returns:
        The layers.
    """
    return [Coupling(features, transformer, flip=k % 2 == 1, **options) for k in range(check_integer("layers", layers))]


def check_features(owner: str, features: int) -> None:
    """Refuse anything but a width, for a model whose form for images has the name Image<owner>.

    Raises:
        ConfigError: naming the class for images.
    """
    if not is_integer(features) or features < 1:
        raise ConfigError(
            f"{owner} models vectors, so features must be a positive integer; got {features!r}. Use Image{owner} for "
            "images."
        )
