"""Typicality: deviation of the log-likelihood from its in-distribution mean (Nalisnick et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import check_model, finite_reference, log_likelihood
from pushforward.detection.scores.two_sided import two_sided
from pushforward.models import Model
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.registry import register

__all__ = ["Typicality"]


@register("scores")
class Typicality(Score):
    """Distance of -log p(x) from its in-distribution mean: ``| -log p(x) - H |``, nats.

    H is the mean of -log p over the reference rows, an estimate of the model's entropy (Nalisnick et al. 2019, arXiv
    1906.02994, with a batch of one row). On training rows of an overfitted model H would be too low.

    With ``form="two-sided"`` the score is ``-log(2 min(p_low, p_high))``, where the p-values are ranks of -log p among the
    reference rows. Unlike the distance, this is correct for a skewed distribution of log p.

    Args:
        model: any model; a bound or an estimate of log p is used without correction.
        form: "absolute" or "two-sided".
        samples: number of draws of the model's noise, for a stochastic model.

    Raises:
        ConfigError: for an unknown form.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import Typicality
        >>> x = torch.randn(200, 2)
        >>> score = Typicality(pf.models.NICE(features=2)).fit(x)
        >>> bool(score(torch.zeros(1, 2)) > score(x).median())      # the mode is atypical
        True
    """

    def __init__(self, model: Model, form: str = "absolute", samples: int = 1) -> None:
        super().__init__()
        check_choice("form", form, ("absolute", "two-sided"))
        self.model, self.form, self.samples = check_model(model, "Typicality"), form, check_integer("samples", samples)
        self.declare(reference=1)

    reference: Tensor
    """-log p of each reference row, ascending."""

    def _surprise(self, x: Tensor) -> Tensor:
        return -log_likelihood(self.model, x, self.samples)

    def _learn(self, reference: Tensor) -> None:
        surprise = by_batches(self._surprise, reference, self.batch_size)
        self.reference = finite_reference(surprise, "-log p").sort().values

    def _score(self, x: Tensor) -> Tensor:
        surprise = self._surprise(x)
        if self.form == "two-sided":
            return two_sided(surprise, self.reference)
        return (surprise - self.reference.mean()).abs()
