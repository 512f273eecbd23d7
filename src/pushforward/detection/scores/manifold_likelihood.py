"""Scores of a model whose density lives on a surface: the density on it, the distance to it, and both."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score
from pushforward.errors import KindError
from pushforward.models import Model
from pushforward.numerics.checks import check_choice
from pushforward.registry import register

__all__ = ["ManifoldLikelihood"]


@register("scores")
class ManifoldLikelihood(Score):
    """-log p on the surface, the squared distance to it, or both in nats.

    "density" is -log p at the row's projection, which alone says nothing of how far the row is; "residual" is norm(x - g(g+(x)))^2,
    which alone says nothing of where on the surface it lies. "both" is

        -log p(g+(x)) + residual / (2 s^2),     s^2 = mean residual of the reference rows / (D - d):

    the negative log-density, up to a constant, of a point of the surface with normal noise across it, of the variance that the
    reference rows have.

    Args:
        model: any model on Manifold(d, D), as :class:`~pushforward.models.RectangularFlow`.
        use: "both", "density" or "residual".

    Raises:
        KindError: for a model without a surface.
        ConfigError: for another ``use``.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import ManifoldLikelihood
        >>> plane = pf.models.Flow(pf.transforms.Pad(3, 2), pf.distributions.Normal(2))
        >>> score = ManifoldLikelihood(plane, use="residual")
        >>> score(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]))
        tensor([0., 9.], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "Jacobian"})

    def __init__(self, model: Model, use: str = "both") -> None:
        super().__init__()
        if model.measure.name != "Manifold":
            raise KindError(
                f"{type(model).__name__} is a density on {model.measure}, which no point is off: use Likelihood for it."
            )
        check_choice("use", use, ("both", "density", "residual"))
        self.model, self.use = model, use
        if use == "both":
            self.declare(variance=0)

    variance: Tensor

    def _learn(self, reference: Tensor) -> None:
        if self.use == "both":
            residual = by_batches(lambda part: self._parts(part)[1], reference, self.batch_size)
            across = self.model.measure.ambient - self.model.measure.dim
            # Rows that lie on the surface to rounding still need a width.
            smallest = torch.finfo(torch.float32).eps ** 2 * (1 + reference.double().square().mean())
            self.variance = torch.maximum(residual.mean() / across, smallest.to(residual.device))

    def _score(self, x: Tensor) -> Tensor:
        density, residual = self._parts(x)
        if self.use == "density":
            return density
        return residual if self.use == "residual" else density + residual / (2 * self.variance)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-log p and the residual, float64; +inf for a row that is infinitely far."""
        result = self.model.evaluate(x)
        assert result.residual is not None
        far = torch.isinf(x).flatten(1).any(1) if x.is_floating_point() else torch.zeros(len(x), dtype=torch.bool)
        return -result.value.double(), torch.where(far, math.inf, result.residual.double())
