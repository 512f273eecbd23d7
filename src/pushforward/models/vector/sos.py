"""Sum-of-squares polynomial flow (Jaini, Selby, Yu 2019, arXiv 1905.02325)."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import autoregressive_layers, vector_chain
from pushforward.registry import register
from pushforward.transforms import SumOfSquaresTransformer

__all__ = ["SOS"]


@register("models")
class SOS(Model):
    """Stack of autoregressive layers whose law is the integral of a sum of squared polynomials (sec. 3).

    z_i = c + integral from 0 to x_i of sum_k p_k(t; MADE(x_<i))^2 dt, see
    :class:`~pushforward.transforms.SumOfSquaresTransformer`: a line outside its interval.
    The order is reversed from layer to layer, and the base is a standard normal. ``log_prob`` takes one pass a layer
    and is the fast direction; sampling takes D steps a layer, with a root to find in each.

    Args:
        features: D. With one feature the laws have free parameters.
        context: width of the context that every MADE reads.
        layers: autoregressive layers.
        polynomials: squares in each sum.
        degree: of each polynomial.
        hidden: widths of the hidden layers of each MADE.
        residual: residual MADE blocks.
        activation: of each MADE.
        dropout: probability, in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> model = SOS(features=3, layers=2, hidden=(16,))
        >>> x = torch.randn(4, 3)
        >>> torch.allclose(model.decode(model.encode(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        layers: int = 5,
        polynomials: int = 3,
        degree: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        transforms = autoregressive_layers(
            features, SumOfSquaresTransformer(polynomials, degree), layers, context=context, hidden=hidden, residual=residual,
            activation=activation, dropout=dropout,
        )  # fmt: skip
        super().__init__(vector_chain(features, transforms, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.polynomials, self.degree = polynomials, degree
        self.residual, self.activation, self.dropout, self.standardize = residual, activation, dropout, standardize
