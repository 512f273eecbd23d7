"""Sequential rounds of simulations for one observation, from a truncated prior."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError, warn_caller
from pushforward.inference.method import share
from pushforward.inference.nle import NLE
from pushforward.inference.npe import NPE, NPEPosterior
from pushforward.inference.posterior import SimulationPosterior, shaped
from pushforward.inference.priors import Prior
from pushforward.inference.real_numbers import as_numbers
from pushforward.inference.simulate import failed_runs, run_simulator
from pushforward.numerics.checks import check_integer, check_number
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options
from pushforward.training.seeds import mix

__all__ = ["sequential"]

_BATCH, _BATCHES = 10_000, 50
_OVERSAMPLE = 32
_EDGE_DRAWS, _MOST_OUTSIDE = 2000, 0.05
"""Draws of the last posterior, and the fraction of them outside the regions above which these cut something off; it is below 0.01
where they do not, and was 0.2 where they held a fifth of the posterior."""


@with_options
def sequential(
    method: NPE | NLE,
    simulator: Callable[[Tensor], Any],
    x: Any,
    *,
    rounds: int = 4,
    simulations: int = 1000,
    epsilon: float = 1e-3,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> SimulationPosterior:
    """Spend simulations where the posterior of one observation has its mass.

    With NPE, each round draws parameters from the prior truncated to the highest-density region of the present posterior that
    holds all but ``epsilon`` of it (Deistler, Goncalves, Macke 2022). Truncation changes the prior by a constant inside the
    region, so the loss needs no correction; simulations of earlier rounds outside the region are left out. With NLE, each
    round draws from the present posterior (Papamakarios et al. 2019); a likelihood needs no correction either.

    The result is for this observation only, unless ``rounds`` is 1.

    Args:
        method: ``NPE(prior)`` or ``NLE(prior)``.
        simulator: function of parameters that returns data.
        x: the observation.
        rounds: number of rounds.
        simulations: number of simulations in each round.
        epsilon: probability that the truncation cuts off, at least 1e-6.
        config: options of the runs; the options below replace its values.
        options: fields of :class:`TrainingConfig`. ``max_time`` is the time of all rounds together, in equal parts, and each round
            writes logs of its own, "LOG.0", "LOG.1" and so on, to which ``fit`` adds those of its networks.

    Raises:
        ConfigError: for a value that an option does not take.
        InputError: for an observation that is not finite, or has another shape than a simulation; before any training.

    Warns:
        PushforwardWarning: for NPE, if the regions of earlier rounds cut off a part of the posterior; and once for runs of the simulator
            without finite data.

    Example:
        >>> import torch, pushforward as pf
        >>> prior = torch.distributions.Uniform(-5 * torch.ones(2), 5 * torch.ones(2))
        >>> def simulator(theta):
        ...     return theta + torch.randn_like(theta)
        >>> post = pf.inference.sequential(
        ...     pf.inference.NPE(prior), simulator, torch.zeros(2), rounds=2, simulations=100, max_steps=5, progress="silent"
        ... )
        >>> post.sample(10, x=torch.zeros(2)).shape
        torch.Size([10, 2])
    """
    check_integer("rounds", rounds)
    check_integer("simulations", simulations, 20)
    check_number("epsilon", epsilon, 1e-6, 1, closed="left")  # its quantile needs 10 / epsilon draws
    if not isinstance(method, (NPE, NLE)):
        raise ConfigError(f"sequential takes pf.inference.NPE(prior) or NLE(prior); got {type(method).__name__}.")
    config = make_config(config, options)
    if config.checkpoint is not None:
        raise ConfigError("sequential trains once in each round, so it has no checkpoint: leave it out.")
    observed = as_numbers(x, "the observation")
    if not bool(torch.isfinite(observed).all()):
        raise InputError("the observation contains NaN or infinity: give finite numbers.")
    prior = method.prior
    thetas, data, regions, all_runs = [], [], [], []
    posterior: SimulationPosterior | None = None
    for index in range(rounds):
        seed = mix(config.seed, 401, index)
        if posterior is None:
            theta = prior.sample(simulations, seed=seed)
        elif isinstance(posterior, NPEPosterior):
            regions.append((posterior, _threshold(posterior, x, epsilon, seed)))
            theta = _truncated(prior, regions, x, simulations, seed)
        else:
            theta = posterior.sample(simulations, x, seed=seed)
        runs = run_simulator(simulator, prior, simulations, theta=theta, seed=seed)
        shape = tuple(runs.x.shape[1:]) or (1,)
        if shaped(observed, shape).shape != shape:
            raise InputError(
                f"the observation must have the shape of a simulation, {shape}; got {tuple(observed.shape)}."
            )
        all_runs.append(runs)
        thetas.append(runs.theta[runs.valid])
        data.append(runs.x[runs.valid])
        all_theta, all_x = torch.cat(thetas), torch.cat(data)
        kept = _inside(regions, all_theta, x)
        seeded = dataclasses.replace(share(config, rounds, str(index)), seed=config.seed + index)
        posterior = method.fit(all_theta[kept], all_x[kept], config=seeded)
    failed = failed_runs(*all_runs)
    if failed:
        warn_caller(f"{failed}; training leaves them out, so the posterior is that given a finite simulation.")
    assert posterior is not None
    if regions:
        _warn_of_cut(posterior, regions, x, config.seed)
    return posterior


def _warn_of_cut(posterior: SimulationPosterior, regions: list[tuple[NPEPosterior, float]], x: Any, seed: int) -> None:
    """Warn if the last posterior leans against the edge of a region: then the earlier one was wrong, and cut a part of it off."""
    draws = posterior.sample(_EDGE_DRAWS, x, seed=mix(seed, 403))
    outside = 1 - float(_inside(regions, draws, x).double().mean())
    if outside > _MOST_OUTSIDE:
        warn_caller(
            f"{100 * outside:.0f} % of the draws of the last posterior lie outside the regions of earlier rounds, so these cut off a part "
            "of the posterior, which is missing: give more simulations to each round, use NPE(prior, members=3) or a smaller epsilon, or "
            "NLE, which needs no regions."
        )


def _threshold(posterior: NPEPosterior, x: Any, epsilon: float, seed: int) -> float:
    """The log-density that all but ``epsilon`` of the posterior's draws exceed."""
    draws = posterior.sample(max(2000, math.ceil(10 / epsilon)), x, seed=seed)
    with torch.no_grad():
        return float(torch.quantile(posterior.log_prob(draws, x), epsilon))


