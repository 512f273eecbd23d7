"""Real NVP on vectors and on images: affine couplings (Dinh, Sohl-Dickstein, Bengio 2016, arXiv 1605.08803)."""

from __future__ import annotations

import math
from typing import Any

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.models.image.building import event_of, multi_scale, pixels
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import (
    ActNorm,
    AffineTransformer,
    BatchNorm,
    Chain,
    Coupling,
    ImageCoupling,
    Inverse,
    Squeeze,
    Transform,
)
from pushforward.transforms.base import Shape

__all__ = ["RealNVP"]


@register("models")
class RealNVP(Model):
    """Real-valued non-volume-preserving flow.

    Couplings y_A = x_A, y_B = x_B exp(s(x_A)) + t(x_A) (eq. 7) with log abs det = sum s (eq. 8), A being the even and
    the odd coordinates in turn, over a standard normal. Both directions take one pass.

    Images of integers are dequantized, brought to the reals by a logit and normalized by channel. Each scale but the last
    has couplings on the checkerboard, then, squeezed, on halves of the channels; then one color of the checkerboard
    leaves for the base, and the other goes on (sec. 3.4-3.6). The last scale has checkerboards only. z is the vector of
    all D = C H W coordinates, coarsest scale first, and the likelihood is a lower bound of the images' probability.

    Args:
        features: D, for vectors.
        context: width of the context that every coupling reads.
        couplings: affine couplings; of images in each scale, half of them on each kind of mask (6 in the paper), and one
            more than half in the last scale.
        hidden: widths of the hidden layers of the network for s and t; of images the number and width of the residual
            convolutional blocks.
        max_log_scale: bound on abs(s), smooth. The paper bounds s by a tanh with a learned gain.
        batch_norm: batch normalization as a layer of the flow after each coupling (sec. 3.7), with the statistics of
            the whole training set at evaluation.
        normalize: batch and weight normalization inside the residual networks of images, as in the paper. In training an
            image's loss then depends on the others of its batch; at evaluation the statistics are those of the whole
            training set and rows do not see each other.
        activation: of the network.
        dropout: probability, in the network.
        standardize: standardize the data first; of images each channel, by an actnorm.
        shape: (channels, height, width), for images; both sides divisible by 2^(scales - 1).
        scales: of images; the paper has 2 for CIFAR-10, and 4 for ImageNet 32.
        levels: integer values of a pixel.
        alpha: margin of the logit of the pixels; None for a shift to (-1/2, 1/2) instead.
        dequantize: "uniform" or "variational" (Ho et al. 2019), for images.

    Raises:
        ConfigError: for impossible sizes, or sides that cannot be halved so often.

    Example:
        >>> import torch
        >>> RealNVP(features=2).sample(5, seed=0).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int | None = None,
        context: int = 0,
        *,
        couplings: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        max_log_scale: float = 3.0,
        batch_norm: bool = False,
        normalize: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
        shape: Shape | None = None,
        scales: int = 2,
        levels: int = 256,
        alpha: float | None = 0.05,
        dequantize: str = "uniform",
    ) -> None:
        event = event_of("RealNVP", features, shape)
        check_integer("couplings", couplings)
        law = AffineTransformer(max_log_scale)
        network: dict[str, Any] = {"hidden": hidden, "activation": activation, "dropout": dropout}
        if len(event) == 1:
            if normalize:
                raise ConfigError(
                    "normalize stands for the normalization inside the networks of images, not of vectors."
                )
            chain = _vectors(event[0], law, couplings, batch_norm, context, standardize, network)
        else:
            first = [*pixels(event, levels, alpha, dequantize), *([ActNorm(event)] if standardize else [])]
            network["normalize"] = normalize
            chain = Chain(*first, _scales(event, law, couplings, batch_norm, context, scales, network))
        super().__init__(chain, Normal(math.prod(event)))
        self.features = event[0] if len(event) == 1 else None
        self.context, self.couplings, self.hidden = context, couplings, tuple(hidden)
        self.max_log_scale, self.batch_norm, self.activation = max_log_scale, batch_norm, activation
        self.normalize, self.dropout, self.standardize = normalize, dropout, standardize
        self.scales, self.levels, self.alpha, self.dequantize = scales, levels, alpha, dequantize


def _vectors(
    features: int,
    law: AffineTransformer,
    couplings: int,
    batch_norm: bool,
    context: int,
    standardize: bool,
    network: dict[str, Any],
) -> Chain:
    layers: list[Transform] = []
    for k in range(couplings):
        layers.append(Coupling(features, law, flip=k % 2 == 1, context=context, **network))
        if batch_norm:
            layers.append(BatchNorm(features))
    return vector_chain(features, layers, context=context, standardize=standardize, bend=True)


def _scales(
    shape: Shape,
    law: AffineTransformer,
    couplings: int,
    batch_norm: bool,
    context: int,
    scales: int,
    network: dict[str, Any],
) -> Chain:
    def run(inside: Shape, mask: str, count: int) -> list[Transform]:
        transforms: list[Transform] = []
        for k in range(count):
            flip = k % 2 == 1
            transforms.append(
                ImageCoupling(inside, law, mask=mask, flip=flip, context=context, residual=True, **network)
            )
            if batch_norm:
                transforms.append(BatchNorm(inside))
        return transforms

    def block(inside: Shape, scale: int) -> list[Transform]:
        if scale == scales - 1:
            return run(inside, "checkerboard", couplings // 2 + 1)
        squeeze = Squeeze(inside)
        channels = run(squeeze.out_shape, "channels", couplings // 2)
        # What leaves is one color of the board, so the squeeze is undone and made again in that order.
        ordered = [Inverse(squeeze), Squeeze(inside, "checkerboard")]
        return [*run(inside, "checkerboard", couplings - couplings // 2), Squeeze(inside), *channels, *ordered]

    return multi_scale(shape, scales, block)
