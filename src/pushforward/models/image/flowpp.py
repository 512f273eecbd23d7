"""Flow++ (Ho, Chen, Srinivas, Duan, Abbeel 2019, arXiv 1902.00275)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, pixel_transforms
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
    """Couplings by mixtures of logistic CDFs with attention networks, and learned dequantization, on images.

    The model has the three parts of the paper: variational dequantization (sec. 3.1), the mixture-CDF transformer (sec.
    3.2) and attention in the conditioner (sec. 3.3). There are couplings on the checkerboard and then, after a squeeze,
    couplings on halves of the channels and again on the checkerboard, each after an actnorm and a 1 x 1 convolution of
    the channels. No channels leave early. Encoding takes one pass; decoding takes one pass and finds a bracketed root
    for each coordinate.

    The likelihood is a lower bound of the probability of the image: ``model.evaluate(x).bits_per_dim()``.

    Args:
        shape: (channels, height, width); both sides even.
        context: width of the context that every coupling reads.
        layers: numbers of couplings on the checkerboard of pixels, on the channels, and on the squeezed checkerboard;
            (4, 2, 3) in the paper for 32 x 32.
        components: number of components of each mixture; 32 in the paper.
        hidden: number and equal width of the blocks of each network; 10 of 96 in the paper.
        heads: number of heads of the attention, which divides the width.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals; None shifts them to (-1/2, 1/2) instead.
        dequantize: "variational" as in the paper, or "uniform".
        dropout: dropout probability in the networks.

    Raises:
        ConfigError: for sizes that are not possible, or odd sides.

    Example:
        >>> import torch
        >>> model = FlowPlusPlus((1, 4, 4), layers=(1, 1, 1), components=2, hidden=(8,), levels=16)
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
        layers: tuple[int, int, int] = (4, 2, 3),
        components: int = 8,
        hidden: tuple[int, ...] = (32, 32),
        heads: int = 4,
        levels: int = 256,
        alpha: float | None = 0.05,
        dequantize: str = "variational",
        dropout: float = 0.0,
    ) -> None:
        image = check_image_shape("FlowPlusPlus", shape)
        if not isinstance(layers, (tuple, list)) or len(layers) != 3:
            raise ConfigError(f"layers must be three numbers, such as (4, 2, 3); got {layers!r}.")
        transformer = MixtureCDFTransformer(components)

        def couplings(inside: Shape, mask: str, count: int, seed: int) -> list[Transform]:
            transforms: list[Transform] = []
            for k in range(check_integer("layers", count, 0)):
                transforms += [ActNorm(inside), InvertibleConv1x1(inside, seed=seed + k)]
                transforms.append(
                    ImageCoupling(
                        inside, transformer, mask=mask, flip=k % 2 == 1, hidden=hidden, heads=heads, dropout=dropout,
                        context=context,
                    )
                )  # fmt: skip
            return transforms

        first, channels, last = layers
        squeeze = Squeeze(image)
        inside = squeeze.out_shape
        transforms = [
            *pixel_transforms(image, levels, alpha, dequantize),
            *couplings(image, "checkerboard", first, 0),
            squeeze,
            *couplings(inside, "channels", channels, 100),
            *couplings(inside, "checkerboard", last, 200),
            ActNorm(inside),
            Flatten(inside),
        ]
        super().__init__(Chain(*transforms), Normal(math.prod(image)))
        self.context, self.layers, self.components = context, tuple(layers), components
        self.hidden, self.heads, self.levels, self.alpha = tuple(hidden), heads, levels, alpha
        self.dequantize, self.dropout = dequantize, dropout
