"""Glow: actnorm, invertible 1 x 1 convolutions and couplings on images (Kingma, Dhariwal 2018, arXiv 1807.03039)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import glow_scales, image_of, pixels
from pushforward.numerics.checks import check_choice
from pushforward.registry import register
from pushforward.transforms import (
    AdditiveTransformer,
    AffineTransformer,
    Chain,
    InvertibleConv1x1,
    Permutation,
    Reverse,
    Transform,
)
from pushforward.transforms.base import Shape

__all__ = ["Glow"]


@register("models")
class Glow(Model):
    """Generative flow with invertible 1 x 1 convolutions, on images of integers.

    L scales of a squeeze and K steps (actnorm, 1 x 1 convolution, coupling on half of the channels; table 1), after each
    of which half of the channels leaves under a learned N(mu(h), sigma(h)). That prior is an affine transform to a standard
    normal here, so the whole is one bijection to D = C H W standard normal coordinates, coarsest scale first, and
    ``model.decode(model.encode(x))`` is x; in float32 a pixel in some 100,000, whose noise lies at the edge of its gray level, may be off by
    one. ``model.decode(model.encode(x, wide=True), wide=True)`` has no such pixel: coordinates are float64 there, networks float32. Both
    directions take one pass.

    The likelihood is a lower bound of the images' probability, because of the dequantization:
    ``model.evaluate(x).bits_per_dim()``.

    Args:
        shape: (channels, height, width); both sides divisible by 2^scales.
        context: width of the context that every coupling reads, as a one-hot class.
        scales: L; 3 in the paper for 32 x 32.
        steps: K, of each scale; 32 in the paper.
        hidden: widths of the 3-1-3 convolutions of each coupling; (512, 512) in the paper.
        linear: "1x1" (LU form), "reverse" or "shuffle".
        affine: affine couplings; else additive ones.
        max_log_scale: bound on the log-scales of affine couplings, smooth.
        levels: integer values of a pixel; 32 for 5-bit images.
        alpha: margin of the logit that takes pixels to the reals; 0 loses no mass and suits images with many pure black or
            white pixels. None shifts them to (-1/2, 1/2) instead, as in the paper.
        dequantize: "uniform" or "variational" (Ho et al. 2019).
        factor_out: let channels leave between scales.
        activation: of the networks.
        dropout: probability, in the networks.

    Raises:
        ConfigError: for an unknown name, impossible sizes, or sides that cannot be halved so often.

    Example:
        >>> import torch
        >>> model = Glow(shape=(1, 8, 8), steps=2, hidden=(8, 8))
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
        steps: int = 8,
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
        event = image_of("Glow", shape)
        check_choice("linear", linear, ("1x1", "reverse", "shuffle"))

        def mix(inside: Shape, seed: int) -> list[Transform]:
            if linear == "1x1":
                return [InvertibleConv1x1(inside, seed=seed)]
            return [Reverse(inside, dim=-3) if linear == "reverse" else Permutation(inside, seed=seed, dim=-3)]

        flow = glow_scales(
            event, scales=scales, steps=steps, mix=mix, context=context, factor_out=factor_out,
            law=AffineTransformer(max_log_scale) if affine else AdditiveTransformer(),
            network={"hidden": hidden, "activation": activation, "dropout": dropout},
        )  # fmt: skip
        super().__init__(Chain(*pixels(event, levels, alpha, dequantize), flow), Normal(math.prod(event)))
        self.context, self.scales, self.steps, self.hidden = context, scales, steps, tuple(hidden)
        self.linear, self.affine, self.max_log_scale, self.levels = linear, affine, max_log_scale, levels
        self.alpha, self.dequantize, self.factor_out = alpha, dequantize, factor_out
        self.activation, self.dropout = activation, dropout
