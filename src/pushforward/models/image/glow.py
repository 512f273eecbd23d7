"""Glow, and Glow with larger invertible convolutions.

- :class:`Glow`: Kingma, Dhariwal 2018, arXiv 1807.03039;
- :class:`ConvGlow`: Hoogeboom et al. 2019, arXiv 1901.11137, and Truong et al. 2019, arXiv 1905.10170.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, glow_scales, pixel_transforms
from pushforward.numerics.checks import check_choice
from pushforward.registry import register
from pushforward.transforms import (
    AdditiveTransformer,
    AffineTransformer,
    Chain,
    InvertibleConv1x1,
    InvertibleConv2d,
    Permutation,
    Reverse,
    Transform,
)
from pushforward.transforms.base import Shape

__all__ = ["ConvGlow", "Glow"]


class _GlowModel(Model, ABC):
    """The scales that both models share; only the mixing of channels differs."""

    def __init__(
        self,
        shape: Shape,
        context: int,
        mix: Callable[[Shape, int], list[Transform]],
        scales: int,
        layers: int,
        hidden: tuple[int, ...],
        affine: bool,
        max_log_scale: float,
        levels: int,
        alpha: float | None,
        dequantize: str,
        factor_out: bool,
        activation: str,
        dropout: float,
    ) -> None:
        image = check_image_shape(type(self).__name__, shape)
        flow = glow_scales(
            image, scales=scales, layers=layers, mix=mix, context=context, factor_out=factor_out,
            transformer=AffineTransformer(max_log_scale) if affine else AdditiveTransformer(),
            network={"hidden": hidden, "activation": activation, "dropout": dropout},
        )  # fmt: skip
        super().__init__(Chain(*pixel_transforms(image, levels, alpha, dequantize), flow), Normal(math.prod(image)))
        self.context, self.scales, self.layers, self.hidden = context, scales, layers, tuple(hidden)
        self.affine, self.max_log_scale, self.levels = affine, max_log_scale, levels
        self.alpha, self.dequantize, self.factor_out = alpha, dequantize, factor_out
        self.activation, self.dropout = activation, dropout


@register("models")
class Glow(_GlowModel):
    """Generative flow with invertible 1 x 1 convolutions, on images of integers.

    L scales, each with a squeeze and K layers (a "step of flow": actnorm, 1 x 1 convolution, coupling on half of the
    channels; table 1). Half of the channels leaves after each scale under a learned N(mu(h), sigma(h)). Here an affine
    transform takes that prior to a standard normal, so the flow is one bijection to D = C H W standard normal
    coordinates, coarsest scale first. Both directions take one pass.

    ``model.decode(model.encode(x))`` is x. In float32 about one pixel in 100,000 may be off by one, because its noise
    is at the edge of its gray level; ``model.decode(model.encode(x, float64=True), float64=True)`` has no such pixel:
    its coordinates are float64 and its networks float32.

    The likelihood is a lower bound of the probability of the image, because of the dequantization:
    ``model.evaluate(x).bits_per_dim()``.

    Args:
        shape: (channels, height, width); both sides divisible by 2^scales.
        context: width of the context that every coupling reads, as a one-hot class.
        scales: L; 3 in the paper for 32 x 32.
        layers: K, number of layers in each scale; 32 in the paper.
        hidden: widths of the 3-1-3 convolutions of each coupling; (512, 512) in the paper.
        linear: how a layer mixes the channels: "1x1" (a 1 x 1 convolution in LU form), "reverse" or "shuffle".
        affine: use affine couplings; False for additive ones.
        max_log_scale: smooth bound on the log-scales of affine couplings.
        levels: number of integer values of a pixel; 32 for 5-bit images.
        alpha: margin of the logit that maps pixels to the reals; 0 loses no mass and suits images with many pure black
            or white pixels. None shifts pixels to (-1/2, 1/2) instead, as in the paper.
        dequantize: "uniform" or "variational" (Ho et al. 2019).
        factor_out: let half of the channels leave for the base between scales.
        activation: activation of the networks.
        dropout: dropout probability in the networks.

    Raises:
        ConfigError: for an unknown name, sizes that are not possible, or sides that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = Glow(shape=(1, 8, 8), layers=2, hidden=(8, 8))
        >>> images = torch.randint(256, (3, 1, 8, 8))
        >>> model.evaluate(images).bits_per_dim().shape
        torch.Size([3])
        >>> torch.equal(model.decode(model.encode(images)), images.float())
        True
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        scales: int = 2,
        layers: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        linear: str = "1x1",
        affine: bool = True,
        max_log_scale: float = 3.0,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
        factor_out: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        check_choice("linear", linear, ("1x1", "reverse", "shuffle"))

        def mix(inside: Shape, seed: int) -> list[Transform]:
            if linear == "1x1":
                return [InvertibleConv1x1(inside, seed=seed)]
            return [Reverse(inside, dim=-3) if linear == "reverse" else Permutation(inside, seed=seed, dim=-3)]

        super().__init__(
            shape, context, mix, scales, layers, hidden, affine, max_log_scale, levels, alpha, dequantize, factor_out,
            activation, dropout,
        )  # fmt: skip
        self.linear = linear


@register("models")
class ConvGlow(_GlowModel):
    """Glow with invertible k x k convolutions instead of 1 x 1 convolutions.

    See :class:`~pushforward.models.Glow` and :class:`~pushforward.transforms.InvertibleConv2d`.

    Each layer is an actnorm, an invertible k x k convolution that mixes channels and neighboring pixels, and a
    coupling. Encoding takes one pass. Decoding takes one pass and inverts each convolution: by H + W - 1 plain
    convolutions for "causal" and "depthwise", more for "emerging", and by a linear system for each frequency for
    "periodic".

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
        alpha: margin of the logit that maps pixels to the reals; 0 loses no mass and suits images with many pure black
            or white pixels. None shifts pixels to (-1/2, 1/2) instead.
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

        def mix(inside: Shape, seed: int) -> list[Transform]:
            return [InvertibleConv2d(inside, mode, kernel_size, max_norm=max_norm, seed=seed)]

        super().__init__(
            shape, context, mix, scales, layers, hidden, affine, max_log_scale, levels, alpha, dequantize, factor_out,
            activation, dropout,
        )  # fmt: skip
        self.mode, self.kernel_size, self.max_norm = mode, kernel_size, max_norm