@torch.no_grad()
def _inside(regions: list[tuple[NPEPosterior, float]], theta: Tensor, x: Any) -> Tensor:
    inside = torch.ones(len(theta), dtype=torch.bool)
    for posterior, threshold in regions:
        inside &= posterior.log_prob(theta, x) >= threshold
    return inside


@torch.no_grad()
def _truncated(prior: Prior, regions: list[tuple[NPEPosterior, float]], x: Any, count: int, seed: int) -> Tensor:
    """Draws of the truncated prior: by rejection, and by importance resampling if too few are accepted; bounded time."""
    found: list[Tensor] = []
    for batch in range(_BATCHES):
        theta = prior.sample(_BATCH, seed=mix(seed, batch))
        found.append(theta[_inside(regions, theta, x)])
        total = sum(map(len, found))
        if total >= count:
            return torch.cat(found)[:count]
        if batch == 2 and total * _BATCHES / 3 < count:
            break
    posterior = regions[-1][0]
    theta = posterior.sample(_OVERSAMPLE * count, x, seed=mix(seed, 402))
    log_weights = prior.log_prob(theta) - posterior.log_prob(theta, x)
    log_weights = torch.where(_inside(regions, theta, x), log_weights, -math.inf)
    keys = log_weights - torch.empty_like(log_weights).exponential_(generator=torch.Generator().manual_seed(seed)).log()
    return theta[keys.topk(count).indices]
