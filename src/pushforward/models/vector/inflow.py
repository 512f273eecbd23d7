"""InFlow: couplings behind a gate that closes to the identity (Kumar et al. 2021, arXiv 2106.12894)."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.image.building import event_of
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms import (
    Affine,
    Chain,
    Coupling,
    Flatten,
    GatedAffineTransformer,
    ImageCoupling,
    Permutation,
    Squeeze,
    Standardize,
    Transform,
    UniformDequantize,
)
from pushforward.transforms.base import Shape

__all__ = ["InFlow"]


@register("models")
class InFlow(Model):
    """A flow of affine couplings with a scalar gate c; the gate is meant to be set by a test on a batch.

    Each block has two couplings, y_B = x_B exp(c s(x_A)) + c t(x_A) and the same with A and B exchanged, and a fixed
    permutation of the coordinates, of images of the channels. Thus log abs det = c sum s, and with c = 0 the flow is the
    identity but for the order of coordinates and a fixed scale: the likelihood is that of the raw input under
    N(0, variance), which knows the input's size alone. Training has c = 1. ``model.gated(0.0)`` is the closed flow with the
    same weights, and :class:`~pushforward.detection.BatchTwoSampleGate` decides which of the two scores a batch.

    Where the released code departs from this (no c in the inverse and in the log-determinant, the latter subtracted, no
    dequantization), this class does the right thing. The paper also shows the gate to the networks, as a constant image: as
    their outputs count for nothing at c = 0, and training never sees another c than 1, that is left out.

    Args:
        features: D, for vectors, which are standardized first.
        shape: (channels, height, width), for images of integers; dequantized to (0, 1), and squeezed, so that there are
            channels to split. The likelihood is then a lower bound of the images' probability.
        blocks: 2 in the paper.
        hidden: widths of the hidden layers of each network; (256,) in the paper.
        gate: c.
        max_log_scale: bound on abs(s), smooth; the paper's arctangent has the same range.
        variance: of the base; in the paper 1.96 for images, where the deviation was meant.
        activation: of the networks.
        squeezes: of images, 2 x 2 pixels to channels, so often.
        levels: integer values of a pixel.

    Raises:
        ConfigError: for a gate outside [0, 1], impossible sizes, or sides that cannot be halved so often.

    Example:
        >>> import torch
        >>> model = InFlow(features=2)
        >>> closed = model.gated(0.0)
        >>> closed.log_prob(torch.zeros(1, 2)).detach()        # N(0, I) at 0
        tensor([-1.8379])
        >>> closed.gate, model.gate
        (0.0, 1.0)
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        shape: Shape | None = None,
        blocks: int = 2,
        hidden: tuple[int, ...] = (128, 128),
        gate: float = 1.0,
        max_log_scale: float = 2.0,
        variance: float | None = None,
        activation: str = "relu",
        squeezes: int = 1,
        levels: int = 256,
    ) -> None:
        event = event_of("InFlow", features, shape)
        image = len(event) == 3
        check_integer("blocks", blocks)
        check_integer("squeezes", squeezes, 0)
        check_positive("variance", variance, optional=True)
        spread = variance if variance is not None else (1.96 if image else 1.0)
        law = GatedAffineTransformer(gate, max_log_scale)
        network: dict[str, Any] = {"hidden": hidden, "activation": activation}
        transforms: list[Transform] = [UniformDequantize(event, levels) if image else Standardize(event[0])]
        for _ in range(squeezes if image else 0):
            transforms.append(Squeeze(transforms[-1].out_shape))
        inside = transforms[-1].out_shape
        for k in range(blocks):
            if image:
                transforms += [ImageCoupling(inside, law, flip=flip, **network) for flip in (False, True)]
                transforms.append(Permutation(inside, seed=k, dim=-3))
            else:
                transforms += [Coupling(inside[0], law, flip=flip, **network) for flip in (False, True)]
                transforms.append(Permutation(inside, seed=k))
        if image:
            transforms.append(Flatten(inside))
        size = math.prod(event)
        super().__init__(Chain(*transforms, Affine(size, scale=spread**-0.5)), Normal(size))
        self.features = None if image else event[0]
        self.blocks, self.hidden, self.gate, self.max_log_scale = blocks, tuple(hidden), gate, max_log_scale
        self.variance, self.activation, self.squeezes, self.levels = variance, activation, squeezes, levels

    def gated(self, gate: float) -> InFlow:
        """This model with another gate: its weights are these very weights, not copies.

        Raises:
            ConfigError: for a gate outside [0, 1].
        """
        other = copy.deepcopy(self, {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())})
        other.gate = gate
        for part in other.chain:
            if isinstance(part, (Coupling, ImageCoupling)):
                assert isinstance(part.transformer, GatedAffineTransformer)
                part.transformer = dataclasses.replace(part.transformer, gate=gate)
        return other
