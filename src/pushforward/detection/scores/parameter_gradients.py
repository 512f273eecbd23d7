"""Scores from gradients with respect to the weights: layer-wise gradient norms, and the Fisher score."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.sample_gradients import sample_gradients
from pushforward.detection.scores.base import Need, Score, Statistic
from pushforward.detection.scores.model_outputs import check_model, finite_reference
from pushforward.detection.without_preprocessing import WithoutPreprocessing
from pushforward.errors import ConfigError
from pushforward.models import Model
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.registry import register

__all__ = ["FisherScore", "LayerGradients", "ParameterGradients"]

_FLOOR = 1e-38
"""Lower bound of squared norms, so that their logarithms are finite."""


@register("scores")
class ParameterGradients(Statistic):
    """log ||d log p(x) / d theta_g||^2 of each group g of weights (Dauncey et al. 2024, "Approximations to the Fisher
    information metric of deep generative models for out-of-distribution detection", arXiv 2403.01485).

    A training step on a row unlike the training data would change the weights more. The norms of different tensors differ by
    orders of magnitude, so they are separate columns. Their logarithms are approximately normal on in-distribution data.

    Args:
        model: model with weights and without a context.
        groups: number of groups of consecutive tensors; None for one group per tensor.

    Raises:
        ConfigError: for a model without weights, or more groups than tensors.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import ParameterGradients
        >>> statistic = ParameterGradients(pf.models.Flow(pf.transforms.Affine(2, trainable=True), pf.distributions.Normal(2)))
        >>> statistic.values(torch.tensor([[3.0, 4.0]])).exp()      # ||-x||^2 and ||1 - x^2||^2
        tensor([[ 25.0000, 289.0000]], dtype=torch.float64)
        >>> statistic.names
        ('chain.transforms.0.offset', 'chain.transforms.0.log_factor')
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "backward"})
    batch_size: ClassVar[int] = 64

    def __init__(self, model: Model, groups: int | None = None) -> None:
        super().__init__()
        self.model, self.groups = check_model(model, type(self).__name__), groups
        count = len(_tensors(model))
        if count == 0:
            raise ConfigError(
                f"{type(model).__name__} has no weights, and ParameterGradients needs the gradient with respect to them."
            )
        check_integer("groups", groups, most=count, optional=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the tensor, or the names of the first and last tensors of a group."""
        tensors = _tensors(self.model)
        ends = [(tensors[group[0]], tensors[group[-1]]) for group in self._groups()]
        return tuple(first if first == last else f"{first} ... {last}" for first, last in ends)

    def _groups(self) -> list[list[int]]:
        count = len(_tensors(self.model))
        return [group.tolist() for group in torch.arange(count).tensor_split(self.groups or count)]

    def _values(self, x: Tensor) -> Tensor:
        squares = squared_norms(self.model, x)
        grouped = torch.stack([squares[:, group].sum(1) for group in self._groups()], 1)
        return grouped.clamp(min=_FLOOR).log()


@register("scores")
class LayerGradients(Score):
    """-sum_l log N(f_l; mu_l, sigma_l^2) of the layers' log gradient norms f_l, fitted on reference rows (Dauncey et al.
    2024, arXiv 2403.01485, sec. 4).

    The score is two-sided, has no hyperparameters, and does not depend on invertible preprocessing of the data. Tensors whose
    gradient norm is constant on the reference are ignored.

    Args:
        model: model with weights and without a context.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LayerGradients
        >>> draw = torch.Generator().manual_seed(0)
        >>> flow = pf.models.Flow(pf.transforms.Affine(2, trainable=True), pf.distributions.Normal(2))
        >>> score = LayerGradients(flow).fit(torch.randn(100, 2, generator=draw))
        >>> score(torch.tensor([[0.5, 1.5], [30.0, 30.0]])).argmax().item()
        1
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "backward"})
    batch_size: ClassVar[int] = 64
    mean: Tensor
    std: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = check_model(model, type(self).__name__)
        self.declare(mean=1, std=1)

    def _learn(self, reference: Tensor) -> None:
        _check_support(self.model, reference, self.batch_size)
        logs = by_batches(self._logs, reference, self.batch_size)
        self.mean, self.std = logs.mean(0), logs.std(0, correction=0)

    def _score(self, x: Tensor) -> Tensor:
        varies = self.std > 1e-9 * (1 + self.mean.abs())
        scale = torch.where(varies, self.std, 1.0)
        u = (self._logs(x) - self.mean) / scale
        terms = 0.5 * u * u + scale.log() + 0.5 * math.log(2 * math.pi)
        return infinite_outside_support(self.model, x, torch.where(varies, terms, 0.0).sum(1))

    def _logs(self, x: Tensor) -> Tensor:
        return squared_norms(self.model, x).clamp(min=_FLOOR).log()


