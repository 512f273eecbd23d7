"""Glow with invertible k x k convolutions (Hoogeboom et al. 2019, arXiv 1901.11137; Truong et al. 2019, arXiv 1905.10170)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, glow_scales, pixel_transforms
from pushforward.registry import register
from pushforward.transforms import AdditiveTransformer, AffineTransformer, Chain, InvertibleConv2d, Transform
from pushforward.transforms.base import Shape

__all__ = ["ConvGlow"]


@register("models")
class ConvGlow(Model):
    """:class:`~pushforward.models.Glow` with invertible k x k convolutions (:class:`~pushforward.transforms.InvertibleConv2d`).

    Each layer is an actnorm, an invertible k x k convolution that mixes channels and neighboring pixels, and a coupling.
    Encoding takes one pass. Decoding takes one pass and inverts each convolution: by H + W - 1 plain convolutions for
    "causal" and "depthwise", more for "emerging", and by a linear system for each frequency for "periodic".

    Args:
        shape: (channels, height, width); both sides divisible by 2^scales.
        context: width of the context that every coupling reads.
        mode: "causal", "emerging", "depthwise" or "periodic".
        kernel_size: k.
        max_norm: bound, below 1, on the norm of the weights of a convolution other than the central one.
        scales: L.
        layers: K, number of layers in each scale.
        hidden: widths of the 3-1-3 convolutions of each coupling.
        affine: use affine couplings; False for additive ones.
        max_log_scale: smooth bound on the log-scales of affine couplings.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals; 0 loses no mass and suits images with many pure black or
            white pixels. None shifts pixels to (-1/2, 1/2) instead.
        dequantize: "uniform" or "variational" (Ho et al. 2019).
        factor_out: let half of the channels leave for the base between scales.
        activation: activation of the networks.
        dropout: dropout probability in the networks.

    Raises:
        ConfigError: for an unknown name, sizes that are not possible, or sides that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = ConvGlow(shape=(1, 8, 8), mode="emerging", layers=2, hidden=(8, 8))
        >>> images = torch.randint(256, (3, 1, 8, 8))
        >>> torch.equal(model.decode(model.encode(images)), images.float())
        True
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        mode: str = "causal",
        kernel_size: int = 3,
        max_norm: float = 0.9,
        scales: int = 2,
        layers: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        affine: bool = True,
        max_log_scale: float = 3.0,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
        factor_out: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        image = check_image_shape("ConvGlow", shape)

        def mix(inside: Shape, seed: int) -> list[Transform]:
            return [InvertibleConv2d(inside, mode, kernel_size, max_norm=max_norm, seed=seed)]

        flow = glow_scales(
            image, scales=scales, layers=layers, mix=mix, context=context, factor_out=factor_out,
            transformer=AffineTransformer(max_log_scale) if affine else AdditiveTransformer(),
            network={"hidden": hidden, "activation": activation, "dropout": dropout},
        )  # fmt: skip
        super().__init__(Chain(*pixel_transforms(image, levels, alpha, dequantize), flow), Normal(math.prod(image)))
        self.context, self.mode, self.kernel_size, self.max_norm = context, mode, kernel_size, max_norm
        self.scales, self.layers, self.hidden = scales, layers, tuple(hidden)
        self.affine, self.max_log_scale, self.levels = affine, max_log_scale, levels
        self.alpha, self.dequantize, self.factor_out = alpha, dequantize, factor_out
        self.activation, self.dropout = activation, dropout
