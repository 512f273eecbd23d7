"""The negative log-likelihood as a score."""

from __future__ import annotations

from torch import Tensor

from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import check_model
from pushforward.models import Model
from pushforward.numerics.checks import check_integer
from pushforward.registry import register

__all__ = ["Likelihood"]


@register("scores")
class Likelihood(Score):
    """-log p(x) in nats, the baseline score (Bishop 1994).

    Other data that are smoother or vary less than the training data get *lower* scores (Nalisnick et al. 2019).

    Args:
        model: any model; a bound or an estimate of log p is used without correction.
        samples: number of draws of the model's noise, for a stochastic model.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import Likelihood
        >>> score = Likelihood(pf.models.NICE(features=2))
        >>> score(torch.tensor([[0.0, 0.0], [3.0, 3.0]])).argmax().item()
        1
    """

    def __init__(self, model: Model, samples: int = 1) -> None:
        super().__init__()
        self.model, self.samples = check_model(model, type(self).__name__), check_integer("samples", samples)

    def _score(self, x: Tensor) -> Tensor:
        return -self.model.evaluate(x, samples=self.samples).value
