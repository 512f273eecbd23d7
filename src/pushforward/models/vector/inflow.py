"""InFlow on vectors: couplings with a gate that can be closed (Kumar et al. 2021, arXiv 2106.12894)."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC
from typing import Self, final

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import check_features
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms import (
    Affine,
    Chain,
    Coupling,
    GatedAffineTransformer,
    ImageCoupling,
    Permutation,
    Standardize,
    Transform,
)

__all__ = ["GatedFlow", "InFlow", "base_scaling"]


class GatedFlow(Model, ABC):
    """A flow whose couplings have a common scalar gate: :class:`InFlow` or :class:`~pushforward.models.ImageInFlow`.

    Example:
        >>> import torch, pushforward as pf
        >>> model = pf.models.InFlow(4)
        >>> model.gated(0.0).gate, model.gate
        (0.0, 1.0)
    """

    gate: float

    @final
    def gated(self, gate: float) -> Self:
        """This model with another gate; both models share their weights.

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


@register("models")
class InFlow(GatedFlow):
    """A flow of affine couplings with a scalar gate c, on vectors.

    :class:`~pushforward.models.ImageInFlow` is the form for images.

    Each block has two couplings, y_B = x_B exp(c s(x_A)) + c t(x_A) and the same with A and B exchanged, and a fixed
    permutation of the coordinates. Thus log abs det = c sum s. With c = 0 the flow is the identity except for the order
    of the coordinates and a fixed scale: the likelihood is that of the raw input under N(0, variance), which depends on
    the size of the input alone. Training uses c = 1. ``model.gated(0.0)`` is the closed flow with the same weights, and
    :class:`~pushforward.detection.BatchTwoSampleGate` decides which of the two scores a batch.

    The released code departs from the formulas (no c in the inverse and in the log-determinant, a log-determinant that
    is subtracted, no dequantization); this class follows the formulas. In the paper the networks also read the gate, as
    a constant image. This class leaves that out: at c = 0 the outputs of the networks do not matter, and training uses
    only c = 1.

    Args:
        features: D; the data are standardized first.
        blocks: number of blocks; 2 in the paper.
        hidden: widths of the hidden layers of each network; (256,) in the paper.
        gate: c.
        max_log_scale: smooth bound on abs(s); the arctangent of the paper has the same range.
        variance: variance of the base.
        activation: activation of the networks.

    Raises:
        ConfigError: for a gate outside [0, 1] or sizes that are not possible.

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
        features: int,
        *,
        blocks: int = 2,
        hidden: tuple[int, ...] = (128, 128),
        gate: float = 1.0,
        max_log_scale: float = 2.0,
        variance: float = 1.0,
        activation: str = "relu",
    ) -> None:
        check_features("InFlow", features)
        transformer = GatedAffineTransformer(gate, max_log_scale)
        transforms: list[Transform] = [Standardize(features)]
        for k in range(check_integer("blocks", blocks)):
            transforms += [
                Coupling(features, transformer, flip=flip, hidden=hidden, activation=activation)
                for flip in (False, True)
            ]
            transforms.append(Permutation(features, seed=k))
        super().__init__(Chain(*transforms, base_scaling(features, variance)), Normal(features))
        self.features, self.blocks, self.hidden, self.gate = features, blocks, tuple(hidden), gate
        self.max_log_scale, self.variance, self.activation = max_log_scale, variance, activation


def base_scaling(features: int, variance: float) -> Affine:
    """The scaling from N(0, variance) to N(0, 1).

    Raises:
        ConfigError: for a variance that is not positive and finite.
    """
    check_positive("variance", variance)
    return Affine(features, scale=variance**-0.5)
