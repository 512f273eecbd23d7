"""`infer`: posterior from simulations by the method that predicts held-out parameters best."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pushforward.errors import ConfigError, InputError
from pushforward.inference.calibration import finite_pairs
from pushforward.inference.method import share, split_rows
from pushforward.inference.nle import NLE, LikelihoodPosterior
from pushforward.inference.npe import NPE, NPEPosterior
from pushforward.inference.nre import NRE
from pushforward.inference.posterior import SimulationPosterior
from pushforward.inference.priors import Prior
from pushforward.inference.training_data import finite_simulations
from pushforward.models.sampling import seeded_generator
from pushforward.numerics import logmeanexp
from pushforward.numerics.checks import check_choice, check_integer
from pushforward.training.config import TrainingConfig, TrainingOptions, make_config, with_options

__all__ = ["infer", "posterior_score"]

_HELD_OUT, _MOST_TESTS, _PROPOSALS, _PRIOR_DRAWS = 0.1, 200, 400, 100


@with_options
def infer(
    prior: Any,
    theta: Any = None,
    x: Any = None,
    *,
    method: str = "auto",
    simulator: Callable[[Tensor], Any] | None = None,
    simulations: int = 1000,
    members: int = 3,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> SimulationPosterior:
    """Learn the posterior from simulations, with a method that the simulations choose.

    The rule of "auto": NPE and NLE train on the same simulations, and each of their networks holds out the same tenth of
    them. On at most 200 of the simulations held out both are scored by the mean of log q(theta | x), a proper score of a
    posterior: NPE directly, and NLE as log prior + log likelihood - log evidence, with the evidence by importance sampling
    from NPE's posterior and the prior. The method with the larger mean wins. No observation and no reference is used. If NLE
    wins, NPE's posterior is where its sampler starts.

    Args:
        prior: a torch distribution of vectors, or a list of independent ones.
        theta: parameters ``(n, D)``, or :class:`~pushforward.inference.Simulations`.
        x: data ``(n, *shape)``.
        method: "auto", "npe", "nle" or "nre".
        simulator: function of parameters that returns data, in place of theta and x.
        simulations: number of runs of the simulator.
        members: number of networks of each method. With 1,000 simulations three gained up to two nats of held-out
            log-likelihood over one, at three times the cost. NRE has one, whatever the number.
        config: options of the runs; the options below replace its values.
        options: fields of :class:`TrainingConfig`; ``max_time`` is the time of all networks together.

    Returns:
        The posterior; ``posterior.scores`` has the score of each method for "auto".

    Raises:
        ConfigError: for a value that an option does not take, a prior whose support is not a box, a ``DataLoader``, or unless there are
            either simulations or a simulator.
        InputError: for data that do not fit the prior, or too few finite simulations.

    Example:
        >>> import torch, pushforward as pf
        >>> prior = torch.distributions.Normal(torch.zeros(2), 1.0)
        >>> theta = prior.sample((200,))
        >>> post = pf.inference.infer(prior, theta, theta + 0.5 * torch.randn(200, 2), max_steps=5, progress="silent")
        >>> sorted(post.scores)
        ['nle', 'npe']
    """
    check_choice("method", method, ("auto", "npe", "nle", "nre"))
    check_integer("members", members)
    if isinstance(theta, DataLoader):
        raise ConfigError(
            "infer splits the simulations, which a DataLoader does not allow: train NPE by itself, NPE(prior).fit(loader, "
            "validation=another_loader)."
        )
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
    npe = NPE(prior, members=members).fit(theta, raw, validation=_HELD_OUT, config=share(config, 2, "npe"))
    nle = NLE(prior, members=members).fit(theta, raw, validation=_HELD_OUT, config=share(config, 2, "nle"))
    nle.proposal = npe
    scores = {"npe": 0.0, "nle": 0.0}
    for member in range(members):
        tests = split_rows(len(theta), _HELD_OUT, config.seed, member)[1][: max(1, _MOST_TESTS // members)]
        one_npe, one_nle = _member(npe, member), _member(nle, member)
        for name, post in (("npe", one_npe), ("nle", one_nle)):
            scores[name] += posterior_score(post, one_npe, theta[tests], raw[tests]) / members
    chosen: Any = nle if scores["nle"] > scores["npe"] else npe
    chosen.scores = scores
    return chosen


def _member(posterior: Any, index: int) -> Any:
    """The posterior of one of the networks."""
    one = copy.copy(posterior)
    one.networks = [posterior.networks[index]]
    for known in ("_accepted", "_evidence"):  # of an observation, by all networks
        if hasattr(one, known):
            setattr(one, known, {})
    return one


@torch.no_grad()
def posterior_score(
    posterior: SimulationPosterior, proposal: NPEPosterior, theta: Any, x: Any, *, seed: int = 0
) -> float:
    """Mean of log q(theta | x) on simulations, nats; extreme rows count as 20 nats below the median.

    The evidence of NLE and NRE is an importance-weighted mean over draws of ``proposal``, of the prior, and the true parameters
    themselves. These bound the score of a posterior so narrow that no other draw reaches it, as of a deterministic simulator, by
    log(N m(theta | x)) with N draws of the density m; it is then too low.

    Args:
        posterior: of NPE, NLE or NRE.
        proposal: NPE's posterior, from which the evidence of the other methods is estimated.
        theta: true parameters, ``(n, D)``.
        x: their data, ``(n, *shape)``. Pairs with NaN or infinity are left out, with a warning.
        seed: of the draws.

    Raises:
        ConfigError: for something that is no posterior, or a proposal that is not NPE's, of the same parameters and data.
        InputError: for other shapes, another number of parameters than of data, or no finite pair.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> prior = torch.distributions.Uniform(-torch.ones(1), torch.ones(1))
        >>> theta = prior.sample((200,))
        >>> x = theta + 0.1 * torch.randn(200, 1)
        >>> posterior = pf.inference.NPE(prior).fit(theta, x, max_steps=20, progress="silent")
        >>> pf.inference.posterior_score(posterior, posterior, theta[:20], x[:20]) > -5
        True
    """
    generator = seeded_generator(seed)
    theta, x = finite_pairs(posterior, theta, x)
    if (
        not isinstance(proposal, NPEPosterior)
        or proposal.x_shape != posterior.x_shape
        or proposal.features != posterior.features
    ):
        raise ConfigError(
            f"proposal must be a posterior of NPE for the same parameters and data; got {proposal!r:.80}."
        )
    if not len(theta) or tuple(x.shape[1:]) != posterior.x_shape:
        raise InputError(
            f"a score needs at least one finite pair of theta and x, with x of the shape (n, {', '.join(map(str, posterior.x_shape))}); got "
            f"{len(theta)}, with x of the shape {tuple(x.shape)}."
        )
    if not isinstance(posterior, LikelihoodPosterior):
        values = posterior.log_prob(theta, x)
    else:
        found = []
        for row, data in zip(theta, x, strict=True):
            scaled = posterior._observation(data)
            wide = posterior.prior.sample(_PRIOR_DRAWS, seed=int(torch.randint(2**31, (), generator=generator)))
            near = torch.empty(0, posterior.features)
            with suppress(InputError):  # all its draws may lie in gaps of the prior
                near = proposal._sample(_PROPOSALS, scaled, generator)
            draws = posterior.prior.clamp(torch.cat((near, wide, row[None])))
            log_prior = posterior.prior.log_prob(draws)
            log_proposal = log_prior + math.log(_PRIOR_DRAWS / len(draws))
            if len(near):
                log_near = proposal._log_prob(draws, scaled) + math.log(_PROPOSALS / len(draws))
                log_proposal = torch.logaddexp(log_near, log_proposal)
            log_ratio = log_prior + posterior._log_likelihood(draws, scaled) - log_proposal
            joint = posterior.prior.log_prob(row[None]) + posterior._log_likelihood(row[None], scaled)
            found.append(joint[0] - logmeanexp(log_ratio, 0))
        values = torch.stack(found)
    values = torch.nan_to_num(values.double(), nan=-math.inf, posinf=-math.inf)
    return float(values.clamp(min=float(values.median()) - 20.0).mean())
