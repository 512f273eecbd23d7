"""Flow++ (Ho, Chen, Srinivas, Duan, Abbeel 2019, arXiv 1902.00275)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.image.building import image_of, pixels
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import (
    ActNorm,
    Chain,
    Flatten,
    ImageCoupling,
    InvertibleConv1x1,
    MixtureCDFTransformer,
    Squeeze,
    Transform,
)
from pushforward.transforms.base import Shape

__all__ = ["FlowPlusPlus"]


@register("models")
class FlowPlusPlus(Model):
    """Couplings by mixtures of logistic CDFs, conditioned by convolutions with self-attention, and learned dequantization.

    The paper's three parts: variational dequantization (sec. 3.1), the mixture-CDF law (sec. 3.2) and attention in the
    conditioner (sec. 3.3). Couplings on the checkerboard, then, squeezed, on halves of the channels and again on the
    checkerboard, each after an actnorm and a 1 x 1 convolution of the channels; nothing leaves early. Encoding takes one
    pass; decoding takes one and a bracketed root for each coordinate.

    The likelihood is a lower bound of the images' probability: ``model.evaluate(x).bits_per_dim()``.

    Args:
        shape: (channels, height, width); both sides even.
        context: width of the context that every coupling reads.
        couplings: on the checkerboard of pixels, on the channels, and on the squeezed checkerboard; (4, 2, 3) in the paper
            for 32 x 32.
        components: of the mixtures; 32 in the paper.
        hidden: number and equal width of the networks' blocks; 10 of 96 in the paper.
        heads: of the attention, which divide the width.
        levels: integer values of a pixel.
        alpha: margin of the logit of the pixels; None for a shift to (-1/2, 1/2) instead.
        dequantize: "variational" as in the paper, or "uniform".
        dropout: probability, in the networks.

    Raises:
        ConfigError: for impossible sizes, or odd sides.

    Example:
        >>> import torch
        >>> model = FlowPlusPlus((1, 4, 4), couplings=(1, 1, 1), components=2, hidden=(8,), levels=16)
        >>> images = torch.randint(16, (3, 1, 4, 4))
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
        couplings: tuple[int, int, int] = (4, 2, 3),
        components: int = 8,
        hidden: tuple[int, ...] = (32, 32),
        heads: int = 4,
        levels: int = 256,
        alpha: float | None = 0.05,
        dequantize: str = "variational",
        dropout: float = 0.0,
    ) -> None:
        event = image_of("FlowPlusPlus", shape)
        if not isinstance(couplings, (tuple, list)) or len(couplings) != 3:
            raise ConfigError(f"couplings are three numbers, as (4, 2, 3); got {couplings!r}.")
        law = MixtureCDFTransformer(components)

        def run(inside: Shape, mask: str, count: int, seed: int) -> list[Transform]:
            transforms: list[Transform] = []
            for k in range(check_integer("couplings", count, 0)):
                transforms += [ActNorm(inside), InvertibleConv1x1(inside, seed=seed + k)]
                transforms.append(
                    ImageCoupling(
                        inside, law, mask=mask, flip=k % 2 == 1, hidden=hidden, heads=heads, dropout=dropout, context=context
                    )
                )  # fmt: skip
            return transforms

        first, channels, last = couplings
        squeeze = Squeeze(event)
        inside = squeeze.out_shape
        transforms = [
            *pixels(event, levels, alpha, dequantize),
            *run(event, "checkerboard", first, 0),
            squeeze,
            *run(inside, "channels", channels, 100),
            *run(inside, "checkerboard", last, 200),
            ActNorm(inside),
            Flatten(inside),
        ]
        super().__init__(Chain(*transforms), Normal(math.prod(event)))
        self.context, self.couplings, self.components = context, tuple(couplings), components
        self.hidden, self.heads, self.levels, self.alpha = tuple(hidden), heads, levels, alpha
        self.dequantize, self.dropout = dequantize, dropout
