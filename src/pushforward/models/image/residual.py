"""Residual flows on images, with two estimates of the log-determinant.

- :class:`ImageIResNet`: Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen 2019, arXiv 1811.00995;
- :class:`ImageResidualFlow`: Chen, Behrmann, Duvenaud, Jacobsen 2019, arXiv 1906.02735.
"""

from __future__ import annotations

import math
from abc import ABC
from typing import Any

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, multi_scale, pixel_transforms
from pushforward.models.vector.residual import residual_blocks
from pushforward.numerics.checks import check_widths
from pushforward.registry import register
from pushforward.transforms import ActNorm, Chain, ImageCoupling, InvertibleResidual, Squeeze, Transform
from pushforward.transforms.base import Shape

__all__ = ["ImageIResNet", "ImageResidualFlow"]


class _ImageResidualModel(Model, ABC):
    """The layers that both models share; only the defaults differ."""

    def __init__(
        self,
        shape: Shape,
        context: int,
        blocks: int,
        hidden: tuple[int, ...],
        scales: int,
        coefficient: float,
        activation: str,
        actnorm: bool,
        log_det: str,
        terms: int,
        probes: int,
        standardize: bool,
        factor_out: bool,
        dense: tuple[int, ...],
        kernel_size: int,
        levels: int,
        alpha: float | None,
        dequantize: str,
    ) -> None:
        image = check_image_shape(type(self).__name__, shape)
        options: dict[str, Any] = {
            "context": context, "hidden": hidden, "coefficient": coefficient, "activation": activation,
            "log_det": log_det, "terms": terms, "probes": probes, "kernel_size": kernel_size,
        }  # fmt: skip

        def scale_transforms(inside: Shape, scale: int) -> list[Transform]:
            transforms = residual_blocks(inside, blocks, actnorm, seed=scale * blocks, **options)
            if scale < scales - 1:
                transforms.append(Squeeze(inside, "checkerboard" if factor_out else "glow"))
            return transforms

        def prior(out: Shape) -> list[Transform]:
            return [ImageCoupling(out, hidden=(), context=context)]

        dense = check_widths("dense", dense)
        transforms = pixel_transforms(image, levels, alpha, dequantize)
        if standardize:
            transforms.append(ActNorm(image))
        transforms.append(multi_scale(image, scales, scale_transforms, factor_out=factor_out, prior=prior))
        if dense:
            last: dict[str, Any] = options | {"hidden": dense}
            transforms.append(InvertibleResidual(math.prod(image), seed=scales * blocks, **last))
        super().__init__(Chain(*transforms), Normal(math.prod(image)))
        self.context, self.blocks, self.hidden, self.scales = context, blocks, tuple(hidden), scales
        self.coefficient, self.activation, self.actnorm, self.log_det = coefficient, activation, actnorm, log_det
        self.terms, self.probes, self.standardize = terms, probes, standardize
        self.factor_out, self.dense, self.kernel_size = factor_out, dense, kernel_size
        self.levels, self.alpha, self.dequantize = levels, alpha, dequantize


