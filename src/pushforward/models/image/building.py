"""What the image models share: pixels to reals, scales, and Glow's step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.transforms import (
    ActNorm,
    Affine,
    Chain,
    FactorOut,
    Flatten,
    ImageCoupling,
    Logit,
    Squeeze,
    Transform,
    Transformer,
    UniformDequantize,
    VariationalDequantize,
)
from pushforward.transforms.base import Shape, as_shape

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


def pixels(shape: Shape, levels: int, alpha: float | None, dequantize: str) -> list[Transform]:
    """Integers 0, ..., levels - 1 to reals: dequantization to (0, 1), then a shift to (-1/2, 1/2) or a logit.

    Args:
        shape: (channels, height, width).
        levels: gray levels.
        alpha: margin of the logit (Dinh et al. 2016, sec. 4.1); None for the shift (Kingma and Dhariwal 2018). With either
            but alpha=0 the flow has mass outside the images, which is lost to the bound.
        dequantize: "uniform", or "variational" (Ho et al. 2019).

    Raises:
        ConfigError: for an unknown dequantization.
    """
    check_choice("dequantize", dequantize, ("uniform", "variational"))
    noise = UniformDequantize(shape, levels) if dequantize == "uniform" else VariationalDequantize(shape, levels)
    return [noise, Affine(shape, shift=-0.5) if alpha is None else Logit(shape, alpha)]


def multi_scale(
    shape: Shape,
    scales: int,
    block: Callable[[Shape, int], Sequence[Transform]],
    *,
    factor_out: bool = True,
    prior: Callable[[Shape], Sequence[Transform]] = lambda _: (),
) -> Chain:
    """Blocks of transforms, one a scale, between which half of the channels leaves (Dinh et al. 2016, fig. 4b); ends as a vector.

    Args:
        shape: (channels, height, width).
        scales: number of blocks.
        block: the transforms of one scale, from the shape that it reads and its number, 0 for the finest.
        factor_out: let half of the channels leave after each scale but the last; else all go on.
        prior: transforms before channels leave, which may standardize the second half given the first.
    """

    def build(shape: Shape, scale: int) -> Chain:
        transforms = list(block(shape, scale))
        out = transforms[-1].out_shape
        if scale == scales - 1:
            return Chain(*transforms, Flatten(out))
        if not factor_out:
            return Chain(*transforms, build(out, scale + 1))
        return Chain(*transforms, *prior(out), FactorOut(out, build((out[0] // 2, *out[1:]), scale + 1)))

    largest = 0
    while all(side % 2 ** (largest + 1) == 0 for side in shape[1:]):
        largest += 1
    check_integer("scales", scales)
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
    mix: Callable[[Shape, int], Sequence[Transform]],
    law: Transformer,
    context: int,
    factor_out: bool,
    network: dict[str, Any],
    alternate: bool = False,
) -> Chain:
    """At each scale a squeeze and steps of actnorm, a mixing of channels and a coupling (Kingma and Dhariwal 2018, fig. 2).

    Channels that leave are standardized given those that stay, by one convolution that starts at 0.

    Args:
        shape: (channels, height, width).
        scales: L.
        steps: K, of each scale.
        mix: the transforms that mix channels, from a shape and the number of the step.
        law: of the couplings.
        context: width of the context that every coupling reads.
        factor_out: let half of the channels leave after each scale but the last.
        network: of the couplings.
        alternate: let the halves of the channels take turns, where nothing mixes them.
    """
    check_integer("steps", steps)

    def block(shape: Shape, scale: int) -> list[Transform]:
        squeeze = Squeeze(shape)
        inside = squeeze.out_shape
        transforms: list[Transform] = [squeeze]
        for k in range(steps):
            flip = alternate and k % 2 == 1
            transforms += [ActNorm(inside), *mix(inside, scale * steps + k)]
            transforms.append(ImageCoupling(inside, law, flip=flip, context=context, **network))
        return transforms

    def prior(out: Shape) -> list[Transform]:
        return [ImageCoupling(out, hidden=(), context=context)]

    return multi_scale(shape, scales, block, factor_out=factor_out, prior=prior)
