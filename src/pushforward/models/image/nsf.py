"""Neural spline flow on images (Durkan, Bekasov, Murray, Papamakarios 2019, arXiv 1906.04032)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, glow_scales, pixel_transforms
from pushforward.numerics.checks import check_choice
from pushforward.registry import register
from pushforward.transforms import Chain, InvertibleConv1x1, Permutation, SplineTransformer, Transform
from pushforward.transforms.base import Shape

__all__ = ["ImageNSF"]


@register("models")
class ImageNSF(Model):
    """Neural spline flow on images of integers, RQ-NSF (C); :class:`~pushforward.models.NSF` is its form for vectors.

    Pixels are dequantized and mapped to the reals. The flow has the scales of Glow, with rational-quadratic spline
    couplings: each layer is an actnorm, a 1 x 1 convolution and a coupling whose network is residual and convolutional
    (app. B.3). z is the vector of all D = C H W coordinates, coarsest scale first. The likelihood is a lower bound of
    the probability of the image. Both directions take one pass.

    Args:
        shape: (channels, height, width); both sides divisible by 2^scales.
        context: width of the context that every network reads.
        layers: number of layers in each scale.
        bins: K, number of bins of each spline.
        tail_bound: B; the splines act on [-B, B].
        hidden: number and equal width of the residual blocks of each network.
        scales: number of scales.
        linear: "lu" for the 1 x 1 convolution in LU form, "permutation" for a random permutation of the channels, or
            "none".
        activation: activation of the networks.
        dropout: dropout probability inside the residual blocks.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals; 0 loses no mass and suits images with many pure black
            or white pixels. None shifts pixels to (-1/2, 1/2) instead, as in the paper.
        dequantize: "uniform" or "variational" (Ho et al. 2019).
        factor_out: let half of the channels leave for the base between scales; the paper does not on CIFAR-10.

    Raises:
        ConfigError: for an unknown name, sizes that are not possible, or sides that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = ImageNSF((1, 4, 4), layers=1, hidden=(8,))
        >>> model.evaluate(torch.randint(256, (3, 1, 4, 4))).bits_per_dim().shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        layers: int = 6,
        bins: int = 8,
        tail_bound: float = 4.0,
        hidden: tuple[int, ...] = (128, 128),
        scales: int = 2,
        linear: str = "lu",
        activation: str = "relu",
        dropout: float = 0.0,
        levels: int = 256,
        alpha: float | None = 0.0,
        dequantize: str = "uniform",
        factor_out: bool = True,
    ) -> None:
        image = check_image_shape("ImageNSF", shape)
        check_choice("linear", linear, ("lu", "permutation", "none"))

        def mix(inside: Shape, seed: int) -> list[Transform]:
            if linear == "lu":
                return [InvertibleConv1x1(inside, seed=seed)]
            return [Permutation(inside, seed=seed, dim=-3)] if linear == "permutation" else []

        flow = glow_scales(
            image, scales=scales, layers=layers, mix=mix, transformer=SplineTransformer(bins, tail_bound),
            context=context, factor_out=factor_out, alternate=linear == "none",
            network={"hidden": hidden, "residual": True, "activation": activation, "dropout": dropout},
        )  # fmt: skip
        super().__init__(Chain(*pixel_transforms(image, levels, alpha, dequantize), flow), Normal(math.prod(image)))
        self.context, self.layers, self.bins, self.tail_bound = context, layers, bins, tail_bound
        self.hidden, self.scales, self.linear, self.factor_out = tuple(hidden), scales, linear, factor_out
        self.activation, self.dropout = activation, dropout
        self.levels, self.alpha, self.dequantize = levels, alpha, dequantize
