"""Masked autoregressive flow (Papamakarios, Pavlakou, Murray 2017, arXiv 1705.07057)."""

from __future__ import annotations

from pushforward.distributions import MADEMixture, Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import AffineTransformer, BatchNorm, MaskedAutoregressive, Transform

__all__ = ["MAF"]


@register("models")
class MAF(Model):
    """Stack of autoregressive Gaussians, u_i = (x_i - m_i(x_<i)) exp(-a_i(x_<i)) (eq. 3-5), each one a MADE.

    The order is reversed from layer to layer. ``log_prob`` takes one pass a layer and is the fast direction; sampling
    takes D small steps a layer. With one feature an elementwise spline is added, as affine layers alone would leave a
    Gaussian.

    Args:
        features: D.
        context: width of the context that every MADE reads (sec. 3.4).
        layers: autoregressive layers; the paper uses 5 and 10.
        hidden: widths of the hidden layers of each MADE; the paper uses 1 or 2 of 100 to 1024 units.
        components: Gaussians in each conditional of a MADE MoG base ("MAF MoG", sec. 3.1); 0 for a standard normal.
        batch_norm: batch normalization between layers (sec. 3.5), with the statistics of the whole training set at
            evaluation.
        max_log_scale: bound on abs(a), smooth.
        residual: residual MADE blocks, as in Durkan et al. 2019.
        activation: of each MADE.
        dropout: probability, in each MADE.
        standardize: standardize the data first.

    Raises:
        ConfigError: for impossible sizes.

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
        transforms: list[Transform] = []
        for k in range(check_integer("layers", layers)):
            transforms.append(
                MaskedAutoregressive(
                    features,
                    AffineTransformer(max_log_scale),
                    order="reverse" if k % 2 else None,
                    hidden=hidden,
                    residual=residual,
                    context=context,
                    activation=activation,
                    dropout=dropout,
                )
            )
            if batch_norm:
                transforms.append(BatchNorm(features))
        check_integer("components", components, 0)
        base = (
            MADEMixture(features, components=components, hidden=hidden, context=context)
            if components
            else Normal(features)
        )
        chain = vector_chain(features, transforms, context=context, standardize=standardize, bend=not components)
        super().__init__(chain, base)
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.components, self.batch_norm, self.max_log_scale = components, batch_norm, max_log_scale
        self.residual, self.activation, self.dropout, self.standardize = residual, activation, dropout, standardize
