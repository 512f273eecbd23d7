"""Local intrinsic dimension of a flow's density around an input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score, Statistic
from pushforward.detection.scores.model_outputs import check_model
from pushforward.detection.scores.score_typicality import p_above
from pushforward.detection.without_preprocessing import WithoutPreprocessing, differentiable
from pushforward.distributions import Normal
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind
from pushforward.models import Model
from pushforward.numerics.checks import check_integer, check_number, check_positive
from pushforward.registry import register

__all__ = ["DualThreshold", "LocalDimension", "local_pca_dimension"]


@register("scores")
class LocalDimension(Statistic):
    """Number of singular values of the generator's Jacobian above a scale s (Kamkari et al. 2024, "A geometric explanation
    of the likelihood OOD detection paradox", arXiv 2403.18910, sec. 4).

    Let G be the generator (noise to data) and sigma_i the singular values of dG/dz at z = f(y). Near y, the data extend
    along the directions with sigma_i > s and are thin along the others. The sigma_i are the reciprocals of the singular
    values of df/dy, so no numerical inversion is needed. The cost for each row is D backward passes and a singular value
    decomposition of D x D.

    ``smooth`` gives D + d log p_s(y) / d log s instead, where p_s is the density of G, linearized at z and convolved with
    N(0, s^2 I): sum_i sigma_i^2 / (sigma_i^2 + s^2) + s^2 sum_i sigma_i^2 (v_i . z)^2 / (sigma_i^2 + s^2)^2, where v_i are
    the right singular vectors. It has no ties, and needs a standard normal base.

    y is the input after dequantization, logit and standardization.

    Args:
        model: flow that is a bijection after its preprocessing.
        scale: s; None chooses the s for which the mean dimension of the reference equals :func:`local_pca_dimension`.
        smooth: whether to use the derivative instead of the count.
        rows: number of reference rows, from the first, on which the scale is fitted.
        neighbors: number of neighbors of each row in the local PCA.

    Raises:
        KindError: for a model that is not a bijection after its preprocessing.
        ConfigError: for a scale that is not positive, or ``smooth`` with a base that is not standard normal.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import LocalDimension
        >>> thin = pf.models.Flow(pf.transforms.Affine(3, scale=(1.0, 1.0, 100.0), trainable=True), pf.distributions.Normal(3))
        >>> LocalDimension(thin, scale=0.1).fit(torch.randn(9, 3)).values(torch.zeros(1, 3))
        tensor([[2.]], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "Jacobian"})
    batch_size: ClassVar[int] = 16
    log_scale: Tensor

    def __init__(
        self, model: Model, scale: float | None = None, smooth: bool = False, rows: int = 128, neighbors: int = 100
    ) -> None:
        super().__init__()
        check_model(model, type(self).__name__)
        if not _bijective(WithoutPreprocessing(model)):
            raise KindError(
                f"{type(model).__name__} is not a bijection after its preprocessing, so it has no square Jacobian: use a flow."
            )
        check_positive("scale", scale, optional=True)
        if smooth and not (isinstance(model.base, Normal) and not model.base.trainable):
            raise ConfigError(f"smooth needs a standard normal base; {type(model).__name__} has {model.base!r:.80}.")
        check_integer("rows", rows, 2)
        check_integer("neighbors", neighbors, 2)
        self.model, self.scale, self.smooth, self.rows, self.neighbors = model, scale, smooth, rows, neighbors
        self.declare(log_scale=0)

    @property
    def names(self) -> tuple[str, ...]:
        """The single column, "local dimension"."""
        return ("local dimension",)

    def _learn(self, reference: Tensor) -> None:
        if self.scale is not None:
            self.log_scale = torch.tensor(math.log(self.scale), dtype=torch.float64)
            return
        y, _ = WithoutPreprocessing(self.model).preprocess(reference)
        target = local_pca_dimension(y.flatten(1), self.neighbors, self.rows)
        spectra = by_batches(self._spectrum, reference[: self.rows], self.batch_size)

        def crossing(condition: Callable[[Tensor], Tensor]) -> float:
            """The largest log-scale at which the mean dimension, which decreases from D to 0, meets the condition."""
            low, high = -40.0, 40.0
            for _ in range(60):
                middle = 0.5 * (low + high)
                mean = self._dimension(spectra, torch.tensor(middle, dtype=torch.float64)).mean()
                low, high = (middle, high) if condition(mean) else (low, middle)
            return low

        # The count is a step function, so take the midpoint of the plateau at the target.
        ends = crossing(lambda mean: mean > target), crossing(lambda mean: mean >= target)
        self.log_scale = torch.tensor(0.5 * sum(ends), dtype=torch.float64)

    def _values(self, x: Tensor) -> Tensor:
        return self._dimension(self._spectrum(x), self.log_scale)[:, None]

    def _dimension(self, spectrum: Tensor, log_scale: Tensor) -> Tensor:
        log_sigma, along = spectrum.unbind(-1)
        if not self.smooth:
            return (log_sigma > log_scale).double().sum(1)
        fraction = torch.sigmoid(2 * (log_sigma - log_scale))  # sigma^2 / (sigma^2 + s^2)
        return (fraction + fraction * (1 - fraction) * along.square()).sum(1)

    def _spectrum(self, x: Tensor) -> Tensor:
        """log sigma_i, and v_i . z for ``smooth`` (else 0), float64, ``(n, D, 2)``."""
        inner = WithoutPreprocessing(self.model)
        y, _ = inner.preprocess(x)
        with differentiable(y) as at:
            z = inner.encode(at)[0].flatten(1)
            rows = [torch.autograd.grad(out.sum(), at, retain_graph=True)[0] for out in z.unbind(1)]
        jacobian = torch.stack([row.flatten(1) for row in rows], 1).double()
        if not self.smooth:
            log_sigma = -torch.linalg.svdvals(jacobian).clamp(1e-150, 1e150).log()
            return torch.stack((log_sigma, torch.zeros_like(log_sigma)), -1)
        left, slopes, _ = torch.linalg.svd(jacobian)
        along = (left.mT @ z.detach().double().clamp(-1e100, 1e100).unsqueeze(-1)).squeeze(-1)
        return torch.stack((-slopes.clamp(1e-150, 1e150).log(), along), -1)


