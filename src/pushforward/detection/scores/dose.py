"""Density of states estimation: a density over several statistics (Morningstar et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pushforward.detection.batching import by_batches
from pushforward.detection.scores.base import Need, Score, Statistic
from pushforward.detection.scores.densities import gaussian, gmm, kde, log_gaussians, log_kde
from pushforward.detection.scores.model_outputs import far_rows, finite_reference
from pushforward.detection.scores.two_sided import TwoSidedScore
from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_choice, check_integer, check_seed
from pushforward.registry import register

__all__ = ["DoSE"]


@register("scores")
class DoSE(Score):
    """-log q(T(x)) in nats, where q is a density of the statistics T, fitted on in-distribution rows.

    Density of states estimation (Morningstar et al. 2021, arXiv 2006.09273). The columns of all statistics are standardized
    by their mean and standard deviation on the reference rows (a column that is constant there keeps scale 1), and q is
    fitted on the standardized columns:

    - "gaussian": a normal with a shrunk covariance (Ledoit and Wolf 2004); -log q is half a squared Mahalanobis distance
      plus a constant;
    - "kde": the product of one-dimensional kernel density estimates, as in the paper; it stores the reference statistics;
    - "gmm": a small mixture of normals, with fewer components if there are few rows.

    The score is two-sided: both too small and too large values are rare under q. The reference rows must not be training rows of
    the model, because the statistics of an overfitted model differ on its training rows.

    Args:
        statistics: at least one :class:`~pushforward.detection.scores.Statistic` (scores included), fitted on the same
            reference rows. A two-sided score contributes the number that it ranks, since q is two-sided itself.
        density: "gaussian", "kde" or "gmm".
        components: largest number of components of the mixture.
        refit: whether to refit statistics that are already fitted. Use False for a statistic that must be fitted on training
            rows, such as a distance to the nearest rows, which would find the reference rows themselves.
        seed: seed of the mixture's initialization.

    Raises:
        ConfigError: for no statistics, an unknown density, fewer than one component, or a seed that is no integer.
        InputError: by :meth:`fit`, for an infinite statistic, or fewer than two rows.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection.scores import DoSE, LikelihoodPath
        >>> model = pf.models.RealNVP(features=2, hidden=(8,))
        >>> score = DoSE(LikelihoodPath(model)).fit(torch.randn(99, 2))
        >>> score(torch.tensor([[0.5, 0.5], [9.0, 9.0]])).argmax().item()
        1
    """

    def __init__(
        self, *statistics: Statistic, density: str = "gaussian", components: int = 3, refit: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        if not statistics or not all(isinstance(part, Statistic) for part in statistics):
            raise ConfigError("DoSE combines statistics: pass at least one Statistic.")
        check_choice("density", density, ("gaussian", "kde", "gmm"))
        check_integer("components", components)
        check_seed(seed)
        self.statistics = nn.ModuleList(statistics)
        self.density, self.components, self.refit, self.seed = density, components, refit, seed
        self.needs: frozenset[Need] = frozenset().union(*(part.needs for part in statistics))  # pyright: ignore[reportIncompatibleVariableOverride]
        self.declare(center=1, scale=1)
        if density == "kde":
            self.declare(points=2, bandwidths=1)
        else:
            self.declare(log_weights=1, means=2, whitenings=3)

    center: Tensor
    scale: Tensor
    points: Tensor
    bandwidths: Tensor
    log_weights: Tensor
    means: Tensor
    whitenings: Tensor

    def columns(self, x: Tensor) -> Tensor:
        """All statistics of each row, float64, ``(n, columns)``; see :attr:`column_names`."""
        return torch.cat(
            [part.numbers(x)[:, None] if isinstance(part, TwoSidedScore) else part.values(x) for part in self._parts()],
            1,
        )

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns of :meth:`columns`: class and column, such as "LikelihoodPath.base"."""
        return tuple(f"{type(part).__name__}.{name}" for part in self._parts() for name in part.names)

    def _learn(self, reference: Tensor) -> None:
        for part in self._parts():
            if self.refit or not part.fitted:
                part.fit(reference)
        values = finite_reference(by_batches(self.columns, reference, self.batch_size), "a statistic")
        if len(values) < 2:
            raise InputError(f"DoSE needs at least two reference rows; got {len(values)}.")
        self.center, spread = values.mean(0), values.std(0, correction=0)
        self.scale = torch.where(spread > 1e-9 * self.center.abs(), spread, 1.0)  # a smaller spread is only rounding
        rows = (values - self.center) / self.scale
        if self.density == "kde":
            self.points, self.bandwidths = kde(rows)
        elif self.density == "gaussian":
            self.log_weights, self.means, self.whitenings = gaussian(rows, type(self).__name__)
        else:
            self.log_weights, self.means, self.whitenings = gmm(rows, self.components, self.seed)

    def _score(self, x: Tensor) -> Tensor:
        values = self.columns(x)
        far = far_rows(x) | ~torch.isfinite(values).all(1)
        rows = (torch.where(far[:, None], self.center, values) - self.center) / self.scale
        if self.density == "kde":
            log_q = log_kde(rows, self.points, self.bandwidths)
        else:
            log_q = log_gaussians(rows, self.log_weights, self.means, self.whitenings)
        return torch.where(far, math.inf, -log_q)

    def _parts(self) -> Iterable[Statistic]:
        return iter(self.statistics)  # pyright: ignore[reportReturnType]
