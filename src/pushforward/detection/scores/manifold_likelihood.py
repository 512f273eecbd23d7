"""Score of a density on a manifold: the density, the distance to the manifold, or the likelihood with normal noise."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score
from pushforward.detection.scores.model_outputs import check_model, far_rows, finite_reference
from pushforward.errors import KindError
from pushforward.models import Model
from pushforward.numerics.checks import check_choice
from pushforward.registry import register

__all__ = ["ManifoldLikelihood"]


@register("scores")
class ManifoldLikelihood(Score):
    """-log p on the manifold, the squared distance to it, or both combined in nats.

    "density" is -log p at the row's projection g+(x), which ignores the distance to the manifold. "residual" is
    norm(x - g(g+(x)))^2, which ignores the density on the manifold. "both" is

        -log p(g+(x)) + residual / (2 s^2),     s^2 = mean residual of the reference rows / (D - d):

    up to a constant, this is the negative log-density of a point on the manifold plus normal noise orthogonal to it, whose
    variance s^2 is fitted on the reference rows.

    Args:
        model: model with the measure Manifold(d, D), such as :class:`~pushforward.models.RectangularFlow`.
        use: "both", "density" or "residual".

    Raises:
        KindError: for a model that is not a density on a manifold; when it scores, for one without a distance to its
            manifold, such as a flow on the sphere.
        ConfigError: for an unknown ``use``.

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
        check_model(model, type(self).__name__)
        if model.measure.name != "Manifold":
            raise KindError(
                f"{type(model).__name__} is a density on {model.measure}, not on a manifold: use the score Likelihood."
            )
        check_choice("use", use, ("both", "density", "residual"))
        self.model, self.use = model, use
        if use == "both":
            self.declare(variance=0)

    variance: Tensor

    def _learn(self, reference: Tensor) -> None:
        if self.use == "both":
            residual = finite_reference(
                by_batches(lambda part: self._parts(part)[1], reference, self.batch_size),
                "the distance to the manifold",
            )
            across = self.model.measure.ambient - self.model.measure.dim
            # If the rows are on the manifold up to rounding, the variance must still be positive.
            smallest = torch.finfo(torch.float32).eps ** 2 * (1 + reference.double().square().mean())
            self.variance = torch.maximum(residual.mean() / across, smallest.to(residual.device))

    def _score(self, x: Tensor) -> Tensor:
        density, residual = self._parts(x)
        if self.use == "density":
            return density
        return residual if self.use == "residual" else density + residual / (2 * self.variance)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-log p and the residual, float64; +inf for a row with an infinite entry."""
        result = self.model.evaluate(x)
        if result.residual is None:
            raise KindError(
                f"{type(self.model).__name__} has no distance to its manifold: use a model with a residual, such as TwoStep, "
                "or the score Likelihood."
            )
        return -result.value.double(), torch.where(far_rows(x), math.inf, result.residual.double())
