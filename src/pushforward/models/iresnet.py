"""Invertible residual network (Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen 2019, arXiv 1811.00995)."""

from __future__ import annotations

from pushforward.bases import Normal
from pushforward.maps import ActNorm, InvertibleResidual, Map
from pushforward.models.assembly import check_count, vector_chain
from pushforward.models.core import Model
from pushforward.registry import register

__all__ = ["IResNet", "residual_layers"]


def residual_layers(features: int, context: int, blocks: int, actnorm: bool, **options: object) -> list[Map]:
    """Residual blocks, each with probes of its own and with activation normalisation before it if wanted."""
    maps: list[Map] = []
    for k in range(check_count("blocks", blocks)):
        if actnorm:
            maps.append(ActNorm(features))
        maps.append(InvertibleResidual(features, context=context, seed=k, **options))  # pyright: ignore[reportArgumentType]
    if actnorm:
        maps.append(ActNorm(features))
    return maps


@register("models")
class IResNet(Model):
    """i-ResNet: blocks x + g(x) with contractive g and a log-determinant by a truncated power series, over a normal.

    log p(x) = log N(z) + sum over blocks of sum for k <= n of (-1)^(k+1) tr(J^k) / k (sec. 3, alg. 2).
    The truncation is biased, so the likelihood is an ESTIMATE and :meth:`evaluate` reads it. At up to about a hundred
    features ``model.set_log_det("exact")`` gives the exact one, of the same weights, usually in less time;
    :class:`~pushforward.models.ResidualFlow` trains on an unbiased one.

    ``log_prob`` takes one pass, sampling some 10 to 30 (a fixed-point iteration for each block).

    Args:
        features: D.
        context: width of the context that every g reads.
        blocks: residual blocks.
        hidden: widths of g's hidden layers.
        coefficient: bound on g's Lipschitz constant, in (0, 1); the paper's 0.9.
        activation: "elu" as in the paper, "lipswish", "softplus" or "tanh".
        actnorm: activation normalisation before each block and after the last.
        log_det: "power" as in the paper, "roulette" or "exact".
        terms: n; the paper's 5.
        probes: for a score, and its standard error; training draws one.
        standardize: standardise the data first.

    Raises:
        ConfigError: for impossible sizes, a coefficient outside (0, 1), or an unknown ``log_det``.

    Example:
        >>> import torch
        >>> model = IResNet(features=2, blocks=2, hidden=(16,))
        >>> model.evaluate(torch.zeros(3, 2)).relation
        <Relation.ESTIMATE: 'estimate'>
        >>> model.set_log_det("exact")
        >>> model.log_prob(torch.zeros(3, 2)).shape
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
        activation: str = "elu",
        actnorm: bool = True,
        log_det: str = "power",
        terms: int = 5,
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
