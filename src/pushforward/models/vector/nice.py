"""NICE: additive couplings and one diagonal scaling (Dinh, Krueger, Bengio 2014, arXiv 1410.8516)."""

from __future__ import annotations

from pushforward.distributions import Distribution, Logistic, Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import check_features, coupling_layers, vector_chain
from pushforward.numerics.checks import check_choice
from pushforward.registry import register
from pushforward.transforms import AdditiveTransformer, Affine, Chain

__all__ = ["NICE", "nice_base", "nice_chain"]


@register("models")
class NICE(Model):
    """Non-linear independent components estimation on vectors.

    :class:`~pushforward.models.ImageNICE` is the form for images.

    Couplings y_A = x_A, y_B = x_B + m(x_A) with unit Jacobian (eq. 5-7), then h = exp(s) y (sec. 3.3), and a factorial
    prior: log p(x) = sum_d log p_H(h_d) + sum_d s_d (eq. 3, 9). Every output depends on every input from three
    alternating couplings on. Both directions take one pass. With one feature the model adds an elementwise spline.

    Args:
        features: D.
        context: width of the context that every coupling reads.
        layers: number of couplings; A is the even coordinates in one layer and the odd coordinates in the next.
        hidden: widths of the hidden layers of m.
        prior: "logistic" (the gradient at outliers is bounded) or "normal".
        activation: activation of m.
        dropout: dropout probability in m.
        standardize: standardize the data first; False gives the model of the paper, on raw coordinates.
        scaling_multiplier: multiplier of the learning rate of the scaling: s is this multiple of its parameter. Adam
            moves a parameter by about the learning rate in each step, and s has to reach 2 to 4: with 1, a run of a few
            thousand steps at 1e-3 ends before that. Use 10 for short runs.

    Raises:
        ConfigError: for an unknown prior, sizes that are not possible, or a multiplier that is not positive.

    Example:
        >>> import torch
        >>> model = NICE(features=4, hidden=(32,))
        >>> model.log_prob(torch.zeros(3, 4)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        layers: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        prior: str = "logistic",
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
        scaling_multiplier: float = 1.0,
    ) -> None:
        check_features("NICE", features)
        base = nice_base(features, prior)
        super().__init__(
            nice_chain(features, context, layers, hidden, activation, dropout, standardize, scaling_multiplier), base
        )
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.prior, self.activation, self.dropout = prior, activation, dropout
        self.standardize, self.scaling_multiplier = standardize, scaling_multiplier


def nice_chain(
    features: int,
    context: int,
    layers: int,
    hidden: tuple[int, ...],
    activation: str,
    dropout: float,
    standardize: bool,
    scaling_multiplier: float,
) -> Chain:
    """Standardization, the additive couplings and the scaling of NICE."""
    couplings = coupling_layers(
        features, AdditiveTransformer(), layers, hidden=hidden, context=context, activation=activation, dropout=dropout
    )
    scaling = Affine(features, trainable=True, learning_rate_multiplier=scaling_multiplier)
    return vector_chain(
        features, [*couplings, scaling], context=context, standardize=standardize, spline_for_one_feature=True
    )


def nice_base(features: int, prior: str) -> Distribution:
    """The factorial prior of NICE.

    Raises:
        ConfigError: for another name than "logistic" and "normal".
    """
    check_choice("prior", prior, ("logistic", "normal"))
    return Logistic(features) if prior == "logistic" else Normal(features)
