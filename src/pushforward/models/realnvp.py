"""Real NVP on vectors: affine couplings (Dinh, Sohl-Dickstein, Bengio 2016, arXiv 1605.08803)."""

from __future__ import annotations

from pushforward.bases import Normal
from pushforward.maps import AffineTransformer, BatchNorm, Coupling, Map
from pushforward.models.assembly import check_count, vector_chain
from pushforward.models.core import Model
from pushforward.registry import register

__all__ = ["RealNVP"]


@register("models")
class RealNVP(Model):
    """Real-valued non-volume-preserving flow.

    Couplings y_A = x_A, y_B = x_B exp(s(x_A)) + t(x_A) (eq. 7) with log abs det = sum s (eq. 8), A being the even and
    the odd coordinates in turn, over a standard normal. Both directions take one pass.

    Args:
        features: D.
        context: width of the context that every coupling reads.
        couplings: affine couplings.
        hidden: widths of the hidden layers of the network for s and t.
        max_log_scale: bound on abs(s), smooth. The paper bounds s by a tanh with a learned gain.
        batch_norm: batch normalisation as a layer of the flow after each coupling (sec. 3.7), with the statistics of
            the whole training set at evaluation.
        activation: of the network.
        dropout: probability, in the network.
        standardize: standardise the data first.

    Raises:
        ConfigError: for impossible sizes.

    Example:
        >>> import torch
        >>> RealNVP(features=2).sample(5, seed=0).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        couplings: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        max_log_scale: float = 3.0,
        batch_norm: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        layers: list[Map] = []
        for k in range(check_count("couplings", couplings)):
            layers.append(
                Coupling(
                    features,
                    AffineTransformer(max_log_scale),
                    flip=k % 2 == 1,
                    hidden=hidden,
                    context=context,
                    activation=activation,
                    dropout=dropout,
                )
            )
            if batch_norm:
                layers.append(BatchNorm(features))
        super().__init__(
            vector_chain(features, layers, context=context, standardize=standardize, bend=True), Normal(features)
        )
        self.features, self.context, self.couplings, self.hidden = features, context, couplings, tuple(hidden)
        self.max_log_scale, self.batch_norm, self.activation = max_log_scale, batch_norm, activation
        self.dropout, self.standardize = dropout, standardize
