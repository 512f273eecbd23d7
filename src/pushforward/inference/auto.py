"""`infer`: posterior from simulations by the method that predicts held-out parameters best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.inference.nle import NLE, LikelihoodPosterior
from pushforward.inference.npe import NPE, NPEPosterior
from pushforward.inference.nre import NRE
from pushforward.inference.posterior import SimulationPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.training_data import finite_simulations
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options

__all__ = ["infer", "posterior_score"]

_TEST_FRACTION, _MOST_TESTS, _PROPOSALS = 0.1, 200, 500


@with_options
def infer(
    prior: Any,
    theta: Any = None,
    x: Any = None,
    *,
    method: str = "auto",
    simulator: Callable[[Tensor], Any] | None = None,
    simulations: int = 1000,
    members: int = 1,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> SimulationPosterior:
    """Learn the posterior from simulations, with a method that the simulations choose.

    The rule of "auto": a tenth of the simulations (at most 200) is set aside. NPE and NLE train on the rest. Both are
    scored by the mean of log q(theta | x) on the simulations set aside, a proper score of a posterior: NPE directly, and NLE
    as log prior + log likelihood - log evidence, with the evidence by importance sampling from NPE's posterior. The method
    with the larger mean wins. No observation and no reference is used. If NLE wins, NPE's posterior is where its sampler
    starts.

    Args:
        prior: a torch distribution of vectors, or a list of independent ones.
        theta: parameters ``(n, D)``, or :class:`~pushforward.inference.Simulations`.
        x: data ``(n, *shape)``.
        method: "auto", "npe", "nle" or "nre".
        simulator: function of parameters that returns data, in place of theta and x.
        simulations: number of runs of the simulator.
        members: number of networks of each method.
        config: options of the runs; the options below replace its values.
        options: fields of :class:`TrainingConfig`.

    Returns:
        The posterior; ``posterior.scores`` has the score of each method for "auto".

    Example:
        >>> import torch, pushforward as pf
        >>> prior = torch.distributions.Normal(torch.zeros(2), 1.0)
        >>> theta = prior.sample((400,))
        >>> post = pf.inference.infer(prior, theta, theta + 0.1 * torch.randn(400, 2), max_steps=30, progress="silent")
        >>> sorted(post.scores)
        ['nle', 'npe']
    """
    check_choice("method", method, ("auto", "npe", "nle", "nre"))
    check_integer("members", members)
    config = make_config(config, options)
    if config.checkpoint is not None:
        raise ConfigError(
            "infer trains several networks, which one checkpoint cannot store: train NPE or NLE by itself."
        )
    prior = Prior(prior)
    if method == "npe":
        return NPE(prior, members=members).fit(theta, x, simulator=simulator, simulations=simulations, config=config)
    if method == "nle":
        return NLE(prior, members=members).fit(theta, x, simulator=simulator, simulations=simulations, config=config)
    if method == "nre":
        return NRE(prior).fit(theta, x, simulator=simulator, simulations=simulations, config=config)
    theta, raw = finite_simulations(prior, theta, x, simulator, simulations, config.seed)
    order = torch.randperm(len(theta), generator=torch.Generator().manual_seed(config.seed + 17))
    tests = order[: min(_MOST_TESTS, max(1, int(_TEST_FRACTION * len(order))))]
    rest = order[len(tests) :]
    npe = NPE(prior, members=members).fit(theta[rest], raw[rest], config=config)
    nle = NLE(prior, members=members).fit(theta[rest], raw[rest], config=config)
    nle.proposal = npe
    scores = {name: posterior_score(post, npe, theta[tests], raw[tests]) for name, post in (("npe", npe), ("nle", nle))}
    chosen: Any = nle if scores["nle"] > scores["npe"] else npe
    chosen.scores = scores
    return chosen


@torch.no_grad()
def posterior_score(
    posterior: SimulationPosterior, proposal: NPEPosterior, theta: Tensor, x: Tensor, *, seed: int = 0
) -> float:
    """Mean of log q(theta | x) on simulations, nats; extreme rows count as 20 nats below the median.

    Args:
        posterior: of NPE, NLE or NRE.
        proposal: NPE's posterior, from which the evidence of the other methods is estimated.
        theta: true parameters, ``(n, D)``.
        x: their data, ``(n, *shape)``.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(posterior, NPEPosterior):
        values = posterior.log_prob(theta, x)
    else:
        assert isinstance(posterior, LikelihoodPosterior)
        found = []
        for row, data in zip(theta, x, strict=True):
            scaled = posterior._observation(data)
            draws = posterior._clamp(proposal.draw(_PROPOSALS, scaled, generator))
            log_ratio = (
                posterior.prior.log_prob(draws) + posterior.log_likelihood(draws, scaled)
                - proposal._log_prob(draws, scaled)
            )  # fmt: skip
            joint = posterior.prior.log_prob(row[None]) + posterior.log_likelihood(row[None], scaled)
            found.append(joint[0] - logmeanexp(log_ratio, 0))
        values = torch.stack(found)
    values = torch.nan_to_num(values.double(), nan=-math.inf, posinf=-math.inf)
    return float(values.clamp(min=float(values.median()) - 20.0).mean())
