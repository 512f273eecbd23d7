"""Calibration of posteriors on fresh simulations: ranks (SBC), expected coverage, TARP, and conformal regions."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.errors import InputError, warn_caller
from pushforward.inference.nle import LikelihoodPosterior
from pushforward.inference.posterior import SimulationPosterior, check_finite_rows, check_posterior
from pushforward.inference.real_numbers import as_numbers
from pushforward.models.sampling import seeded_generator
from pushforward.numerics.checks import check_choice, check_integer, check_number
from pushforward.training.progress import STYLES, Style, make_reporter

__all__ = ["Calibration", "ConformalRegion", "calibrate", "finite_pairs", "uniformity_p_value"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Where the true parameters of fresh simulations lie among the draws of their posteriors.

    If the posterior is right, every column below is uniform on [0, 1].

    Attributes:
        ranks: fraction of draws below the true parameter, for each parameter ``(n, D)`` (Talts et al. 2018).
        density_ranks: fraction of draws whose posterior density is larger than that of the true parameter, ``(n,)``
            (Hermans et al. 2022): the level of the smallest highest-density region that contains it.
        tarp: fraction of draws that are closer to a random reference point than the true parameter, ``(n,)`` (Lemos et al.
            2023). It also finds errors that leave every marginal right.
        draws: number of draws of each posterior.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> found = pf.inference.calibrate(posterior, theta[:50], x[:50], draws=50)
        >>> sorted(found.p_values)
        ['SBC', 'TARP', 'coverage']
    """

    ranks: Array
    density_ranks: Array
    tarp: Array
    draws: int
    p_values: dict[str, float] = field(default_factory=dict)
    """p-value of the hypothesis of a uniform distribution: "SBC" (the smallest of D, times D), "coverage" and "TARP"."""

    def coverage(self, levels: Any) -> Array:
        """Fraction of simulations whose true parameter lies in the highest-density region of each level.

        Raises:
            InputError: for levels that are not real numbers.
        """
        return (self.density_ranks[:, None] <= as_numbers(levels, "levels").numpy()).mean(0)

    def tarp_coverage(self, levels: Any) -> Array:
        """Fraction of simulations whose true parameter lies within the distance of each level.

        Raises:
            InputError: for levels that are not real numbers.
        """
        return (self.tarp[:, None] <= as_numbers(levels, "levels").numpy()).mean(0)

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.3g}" for name, value in self.p_values.items())
        return f"Calibration({len(self.ranks)} simulations, {self.draws} draws; p-values: {values})"


def calibrate(
    posterior: SimulationPosterior,
    theta: Any,
    x: Any,
    *,
    draws: int = 200,
    seed: int = 0,
    progress: Style = "silent",
) -> Calibration:
    """Compare the true parameters of fresh simulations with draws of their posteriors.

    Args:
        posterior: to be checked.
        theta: parameters drawn from the prior, ``(n, D)``, not used in training.
        x: their simulations, ``(n, *shape)``. Pairs with NaN or infinity are left out, with a warning.
        draws: number of draws of each posterior.
        seed: of the draws and of the reference points.
        progress: "auto", "rich", "plain" or "silent": whether to show how many simulations are done, and the time left.

    Raises:
        ConfigError: for something that is no posterior, or another value of ``progress``.
        InputError: for fewer than 20 simulations, or different numbers of parameters and data.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> found = pf.inference.calibrate(posterior, theta[:50], x[:50], draws=50)
        >>> found.ranks.shape
        (50, 1)
    """
    check_integer("draws", draws, 10)
    theta, x = finite_pairs(posterior, theta, x)
    if len(theta) < 20:
        raise InputError(f"calibration needs at least 20 pairs of theta and x that are finite; got {len(theta)}.")
    check_choice("progress", progress, STYLES)
    generator = seeded_generator(seed)
    reporter, started = make_reporter(progress, evaluations=False), time.monotonic()
    reporter.start(len(theta))
    low, spread = theta.min(0).values, (theta.max(0).values - theta.min(0).values).clamp(min=1e-30)
    ranks, density, tarp = [], [], []
    for index, (truth, data) in enumerate(zip(theta, x, strict=True)):
        samples = posterior.sample(draws, data, seed=seed + index)
        ranks.append(_rank(samples < truth, samples == truth, generator))
        with torch.no_grad():
            scores = _unnormalized(posterior, torch.cat((samples, truth[None])), data)
        density.append(_rank(scores[:-1, None] > scores[-1], scores[:-1, None] == scores[-1], generator))
        point = low + spread * torch.rand(len(low), generator=generator)
        distances = ((torch.cat((samples, truth[None])) - point) / spread).norm(dim=1, keepdim=True)
        tarp.append(_rank(distances[:-1] < distances[-1], distances[:-1] == distances[-1], generator))
        reporter.tick(index + 1, (index + 1) / len(theta), time.monotonic() - started)
    reporter.end(None)
    all_ranks = torch.stack(ranks).numpy()
    all_density, all_tarp = torch.cat(density).numpy(), torch.cat(tarp).numpy()
    smallest = min(uniformity_p_value(column) for column in all_ranks.T)
    p_values = {
        "SBC": min(1.0, smallest * all_ranks.shape[1]),
        "coverage": uniformity_p_value(all_density),
        "TARP": uniformity_p_value(all_tarp),
    }
    return Calibration(all_ranks, all_density, all_tarp, draws, p_values)


