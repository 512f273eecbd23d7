"""Unconstrained monotonic neural network (Wehenkel, Louppe 2019, arXiv 1908.05164)."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import autoregressive_layers, vector_chain
from pushforward.registry import register
from pushforward.transforms import UnconstrainedMonotoneTransformer

__all__ = ["UMNN"]


@register("models")
class UMNN(Model):
    """Stack of autoregressive layers whose law is the integral of a positive network (UMNN-MAF, sec. 3).

    z_i = c + integral from 0 to x_i of g(t; MADE(x_<i)) dt, with g and its quadrature those of
    :class:`~pushforward.transforms.UnconstrainedMonotoneTransformer`, which states the quadrature's error: with the default
    nodes it is below 1e-9. The paper shares the weights of g between the coordinates; here the MADE gives them.
    The order is reversed from layer to layer, and the base is a standard normal. ``log_prob`` takes one pass a layer
    and is the fast direction; sampling takes D steps a layer, with a root to find in each.

    Args:
        features: D. With one feature the laws have free parameters.
        context: width of the context that every MADE reads.
        layers: autoregressive layers.
        units: of the integrand.
        nodes: of the Clenshaw-Curtis quadrature.
        hidden: widths of the hidden layers of each MADE.
        residual: residual MADE blocks.
        activation: of each MADE.
        dropout: probability, in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> model = UMNN(features=3, layers=2, hidden=(16,))
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
        units: int = 8,
        nodes: int = 64,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        transforms = autoregressive_layers(
            features, UnconstrainedMonotoneTransformer(units, nodes), layers, context=context, hidden=hidden, residual=residual,
            activation=activation, dropout=dropout,
        )  # fmt: skip
        super().__init__(vector_chain(features, transforms, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.units, self.nodes = units, nodes
        self.residual, self.activation, self.dropout, self.standardize = residual, activation, dropout, standardize
