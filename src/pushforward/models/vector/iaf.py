"""Inverse autoregressive flow (Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, arXiv 1606.04934)."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import autoregressive_layers, vector_chain
from pushforward.registry import register
from pushforward.transforms import Affine, AffineTransformer, GatedTransformer, Inverse

__all__ = ["IAF"]


@register("models")
class IAF(Model):
    """Flow that samples in one pass: z_t = g z_{t-1} + (1 - g) m with g, m = AR_t(z_{t-1}, h) (eq. 13-14).

    log q(z_T) = log q(z_0) - sum over t and i of log g (eq. 11). ``sample`` and ``sample_and_log_prob`` take one pass a
    layer and are the fast direction; ``log_prob`` of other points takes D sequential steps a layer. The flow is meant
    for variational inference (train with ``sample_and_log_prob``). For density estimation use
    :class:`~pushforward.models.MAF`, which is fast in the other direction.

    Args:
        features: D.
        context: width of h, which every layer reads.
        layers: T; the order is reversed after each layer.
        hidden: widths of the hidden layers of each autoregressive network.
        gated: the gated update of the paper; False for z_t = m + sigma z_{t-1} (eq. 10).
        gate_bias: added to the logit of the gate; 1 to 2 starts each layer near the identity.
        residual: use residual blocks in the networks.
        activation: activation of the networks.
        dropout: dropout probability in the networks.
        standardize: standardize the data, when ``pf.fit`` trains on data.

    Raises:
        ConfigError: for sizes that are not possible.

    Example:
        >>> model = IAF(features=3, hidden=(32,))
        >>> z, log_q = model.sample_and_log_prob(5, seed=0)
        >>> z.shape, log_q.shape
        (torch.Size([5, 3]), torch.Size([5]))
        >>> model.fast
        'sample'
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        layers: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        gated: bool = True,
        gate_bias: float = 2.0,
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        autoregressive = autoregressive_layers(
            features, GatedTransformer(gate_bias) if gated else AffineTransformer(), layers, hidden=hidden,
            residual=residual, context=context, activation=activation, dropout=dropout,
        )  # fmt: skip
        # A gate only contracts. A learned scale in front lets the flow be as wide as the data.
        transforms = [Affine(features, trainable=True), *(Inverse(layer) for layer in autoregressive)]
        chain = vector_chain(
            features, transforms, context=context, standardize=standardize, spline_for_one_feature=True
        )
        super().__init__(chain, Normal(features))
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.gated, self.gate_bias, self.residual = gated, gate_bias, residual
        self.activation, self.dropout, self.standardize = activation, dropout, standardize
