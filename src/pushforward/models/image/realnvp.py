"""Real NVP on images: affine couplings at several scales (Dinh, Sohl-Dickstein, Bengio 2016, arXiv 1605.08803)."""

from __future__ import annotations

import math
from typing import Any

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import check_image_shape, pixel_transforms, realnvp_scales
from pushforward.registry import register
from pushforward.transforms import ActNorm, AffineTransformer, Chain
from pushforward.transforms.base import Shape

__all__ = ["ImageRealNVP"]


@register("models")
class ImageRealNVP(Model):
    """Real-valued non-volume-preserving flow on images of integers.

    :class:`~pushforward.models.RealNVP` is the form for vectors.

    Pixels are dequantized, mapped to the reals by a logit and normalized by channel. Each scale but the last has
    couplings on the checkerboard and then, after a squeeze, couplings on halves of the channels; then one color of the
    checkerboard leaves for the base, and the other color goes on (sec. 3.4-3.6). The last scale has checkerboards only.
    Each coupling is y_A = x_A, y_B = x_B exp(s(x_A)) + t(x_A) (eq. 7), with log abs det = sum s (eq. 8).

    z is the vector of all D = C H W coordinates, coarsest scale first. The likelihood is a lower bound of the
    probability of the image. Both directions take one pass.

    Args:
        shape: (channels, height, width); both sides divisible by 2^(scales - 1).
        context: width of the context that every coupling reads.
        layers: number of couplings in each scale, half of them on each kind of mask (6 in the paper); the last scale
            has one more than half.
        hidden: number and equal width of the residual convolutional blocks of each network.
        scales: number of scales; the paper has 2 for CIFAR-10 and 4 for ImageNet 32.
        max_log_scale: smooth bound on abs(s). The paper bounds s by a tanh with a learned gain.
        batch_norm: batch normalization after each coupling, as a layer of the flow (sec. 3.7). Evaluation uses the
            statistics of the whole training set.
        normalize: batch and weight normalization inside the residual networks, as in the paper. In training the loss of
            an image then depends on the other images of its batch. Evaluation uses the statistics of the whole training
            set, so rows are independent.
        activation: activation of the networks.
        dropout: dropout probability in the networks.
        standardize: standardize each channel first, by an actnorm.
        levels: number of integer values of a pixel.
        alpha: margin of the logit that maps pixels to the reals; None shifts them to (-1/2, 1/2) instead.
        dequantize: "uniform" or "variational" (Ho et al. 2019).

    Raises:
        ConfigError: for sizes that are not possible, or sides that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = ImageRealNVP((1, 4, 4), layers=2, hidden=(8,))
        >>> model.evaluate(torch.randint(256, (3, 1, 4, 4))).bits_per_dim().shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Shape,
        context: int = 0,
        *,
        layers: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        scales: int = 2,
        max_log_scale: float = 3.0,
        batch_norm: bool = False,
        normalize: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
        levels: int = 256,
        alpha: float | None = 0.05,
        dequantize: str = "uniform",
    ) -> None:
        image = check_image_shape("ImageRealNVP", shape)
        network: dict[str, Any] = {
            "hidden": hidden, "activation": activation, "dropout": dropout, "normalize": normalize, "context": context
        }  # fmt: skip
        couplings = realnvp_scales(
            image, scales=scales, layers=layers, transformer=AffineTransformer(max_log_scale), network=network, batch_norm=batch_norm,
        )  # fmt: skip
        pixels = pixel_transforms(image, levels, alpha, dequantize)
        norm = [ActNorm(image)] if standardize else []
        super().__init__(Chain(*pixels, *norm, couplings), Normal(math.prod(image)))
        self.context, self.layers, self.hidden, self.scales = context, layers, tuple(hidden), scales
        self.max_log_scale, self.batch_norm, self.normalize = max_log_scale, batch_norm, normalize
        self.activation, self.dropout, self.standardize = activation, dropout, standardize
        self.levels, self.alpha, self.dequantize = levels, alpha, dequantize
