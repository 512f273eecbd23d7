"""Funnels on images: flows that drop dimensions and stay exact (Klein et al. 2021, arXiv 2112.08069)."""

from __future__ import annotations

import math
from typing import Any

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, pixel_transforms
from pushforward.models.vector.funnel_flow import funnel_transformer
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms import (
    ActNorm,
    Chain,
    ConvFunnel,
    Flatten,
    ImageCoupling,
    ImageFunnel,
    InvertibleConv1x1,
    SplineTransformer,
    Squeeze,
    Transform,
    Transformer,
)
from pushforward.transforms.base import Shape

__all__ = ["ImageFunnelFlow"]


@register("models")
class ImageFunnelFlow(Model):
    """A flow on images of integers whose scales become smaller.

    :class:`~pushforward.models.FunnelFlow` is the form for vectors.

    After dequantization the flow has the scales of Glow, with a funnel between two scales:

        log p(x) = log p(z) + log p(x_dropped | z) + log abs det dz/dx_kept   at each funnel.

    Funnel "coupling" drops half of the channels by :class:`~pushforward.transforms.ImageFunnel`. Funnel "conv" is a
    :class:`~pushforward.transforms.ConvFunnel` of 2 x 2 in place of the next squeeze. The width of the base follows
    from the funnel and the number of scales. The likelihood is a lower bound of the probability of the image because of
    the dequantization.

    Args:
        shape: (channels, height, width); both sides divisible by 2^scales.
        context: width of the context that couplings, funnels and decoders read.
        funnel: "coupling" or "conv".
        transformer: "spline" or "affine", for the couplings and the funnel "coupling".
        layers: number of layers in each scale.
        bins: number of bins of each spline.
        tail_bound: B; the splines act on [-B, B].
        hidden: number and equal width of the residual blocks of each network.
        scales: number of scales.
        activation: activation of the networks.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals; None shifts them to (-1/2, 1/2) instead.
        dequantize: "uniform" or "variational" (Ho et al. 2019).

    Raises:
        ConfigError: for an unknown name, sizes that are not possible, or sides that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = ImageFunnelFlow((1, 4, 4), layers=1, hidden=(8,))
        >>> x = torch.randint(256, (3, 1, 4, 4))
        >>> model.evaluate(x).bits_per_dim().shape, model.encode(x).shape
        (torch.Size([3]), torch.Size([3, 8]))
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        funnel: str = "coupling",
        transformer: str = "spline",
        layers: int = 6,
        bins: int = 8,
        tail_bound: float = 4.0,
        hidden: tuple[int, ...] = (128, 128),
        scales: int = 2,
        activation: str = "relu",
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
    ) -> None:
        image = check_image_shape("ImageFunnelFlow", shape)
        check_choice("funnel", funnel, ("coupling", "conv"))
        check_integer("layers", layers)
        check_integer("scales", scales)
        chosen = funnel_transformer(transformer, SplineTransformer(bins, tail_bound))
        network = {"hidden": hidden, "residual": True, "activation": activation}
        flow = _scales(image, funnel, chosen, layers, scales, context, network)
        pixels = pixel_transforms(image, levels, alpha, dequantize)
        super().__init__(Chain(*pixels, *flow, Flatten(flow[-1].out_shape)), Normal(math.prod(flow[-1].out_shape)))
        self.context, self.funnel, self.transformer, self.layers = context, funnel, transformer, layers
        self.bins, self.tail_bound, self.hidden, self.scales = bins, tail_bound, tuple(hidden), scales
        self.activation, self.levels, self.alpha, self.dequantize = activation, levels, alpha, dequantize


def _scales(
    shape: Shape, funnel: str, transformer: Transformer, layers: int, scales: int, context: int, network: dict[str, Any]
) -> list[Transform]:
    """At each scale layers of actnorm, 1 x 1 convolution and coupling; between two scales a funnel."""
    if any(side % 2**scales for side in shape[1:]):
        raise ConfigError(
            f"{scales} scales halve the sides of an image {scales} times, and {shape[1]} x {shape[2]} cannot be halved "
            "that often: use fewer scales, or pad the images."
        )
    transforms: list[Transform] = [Squeeze(shape)]
    for scale in range(scales):
        inside = transforms[-1].out_shape
        for k in range(layers):
            transforms += [ActNorm(inside), InvertibleConv1x1(inside, seed=scale * layers + k)]
            transforms.append(ImageCoupling(inside, transformer, context=context, **network))
        if scale == scales - 1:
            break
        if funnel == "conv":
            transforms.append(ConvFunnel(inside, hidden=network["hidden"], context=context, seed=scale))
        else:
            transforms.append(
                ImageFunnel(inside, None, transformer, decoder_hidden=network["hidden"][:1], context=context, **network)
            )
            transforms.append(Squeeze(transforms[-1].out_shape))
    return transforms
