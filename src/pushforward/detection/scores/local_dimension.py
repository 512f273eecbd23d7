"""Local intrinsic dimension: how many directions a flow's density has room in, around an input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score, Statistic
from pushforward.detection.scores.score_typicality import p_above
from pushforward.detection.without_preprocessing import WithoutPreprocessing, differentiable
from pushforward.distributions import Normal
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind
from pushforward.models import Model
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.registry import register

__all__ = ["DualThreshold", "LocalDimension", "local_pca_dimension"]


@register("scores")
class LocalDimension(Statistic):
    """Number of singular values of the generator's Jacobian above a scale s (Kamkari et al. 2024, "A geometric explanation
    of the likelihood OOD detection paradox", arXiv 2403.18910, sec. 4).

    With G the way from noise to data and sigma_i the singular values of dG/dz at z = f(y), data near y fill the
    directions with sigma_i > s, and the others are thin. They are found as 1 / those of df/dy, so nothing is inverted
    numerically; that costs D backward passes a row, and a singular value decomposition of D x D.

    ``smooth`` gives D + d log p_s(y) / d log s instead, where p_s is the density of G, linearized at z, convolved with
    N(0, s^2 I): sum_i sigma_i^2 / (sigma_i^2 + s^2) + s^2 sum_i sigma_i^2 (v_i . z)^2 / (sigma_i^2 + s^2)^2, v_i being the
    right singular vectors. It has no ties, and needs a standard normal base.

    y is the input behind dequantization, logit and standardization.

    Args:
        model: a flow: a bijection behind its preprocessing.
        scale: s; None finds the one at which the mean over the reference is that of :func:`local_pca_dimension` there.
        smooth: use the derivative instead of the count.
        rows: of the reference that the scale is found on, the first ones.
        neighbors: of each row in the local PCA.

    Raises:
        KindError: for a model that is no bijection.
        ConfigError: for a scale that is not positive, or ``smooth`` with another base.

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
        if not _bijective(WithoutPreprocessing(model)):
            raise KindError(
                f"{type(model).__name__} is no bijection behind its preprocessing: it has no square Jacobian."
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
        """One column."""
        return ("local dimension",)

    def _learn(self, reference: Tensor) -> None:
        if self.scale is not None:
            self.log_scale = torch.tensor(math.log(self.scale), dtype=torch.float64)
            return
        y, _ = WithoutPreprocessing(self.model).preprocess(reference)
        target = local_pca_dimension(y.flatten(1), self.neighbors, self.rows)
        spectra = by_batches(self._spectrum, reference[: self.rows], self.batch_size)

        def crossing(still: Callable[[Tensor], Tensor]) -> float:
            """The log-scale up to which it holds of the mean dimension, which falls from D to 0."""
            low, high = -40.0, 40.0
            for _ in range(60):
                middle = 0.5 * (low + high)
                mean = self._dimension(spectra, torch.tensor(middle, dtype=torch.float64)).mean()
                low, high = (middle, high) if still(mean) else (low, middle)
            return low

        # The count has plateaus, so both ends of the one at the target are sought.
        ends = crossing(lambda mean: mean > target), crossing(lambda mean: mean >= target)
        self.log_scale = torch.tensor(0.5 * sum(ends), dtype=torch.float64)

    def _values(self, x: Tensor) -> Tensor:
        return self._dimension(self._spectrum(x), self.log_scale)[:, None]

    def _dimension(self, spectrum: Tensor, log_scale: Tensor) -> Tensor:
        log_sigma, along = spectrum.unbind(-1)
        if not self.smooth:
            return (log_sigma > log_scale).double().sum(1)
        share = torch.sigmoid(2 * (log_sigma - log_scale))  # sigma^2 / (sigma^2 + s^2)
        return (share + share * (1 - share) * along.square()).sum(1)

    def _spectrum(self, x: Tensor) -> Tensor:
        """log sigma_i, and v_i . z if that is needed, float64, ``(n, D, 2)``."""
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
    """max(-log p_1, -log p_2): unlikely, or in a region of too few dimensions (Kamkari et al. 2024, arXiv 2403.18910,
    algorithm 1).

    Their rule alarms where log p(x) < t_1, or where the local dimension is below t_2. With both thresholds at one level of
    the reference it is this score: p_1 = (1 + #{reference no more likely than x}) / (n + 1), and p_2 likewise of
    :class:`LocalDimension`. The level is the only threshold left, and no pair is picked with anomalies at hand.

    Args:
        model: a flow: a bijection behind its preprocessing.
        scale: as in :class:`LocalDimension`, like all that follows.
        smooth: whether its dimension is smooth.
        rows: that its scale is found on.
        neighbors: of each in the local PCA.

    Raises:
        KindError: for a model that is no bijection.
        ConfigError: for arguments that LocalDimension refuses.

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


def local_pca_dimension(rows: Tensor, neighbors: int = 100, points: int = 128, share: float = 0.05) -> float:
    """Mean over points of the number of principal components of their neighbors whose variance exceeds a share of the
    largest (Fukunaga and Olsen 1971).

    Args:
        rows: ``(n, D)``.
        neighbors: k, at most n - 1 are used.
        points: the first so many rows are looked at.
        share: of the largest variance.

    Raises:
        InputError: for fewer than three rows.
    """
    if len(rows) < 3:
        raise InputError(f"a local dimension needs at least three rows; got {len(rows)}.")
    wide, counts = rows.double(), []
    for point in wide[:points]:
        near = (wide - point).square().sum(1).topk(min(neighbors, len(rows) - 1) + 1, largest=False).indices
        patch = wide[near]
        variance = torch.linalg.svdvals(patch - patch.mean(0)).square()
        counts.append((variance > share * variance[0]).sum().item())
    return sum(counts) / len(counts)


def _bijective(inner: WithoutPreprocessing) -> bool:
    chain = inner.chain
    # A flow that estimates its log-determinant is a bijection all the same.
    exact = chain.kind in (Kind.EXACT, Kind.UNBIASED)
    return exact and math.prod(chain.in_shape) == math.prod(inner.base.shape)
