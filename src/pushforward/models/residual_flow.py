"""Residual flow (Chen, Behrmann, Duvenaud, Jacobsen 2019, arXiv 1906.02735)."""

from __future__ import annotations

from pushforward.bases import Normal
from pushforward.models.assembly import vector_chain
from pushforward.models.core import Model
from pushforward.models.iresnet import residual_layers
from pushforward.registry import register

__all__ = ["ResidualFlow"]


@register("models")
class ResidualFlow(Model):
    """Blocks x + g(x) with contractive g and an unbiased log-determinant, over a normal.

    The power series of :class:`~pushforward.models.IResNet`, cut at a random place and reweighted so that it is right in
    the mean (Russian roulette, eq. 6), with the Neumann series as its gradient (eq. 8) and LipSwish activations, whose
    second derivative does not vanish where the slope is steep (sec. 3.3). Spectral norms are Euclidean.

    The likelihood is UNBIASED and comes with a standard error. At up to about a hundred features train and score with
    ``log_det="exact"``, or train like the paper and call ``model.set_log_det("exact")`` before scoring.

    ``log_prob`` takes one pass, sampling some 10 to 30 (a fixed-point iteration for each block).

    Args:
        features: D.
        context: width of the context that every g reads.
        blocks: residual blocks.
        hidden: widths of g's hidden layers.
        coefficient: bound on g's Lipschitz constant, in (0, 1). The nearer to 1, the longer the roulette: with 0.9 it takes
            ``terms`` + 10 terms in the mean, with 0.98 ``terms`` + 50.
        activation: "lipswish" as in the paper, "elu", "softplus" or "tanh".
        actnorm: activation normalisation before each block and after the last.
        log_det: "roulette" as in the paper, "power" or "exact".
        terms: of the series that are always taken.
        probes: for a score, and its standard error; training draws one.
        standardize: standardise the data first.

    Raises:
        ConfigError: for impossible sizes, a coefficient outside (0, 1), or an unknown ``log_det``.

    Example:
        >>> import torch
        >>> model = ResidualFlow(features=2, blocks=2, hidden=(16,))
        >>> model.evaluate(torch.zeros(3, 2)).stderr.shape
        torch.Size([3])
    """

    def __init__(
        self,
        features: int,
        context: int = 0,
        *,
        blocks: int = 8,
        hidden: tuple[int, ...] = (128, 128),
        coefficient: float = 0.9,
        activation: str = "lipswish",
        actnorm: bool = True,
        log_det: str = "roulette",
        terms: int = 4,
        probes: int = 8,
        standardize: bool = True,
    ) -> None:
        layers = residual_layers(
            features,
            context,
            blocks,
            actnorm,
            hidden=hidden,
            coefficient=coefficient,
            activation=activation,
            log_det=log_det,
            terms=terms,
            probes=probes,
        )
        super().__init__(vector_chain(features, layers, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.blocks, self.hidden = features, context, blocks, tuple(hidden)
        self.coefficient, self.activation, self.actnorm, self.log_det = coefficient, activation, actnorm, log_det
        self.terms, self.probes, self.standardize = terms, probes, standardize
