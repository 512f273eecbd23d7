"""NICE: additive couplings and one diagonal scaling (Dinh, Krueger, Bengio 2014, arXiv 1410.8516)."""

from __future__ import annotations

import math

from pushforward.distributions import Logistic, Normal
from pushforward.models.base import Model
from pushforward.models.image.building import event_of, pixels
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register
from pushforward.transforms import AdditiveTransformer, Affine, Chain, Coupling, Flatten
from pushforward.transforms.base import Shape

__all__ = ["NICE"]


@register("models")
class NICE(Model):
    """Non-linear independent components estimation.

    Couplings y_A = x_A, y_B = x_B + m(x_A) with unit Jacobian (eq. 5-7), then h = exp(s) y (sec. 3.3), and a factorial
    prior: log p(x) = sum_d log p_H(h_d) + sum_d s_d (eq. 3, 9). Three alternating couplings are the fewest with which
    every output sees every input. Both directions take one pass.

    Images of integers are dequantized, shifted to (-1/2, 1/2), and modeled as vectors of D = C H W pixels in rows; their
    likelihood is a lower bound of the probability.

    Args:
        features: D, for vectors.
        context: width of the context that every coupling reads.
        couplings: additive couplings; A is the even and the odd coordinates in turn.
        hidden: widths of the hidden layers of m; the paper's MNIST model has (1000,) * 5.
        prior: "logistic" (bounded gradient for outliers) or "normal".
        activation: of m.
        dropout: probability, in m.
        standardize: standardize the data first (each pixel); with False the paper's model on raw coordinates.
        shape: (channels, height, width), for images.
        levels: integer values of a pixel.
        alpha: None, as in the paper, or the margin of a logit of the pixels.
        dequantize: "uniform" or "variational" (Ho et al. 2019), for images.
        scaling_stride: s = scaling_stride times its parameter. Adam moves a parameter by about its learning rate a step, and s
            has to reach 2 to 4: with 1 a run of some thousand steps at 1e-3 ends before that. 10 is right for short runs.

    Raises:
        ConfigError: for an unknown prior, impossible sizes, or a stride that is not positive.

    Example:
        >>> import torch
        >>> model = NICE(features=4, hidden=(32,))
        >>> model.log_prob(torch.zeros(3, 4)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        features: int | None = None,
        context: int = 0,
        *,
        couplings: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        prior: str = "logistic",
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
        shape: Shape | None = None,
        levels: int = 256,
        alpha: float | None = None,
        dequantize: str = "uniform",
        scaling_stride: float = 1.0,
    ) -> None:
        event = event_of("NICE", features, shape)
        width = math.prod(event)
        check_choice("prior", prior, ("logistic", "normal"))
        layers = [
            Coupling(
                width,
                AdditiveTransformer(),
                flip=k % 2 == 1,
                hidden=hidden,
                context=context,
                activation=activation,
                dropout=dropout,
            )
            for k in range(check_integer("couplings", couplings))
        ]
        scaling = Affine(width, trainable=True, learning_rate_multiplier=scaling_stride)
        chain = vector_chain(width, [*layers, scaling], context=context, standardize=standardize, bend=True)
        if len(event) == 3:
            chain = Chain(*pixels(event, levels, alpha, dequantize), Flatten(event), chain)
        super().__init__(chain, Logistic(width) if prior == "logistic" else Normal(width))
        self.levels, self.alpha, self.dequantize = levels, alpha, dequantize
        self.scaling_stride = scaling_stride
        self.features = width if len(event) == 1 else None
        self.context, self.couplings, self.hidden = context, couplings, tuple(hidden)
        self.prior, self.activation, self.dropout, self.standardize = prior, activation, dropout, standardize