@register("models")
class ImageIResNet(_ImageResidualModel):
    """i-ResNet on images of integers: blocks x + g(x) with contractive g at several scales.

    :class:`~pushforward.models.IResNet` is the form for vectors.

    Pixels are dequantized and mapped to the reals. g is a 3-1-3 convolutional network with a bound on its Lipschitz
    constant, and each scale but the last ends with a squeeze. z is the vector of all D = C H W coordinates.

    The log-determinant is the truncated power series (sec. 3, alg. 2), which is biased, so the likelihood is an
    ESTIMATE. Up to about a thousand coordinates ``model.set_log_det("exact")`` gives the exact one with the same
    weights; the likelihood is then a lower bound of the probability of the image. Encoding takes one pass; sampling
    takes some 10 to 30 (a fixed-point iteration for each block).

    Args:
        shape: (channels, height, width); both sides divisible by 2^(scales - 1).
        context: width of the context that every g reads.
        blocks: number of residual blocks in each scale.
        hidden: widths of the hidden layers of g: 3 x 3, 1 x 1, ... and 3 x 3 convolutions.
        scales: number of scales.
        coefficient: bound on the Lipschitz constant of g, in (0, 1); 0.9 in the paper.
        activation: "elu" as in the paper, "lipswish", "softplus" or "tanh".
        actnorm: activation normalization before each block and after the last of a scale.
        log_det: "power" as in the paper, "roulette" or "exact".
        terms: number of terms of the series; 5 in the paper.
        probes: number of probes for a score and its standard error; training draws one.
        standardize: standardize each channel first, by an actnorm.
        factor_out: let half of the coordinates leave for the base after each scale but the last (one color of the
            checkerboard, standardized given the other); False keeps all coordinates to the last scale.
        dense: widths of the hidden layers of a last, fully connected residual block; () for no such block.
        kernel_size: of the first and the last convolution of each g, odd.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals; None shifts them to (-1/2, 1/2) instead, as in the
            paper. A block stretches by a factor of at most 1 + coefficient, so images with many pure black or white
            pixels need a small alpha: after a shift, the blocks would have to stretch one gray level over a normal.
        dequantize: "uniform" or "variational" (Ho et al. 2019).

    Raises:
        ConfigError: for sizes that are not possible, a coefficient outside (0, 1), an unknown ``log_det``, or sides
            that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = ImageIResNet((1, 4, 4), blocks=1, hidden=(8,))
        >>> model.evaluate(torch.randint(256, (3, 1, 4, 4))).stderr.shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        blocks: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        scales: int = 2,
        coefficient: float = 0.9,
        activation: str = "elu",
        actnorm: bool = True,
        log_det: str = "power",
        terms: int = 5,
        probes: int = 8,
        standardize: bool = True,
        factor_out: bool = True,
        dense: tuple[int, ...] = (),
        kernel_size: int = 3,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
    ) -> None:
        super().__init__(
            shape, context, blocks, hidden, scales, coefficient, activation, actnorm, log_det, terms, probes,
            standardize, factor_out, dense, kernel_size, levels, alpha, dequantize,
        )  # fmt: skip


@register("models")
class ImageResidualFlow(_ImageResidualModel):
    """Blocks x + g(x) with contractive g and an unbiased log-determinant, on images of integers.

    :class:`~pushforward.models.ResidualFlow` is the form for vectors.

    The parts are those of :class:`~pushforward.models.ImageIResNet`. The power series is cut at a random term and
    reweighted, so that its mean is right (Russian roulette, eq. 6), and the Neumann series gives its gradient (eq. 8).
    The log-likelihood of the dequantized image is unbiased, so with several draws the bound is their plain mean, and
    the likelihood is a lower bound of the probability of the image. Up to about a thousand coordinates
    ``model.set_log_det("exact")`` gives the exact log-determinant with the same weights.

    Encoding takes one pass; sampling takes some 10 to 30 (a fixed-point iteration for each block).

    Args:
        shape: (channels, height, width); both sides divisible by 2^(scales - 1).
        context: width of the context that every g reads.
        blocks: number of residual blocks in each scale.
        hidden: widths of the hidden layers of g: 3 x 3, 1 x 1, ... and 3 x 3 convolutions.
        scales: number of scales.
        coefficient: bound on the Lipschitz constant of g, in (0, 1). The closer to 1, the more terms the roulette
            takes: with 0.9 ``terms`` + 10 terms on average, with 0.98 ``terms`` + 50.
        activation: "lipswish" as in the paper, "elu", "softplus" or "tanh".
        actnorm: activation normalization before each block and after the last of a scale.
        log_det: "roulette" as in the paper, "power" or "exact".
        terms: number of terms of the series that are always taken.
        probes: number of probes for a score and its standard error; training draws one.
        standardize: standardize each channel first, by an actnorm.
        factor_out: let half of the coordinates leave for the base after each scale but the last (one color of the
            checkerboard, standardized given the other); False keeps all coordinates to the last scale, as in the paper
            for 32 x 32.
        dense: widths of the hidden layers of a last, fully connected residual block; () for no such block.
        kernel_size: of the first and the last convolution of each g, odd.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals, in the paper 0.05 for CIFAR-10 and 1e-6 for MNIST;
            None shifts them to (-1/2, 1/2) instead. A block stretches by a factor of at most 1 + coefficient, so images
            with many pure black or white pixels need a small alpha: after a shift, the blocks would have to stretch one
            gray level over a normal.
        dequantize: "uniform" or "variational" (Ho et al. 2019).

    Raises:
        ConfigError: for sizes that are not possible, a coefficient outside (0, 1), an unknown ``log_det``, or sides
            that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = ImageResidualFlow((1, 4, 4), blocks=1, hidden=(8,))
        >>> model.evaluate(torch.randint(256, (3, 1, 4, 4))).stderr.shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        blocks: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        scales: int = 2,
        coefficient: float = 0.9,
        activation: str = "lipswish",
        actnorm: bool = True,
        log_det: str = "roulette",
        terms: int = 4,
        probes: int = 8,
        standardize: bool = True,
        factor_out: bool = False,
        dense: tuple[int, ...] = (),
        kernel_size: int = 3,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
    ) -> None:
        super().__init__(
            shape, context, blocks, hidden, scales, coefficient, activation, actnorm, log_det, terms, probes,
            standardize, factor_out, dense, kernel_size, levels, alpha, dequantize,
        )  # fmt: skip
