"""NICE on images: the pixels as one vector (Dinh, Krueger, Bengio 2014, arXiv 1410.8516)."""

from __future__ import annotations

import math

from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, pixel_transforms
from pushforward.models.vector.nice import nice_base, nice_chain
from pushforward.registry import register
from pushforward.transforms import Chain, Flatten
from pushforward.transforms.base import Shape

__all__ = ["ImageNICE"]


@register("models")
class ImageNICE(Model):
    """Non-linear independent components estimation on images of integers.

    :class:`~pushforward.models.NICE` is the form for vectors.

    Pixels are dequantized, shifted to (-1/2, 1/2), and modeled as the vector of D = C H W pixels in row order: additive
    couplings, one diagonal scaling and a factorial prior (eq. 3, 5-7, 9). The likelihood is a lower bound of the
    probability of the image. Both directions take one pass.

    Args:
        shape: (channels, height, width).
        context: width of the context that every coupling reads.
        layers: number of couplings on alternating pixels.
        hidden: widths of the hidden layers of each network; the MNIST model of the paper has (1000,) * 5.
        prior: "logistic" (the gradient at outliers is bounded) or "normal".
        activation: activation of the networks.
        dropout: dropout probability in the networks.
        standardize: standardize each pixel first; False gives the model of the paper.
        levels: number of integer values of a pixel.
        alpha: margin of a logit that maps pixels to the reals; None shifts them to (-1/2, 1/2) instead, as in the
            paper.
        dequantize: "uniform" or "variational" (Ho et al. 2019).
        scaling_multiplier: multiplier of the learning rate of the scaling; see :class:`~pushforward.models.NICE`.

    Raises:
        ConfigError: for an unknown name, sizes that are not possible, or a multiplier that is not positive.

    Example:
        >>> import torch
        >>> model = ImageNICE((1, 4, 4), hidden=(32,))
        >>> model.evaluate(torch.randint(256, (3, 1, 4, 4))).bits_per_dim().shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        layers: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        prior: str = "logistic",
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
        levels: int = 256,
        alpha: float | None = None,
        dequantize: str = "uniform",
        scaling_multiplier: float = 1.0,
    ) -> None:
        image = check_image_shape("ImageNICE", shape)
        size = math.prod(image)
        base = nice_base(size, prior)
        flow = nice_chain(size, context, layers, hidden, activation, dropout, standardize, scaling_multiplier)
        super().__init__(Chain(*pixel_transforms(image, levels, alpha, dequantize), Flatten(image), flow), base)
        self.context, self.layers, self.hidden, self.prior = context, layers, tuple(hidden), prior
        self.activation, self.dropout, self.standardize = activation, dropout, standardize
        self.levels, self.alpha, self.dequantize = levels, alpha, dequantize
        self.scaling_multiplier = scaling_multiplier
