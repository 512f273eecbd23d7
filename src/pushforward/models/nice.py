"""NICE: additive couplings and one diagonal scaling (Dinh, Krueger, Bengio 2014, arXiv 1410.8516)."""

from __future__ import annotations

from pushforward.bases import Logistic, Normal
from pushforward.errors import ConfigError
from pushforward.maps import AdditiveTransformer, Affine, Coupling
from pushforward.models.assembly import check_count, vector_chain
from pushforward.models.core import Model
from pushforward.registry import register

__all__ = ["NICE"]


@register("models")
class NICE(Model):
    """Non-linear independent components estimation.

    Couplings y_A = x_A, y_B = x_B + m(x_A) with unit Jacobian (eq. 5-7), then h = exp(s) y (sec. 3.3), and a factorial
    prior: log p(x) = sum_d log p_H(h_d) + sum_d s_d (eq. 3, 9). Three alternating couplings are the fewest with which
    every output sees every input. Both directions take one pass.

    Args:
        features: D.
        context: width of the context that every coupling reads.
        couplings: additive couplings; A is the even and the odd coordinates in turn.
        hidden: widths of the hidden layers of m; the paper's MNIST model has (1000,) * 5.
        prior: "logistic" (bounded gradient for outliers) or "normal".
        activation: of m.
        dropout: probability, in m.
        standardize: standardise the data first; with False the paper's model on raw coordinates.

    Raises:
        ConfigError: for an unknown prior or impossible sizes.

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
        couplings: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        prior: str = "logistic",
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        if prior not in ("logistic", "normal"):
            raise ConfigError(f"prior must be 'logistic' or 'normal'; got {prior!r}.")
        layers = [
            Coupling(
                features,
                AdditiveTransformer(),
                flip=k % 2 == 1,
                hidden=hidden,
                context=context,
                activation=activation,
                dropout=dropout,
            )
            for k in range(check_count("couplings", couplings))
        ]
        scaling = Affine(features, trainable=True)
        chain = vector_chain(features, [*layers, scaling], context=context, standardize=standardize, bend=True)
        super().__init__(chain, Logistic(features) if prior == "logistic" else Normal(features))
        self.features, self.context, self.couplings, self.hidden = features, context, couplings, tuple(hidden)
        self.prior, self.activation, self.dropout, self.standardize = prior, activation, dropout, standardize
