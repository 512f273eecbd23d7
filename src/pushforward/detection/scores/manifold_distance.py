"""Scores of models with a manifold: the distance to it, and the density on it combined with the distance."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.scores.base import Need, Score
from pushforward.detection.scores.model_outputs import check_model, far_rows
from pushforward.errors import KindError
from pushforward.models import Model
from pushforward.registry import register

__all__ = ["DensityAndDistance", "ManifoldDistance"]


@register("scores")
class ManifoldDistance(Score):
    """Squared distance of x to the model's manifold, ``evaluate(x).residual``, in the data's units squared.

    The score ignores the density on the manifold: all rows on the manifold get the score 0.

    Args:
        model: model whose likelihood has a residual, such as :class:`~pushforward.models.TwoStep`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import ManifoldDistance
        >>> model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=2, hidden=(8,)), pf.distributions.Normal(2))
        >>> ManifoldDistance(model)(torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])).argmax().item()
        1
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "Jacobian"})

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = check_model(model, type(self).__name__)

    def _score(self, x: Tensor) -> Tensor:
        return density_and_residual(self.model, x)[1]


@register("scores")
class DensityAndDistance(Score):
    """Sum of the standardized density and distance: (-log p(x) - a) / b + (log r(x) - c) / e, where r is the squared distance.

    The density on a manifold is evaluated at the decoded point, so it does not depend on the distance of x to the manifold,
    and the distance does not depend on the density. Both are standardized to mean 0 and standard deviation 1 on the
    reference rows (a, b, c, e) and added with equal weights, since there are no out-of-distribution data to fit weights.
    r has a floor of 1e-9 times its median.

    :class:`~pushforward.detection.scores.ManifoldLikelihood` combines both in nats, for models whose measure is Manifold.

    Args:
        model: model whose likelihood has a residual, such as :class:`~pushforward.models.TwoStep`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import DensityAndDistance
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.TwoStep(pf.models.AutoEncoder(3, latent=2, hidden=(8,)), pf.distributions.Normal(2))
        >>> score = DensityAndDistance(model).fit(x)
        >>> abs(score(x).mean()).item() < 1e-6
        True
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "Jacobian"})
    center: Tensor
    scale: Tensor
    floor: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = check_model(model, type(self).__name__)
        self.declare(center=1, scale=1, floor=1)

    def _learn(self, reference: Tensor) -> None:
        pairs = [density_and_residual(self.model, part) for part in reference.split(self.batch_size)]
        density, residual = (torch.cat(list(each)) for each in zip(*pairs, strict=True))
        finite = residual[torch.isfinite(residual)]
        middle = finite.median() if len(finite) else residual.new_ones(())
        self.floor = (1e-9 * middle).clamp(min=1e-30).reshape(1)
        both = torch.stack((-density, self._log(residual)))
        good = torch.isfinite(both).all(0)
        both = both[:, good] if good.any() else torch.zeros_like(both)
        spread = both.std(1, correction=0)
        self.center, self.scale = both.mean(1), torch.where(spread > 0, spread, 1.0)

    def _score(self, x: Tensor) -> Tensor:
        density, residual = density_and_residual(self.model, x)
        both = (torch.stack((-density, self._log(residual))) - self.center[:, None]) / self.scale[:, None]
        impossible = torch.isposinf(both).any(0)  # the other term may be -inf, and the sum NaN
        return torch.where(impossible, math.inf, both.sum(0))

    def _log(self, residual: Tensor) -> Tensor:
        return torch.maximum(residual, self.floor).log()


def density_and_residual(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) and the residual of each row, float64, ``(n,)`` each; -inf and +inf for a row with an infinite entry.

    Raises:
        KindError: if the model has no residual.
    """
    found = model.evaluate(x)
    if found.residual is None:
        raise KindError(
            f"{type(model).__name__} has no manifold, so no distance to it: use a model with a residual, such as TwoStep."
        )
    return found.value.double(), torch.where(far_rows(x), math.inf, found.residual.double())
