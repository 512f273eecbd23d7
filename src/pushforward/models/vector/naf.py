"""Neural autoregressive flow (Huang, Krueger, Lacoste, Courville 2018, arXiv 1804.00779)."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import autoregressive_layers, vector_chain
from pushforward.registry import register
from pushforward.transforms import SigmoidalTransformer

__all__ = ["NAF"]


@register("models")
class NAF(Model):
    """Stack of autoregressive layers whose law is a deep sigmoidal network (NAF, eq. 5 and 8).

    z_i = f(x_i; MADE(x_<i)), with f of :class:`~pushforward.transforms.SigmoidalTransformer`: logit(sum_k w_k sigmoid(a_k (x -
    m_k))), ``law_layers`` of them one after the other.
    The order is reversed from layer to layer, and the base is a standard normal. ``log_prob`` takes one pass a layer
    and is the fast direction; sampling takes D steps a layer, with a root to find in each.

    Args:
        features: D. With one feature the laws have free parameters.
        context: width of the context that every MADE reads.
        layers: autoregressive layers; the paper uses 5 and 10.
        units: of each sigmoidal law.
        law_layers: sigmoidal laws in each layer of the flow.
        hidden: widths of the hidden layers of each MADE.
        residual: residual MADE blocks.
        activation: of each MADE.
        dropout: probability, in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> model = NAF(features=3, layers=2, hidden=(16,))
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
        units: int = 16,
        law_layers: int = 1,
        hidden: tuple[int, ...] = (128, 128),
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        transforms = autoregressive_layers(
            features, SigmoidalTransformer(law_layers, units), layers, context=context, hidden=hidden, residual=residual,
            activation=activation, dropout=dropout,
        )  # fmt: skip
        super().__init__(vector_chain(features, transforms, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.units, self.law_layers = units, law_layers
        self.residual, self.activation, self.dropout, self.standardize = residual, activation, dropout, standardize
