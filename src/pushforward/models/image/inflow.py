"""InFlow on images: couplings with a gate that can be closed (Kumar et al. 2021, arXiv 2106.12894)."""

from __future__ import annotations

import math

from pushforward.distributions import Normal
from pushforward.models.image.building import check_image_shape
from pushforward.models.vector.inflow import GatedFlow, base_scaling
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import (
    Chain,
    Flatten,
    GatedAffineTransformer,
    ImageCoupling,
    Permutation,
    Squeeze,
    Transform,
    UniformDequantize,
)
from pushforward.transforms.base import Shape

__all__ = ["ImageInFlow"]


@register("models")
class ImageInFlow(GatedFlow):
    """A flow of affine couplings with a scalar gate c, on images of integers.

    :class:`~pushforward.models.InFlow` is the form for vectors.

    Pixels are dequantized to (0, 1) and squeezed, so that there are channels to split. Each block has two couplings of
    the channels with the gate c, as :class:`~pushforward.models.InFlow` describes them, and a fixed permutation of the
    channels. The likelihood is a lower bound of the probability of the image. ``model.gated(0.0)`` is the closed flow
    with the same weights.

    Args:
        shape: (channels, height, width); both sides divisible by 2^squeezes.
        blocks: number of blocks; 2 in the paper.
        hidden: widths of the hidden layers of each network; (256,) in the paper.
        gate: c.
        max_log_scale: smooth bound on abs(s); the arctangent of the paper has the same range.
        variance: variance of the base. The paper has 1.96, where the standard deviation was meant.
        activation: activation of the networks.
        squeezes: number of squeezes; each turns 2 x 2 pixels into channels.
        levels: number of integer values of a pixel.

    Raises:
        ConfigError: for a gate outside [0, 1], sizes that are not possible, or sides that cannot be halved that often.

    Example:
        >>> import torch
        >>> model = ImageInFlow((1, 4, 4), hidden=(8,))
        >>> model.evaluate(torch.randint(256, (3, 1, 4, 4))).bits_per_dim().shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Shape,
        *,
        blocks: int = 2,
        hidden: tuple[int, ...] = (128, 128),
        gate: float = 1.0,
        max_log_scale: float = 2.0,
        variance: float = 1.96,
        activation: str = "relu",
        squeezes: int = 1,
        levels: int = 256,
    ) -> None:
        image = check_image_shape("ImageInFlow", shape)
        transformer = GatedAffineTransformer(gate, max_log_scale)
        transforms: list[Transform] = [UniformDequantize(image, levels)]
        for _ in range(check_integer("squeezes", squeezes, 0)):
            transforms.append(Squeeze(transforms[-1].out_shape))
        inside = transforms[-1].out_shape
        for k in range(check_integer("blocks", blocks)):
            transforms += [
                ImageCoupling(inside, transformer, flip=flip, hidden=hidden, activation=activation)
                for flip in (False, True)
            ]
            transforms.append(Permutation(inside, seed=k, dim=-3))
        size = math.prod(image)
        super().__init__(Chain(*transforms, Flatten(inside), base_scaling(size, variance)), Normal(size))
        self.blocks, self.hidden, self.gate, self.max_log_scale = blocks, tuple(hidden), gate, max_log_scale
        self.variance, self.activation, self.squeezes, self.levels = variance, activation, squeezes, levels
