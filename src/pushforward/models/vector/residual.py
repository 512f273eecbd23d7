"""Residual flows on vectors, with two estimates of the log-determinant.

- :class:`IResNet`: Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen 2019, arXiv 1811.00995;
- :class:`ResidualFlow`: Chen, Behrmann, Duvenaud, Jacobsen 2019, arXiv 1906.02735.
"""

from __future__ import annotations

from abc import ABC
from typing import Any

from pushforward.distributions import Normal
from pushforward.models.base import Model
from pushforward.models.vector.building import check_features, vector_chain
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms import ActNorm, InvertibleResidual, Transform
from pushforward.transforms.base import Shape

__all__ = ["IResNet", "ResidualFlow", "residual_blocks"]


class _ResidualModel(Model, ABC):
    """The layers that both models share; only the defaults differ."""

    def __init__(
        self,
        features: int,
        context: int,
        blocks: int,
        hidden: tuple[int, ...],
        coefficient: float,
        activation: str,
        actnorm: bool,
        log_det: str,
        terms: int,
        probes: int,
        standardize: bool,
    ) -> None:
        check_features(type(self).__name__, features)
        layers = residual_blocks(
            (features,), blocks, actnorm, context=context, hidden=hidden, coefficient=coefficient,
            activation=activation, log_det=log_det, terms=terms, probes=probes,
        )  # fmt: skip
        super().__init__(vector_chain(features, layers, context=context, standardize=standardize), Normal(features))
        self.features, self.context, self.blocks, self.hidden = features, context, blocks, tuple(hidden)
        self.coefficient, self.activation, self.actnorm, self.log_det = coefficient, activation, actnorm, log_det
        self.terms, self.probes, self.standardize = terms, probes, standardize


@register("models")
class IResNet(_ResidualModel):
    """i-ResNet on vectors: blocks x + g(x) with contractive g, over a normal.

    :class:`~pushforward.models.ImageIResNet` is the form for images.

    log p(x) = log N(z) + sum over blocks of sum for k <= n of (-1)^(k+1) tr(J^k) / k (sec. 3, alg. 2). The truncation
    of the power series is biased, so the likelihood is an ESTIMATE and :meth:`evaluate` returns it. Up to about a
    thousand features ``model.set_log_det("exact")`` gives the exact one with the same weights, usually in less time.
    :class:`~pushforward.models.ResidualFlow` trains on an unbiased estimate.

    ``log_prob`` takes one pass; sampling takes some 10 to 30 (a fixed-point iteration for each block).

    Args:
        features: D.
        context: width of the context that every g reads.
        blocks: number of residual blocks.
        hidden: widths of the hidden layers of g.
        coefficient: bound on the Lipschitz constant of g, in (0, 1); 0.9 in the paper.
        activation: "elu" as in the paper, "lipswish", "softplus" or "tanh".
        actnorm: activation normalization before each block and after the last.
        log_det: "power" as in the paper, "roulette" or "exact".
        terms: n; 5 in the paper.
        probes: number of probes for a score and its standard error; training draws one.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible, a coefficient outside (0, 1), or an unknown ``log_det``.

    Example:
        >>> import torch
        >>> model = IResNet(features=2, blocks=2, hidden=(16,))
        >>> model.evaluate(torch.zeros(3, 2)).kind
        <Kind.ESTIMATE: 'estimate'>
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
        super().__init__(
            features, context, blocks, hidden, coefficient, activation, actnorm, log_det, terms, probes, standardize
        )


@register("models")
class ResidualFlow(_ResidualModel):
    """Blocks x + g(x) with contractive g and an unbiased log-determinant, on vectors, over a normal.

    :class:`~pushforward.models.ImageResidualFlow` is the form for images.

    The power series of :class:`~pushforward.models.IResNet` is cut at a random term and reweighted, so that its mean is
    right (Russian roulette, eq. 6). The Neumann series gives its gradient (eq. 8). The second derivative of LipSwish
    activations does not vanish where their slope is steep (sec. 3.3). Spectral norms are Euclidean.

    The likelihood is UNBIASED and comes with a standard error. Up to about a hundred features, train and score with
    ``log_det="exact"``. Otherwise train as in the paper and call ``model.set_log_det("exact")`` before scoring (up to
    about a thousand features).

    ``log_prob`` takes one pass; sampling takes some 10 to 30 (a fixed-point iteration for each block).

    Args:
        features: D.
        context: width of the context that every g reads.
        blocks: number of residual blocks.
        hidden: widths of the hidden layers of g.
        coefficient: bound on the Lipschitz constant of g, in (0, 1). The closer to 1, the more terms the roulette
            takes: with 0.9 ``terms`` + 10 terms on average, with 0.98 ``terms`` + 50.
        activation: "lipswish" as in the paper, "elu", "softplus" or "tanh".
        actnorm: activation normalization before each block and after the last.
        log_det: "roulette" as in the paper, "power" or "exact".
        terms: number of terms of the series that are always taken.
        probes: number of probes for a score and its standard error; training draws one.
        standardize: standardize the data first.

    Raises:
        ConfigError: for sizes that are not possible, a coefficient outside (0, 1), or an unknown ``log_det``.

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
        super().__init__(
            features, context, blocks, hidden, coefficient, activation, actnorm, log_det, terms, probes, standardize
        )


def residual_blocks(shape: Shape, blocks: int, actnorm: bool, *, seed: int = 0, **options: Any) -> list[Transform]:
    """Invertible residual blocks, each with its own probes.

    Args:
        shape: event shape.
        blocks: number of blocks.
        actnorm: activation normalization before each block and after the last.
        seed: seed of the probes of the first block; every further block adds 1.
        options: arguments of each :class:`~pushforward.transforms.InvertibleResidual`.
    """
    transforms: list[Transform] = []
    for k in range(check_integer("blocks", blocks)):
        if actnorm:
            transforms.append(ActNorm(shape))
        transforms.append(InvertibleResidual(shape, seed=seed + k, **options))
    return [*transforms, ActNorm(shape)] if actnorm else transforms
