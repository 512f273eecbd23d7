"""Masked autoregressive flow (Papamakarios, Pavlakou, Murray 2017, arXiv 1705.07057)."""

from __future__ import annotations

from pushforward.distributions import MADEMixture, Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import autoregressive_layers, vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import AffineTransformer, BatchNorm, Transform

__all__ = ["MAF"]


@register("models")
class MAF(Model):
    """Stack of autoregressive Gaussians, u_i = (x_i - m_i(x_<i)) exp(-a_i(x_<i)) (eq. 3-5), each one a MADE.

    The order is reversed from layer to layer. ``log_prob`` takes one pass a layer and is the fast direction; sampling
    takes D small steps a layer. With one feature the model adds an elementwise spline, because affine layers alone
    would leave a normal.

    Args:
        features: D.
        context: width of the context that every MADE reads (sec. 3.4).
        layers: number of autoregressive layers; the paper uses 5 and 10.
        hidden: widths of the hidden layers of each MADE; the paper uses 1 or 2 layers of 100 to 1024 units.
        components: number of Gaussians in each conditional of a MADE MoG base ("MAF MoG", sec. 3.1); 0 for a standard
            normal base.
        batch_norm: batch normalization between layers (sec. 3.5). Evaluation uses the statistics of the whole training
            set.
        max_log_scale: smooth bound on abs(a).
        residual: use residual MADE blocks, as in Durkan et al. 2019.
        activation: activation of each MADE.
        dropout: dropout probability in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> import torch
        >>> model = MAF(features=3, context=2, hidden=(32,))
        >>> model.log_prob(torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> model.fast
        'log_prob'
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        layers: int = 5,
        hidden: tuple[int, ...] = (128, 128),
        components: int = 0,
        batch_norm: bool = False,
        max_log_scale: float = 3.0,
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        check_integer("components", components, 0)
        transforms: list[Transform] = []
        for layer in autoregressive_layers(
            features, AffineTransformer(max_log_scale), layers, hidden=hidden, residual=residual, context=context,
            activation=activation, dropout=dropout,
        ):  # fmt: skip
            transforms += [layer, BatchNorm(features)] if batch_norm else [layer]
        base = (
            MADEMixture(features, components=components, hidden=hidden, context=context)
            if components
            else Normal(features)
        )
        chain = vector_chain(
            features, transforms, context=context, standardize=standardize, spline_for_one_feature=not components
        )
        super().__init__(chain, base)
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.components, self.batch_norm, self.max_log_scale = components, batch_norm, max_log_scale
        self.residual, self.activation, self.dropout, self.standardize = residual, activation, dropout, standardize
