"""Residual flow (Chen, Behrmann, Duvenaud, Jacobsen 2019, arXiv 1906.02735)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import event_of
from pushforward.models.vector.iresnet import residual_chain
from pushforward.registry import register
from pushforward.transforms.base import Shape

__all__ = ["ResidualFlow"]


@register("models")
class ResidualFlow(Model):
    """Blocks x + g(x) with contractive g and an unbiased log-determinant, over a normal.

    The power series of :class:`~pushforward.models.IResNet`, cut at a random place and reweighted so that it is right in
    the mean (Russian roulette, eq. 6), with the Neumann series as its gradient (eq. 8) and LipSwish activations, whose
    second derivative does not vanish where the slope is steep (sec. 3.3). Spectral norms are Euclidean.

    The likelihood is UNBIASED and comes with a standard error. At up to about a hundred features train and score with
    ``log_det="exact"``, or train like the paper and call ``model.set_log_det("exact")`` before scoring (up to about a
    thousand coordinates).

    Images are treated as by :class:`~pushforward.models.IResNet`. Their log-likelihood before dequantization is unbiased,
    so with several draws the bound is a plain mean over them.

    ``log_prob`` takes one pass, sampling some 10 to 30 (a fixed-point iteration for each block).

    Args:
        features: D, for vectors.
        context: width of the context that every g reads.
        blocks: residual blocks; of images in each scale.
        hidden: widths of g's hidden layers; of images those of 3 x 3, 1 x 1, ... and 3 x 3 convolutions.
        coefficient: bound on g's Lipschitz constant, in (0, 1). The nearer to 1, the longer the roulette: with 0.9 it takes
            ``terms`` + 10 terms in the mean, with 0.98 ``terms`` + 50.
        activation: "lipswish" as in the paper, "elu", "softplus" or "tanh".
        actnorm: activation normalization before each block and after the last.
        log_det: "roulette" as in the paper, "power" or "exact".
        terms: of the series that are always taken.
        probes: for a score, and its standard error; training draws one.
        standardize: standardize the data first; of images each channel, by an actnorm.
        shape: (channels, height, width), for images; both sides divisible by 2^(scales - 1).
        scales: of images.
        factor_out: let half of the coordinates leave for the base after each scale but the last (one color of the
            checkerboard, standardized given the other); else all go on, as in the paper for 32 x 32.
        dense: widths of a last, fully connected residual block of images; () for none.
        kernel_size: of the first and the last convolution of each g, odd.
        levels: integer values of a pixel.
        alpha: margin of the logit of the pixels, in the paper 0.05 for CIFAR-10 and 1e-6 for MNIST; None for a shift to
            (-1/2, 1/2) instead. Each block stretches by 1 + L at most, so images with many pure black or white pixels
            want a small one: else it is left to the blocks to stretch one gray level over a normal.
        dequantize: "uniform" or "variational" (Ho et al. 2019), for images.

    Raises:
        ConfigError: for impossible sizes, a coefficient outside (0, 1), or an unknown ``log_det``; for images, sides that cannot be
            halved so often.

    Example:
        >>> import torch
        >>> model = ResidualFlow(features=2, blocks=2, hidden=(16,))
        >>> model.evaluate(torch.zeros(3, 2)).stderr.shape
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
        activation: str = "lipswish",
        actnorm: bool = True,
        log_det: str = "roulette",
        terms: int = 4,
        probes: int = 8,
        standardize: bool = True,
        shape: Shape | None = None,
        scales: int = 2,
        factor_out: bool = False,
        dense: tuple[int, ...] = (),
        kernel_size: int = 3,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
    ) -> None:
        event = event_of("ResidualFlow", features, shape)
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
