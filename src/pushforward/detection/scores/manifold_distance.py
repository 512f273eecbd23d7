"""Scores of models with a manifold: distance to it, and density on it and distance together."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.scores.base import Need, Score
from pushforward.errors import KindError
from pushforward.models import Model
from pushforward.registry import register

__all__ = ["DensityAndDistance", "ManifoldDistance"]


@register("scores")
class ManifoldDistance(Score):
    """Squared distance of x to the model's manifold, ``evaluate(x).residual``, in the data's units squared.

    Blind to everything along the manifold: of rows on it none is more anomalous than another.

    Args:
        model: with a residual, as :class:`~pushforward.models.TwoStep`.

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
        self.model = model

    def _score(self, x: Tensor) -> Tensor:
        return density_and_residual(self.model, x)[1]


@register("scores")
class DensityAndDistance(Score):
    """How unlikely x is on the manifold and how far from it: (-log p(x) - a) / b + (log r(x) - c) / e.

    The density on a manifold is that of the decoded point, so it says nothing of the way there; the residual says nothing of
    the place. Both are brought to in-distribution mean 0 and deviation 1 (a, b, c, e) and added: at equal weight, since
    no out-of-distribution data are seen. Residuals r count by their logarithm, from 1e-9 of their median up.

    Args:
        model: with a residual, as :class:`~pushforward.models.TwoStep`.

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
        self.model = model
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
        impossible = torch.isposinf(both).any(0)  # one certain sign is enough, whatever the other says
        return torch.where(impossible, math.inf, both.sum(0))

    def _log(self, residual: Tensor) -> Tensor:
        return torch.maximum(residual, self.floor).log()


def density_and_residual(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) and the residual, float64, ``(n,)`` each; -inf and +inf for a row that is infinitely far.

    Raises:
        KindError: if the model has no residual.
    """
    found = model.evaluate(x)
    if found.residual is None:
        raise KindError(f"{type(model).__name__} has no manifold to be far from: use a model with a residual.")
    far = torch.isinf(x).flatten(1).any(1) if x.is_floating_point() else torch.zeros(len(x), dtype=torch.bool)
    return found.value.double(), torch.where(far, math.inf, found.residual.double())
