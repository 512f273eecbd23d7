"""Analysis of data with a higher likelihood than the training data: variances, means, and the curvature of log p.

"Do deep generative models know what they don't know?" (Nalisnick, Matsukawa, Teh, Gorur and Lakshminarayanan 2019, arXiv
1810.09136, sec. 5). All quantities refer to the coordinates y after dequantization, logit and standardization, because the
log-determinant of an additive flow is constant in y but not in the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pushforward.detection.without_preprocessing import WithoutPreprocessing, differentiable
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import LogLik
from pushforward.models import Model
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_number

__all__ = [
    "LikelihoodGap",
    "LikelihoodTerms",
    "graying",
    "likelihood_terms",
    "mixture_log_likelihood",
    "second_order_gap",
]


@dataclass(frozen=True)
class LikelihoodTerms:
    """The terms whose sum is log p(x), nats, float64, ``(n,)`` each.

    Attributes:
        base: log p_z(f(y)).
        volume: log abs det df/dy.
        preprocessing: contributions of dequantization, logit and standardization.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.curvature import likelihood_terms
        >>> model = pf.models.NICE(features=2)
        >>> terms = likelihood_terms(model, torch.zeros(3, 2))
        >>> torch.allclose(terms.base + terms.volume + terms.preprocessing, model.log_prob(torch.zeros(3, 2)).double())
        True
    """

    base: Tensor
    volume: Tensor
    preprocessing: Tensor

    @property
    def total(self) -> Tensor:
        """log p(x), or its bound."""
        return self.base + self.volume + self.preprocessing


@torch.no_grad()
def likelihood_terms(model: Model, x: Tensor, *, batch_size: int = 256) -> LikelihoodTerms:
    """The base, volume and preprocessing terms of log p for each row.

    Args:
        model: model without a context; "volume" is the contribution of its transforms, a log-determinant for flows.
        x: rows, ``(n, *shape)``.
        batch_size: number of rows in one evaluation.

    Raises:
        InputError: for no rows, or rows that are invalid for the model.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.curvature import likelihood_terms
        >>> flow = pf.models.Flow(pf.transforms.Affine(2, scale=2.0, trainable=True), pf.distributions.Normal(2))
        >>> likelihood_terms(flow, torch.zeros(1, 2)).volume        # 2 log 2
        tensor([1.3863], dtype=torch.float64)
    """
    inner, found = WithoutPreprocessing(model), []
    for y, added in _reached(inner, x, batch_size):
        z, volume = inner.encode(y)
        found.append(torch.stack((inner.base.log_prob(z).double(), volume.double(), added.double())))
    return LikelihoodTerms(*torch.cat(found, 1))


@dataclass(frozen=True)
class LikelihoodGap:
    """E_q log p - E_p log p in nats: the second-order prediction and the observed value.

    Attributes:
        first: g . (E_q y - E_p y).
        second: 1/2 Tr[H (C_q - C_p)].
        observed: difference of the mean log-densities of y.
        error: standard error of the predicted gap over the rows.
        observed_error: standard error of the observed gap over the rows.

    Example:
        >>> from pushforward.detection.curvature import LikelihoodGap
        >>> gap = LikelihoodGap(first=0.0, second=30.0, observed=28.0, error=1.0, observed_error=1.0)
        >>> gap.first + gap.second
        30.0
    """

    first: float
    second: float
    observed: float
    error: float
    observed_error: float

    @property
    def predicted(self) -> float:
        """The predicted gap: first plus second order."""
        return self.first + self.second


def second_order_gap(
    model: Model, reference: Tensor, other: Tensor, *, at: Tensor | None = None, batch_size: int = 256
) -> LikelihoodGap:
    """Predict the likelihood gap between two data sets from their first two moments and the derivatives of log p at one point.

    With g and H the gradient and Hessian of log p(y) at y0, and C_r = E_r (y - y0)(y - y0)^T,

        E_q log p - E_p log p  ~  g . (E_q y - E_p y) + 1/2 Tr[H (C_q - C_p)]

    (eq. 3-5 of the paper, here for different means). Tr[H C_r] is the mean of (y - y0)^T H (y - y0) over the rows of r, with
    one Hessian-vector product for each row; this is exact for the sample covariance. If H is negative definite, as for an
    additive flow with a log-concave base, the sign of the second term depends on the variances only.

    Args:
        model: model without a context whose log p(y) is a density.
        reference: rows of p, ``(n, *shape)``, usually like the training data.
        other: rows of q, ``(m, *shape)``.
        at: y0, in the coordinates y; None for the mean of the reference.
        batch_size: number of rows in one evaluation.

    Raises:
        KindError: for a model of integers without dequantization, whose log p has no derivatives.
        InputError: for no rows, rows that are invalid for the model, or rows with probability 0.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.curvature import second_order_gap
        >>> flow = pf.models.Flow(pf.transforms.Affine(2, trainable=True), pf.distributions.Normal(2))
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> gap = second_order_gap(flow, x, 0.5 * x)              # less variance, higher likelihood
        >>> gap.predicted > 0, abs(gap.predicted - gap.observed) < 1e-4
        (True, True)
    """
    inner = WithoutPreprocessing(model)
    if inner.measure.name != "Lebesgue":
        raise KindError(
            f"{type(model).__name__} after its preprocessing is a density on {inner.measure}, and derivatives need a density on "
            "Lebesgue: use a model with dequantization."
        )
    if at is None:
        parts = [y.double().sum(0) for y, _ in _reached(inner, reference, batch_size)]
        at = torch.stack(parts).sum(0) / len(reference)
    at = at.to(model.dtype)
    orders: list[Tensor] = []
    for rows in (other, reference):
        found = [(added, _orders(inner, y, at)) for y, added in _reached(inner, rows, batch_size)]
        # A row with probability 0 has added = -inf, and -inf * 0 is NaN, which is rejected below.
        orders.append(torch.cat([added[:, None] * 0 + terms for added, terms in found]))
    if not all(torch.isfinite(part).all() for part in orders):
        raise InputError(
            "some rows have probability 0 under the model, so the gap of the mean log-likelihoods is not finite: remove them."
        )
    q, p = orders
    first, second, observed = (q.mean(0) - p.mean(0)).tolist()

    def error(*columns: int) -> float:
        spread = [part[:, list(columns)].sum(1).var(correction=0).item() / len(part) for part in (q, p)]
        return math.sqrt(sum(spread))

    return LikelihoodGap(first, second, observed, error(0, 1), error(2))


def _orders(inner: WithoutPreprocessing, y: Tensor, at: Tensor) -> Tensor:
    """g . v, v . H v / 2, and log p(y) of each row, for v = y - y0; float64, ``(n, 3)``."""
    step = y - at
    # The fused kernel of attention has no second derivatives.
    with sdpa_kernel(SDPBackend.MATH), differentiable(at.expand_as(y)) as point:
        (slope,) = torch.autograd.grad(inner(point).sum(), point, create_graph=True)
        hessian_product = torch.zeros_like(point)
        if slope.requires_grad:
            (hessian_product,) = torch.autograd.grad(
                (slope * step).sum(), point, allow_unused=True, materialize_grads=True
            )
    with torch.no_grad():
        value = inner(y).double()
    first = (slope.detach().double() * step.double()).flatten(1).sum(1)
    second = 0.5 * (hessian_product.detach().double() * step.double()).flatten(1).sum(1)
    return torch.stack((first, second, value), 1)


def graying(x: Tensor, amount: float, gray: Tensor | float) -> Tensor:
    """Reduce the contrast of images: (1 - t) x + t m, whose variance is (1 - t)^2 times that of x; integers stay integers.

    Args:
        x: images, ``(n, *shape)``.
        amount: t, in [0, 1].
        gray: m, a number or a tensor that broadcasts to x, such as a mean image.

    Raises:
        ConfigError: for an amount outside [0, 1].
        InputError: for a gray that does not broadcast to the images, or that their integers cannot represent.

    Example:
        >>> import torch
        >>> from pushforward.detection.curvature import graying
        >>> graying(torch.tensor([[0, 255]], dtype=torch.uint8), 0.5, 128.0)
        tensor([[ 64, 192]], dtype=torch.uint8)
    """
    check_number("amount", amount, 0, 1, closed="both")
    if not isinstance(x, Tensor) or x.dtype == torch.bool or x.is_complex():
        raise InputError("graying needs a tensor of images, of integers or real numbers.")
    m = torch.as_tensor(gray, dtype=torch.float64, device=x.device)
    try:
        mixed = (1 - amount) * x.double() + amount * m.expand(x.shape)
    except RuntimeError:
        raise InputError(
            f"gray must be a number or broadcast to images of shape {tuple(x.shape)}; it has the shape {tuple(m.shape)}."
        ) from None
    if x.is_floating_point():
        return mixed.to(x.dtype)
    limits = torch.iinfo(x.dtype)
    if m.numel() and not bool(((m >= limits.min) & (m <= limits.max)).all()):
        raise InputError(
            f"gray must lie in the range of {x.dtype}, {limits.min} to {limits.max}; got {m.flatten()[0]:g}."
        )
    return mixed.round().to(x.dtype)


@torch.no_grad()
def mixture_log_likelihood(models: Sequence[Model], x: Tensor, *, batch_size: int = 256) -> Tensor:
    """log mean_m p_m(x), nats, float64, ``(n,)``: the log-likelihood of an equal-weight mixture of models.

    Args:
        models: at least one model.
        x: rows, ``(n, *shape)``.
        batch_size: number of rows in one evaluation.

    Raises:
        ConfigError: for no model.
        KindError: for models with different measures.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.curvature import mixture_log_likelihood
        >>> mixture_log_likelihood([pf.models.NICE(2), pf.models.RealNVP(2)], torch.zeros(3, 2)).shape
        torch.Size([3])
    """
    if not models:
        raise ConfigError("a mixture needs at least one model.")
    if len({model.measure for model in models}) > 1:
        raise KindError("the models of a mixture must have the same measure, or their densities cannot be averaged.")

    def values(model: Model) -> Tensor:
        results: list[LogLik] = [model.evaluate(part) for part in x.split(batch_size)]
        return torch.cat([result.value.double() for result in results])

    return logmeanexp(torch.stack([values(model) for model in models]), 0)


def _reached(inner: WithoutPreprocessing, x: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    if len(x) == 0:
        raise InputError("a mean log-likelihood needs at least one row; got none.")
    for part in x.split(batch_size):
        yield inner.preprocess(part)