@register("scores")
class DualThreshold(Score):
    """max(-log p_1, -log p_2): high for an unlikely input, and for one whose local dimension is small (Kamkari et al. 2024,
    arXiv 2403.18910, algorithm 1).

    The paper raises an alarm if log p(x) < t_1 or the local dimension is below t_2. This score sets both thresholds at the
    same quantile of the reference: p_1 = (1 + #{reference no more likely than x}) / (n + 1), and
    p_2 = (1 + #{reference of no larger :class:`LocalDimension` than x}) / (n + 1). So one threshold is left, and it can be
    calibrated without anomalies.

    Args:
        model: flow that is a bijection after its preprocessing.
        scale: see :class:`LocalDimension`.
        smooth: see :class:`LocalDimension`.
        rows: see :class:`LocalDimension`.
        neighbors: see :class:`LocalDimension`.

    Raises:
        KindError: for a model that is not a bijection after its preprocessing.
        ConfigError: for arguments that :class:`LocalDimension` rejects.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import DualThreshold
        >>> flow = pf.models.Flow(pf.transforms.Affine(2, trainable=True), pf.distributions.Normal(2))
        >>> score = DualThreshold(flow).fit(torch.randn(99, 2, generator=torch.Generator().manual_seed(0)))
        >>> score(torch.full((1, 2), 9.0)).exp()            # -log p_1 with p_1 = 1/100
        tensor([100.0000], dtype=torch.float64)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"forward", "Jacobian"})
    batch_size: ClassVar[int] = 16
    surprise: Tensor
    flatness: Tensor

    def __init__(
        self, model: Model, scale: float | None = None, smooth: bool = False, rows: int = 128, neighbors: int = 100
    ) -> None:
        super().__init__()
        check_model(model, type(self).__name__)
        self.model, self.scale, self.smooth, self.rows, self.neighbors = model, scale, smooth, rows, neighbors
        self.dimension = LocalDimension(model, scale, smooth, rows, neighbors)
        self.declare(surprise=1, flatness=1)

    def _learn(self, reference: Tensor) -> None:
        self.dimension.fit(reference)
        self.surprise = by_batches(self._surprise, reference, self.batch_size).sort().values
        self.flatness = -self.dimension.values(reference)[:, 0].sort(descending=True).values

    def _score(self, x: Tensor) -> Tensor:
        surprise = self._surprise(x)
        likelihood = p_above(self.surprise, surprise)
        dimension = p_above(self.flatness, -self.dimension._values(x)[:, 0])
        return torch.where(torch.isposinf(surprise), math.inf, -torch.minimum(likelihood, dimension).log())

    def _surprise(self, x: Tensor) -> Tensor:
        return -self.model.evaluate(x).value.double()


def local_pca_dimension(rows: Tensor, neighbors: int = 100, points: int = 128, fraction: float = 0.05) -> float:
    """Mean local dimension by PCA: the number of principal components of a point's neighbors whose variance exceeds a fraction
    of the largest variance, averaged over points (Fukunaga and Olsen 1971).

    Args:
        rows: data, ``(n, D)``.
        neighbors: number of neighbors of each point; at most n - 1 are used.
        points: number of rows, from the first, that are used as points.
        fraction: smallest variance that counts, as a fraction of the largest.

    Raises:
        InputError: for fewer than three rows, or values that are not finite.
        ConfigError: for another argument out of its range.

    Example:
        >>> import torch
        >>> from pushforward.detection.scores import local_pca_dimension
        >>> t = torch.rand(500, 1, generator=torch.Generator().manual_seed(0))
        >>> local_pca_dimension(torch.cat((t, 2 * t, -t), 1), neighbors=20)
        1.0
    """
    check_integer("neighbors", neighbors)
    check_integer("points", points)
    check_number("fraction", fraction, 0, 1)
    if not isinstance(rows, Tensor) or rows.dim() != 2 or len(rows) < 3 or not torch.isfinite(rows).all():
        raise InputError("local_pca_dimension needs at least three rows of finite numbers, a tensor of shape (n, D).")
    rows, counts = rows.double(), []
    for point in rows[:points]:
        near = (rows - point).square().sum(1).topk(min(neighbors, len(rows) - 1) + 1, largest=False).indices
        local = rows[near]
        variance = torch.linalg.svdvals(local - local.mean(0)).square()
        counts.append((variance > fraction * variance[0]).sum().item())
    return sum(counts) / len(counts)


def _bijective(inner: WithoutPreprocessing) -> bool:
    chain = inner.chain
    # A flow with an unbiased estimate of its log-determinant is a bijection too.
    exact = chain.kind in (Kind.EXACT, Kind.UNBIASED)
    return exact and math.prod(chain.in_shape) == math.prod(inner.base.shape)
