"""Invertible residual network (Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen 2019, arXiv 1811.00995)."""

from __future__ import annotations

import math
from typing import Any

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import event_of, multi_scale, pixels
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import ActNorm, Chain, ImageCoupling, InvertibleResidual, Squeeze, Transform
from pushforward.transforms.base import Shape

__all__ = ["IResNet", "residual_chain"]


def residual_chain(
    event: Shape,
    *,
    blocks: int,
    actnorm: bool,
    standardize: bool,
    scales: int,
    factor_out: bool,
    dense: tuple[int, ...],
    levels: int,
    alpha: float | None,
    dequantize: str,
    **options: Any,
) -> Chain:
    """Residual blocks on vectors, or on images at several scales, each block with probes of its own.

    Args:
        event: (D,) or (channels, height, width).
        blocks: residual blocks, of images in each scale.
        actnorm: activation normalization before each block and after the last of a scale.
        standardize: standardize the data first; of images each channel, by an actnorm.
        scales: of images; between two of them a squeeze.
        factor_out: let one color of the checkerboard leave after each scale but the last, standardized given the other.
        dense: widths of a last, fully connected block of images; () for none.
        levels: of a pixel.
        alpha: margin of the logit of the pixels; None for a shift.
        dequantize: "uniform" or "variational".
        options: of every :class:`~pushforward.transforms.InvertibleResidual`.
    """
    check_integer("blocks", blocks)

    def run(inside: Shape, first: int) -> list[Transform]:
        transforms: list[Transform] = []
        norm = [ActNorm] if actnorm else []
        for k in range(blocks):
            transforms += [make(inside) for make in norm]
            transforms.append(InvertibleResidual(inside, seed=first + k, **options))
        return [*transforms, *(make(inside) for make in norm)]

    if len(event) == 1:
        return vector_chain(event[0], run(event, 0), context=options["context"], standardize=standardize)

    def block(inside: Shape, scale: int) -> list[Transform]:
        transforms = run(inside, scale * blocks)
        if scale < scales - 1:
            transforms.append(Squeeze(inside, "checkerboard" if factor_out else "glow"))
        return transforms

    def prior(out: Shape) -> list[Transform]:
        return [ImageCoupling(out, hidden=(), context=options["context"])]

    transforms = [*pixels(event, levels, alpha, dequantize), *([ActNorm(event)] if standardize else [])]
    transforms.append(multi_scale(event, scales, block, factor_out=factor_out, prior=prior))
    if dense:
        last: dict[str, Any] = options | {"hidden": dense}
        transforms.append(InvertibleResidual(math.prod(event), seed=scales * blocks, **last))
    return Chain(*transforms)


@register("models")
class IResNet(Model):
    """i-ResNet: blocks x + g(x) with contractive g and a log-determinant by a truncated power series, over a normal.

    log p(x) = log N(z) + sum over blocks of sum for k <= n of (-1)^(k+1) tr(J^k) / k (sec. 3, alg. 2).
    The truncation is biased, so the likelihood is an ESTIMATE and :meth:`evaluate` reads it. At up to about a thousand
    coordinates ``model.set_log_det("exact")`` gives the exact one, of the same weights, for vectors usually in less time;
    :class:`~pushforward.models.ResidualFlow` trains on an unbiased one.

    On images g is a 3-1-3 convolutional network whose Lipschitz constant is bounded as surely. Integers are dequantized and
    brought to the reals; each scale but the last ends with a squeeze. z is the vector of all D = C H W coordinates. With
    the exact log-determinant the likelihood is a lower bound of the images' probability.

    ``log_prob`` takes one pass, sampling some 10 to 30 (a fixed-point iteration for each block).

    Args:
        features: D, for vectors.
        context: width of the context that every g reads.
        blocks: residual blocks; of images in each scale.
        hidden: widths of g's hidden layers; of images those of 3 x 3, 1 x 1, ... and 3 x 3 convolutions.
        coefficient: bound on g's Lipschitz constant, in (0, 1); the paper's 0.9.
        activation: "elu" as in the paper, "lipswish", "softplus" or "tanh".
        actnorm: activation normalization before each block and after the last.
        log_det: "power" as in the paper, "roulette" or "exact".
        terms: n; the paper's 5.
        probes: for a score, and its standard error; training draws one.
        standardize: standardize the data first; of images each channel, by an actnorm.
        shape: (channels, height, width), for images; both sides divisible by 2^(scales - 1).
        scales: of images.
        factor_out: let half of the coordinates leave for the base after each scale but the last (one color of the
            checkerboard, standardized given the other); else all go on.
        dense: widths of a last, fully connected residual block of images; () for none.
        kernel_size: of the first and the last convolution of each g, odd.
        levels: integer values of a pixel.
        alpha: margin of the logit of the pixels; None for a shift to (-1/2, 1/2) instead, as in the paper. Each block stretches
            by 1 + L at most, so images with many pure black or white pixels want a small one: a shift would leave it to
            the blocks to stretch one gray level over a normal.
        dequantize: "uniform" or "variational" (Ho et al. 2019), for images.

    Raises:
        ConfigError: for impossible sizes, a coefficient outside (0, 1), or an unknown ``log_det``; for images, sides that cannot be
            halved so often.

    Example:
        >>> import torch
        >>> model = IResNet(features=2, blocks=2, hidden=(16,))
        >>> model.evaluate(torch.zeros(3, 2)).kind
        <Kind.ESTIMATE: 'estimate'>
        >>> model.set_log_det("exact")
        >>> model.log_prob(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        features: int | None = None,
        context: int = 0,
        *,
        blocks: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        coefficient: float = 0.9,
        activation: str = "elu",
        actnorm: bool = True,
        log_det: str = "power",
        terms: int = 5,
        probes: int = 8,
        standardize: bool = True,
        shape: Shape | None = None,
        scales: int = 2,
        factor_out: bool = True,
        dense: tuple[int, ...] = (),
        kernel_size: int = 3,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
    ) -> None:
        event = event_of("IResNet", features, shape)
        chain = residual_chain(
            event, blocks=blocks, actnorm=actnorm, standardize=standardize, scales=scales, factor_out=factor_out, dense=dense,
            levels=levels, alpha=alpha, dequantize=dequantize, context=context, hidden=hidden, coefficient=coefficient,
            activation=activation, log_det=log_det, terms=terms, probes=probes, kernel_size=kernel_size,
        )  # fmt: skip
        super().__init__(chain, Normal(math.prod(event)))
        self.features = event[0] if len(event) == 1 else None
        self.context, self.blocks, self.hidden = context, blocks, tuple(hidden)
        self.coefficient, self.activation, self.actnorm, self.log_det = coefficient, activation, actnorm, log_det
        self.terms, self.probes, self.standardize = terms, probes, standardize
        self.scales, self.factor_out, self.dense, self.kernel_size = scales, factor_out, tuple(dense), kernel_size
        self.levels, self.alpha, self.dequantize = levels, alpha, dequantize