def uniformity_p_value(values: Array) -> float:
    """p-value of the Kolmogorov-Smirnov test that values are uniform on [0, 1].

    Args:
        values: independent numbers, ``(n,)``.

    Raises:
        InputError: for another shape, no numbers, or NaN.

    Example:
        >>> import numpy as np
        >>> from pushforward.inference import uniformity_p_value
        >>> uniformity_p_value(np.linspace(0, 1, 100)) > 0.9, uniformity_p_value(np.linspace(0, 0.5, 100)) < 1e-6
        (True, True)
    """
    from scipy.stats import kstest

    values = as_numbers(values, "values").double().numpy()
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        found = f"the shape {values.shape}" if values.ndim != 1 or not len(values) else "NaN"
        raise InputError(f"values must be at least one number, (n,), and none of them NaN; got {found}.")
    return float(kstest(values, "uniform").pvalue)


class ConformalRegion:
    """Regions of parameters that contain the true one with a guaranteed probability, whatever the quality of the posterior.

    The region of x is {theta: log q(theta | x) >= t}, with t the split-conformal quantile of log q of the true parameters on
    fresh simulations. If a new pair is exchangeable with those, P(theta in region) >= level (Vovk, Gammerman, Shafer 2005).
    Over the draw of n calibration simulations the coverage follows Beta(k, n + 1 - k) with k = ceil(level (n + 1)).

    Args:
        posterior: NPE's, or another with a density.
        theta: parameters drawn from the prior, ``(n, D)``, not used in training.
        x: their simulations, ``(n, *shape)``. Pairs with NaN or infinity are left out, with a warning; the guarantee is then for
            finite simulations.
        level: probability of the regions.

    Raises:
        ConfigError: for something that is no posterior, or a level outside (0, 1).
        InputError: if there are too few simulations for the level.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> region = pf.inference.ConformalRegion(posterior, theta, x, level=0.9)
        >>> region.contains(theta[:3], x=x[0]).shape
        torch.Size([3])
    """

    def __init__(self, posterior: SimulationPosterior, theta: Any, x: Any, *, level: float = 0.9) -> None:
        check_number("level", level, 0, 1)
        theta, x = finite_pairs(posterior, theta, x)
        count = len(theta)
        index = math.ceil(level * (count + 1) - 1e-9)
        if index > count:
            raise InputError(
                f"a region of level {level:g} needs at least {math.ceil(level / (1 - level) - 1e-9)} simulations; got {count}."
            )
        self.posterior, self.level, self.count, self.index = posterior, level, count, index
        values = _true_log_prob(posterior, theta, x)
        self.threshold = float(values.sort(descending=True).values[index - 1])

    def __repr__(self) -> str:
        return f"ConformalRegion(level {self.level:g}, {self.count} simulations)"

    def contains(self, theta: Any, x: Any) -> Tensor:
        """Whether parameters ``(n, D)`` lie in the region of one observation, ``(n,)``."""
        with torch.no_grad():
            rows = self.posterior.prior.settle(self.posterior._parameters(theta))
            return self.posterior.log_prob(rows, x) >= self.threshold

    def covered(self, theta: Any, x: Any) -> Tensor:
        """Whether each parameter lies in the region of its own observation, ``(n,)``.

        Raises:
            InputError: for another shape, or an observation with NaN or infinity, which has no region.
        """
        return _true_log_prob(self.posterior, theta, x) >= self.threshold


