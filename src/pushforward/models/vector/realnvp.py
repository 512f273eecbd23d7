"""Real NVP on vectors: affine couplings (Dinh, Sohl-Dickstein, Bengio 2016, arXiv 1605.08803)."""

from __future__ import annotations

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import check_features, coupling_layers, vector_chain
from pushforward.registry import register
from pushforward.transforms import AffineTransformer, BatchNorm, Transform

__all__ = ["RealNVP"]


@register("models")
class RealNVP(Model):
    """Real-valued non-volume-preserving flow on vectors.

    :class:`~pushforward.models.ImageRealNVP` is the form for images.

    Affine couplings y_A = x_A, y_B = x_B exp(s(x_A)) + t(x_A) (eq. 7) with log abs det = sum s (eq. 8) over a standard
    normal. A is the even coordinates in one layer and the odd coordinates in the next. Both directions take one pass.
    With one feature the model adds an elementwise spline, because couplings alone would leave a normal.

    Args:
        features: D.
        context: width of the context that every coupling reads.
        layers: number of couplings.
        hidden: widths of the hidden layers of the network for s and t.
        max_log_scale: smooth bound on abs(s). The paper bounds s by a tanh with a learned gain.
        batch_norm: batch normalization after each coupling, as a layer of the flow (sec. 3.7). Evaluation uses the
            statistics of the whole training set.
        activation: activation of the network.
        dropout: dropout probability in the network.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible.

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
        layers: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        max_log_scale: float = 3.0,
        batch_norm: bool = False,
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = True,
    ) -> None:
        check_features("RealNVP", features)
        couplings = coupling_layers(
            features, AffineTransformer(max_log_scale), layers, hidden=hidden, context=context, activation=activation,
            dropout=dropout,
        )  # fmt: skip
        transforms: list[Transform] = []
        for coupling in couplings:
            transforms += [coupling, BatchNorm(features)] if batch_norm else [coupling]
        chain = vector_chain(
            features, transforms, context=context, standardize=standardize, spline_for_one_feature=True
        )
        super().__init__(chain, Normal(features))
        self.features, self.context, self.layers, self.hidden = features, context, layers, tuple(hidden)
        self.max_log_scale, self.batch_norm = max_log_scale, batch_norm
        self.activation, self.dropout, self.standardize = activation, dropout, standardize
