"""Is an observation like the simulations? A conformal p-value, posterior predictive checks, and a local two-sample test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.detection.conformal.calibration import ConformalCalibrator
from pushforward.detection.scores import Score
from pushforward.errors import InputError, warn_caller
from pushforward.estimators import Guard
from pushforward.inference.calibration import finite_pairs
from pushforward.inference.data_scale import DataScale
from pushforward.inference.posterior import SimulationPosterior, check_finite_rows, check_posterior
from pushforward.inference.real_numbers import as_numbers
from pushforward.inference.simulate import Simulations, check_simulator, failed_runs, run_simulator
from pushforward.models.sampling import seeded_generator
from pushforward.numerics.checks import check_integer, check_seed
from pushforward.training.seeds import mix

__all__ = ["SimulationGuard", "local_c2st", "posterior_predictive", "predictive_runs"]


class SimulationGuard:
    """p-values that an observation comes from the simulator with parameters from the prior.

    A guard is fitted to one part of the simulations and calibrated on the other. If an observation is exchangeable with the
    simulations, P(p <= a) <= a for every a, for any score. A small p-value means that the simulator does not make such data,
    and then no posterior is to be trusted. By default it is :class:`~pushforward.Guard`, whose score is a weighted sum of
    distances, Gaussians and tails that finds most kinds of strange rows of a table.

    Args:
        x: simulations ``(n, *shape)`` with parameters from the prior, at least 100; rows with NaN are left out. Single numbers
            ``(n,)`` count as vectors of one coordinate.
        score: any score of :mod:`pushforward.detection.scores`, not fitted, in place of that of ``pf.Guard``.
        seed: of the split.

    Raises:
        InputError: for fewer than 100 finite simulations; from :meth:`scores` and :meth:`p_value` for observations of another shape, or
            with NaN or infinity.

    Example:
        >>> import torch
        >>> guard = SimulationGuard(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)))
        >>> bool(guard.p_value(torch.zeros(2)) > 0.1), bool(guard.p_value(torch.full((2,), 9.0)) < 0.01)
        (True, True)
    """

    def __init__(self, x: Any, *, score: Score | None = None, seed: int = 0) -> None:
        x = as_numbers(x, "x")
        if x.dim() == 0:
            raise InputError("x must be simulations (n, *shape); got a single number.")
        x = x[:, None] if x.dim() == 1 else x
        if 0 in x.shape[1:]:
            raise InputError(f"x must have at least one number for each simulation; got the shape {tuple(x.shape)}.")
        self.x_shape = tuple(x.shape[1:])
        rows = x.flatten(1).double()
        rows = rows[torch.isfinite(rows).all(1)]
        if len(rows) < 100:
            raise InputError(f"the guard needs at least 100 finite simulations; got {len(rows)}.")
        rows = rows[torch.randperm(len(rows), generator=seeded_generator(seed))]
        half = len(rows) // 2
        self.scale = DataScale.of(rows[:half])
        if score is None:
            guard = Guard(alpha=0.5, effort="fast", calibration=0.1, random_state=seed).fit(
                self.scale(rows[:half]).numpy()
            )
            self._score = guard.anomaly_score
        else:
            fitted = score.fit(self.scale(rows[:half]))
            self._score = lambda scaled: fitted(torch.from_numpy(scaled)).cpu().numpy()
        self.calibrator = ConformalCalibrator(self._score(self.scale(rows[half:]).numpy()))

    def scores(self, x: Any) -> Tensor:
        """Scores of observations, ``(m,)``; higher is less like the simulations."""
        rows = as_numbers(x, "an observation")
        if rows.shape == self.x_shape:
            rows = rows[None]
        elif self.x_shape == (1,) and rows.dim() < 2:
            rows = rows.reshape(-1, 1)
        if rows.shape[1:] != self.x_shape:
            raise InputError(f"an observation must have the shape {self.x_shape}; got {tuple(rows.shape)}.")
        check_finite_rows(rows)
        return torch.from_numpy(np.asarray(self._score(self.scale(rows.flatten(1).double()).numpy())))

    def p_value(self, x: Any) -> Any:
        """p-values of observations ``(m, *shape)``, as an array; a number for one observation."""
        x = as_numbers(x, "an observation")
        values = self.calibrator.p_value(self.scores(x).cpu().numpy())
        single = tuple(x.shape) == self.x_shape or x.dim() == 0
        return float(values[0]) if single else values


def posterior_predictive(
    posterior: SimulationPosterior, simulator: Callable[[Tensor], Any], x: Any, *, draws: int = 500, seed: int = 0
) -> tuple[Tensor, float]:
    """Simulations from draws of the posterior, and a p-value of the observation among them.

    The p-value ranks the distance of the observation to the mean of one half of the simulations, in standardized
    coordinates, among the distances of the other half. It is conservative, because the posterior has seen x.

    Args:
        posterior: given x.
        simulator: function of parameters that returns data.
        x: the observation.
        draws: number of simulations.
        seed: of the draws and the simulator.

    Returns:
        The simulations ``(draws, *shape)``, and the p-value. Runs without finite data are NaN, and do not count; a warning says
        how many they are.

    Raises:
        ConfigError: for something that is no posterior, or no function.
        InputError: for fewer than 20 finite simulations, or data of another shape.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> draws, p_value = pf.inference.posterior_predictive(posterior, lambda theta: theta + 0.1 * torch.randn_like(theta), torch.zeros(1), draws=100)
        >>> draws.shape, 0 < p_value <= 1
        (torch.Size([100, 1]), True)
    """
    runs, p_value = predictive_runs(posterior, simulator, x, draws, seed)
    failed = failed_runs(runs)
    if failed:
        warn_caller(f"{failed}. They do not count in the p-value.")
    return runs.x, p_value


def predictive_runs(
    posterior: SimulationPosterior, simulator: Callable[[Tensor], Any], x: Any, draws: int, seed: int
) -> tuple[Simulations, float]:
    """As :func:`posterior_predictive`, with the record of the runs and without a warning."""
    check_integer("draws", draws, 20)
    check_posterior(posterior)
    check_simulator(simulator)
    theta = posterior.sample(draws, x, seed=seed)
    runs = run_simulator(simulator, posterior.prior, draws, theta=theta, seed=mix(seed, 302))
    if tuple(runs.x.shape[1:]) != posterior.x_shape:
        raise InputError(
            f"the simulator returns data of the shape {tuple(runs.x.shape[1:])}; the posterior was trained on {posterior.x_shape}."
        )
    flat = posterior.scale(runs.x[runs.valid].double().flatten(1)).double()
    if len(flat) < 20:
        raise InputError(f"a predictive check needs at least 20 finite simulations; got {len(flat)} of {draws}.")
    half = len(flat) // 2
    center, spread = flat[:half].mean(0), flat[:half].std(0).clamp(min=1e-6)
    observed = posterior._observation(x).double()
    distances = ((flat[half:] - center) / spread).square().mean(1)
    own = ((observed - center) / spread).square().mean()
    return runs, float((1 + (distances >= own).sum()) / (len(distances) + 1))


def local_c2st(
    posterior: SimulationPosterior, theta: Any, x: Any, observation: Any, *, seed: int = 0, permutations: int = 20
) -> tuple[float, float]:
    """Local classifier two-sample test at one observation (Linhart, Gramfort, Rodrigues 2023).

    A classifier learns to tell true parameters from draws of the posterior, given the data. Its mean squared distance from
    1/2 at draws for the observation is compared with that of classifiers that were trained with permuted labels.

    Args:
        posterior: to be checked.
        theta: parameters drawn from the prior, ``(n, D)``, not used in training.
        x: their simulations, ``(n, *shape)``. Pairs with NaN or infinity are left out, with a warning.
        observation: where to test.
        seed: of the draws, the permutations and the classifier.
        permutations: number of classifiers for the null distribution; the smallest p-value is 1 / (permutations + 1).

    Returns:
        The statistic and its p-value.

    Raises:
        ConfigError: for something that is no posterior.
        InputError: for fewer than 20 finite simulations, or data of another shape.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> statistic, p_value = pf.inference.local_c2st(posterior, theta, x, torch.zeros(1), permutations=5)
        >>> 0 < p_value <= 1
        True
    """
    from sklearn.neural_network import MLPClassifier

    check_integer("permutations", permutations, 1)
    seed = check_seed(seed)
    theta, x = finite_pairs(posterior, theta, x)
    if len(theta) < 20:
        raise InputError(f"the local test needs at least 20 pairs of theta and x that are finite; got {len(theta)}.")
    fakes = torch.stack([posterior.sample(1, row, seed=seed + i)[0] for i, row in enumerate(x)])
    context = posterior.scale(x.flatten(1).double())
    mean, spread = theta.mean(0), theta.std(0).clamp(min=1e-12)
    pairs = torch.cat([torch.cat(((t - mean) / spread, context), 1) for t in (theta, fakes)]).numpy()
    labels = np.repeat([0, 1], len(theta))
    draws = posterior.sample(max(len(theta), 200), observation, seed=seed)
    here = posterior._observation(observation).expand(len(draws), -1)
    tests = torch.cat(((draws - mean) / spread, here), 1).numpy()
    rng = np.random.default_rng(seed)

    def statistic(given: np.ndarray) -> float:
        classifier: Any = MLPClassifier(
            (50, 50), early_stopping=True, max_iter=300, random_state=seed & 0xFFFFFFFF
        ).fit(pairs, given)
        return float(np.mean((classifier.predict_proba(tests)[:, 1] - 0.5) ** 2))

    own = statistic(labels)
    null = [statistic(rng.permutation(labels)) for _ in range(permutations)]
    return own, (1 + sum(value >= own for value in null)) / (permutations + 1)
