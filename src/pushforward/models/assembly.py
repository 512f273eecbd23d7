"""What the vector models share: data scaling in front, and a law that bends where one coordinate cannot."""

from __future__ import annotations

from collections.abc import Iterable

from pushforward.errors import ConfigError
from pushforward.maps import Chain, Map, Monotone, Standardize

__all__ = ["check_count", "vector_chain"]


def vector_chain(
    features: int, layers: Iterable[Map], *, context: int = 0, standardize: bool = True, bend: bool = False
) -> Chain:
    """Standardisation, then the paper's layers.

    Args:
        features: D.
        layers: the paper's maps, data side first.
        context: width of the context.
        standardize: put :class:`~pushforward.maps.Standardize` first, so that raw data may enter.
        bend: with one feature, append an elementwise spline. Affine laws need other coordinates to depend on: alone
            they only shift and scale, and the density would be the base's whatever the data.

    Returns:
        The chain.
    """
    maps: list[Map] = [Standardize(features)] if standardize else []
    maps += list(layers)
    if bend and features == 1:
        maps.append(Monotone(features, context=context))
    return Chain(*maps)


def check_count(name: str, value: int, smallest: int = 1) -> int:
    """A number of layers.

    Raises:
        ConfigError: if it is too small or no integer.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
        raise ConfigError(f"{name} must be an integer of at least {smallest}; got {value!r}.")
    return value
