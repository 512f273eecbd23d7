"""What the image models share: pixels to reals, scales, and Glow's step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pushforward.errors import ConfigError
from pushforward.maps import (
    ActNorm,
    Affine,
    Chain,
    FactorOut,
    Flatten,
    ImageCoupling,
    Logit,
    Map,
    Squeeze,
    Transformer,
    UniformDequantize,
    VariationalDequantize,
)
from pushforward.maps.core import Shape, as_shape
from pushforward.models.assembly import check_count

__all__ = ["event_of", "glow_scales", "multi_scale", "pixels"]


def event_of(owner: str, features: int | None, shape: Shape | None) -> Shape:
    """The event that a model of vectors or images is asked for: (D,) or (channels, height, width).

    A width of D is the same as a shape of (D,); giving both is no contradiction.

    Raises:
        ConfigError: if neither is given, they contradict each other, or it is no vector and no image.
    """
    if features is None and shape is None:
        raise ConfigError(
            f"{owner} models vectors, as features=6, or images, as shape=(1, 28, 28): give one of the two."
        )
    event = as_shape(shape if features is None or shape is not None else features)  # pyright: ignore[reportArgumentType]
    if features is not None and event != as_shape(features):
        raise ConfigError(
            f"{owner} got features={features!r} and shape={shape!r}, which contradict each other: give one."
        )
    if len(event) not in (1, 3):
        raise ConfigError(f"{owner} models vectors, (D,), or images, (channels, height, width); got shape {event}.")
    return event


def image_of(owner: str, shape: Shape) -> Shape:
    """The shape of the images that a model of images only is asked for.

    Raises:
        ConfigError: if it is not (channels, height, width).
    """
    event = as_shape(shape)
    if len(event) != 3:
        raise ConfigError(f"{owner} models images, so shape must be (channels, height, width); got {shape!r}.")
    return event


def pixels(shape: Shape, levels: int, alpha: float | None, dequantize: str) -> list[Map]:
    """Integers 0, ..., levels - 1 to reals: dequantisation to (0, 1), then a shift to (-1/2, 1/2) or a logit.

    Args:
        shape: (channels, height, width).
        levels: grey levels.
        alpha: margin of the logit (Dinh et al. 2016, sec. 4.1); None for the shift (Kingma and Dhariwal 2018). With either
            but alpha=0 the flow has mass outside the images, which is lost to the bound.
        dequantize: "uniform", or "variational" (Ho et al. 2019).

    Raises:
        ConfigError: for an unknown dequantisation.
    """
    if dequantize not in ("uniform", "variational"):
        raise ConfigError(f"dequantize must be 'uniform' or 'variational'; got {dequantize!r}.")
    noise = UniformDequantize(shape, levels) if dequantize == "uniform" else VariationalDequantize(shape, levels)
    return [noise, Affine(shape, shift=-0.5) if alpha is None else Logit(shape, alpha)]


def multi_scale(
    shape: Shape,
    scales: int,
    block: Callable[[Shape, int], Sequence[Map]],
    *,
    factor_out: bool = True,
    prior: Callable[[Shape], Sequence[Map]] = lambda _: (),
) -> Chain:
    """Blocks of maps, one a scale, between which half of the channels leaves (Dinh et al. 2016, fig. 4b); ends as a vector.

    Args:
        shape: (channels, height, width).
        scales: number of blocks.
        block: the maps of one scale, from the shape that it reads and its number, 0 for the finest.
        factor_out: let half of the channels leave after each scale but the last; else all go on.
        prior: maps before channels leave, which may standardise the second half given the first.
    """

    def build(shape: Shape, scale: int) -> Chain:
        maps = list(block(shape, scale))
        out = maps[-1].out_shape
        if scale == scales - 1:
            return Chain(*maps, Flatten(out))
        if not factor_out:
            return Chain(*maps, build(out, scale + 1))
        return Chain(*maps, *prior(out), FactorOut(out, build((out[0] // 2, *out[1:]), scale + 1)))

    largest = 0
    while all(side % 2 ** (largest + 1) == 0 for side in shape[1:]):
        largest += 1
    check_count("scales", scales)
    if scales > largest + 1:  # the block may need one more halving, which Squeeze checks
        raise ConfigError(
            f"{scales} scales halve the sides of an image more often than {shape[1]} x {shape[2]} allows: use at most "
            f"{max(1, largest)}, or pad the images."
        )
    return build(shape, 0)


def glow_scales(
    shape: Shape,
    *,
    scales: int,
    steps: int,
    mix: Callable[[Shape, int], Sequence[Map]],
    law: Transformer,
    context: int,
    factor_out: bool,
    network: dict[str, Any],
    alternate: bool = False,
) -> Chain:
    """At each scale a squeeze and steps of actnorm, a mixing of channels and a coupling (Kingma and Dhariwal 2018, fig. 2).

    Channels that leave are standardised given those that stay, by one convolution that starts at 0.

    Args:
        shape: (channels, height, width).
        scales: L.
        steps: K, of each scale.
        mix: the maps that mix channels, from a shape and the number of the step.
        law: of the couplings.
        context: width of the context that every coupling reads.
        factor_out: let half of the channels leave after each scale but the last.
        network: of the couplings.
        alternate: let the halves of the channels take turns, where nothing mixes them.
    """
    check_count("steps", steps)

    def block(shape: Shape, scale: int) -> list[Map]:
        squeeze = Squeeze(shape)
        inside = squeeze.out_shape
        maps: list[Map] = [squeeze]
        for k in range(steps):
            flip = alternate and k % 2 == 1
            maps += [ActNorm(inside), *mix(inside, scale * steps + k)]
            maps.append(ImageCoupling(inside, law, flip=flip, context=context, **network))
        return maps

    def prior(out: Shape) -> list[Map]:
        return [ImageCoupling(out, hidden=(), context=context)]

    return multi_scale(shape, scales, block, factor_out=factor_out, prior=prior)
