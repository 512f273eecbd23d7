"""Inverse autoregressive flow (Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, arXiv 1606.04934)."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import Affine, AffineTransformer, GatedTransformer, Inverse, MaskedAutoregressive, Transform

__all__ = ["IAF"]


@register("models")
class IAF(Model):
    """Flow that samples in one pass: z_t = g z_{t-1} + (1 - g) m with g, m = AR_t(z_{t-1}, h) (eq. 13-14).

    log q(z_T) = log q(z_0) - sum over t and i of log g (eq. 11). ``sample`` and ``sample_and_log_prob`` take one pass a
    step and are the fast direction; ``log_prob`` of other points takes D sequential steps. Made for variational inference
    (train with ``sample_and_log_prob``); for density estimation use :class:`~pushforward.models.MAF`, its mirror image.

    Args:
        features: D.
        context: width of h, which every step reads.
        steps: T; the order is reversed after each step.
        hidden: widths of the hidden layers of each autoregressive network.
        gated: the paper's gated update; False for z_t = m + sigma z_{t-1} (eq. 10).
        gate_bias: added to the gate's logit; 1 to 2 starts each step near the identity.
        residual: residual blocks.
        activation: of the networks.
        dropout: probability, in the networks.
        standardize: standardize the data, when ``pf.fit`` trains on data.

    Raises:
        ConfigError: for impossible sizes.

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
        steps: int = 4,
        hidden: tuple[int, ...] = (128, 128),
        gated: bool = True,
        gate_bias: float = 2.0,
        residual: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        # A gate only contracts, so a learned scale in front lets the flow be as wide as the data.
        transforms: list[Transform] = [Affine(features, trainable=True)]
        for k in range(check_integer("steps", steps)):
            law = GatedTransformer(gate_bias) if gated else AffineTransformer()
            transforms.append(
                Inverse(
                    MaskedAutoregressive(
                        features,
                        law,
                        order="reverse" if k % 2 else None,
                        hidden=hidden,
                        residual=residual,
                        context=context,
                        activation=activation,
                        dropout=dropout,
                    )
                )
            )
        super().__init__(
            vector_chain(features, transforms, context=context, standardize=standardize, bend=True), Normal(features)
        )
        self.features, self.context, self.steps, self.hidden = features, context, steps, tuple(hidden)
        self.gated, self.gate_bias, self.residual = gated, gate_bias, residual
        self.activation, self.dropout, self.standardize = activation, dropout, standardize
