"""Scores of an ensemble: combined likelihoods, and the disagreement between models of the same data."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn

from pushforward.detection.batching import by_batches
from pushforward.detection.modes import evaluation
from pushforward.detection.scores.base import Score
from pushforward.detection.scores.model_outputs import finite_reference, log_likelihood
from pushforward.detection.scores.two_sided import two_sided
from pushforward.errors import ConfigError, KindError, KindWarning, collected
from pushforward.models import Ensemble, Flow, Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_choice, check_integer, check_positive
from pushforward.registry import register
from pushforward.transforms import Chain

__all__ = [
    "WAIC",
    "Disagreement",
    "EnsembleEntropy",
    "EnsembleLikelihood",
    "EnsembleScore",
    "EnsembleStd",
    "EnsembleTypicality",
]


class EnsembleScore(Score):
    """Base class of scores of l_i(x) = log p(x | model i) over M models of the same data space.

    The models may differ by seed or bootstrap sample, or be draws from a posterior over weights. Each model is evaluated once.
    Stochastic models use the same noise, so that noise does not count as disagreement.

    Args:
        models: at least two models of the same shape and measure; or one :class:`~pushforward.models.Ensemble`; or one model
            whose base is an ensemble, as ``pf.FlowDensity`` fits it.
        samples: number of draws of the models' noise, for stochastic models.

    Raises:
        ConfigError: for fewer than two models, or models of different shapes.
        KindError: for models with different measures.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import WAIC
        >>> models = [pf.models.NICE(features=2) for _ in range(3)]  # trained from three seeds
        >>> WAIC(*models)(torch.zeros(4, 2)).shape
        torch.Size([4])
    """

    needs = frozenset({"forward", "ensemble"})

    def __init__(self, *models: Model | Ensemble, samples: int = 1) -> None:
        super().__init__()
        self.models, self.samples = nn.ModuleList(models), check_integer("samples", samples)
        members = self._members()
        if len(members) < 2:
            raise ConfigError(
                f"{type(self).__name__} compares several models: pass at least two models or an Ensemble."
            )
        if any(member.shape != members[0].shape for member in members):
            raise ConfigError("the models of an ensemble must have the same data shape.")
        if any(member.measure != members[0].measure for member in members):
            raise KindError(
                "the models of an ensemble must have the same measure: densities on different measures have different units."
            )

    @abstractmethod
    def _combine(self, logs: Tensor) -> Tensor:
        """The score, ``(n,)``, from log-likelihoods ``(M, n)``; NaN is replaced by +inf."""

    @final
    def log_likelihoods(self, x: Tensor) -> Tensor:
        """l_i(x) of every model, nats, float64, ``(M, n)``. One model is evaluated at a time."""
        with evaluation(self):
            return by_batches(lambda part: self._logs(part).T, self._check(x), self.batch_size).T

    @final
    def _logs(self, x: Tensor) -> Tensor:
        return torch.stack([log_likelihood(member, x, self.samples) for member in self._members()])

    @final
    def _score(self, x: Tensor) -> Tensor:
        score = self._combine(self._logs(x))
        return torch.where(torch.isnan(score), math.inf, score)  # from differences of -inf and -inf

    def _members(self) -> list[Model]:
        members: list[Any] = []
        for model in self.models:
            if isinstance(model, Ensemble):
                members += list(model.models)
            elif isinstance(model, Model) and isinstance(model.base, Ensemble) and len(self.models) == 1:
                with collected(KindWarning):  # already emitted when the ensemble was created
                    members += [Flow(Chain(model.chain, part.chain), part.base) for part in model.base.models]  # pyright: ignore[reportArgumentType, reportCallIssue]
            elif isinstance(model, Model):
                members.append(model)
            else:
                raise ConfigError(f"{type(self).__name__} needs models of pushforward; got {type(model).__name__}.")
        return members


def _positive(name: str, value: float) -> float:
    check_positive(name, value)
    return value


@register("scores")
class WAIC(EnsembleScore):
    """``-(mean_i l_i - lambda var_i l_i)``, nats (Choi et al. 2018, arXiv 1810.01392, with lambda = 1).

    The variance has the unit nats^2 and dominates in high dimension. ``form="std"`` uses the standard deviation instead.

    Args:
        models: see :class:`EnsembleScore`.
        weight: lambda; with 0 the score is minus the mean log-likelihood.
        form: "variance" or "std".
        samples: see :class:`EnsembleScore`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import WAIC
        >>> WAIC(pf.models.NICE(2), pf.models.RealNVP(2))(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    def __init__(
        self, *models: Model | Ensemble, weight: float = 1.0, form: str = "variance", samples: int = 1
    ) -> None:
        super().__init__(*models, samples=samples)
        check_choice("form", form, ("variance", "std"))
        check_positive("weight", weight, zero=True)
        self.weight, self.form = weight, form

    def _combine(self, logs: Tensor) -> Tensor:
        spread = logs.var(0, correction=0) if self.form == "variance" else logs.std(0, correction=0)
        return self.weight * spread - logs.mean(0)


@register("scores")
class EnsembleLikelihood(EnsembleScore):
    """``-(logsumexp_i l_i - log M)``, nats: -log p of the equal-weight mixture. The likelihoods need not be exact.

    Args:
        models: see :class:`EnsembleScore`.
        samples: see :class:`EnsembleScore`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import EnsembleLikelihood
        >>> EnsembleLikelihood(pf.models.NICE(2), pf.models.RealNVP(2))(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    def _combine(self, logs: Tensor) -> Tensor:
        return -logmeanexp(logs, 0)


@register("scores")
class Disagreement(EnsembleScore):
    """-D, where D = 1 / sum_i w_i^2 in [1, M] is the effective number of models for the row and w = softmax(l / T) (Daxberger
    and Hernandez-Lobato 2019, arXiv 1912.05651).

    If a row changes the weights of the models strongly, it carries information that the training data did not contain. If
    the log-likelihoods differ by many nats, D is 1 for all rows: check D / M on in-distribution rows, and increase T or use
    :class:`EnsembleStd` if it is near 1 / M.

    Args:
        models: see :class:`EnsembleScore`.
        temperature: the temperature T.
        samples: see :class:`EnsembleScore`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import Disagreement
        >>> model = pf.models.NICE(2)
        >>> Disagreement(model, model, model)(torch.zeros(1, 2))
        tensor([-3.], dtype=torch.float64)
    """

    def __init__(self, *models: Model | Ensemble, temperature: float = 1.0, samples: int = 1) -> None:
        super().__init__(*models, samples=samples)
        self.temperature = _positive("temperature", temperature)

    def _combine(self, logs: Tensor) -> Tensor:
        return -1 / torch.softmax(logs / self.temperature, 0).square().sum(0)


@register("scores")
class EnsembleEntropy(EnsembleScore):
    """``sum_i w_i log w_i``, minus the entropy of w = softmax(l / T), in [-log M, 0] (Glazunov and Zarras 2022, arXiv 2212.14272).

    exp(entropy) is at least the D of :class:`Disagreement`. Like D, it saturates if the log-likelihoods differ by many nats.

    Args:
        models: see :class:`EnsembleScore`.
        temperature: the temperature T.
        samples: see :class:`EnsembleScore`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import EnsembleEntropy
        >>> model = pf.models.NICE(2)
        >>> EnsembleEntropy(model, model)(torch.zeros(1, 2)).exp()
        tensor([0.5000], dtype=torch.float64)
    """

    def __init__(self, *models: Model | Ensemble, temperature: float = 1.0, samples: int = 1) -> None:
        super().__init__(*models, samples=samples)
        self.temperature = _positive("temperature", temperature)

    def _combine(self, logs: Tensor) -> Tensor:
        return -torch.special.entr(torch.softmax(logs / self.temperature, 0)).sum(0)


@register("scores")
class EnsembleStd(EnsembleScore):
    """``sqrt(var_i l_i)``, nats: the standard deviation of the log-likelihoods (Glazunov and Zarras 2022, arXiv 2212.14272).

    The variance is divided by M, not M - 1. The score does not depend on how likely the row is.

    Args:
        models: see :class:`EnsembleScore`.
        samples: see :class:`EnsembleScore`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import EnsembleStd
        >>> model = pf.models.NICE(2)
        >>> EnsembleStd(model, model)(torch.zeros(1, 2))
        tensor([0.], dtype=torch.float64)
    """

    def _combine(self, logs: Tensor) -> Tensor:
        return logs.std(0, correction=0)


@register("scores")
class EnsembleTypicality(EnsembleScore):
    """``| mean_i l_i - c |``, nats, where c is the mean of mean_i l_i over the reference rows (Glazunov and Zarras 2022).

    With ``form="two-sided"`` the score is ``-log(2 min(p_low, p_high))`` of the rank of mean_i l_i among the reference rows.

    Args:
        models: see :class:`EnsembleScore`.
        form: "absolute" or "two-sided".
        samples: see :class:`EnsembleScore`.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import EnsembleTypicality
        >>> score = EnsembleTypicality(pf.models.NICE(2), pf.models.RealNVP(2)).fit(torch.randn(99, 2))
        >>> score(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    def __init__(self, *models: Model | Ensemble, form: str = "absolute", samples: int = 1) -> None:
        super().__init__(*models, samples=samples)
        check_choice("form", form, ("absolute", "two-sided"))
        self.form = form
        self.declare(reference=1)

    reference: Tensor
    """Minus the mean log-likelihood of each reference row, ascending."""

    def _learn(self, reference: Tensor) -> None:
        surprise = by_batches(lambda part: -self._logs(part).mean(0), reference, self.batch_size)
        self.reference = finite_reference(surprise, "the mean log-likelihood").sort().values

    def _combine(self, logs: Tensor) -> Tensor:
        surprise = -logs.mean(0)
        if self.form == "two-sided":
            return two_sided(surprise, self.reference)
        return (surprise - self.reference.mean()).abs()