@register("scores")
class FisherScore(Score):
    """||F^(-1/2) d log p(x) / d theta||: Rao's score statistic with a diagonal Fisher information (Bergamin et al. 2022,
    "Model-agnostic out-of-distribution detection using combined statistical tests", arXiv 2203.01097, sec. 3.2).

    F is the mean squared gradient over the reference rows plus ``damping``, one number for each weight.

    Args:
        model: model with weights and without a context.
        damping: positive constant added to F, so that weights with zero gradient on the reference do not dominate.

    Raises:
        ConfigError: for a damping that is not positive.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import FisherScore
        >>> draw = torch.Generator().manual_seed(0)
        >>> score = FisherScore(pf.models.NICE(2, hidden=(8,))).fit(torch.randn(100, 2, generator=draw))
        >>> score(torch.tensor([[0.0, 1.0], [30.0, 30.0]])).argmax().item()
        1
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "backward"})
    batch_size: ClassVar[int] = 64
    fisher: Tensor

    def __init__(self, model: Model, damping: float = 1e-8) -> None:
        super().__init__()
        check_positive("damping", damping)
        self.model, self.damping = check_model(model, type(self).__name__), damping
        self.declare(fisher=1)

    def _learn(self, reference: Tensor) -> None:
        _check_support(self.model, reference, self.batch_size)
        inner, total = WithoutPreprocessing(self.model), torch.zeros(())
        for part in reference.split(self.batch_size):
            for chunk in sample_gradients(inner, inner.preprocess(part)[0]):
                total = total + _flat(chunk).square().sum(0)
        self.fisher = total / len(reference)

    def _score(self, x: Tensor) -> Tensor:
        inner, weight = WithoutPreprocessing(self.model), self.fisher + self.damping
        chunks = sample_gradients(inner, inner.preprocess(x)[0])
        squares = torch.cat([(_flat(chunk).square() / weight).sum(1) for chunk in chunks])
        return infinite_outside_support(self.model, x, squares.sqrt())


def squared_norms(model: Model, x: Tensor) -> Tensor:
    """||d log p(x_i) / d theta_t||^2 for each row i and tensor t, float64, ``(n, tensors)``."""
    inner = WithoutPreprocessing(model)
    chunks = sample_gradients(inner, inner.preprocess(x)[0])
    return torch.cat([torch.stack([_square(g) for g in chunk.values()], 1) for chunk in chunks])


def infinite_outside_support(model: Model, x: Tensor, score: Tensor) -> Tensor:
    """The score, replaced by +inf for rows outside the support or with an infinite entry."""
    return torch.where(torch.isneginf(WithoutPreprocessing(model).preprocess(x)[1]), math.inf, score)


def _check_support(model: Model, reference: Tensor, batch_size: int) -> None:
    """Refuse reference rows outside the support or with an infinite entry, whose gradients mean nothing."""
    finite_reference(
        by_batches(lambda part: WithoutPreprocessing(model).preprocess(part)[1], reference, batch_size), "-log p"
    )


def _square(gradient: Tensor) -> Tensor:
    # A gradient is NaN only if the row has probability 0, and then the score is set to +inf.
    return torch.nan_to_num(_rows(gradient).double(), 0.0, 1e150, -1e150).square().sum(1)


def _flat(chunk: dict[str, Tensor]) -> Tensor:
    flat = torch.cat([_rows(gradient) for gradient in chunk.values()], 1).double()
    return torch.nan_to_num(flat, 0.0, 1e150, -1e150)


def _rows(gradient: Tensor) -> Tensor:
    """One row of numbers for each sample; a weight that is a single number has gradients ``(n,)``."""
    return gradient.unsqueeze(-1).flatten(1)


def _tensors(model: Model) -> list[str]:
    """Names of the weights in the model, in the order of the columns of :func:`squared_norms`."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    return [names[id(weight)] for weight in WithoutPreprocessing(model).parameters()]