def finite_pairs(posterior: SimulationPosterior, theta: Any, x: Any) -> tuple[Tensor, Tensor]:
    """Parameters ``(n, D)`` and data ``(n, *shape)`` of the simulations that are finite, with a warning about the others.

    Parameters on the edge of the prior are moved inside, as draws of posteriors are.

    Raises:
        ConfigError: for something that is no posterior.
        InputError: for parameters of another shape, or another number of them than of data.
    """
    check_posterior(posterior)
    theta, x = _pairs(posterior, theta, x)
    finite = torch.isfinite(x.flatten(1)).all(1) & torch.isfinite(theta).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        warn_caller(
            f"{int((~finite).sum())} of {len(x)} simulations contain NaN or infinity and are left out; the first is row {row}. The "
            "result is for finite simulations."
        )
    return posterior.prior.settle(theta[finite]), x[finite]


def _pairs(posterior: SimulationPosterior, theta: Any, x: Any) -> tuple[Tensor, Tensor]:
    """Parameters and data as tensors; single numbers count as vectors of one coordinate."""
    theta, x = as_numbers(theta, "theta").float(), as_numbers(x, "x")
    theta = theta[:, None] if theta.dim() == 1 else theta
    if theta.dim() != 2 or theta.shape[1] != posterior.features:
        raise InputError(f"theta must have the shape (n, {posterior.features}); got {tuple(theta.shape)}.")
    x = x[:, None] if x.dim() == 1 else x
    if x.dim() == 0 or len(theta) != len(x):
        raise InputError(
            f"there are {len(theta)} parameters, and x has the shape {tuple(x.shape)}: give one row of x for each row of theta."
        )
    return theta, x


@torch.no_grad()
def _true_log_prob(posterior: SimulationPosterior, theta: Any, x: Any) -> Tensor:
    theta, x = _pairs(posterior, theta, x)
    theta = posterior.prior.settle(theta)
    if isinstance(posterior, LikelihoodPosterior):
        check_finite_rows(x)
        return torch.cat([posterior.log_prob(row[None], data) for row, data in zip(theta, x, strict=True)])
    return posterior.log_prob(theta, x)


def _unnormalized(posterior: SimulationPosterior, theta: Tensor, x: Tensor) -> Tensor:
    """Log-density up to a constant, without an estimate of the evidence."""
    if isinstance(posterior, LikelihoodPosterior):
        return posterior.prior.log_prob(theta) + posterior._log_likelihood(theta, posterior._observation(x))
    return posterior.log_prob(theta, x)


def _rank(below: Tensor, equal: Tensor, generator: torch.Generator) -> Tensor:
    """Ranks in (0, 1) of numbers among draws that are below or equal, ``(draws, k)`` to ``(k,)``.

    They are uniform within their cell, and among the draws that float32 cannot tell from the number, as many are that lie at a
    bound. So a right posterior gives a continuous uniform distribution.
    """
    place = torch.rand(below.shape[1:], generator=generator, dtype=torch.float64)
    return (below.sum(0) + place * (1 + equal.sum(0))) / (len(below) + 1)
