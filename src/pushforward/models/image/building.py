"""Parts that the models of images share: pixels to reals, several scales, and the scales of Real NVP and Glow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pushforward.errors import ConfigError
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.transforms import (
    ActNorm,
    Affine,
    BatchNorm,
    Chain,
    FactorOut,
    Flatten,
    ImageCoupling,
    Inverse,
    Logit,
    Squeeze,
    Transform,
    Transformer,
    UniformDequantize,
    VariationalDequantize,
)
from pushforward.transforms.base import Shape, as_shape

__all__ = ["check_image_shape", "glow_scales", "multi_scale", "pixel_transforms", "realnvp_scales"]


def check_image_shape(owner: str, shape: Shape) -> Shape:
    """The shape of the images of a model.

    Raises:
        ConfigError: if it is not (channels, height, width).
    """
    event = as_shape(shape)
    if len(event) != 3:
        raise ConfigError(f"{owner} models images, so shape must be (channels, height, width); got {shape!r}.")
    return event


def pixel_transforms(
    shape: Shape, levels: int, alpha: float | None = 0.0, dequantize: str = "uniform"
) -> list[Transform]:
    """The transforms from integers 0, ..., levels - 1 to the reals.

    They are a dequantization, then a shift to (-1/2, 1/2) or a logit.

    Args:
        shape: (channels, height, width).
        levels: number of integer values of a pixel.
        alpha: margin of the logit (Dinh et al. 2016, sec. 4.1); None for the shift (Kingma and Dhariwal 2018). With any
            choice but alpha=0 the flow has mass outside the images, and the bound is lower by that mass.
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
    scale_transforms: Callable[[Shape, int], Sequence[Transform]],
    *,
    factor_out: bool = True,
    prior: Callable[[Shape], Sequence[Transform]] = lambda _: (),
) -> Chain:
    """The transforms of several scales; half of the channels leaves between two of them (Dinh et al. 2016, fig. 4b).

    The chain ends with a vector.

    Args:
        shape: (channels, height, width).
        scales: number of scales.
        scale_transforms: function from the shape that a scale reads and its index, 0 for the finest, to its transforms.
        factor_out: let half of the channels leave after each scale but the last; False keeps all channels.
        prior: function from a shape to transforms before the channels leave, which may standardize the second half of
            the channels given the first.
    """

    def build(shape: Shape, scale: int) -> Chain:
        transforms = list(scale_transforms(shape, scale))
        out = transforms[-1].out_shape
        if scale == scales - 1:
            return Chain(*transforms, Flatten(out))
        if not factor_out:
            return Chain(*transforms, build(out, scale + 1))
        return Chain(*transforms, *prior(out), FactorOut(out, build((out[0] // 2, *out[1:]), scale + 1)))

    check_integer("scales", scales)
    halvings = 0
    while all(side % 2 ** (halvings + 1) == 0 for side in shape[1:]):
        halvings += 1
    if scales > halvings + 1:  # the last scale may need one more halving, which Squeeze checks
        hint = f"use at most {halvings}, or pad the images" if halvings else "pad or crop the images to even sides"
        raise ConfigError(
            f"{scales} scales halve the sides of an image more often than {shape[1]} x {shape[2]} allows: {hint}."
        )
    return build(shape, 0)


def realnvp_scales(
    shape: Shape,
    *,
    scales: int,
    layers: int,
    transformer: Transformer,
    network: dict[str, Any],
    batch_norm: bool = False,
) -> Chain:
    """At each scale but the last couplings on the checkerboard, and after a squeeze couplings on halves of the channels.

    Then one color of the checkerboard leaves, and the other color goes on (Dinh et al. 2016, sec. 3.4-3.6). The last scale has
    checkerboards only. The chain ends with a vector.

    Args:
        shape: (channels, height, width).
        scales: number of scales.
        layers: number of couplings in each scale, half of them on each kind of mask; the last scale has one more than half.
        transformer: of the couplings.
        network: arguments of each :class:`~pushforward.transforms.ImageCoupling`, whose networks are residual.
        batch_norm: batch normalization after each coupling.
    """
    check_integer("layers", layers)

    def couplings(inside: Shape, mask: str, count: int) -> list[Transform]:
        transforms: list[Transform] = []
        for k in range(count):
            flip = k % 2 == 1
            transforms.append(ImageCoupling(inside, transformer, mask=mask, flip=flip, residual=True, **network))
            if batch_norm:
                transforms.append(BatchNorm(inside))
        return transforms

    def scale_transforms(inside: Shape, scale: int) -> list[Transform]:
        if scale == scales - 1:
            return couplings(inside, "checkerboard", layers // 2 + 1)
        squeeze = Squeeze(inside)
        channels = couplings(squeeze.out_shape, "channels", layers // 2)
        # One color of the checkerboard leaves, so a second squeeze orders the pixels by color.
        reordered = [Inverse(squeeze), Squeeze(inside, "checkerboard")]
        board = couplings(inside, "checkerboard", layers - layers // 2)
        return [*board, Squeeze(inside), *channels, *reordered]

    return multi_scale(shape, scales, scale_transforms)


def glow_scales(
    shape: Shape,
    *,
    scales: int,
    layers: int,
    mix: Callable[[Shape, int], Sequence[Transform]],
    transformer: Transformer,
    context: int,
    factor_out: bool,
    network: dict[str, Any],
    alternate: bool = False,
) -> Chain:
    """At each scale a squeeze and layers of actnorm, a mixing of channels and a coupling.

    See Kingma and Dhariwal 2018, fig. 2.

    Channels that leave are standardized given the channels that stay, by one convolution whose weights start at 0.

    Args:
        shape: (channels, height, width).
        scales: number of scales, L.
        layers: number of layers in each scale, K.
        mix: function from a shape and the index of the layer to the transforms that mix channels.
        transformer: of the couplings.
        context: width of the context that every coupling reads.
        factor_out: let half of the channels leave after each scale but the last.
        network: arguments of each :class:`~pushforward.transforms.ImageCoupling`.
        alternate: exchange the halves of the channels from layer to layer, for a flow in which nothing mixes them.
    """
    check_integer("layers", layers)

    def scale_transforms(shape: Shape, scale: int) -> list[Transform]:
        squeeze = Squeeze(shape)
        inside = squeeze.out_shape
        transforms: list[Transform] = [squeeze]
        for k in range(layers):
            flip = alternate and k % 2 == 1
            transforms += [ActNorm(inside), *mix(inside, scale * layers + k)]
            transforms.append(ImageCoupling(inside, transformer, flip=flip, context=context, **network))
        return transforms

    def prior(out: Shape) -> list[Transform]:
        return [ImageCoupling(out, hidden=(), context=context)]

    return multi_scale(shape, scales, scale_transforms, factor_out=factor_out, prior=prior)
