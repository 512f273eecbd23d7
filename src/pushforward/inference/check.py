"""`check`: everything that says whether to trust a posterior from simulations, in one call, with a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward.display import card
from pushforward.errors import warn_caller
from pushforward.inference.calibration import Calibration, calibrate
from pushforward.inference.misspecification import SimulationGuard, predictive_runs
from pushforward.inference.posterior import SimulationPosterior, check_posterior
from pushforward.inference.real_numbers import as_numbers
from pushforward.inference.simulate import check_simulator, failed_runs, run_simulator
from pushforward.numerics.checks import check_integer
from pushforward.training.progress import Style

__all__ = ["PosteriorCheck", "check"]

_SMALL = 0.01
_GUARD_SIMULATIONS = 1000
"""Half of them rank an observation, so the smallest p-value, 1 / 501, is below 1 % / 5: with fewer no observation could fail."""


@dataclass(frozen=True)
class PosteriorCheck:
    """The result of :func:`check`.

    Attributes:
        calibration: ranks, coverage and TARP on fresh simulations.
        observation_p_value: conformal p-value that the observation is like the simulations; None without an observation.
        predictive_p_value: p-value of the observation among simulations from its posterior; None without an observation.
        predictive: those simulations.
        observation: the observation.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> found = pf.inference.check(posterior, lambda theta: theta + 0.1 * torch.randn_like(theta), simulations=40, draws=50)
        >>> type(found.calibration).__name__
        'Calibration'
    """

    calibration: Calibration
    observation_p_value: float | None = None
    predictive_p_value: float | None = None
    predictive: Tensor | None = None
    observation: Tensor | None = None

    @property
    def p_values(self) -> dict[str, float]:
        """All p-values by name; a small one is a reason not to trust the posterior."""
        values = dict(self.calibration.p_values)
        if self.observation_p_value is not None:
            values["observation"] = self.observation_p_value
        if self.predictive_p_value is not None:
            values["predictive"] = self.predictive_p_value
        return values

    @property
    def passed(self) -> bool:
        """Whether no p-value is below 1 % divided by their number."""
        return min(self.p_values.values()) >= _SMALL / len(self.p_values)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A figure of the checks; written to a file if a path is given.

        Returns:
            A matplotlib figure.
        """
        from pushforward.inference.pictures import check_figure

        figure = check_figure(self)
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.3g}" for name, value in self.p_values.items())
        return f"PosteriorCheck({'passed' if self.passed else 'FAILED'}; p-values: {values})"

    def _repr_html_(self) -> str:
        """The p-values, for a notebook."""
        facts = [(f"p-value of {name}", f"{value:.3g}") for name, value in self.p_values.items()]
        return card("Check of a posterior: " + ("passed" if self.passed else "FAILED"), facts)


def check(
    posterior: SimulationPosterior,
    simulator: Callable[[Tensor], Any],
    *,
    x: Any = None,
    simulations: int = 200,
    draws: int = 200,
    seed: int = 1,
    progress: Style = "auto",
) -> PosteriorCheck:
    """Check a posterior on fresh simulations: calibration, coverage, TARP; and whether an observation fits the simulator.

    Args:
        posterior: of NPE, NLE or NRE.
        simulator: function of parameters that returns data.
        x: an observation; None checks the posterior only.
        simulations: number of simulations for the calibration. With ``x`` there are at least 1,000 more from the prior, which rank
            the observation, and as many from its posterior; with fewer no observation could fail.
        draws: number of draws of each posterior; of that of the observation at least 1,000.
        seed: of the simulations and draws; use another than in training.
        progress: "auto", "rich", "plain" or "silent"; draws of NLE and NRE take a second or more for each simulation.

    Returns:
        :class:`PosteriorCheck`, with a method ``plot``.

    Raises:
        ConfigError: for something that is no posterior, or no function.

    Warns:
        PushforwardWarning: for each check that fails, with what to try; and once for runs of the simulator without finite data.

    Example:
        >>> import torch, pushforward as pf
        >>> prior = torch.distributions.Normal(torch.zeros(1), 1.0)
        >>> def simulator(theta):
        ...     return theta + 0.5 * torch.randn_like(theta)
        >>> post = pf.inference.NPE(prior).fit(simulator=simulator, simulations=500, max_steps=20, progress="silent")
        >>> report = pf.inference.check(post, simulator, x=torch.zeros(1), simulations=50)
        >>> sorted(report.p_values)
        ['SBC', 'TARP', 'coverage', 'observation', 'predictive']
    """
    check_integer("simulations", simulations, 20)
    check_posterior(posterior)
    check_simulator(simulator)
    if x is not None:
        posterior._observation(x)  # what is wrong with it shows before the draws, which take minutes with NLE
    runs = run_simulator(simulator, posterior.prior, simulations, seed=seed)
    valid, all_runs = runs.valid, [runs]
    calibration = calibrate(posterior, runs.theta[valid], runs.x[valid], draws=draws, seed=seed, progress=progress)
    if x is None:
        result = PosteriorCheck(calibration)
    else:
        observed = as_numbers(x, "an observation").reshape(posterior.x_shape)
        count = max(_GUARD_SIMULATIONS, simulations)
        many = run_simulator(simulator, posterior.prior, count, seed=seed + 1)
        all_runs.append(many)
        like, share = many.x[many.valid], float(many.valid.double().mean())
        if share < 1:  # more, so that enough are finite
            count = math.ceil(1.2 * count / share)
            more = run_simulator(simulator, posterior.prior, count - len(many), seed=seed + 2)
            all_runs.append(more)
            like = torch.cat((like, more.x[more.valid]))
        guard = SimulationGuard(like, seed=seed)
        predictive, p_value = predictive_runs(posterior, simulator, observed, max(count, draws), seed)
        all_runs.append(predictive)
        result = PosteriorCheck(calibration, guard.p_value(observed), p_value, predictive.x, observed)
    failed = failed_runs(*all_runs)
    if failed:
        warn_caller(f"{failed}. The checks use the other runs, so they are of the posterior given a finite simulation.")
    _warn(result)
    return result


def _warn(result: PosteriorCheck) -> None:
    limit = _SMALL / len(result.p_values)
    advice = {
        "SBC": "the ranks of the true parameters are not uniform, so some marginal is biased or too narrow or wide. Try more "
        "simulations, members=5, or another method",
        "coverage": "highest-density regions do not have their coverage, so the posterior is too sure or too vague. Try "
        "members=5, more simulations, or pf.inference.ConformalRegion for regions with guaranteed coverage",
        "TARP": "distances to random points are not uniform, so the joint posterior is wrong. Try another flow or method",
        "observation": "the observation is unlike every simulation, so the simulator or the prior is misspecified for it. "
        "Compare the observation with simulations before you use its posterior",
        "predictive": "simulations from the posterior do not look like the observation. Check the simulator, the prior and "
        "the number of simulations",
    }
    for name, value in result.p_values.items():
        if value < limit:
            warn_caller(f"{name}: p = {value:.2g}; {advice[name]}.")
