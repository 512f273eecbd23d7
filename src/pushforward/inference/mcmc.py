"""Draws that are exact in the limit: HMC in the latent space of a flow (NeuTra), and independent Metropolis with a flow."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pushforward.errors import ConfigError, warn_caller
from pushforward.inference.parameters import Parameters
from pushforward.inference.result import TargetFit
from pushforward.numerics import seeded
from pushforward.numerics.checks import check_integer, check_number
from pushforward.training.seeds import mix

__all__ = ["ChainDraws", "independent_metropolis", "neutra"]


@dataclass(frozen=True)
class ChainDraws:
    """Draws of Markov chains, with their diagnostics.

    Attributes:
        draws: flat constrained coordinates ``(chains, draws, D)``, float64.
        acceptance: mean acceptance of the transitions.
        r_hat: largest rank-normalized split R-hat of the coordinates (Vehtari et al. 2021); below 1.01 the chains agree.
        ess: smallest bulk effective sample size of the coordinates.
        divergences: number of divergent transitions; 0 for independent Metropolis.
        parameters: names and constraints of the parameters; None if the fit has none.

    Example:
        >>> import torch, pushforward as pf
        >>> fit = pf.inference.fit_to_target(2, lambda v: -0.5 * (v**2).sum(-1), max_steps=20, seed=0, progress="silent")
        >>> chain = pf.inference.independent_metropolis(fit, 200)
        >>> chain.draws.shape, chain.acceptance > 0.5
        (torch.Size([4, 200, 2]), True)
    """

    draws: Tensor
    acceptance: float
    r_hat: float
    ess: float
    divergences: int = 0
    parameters: Parameters | None = field(default=None, repr=False)

    def to_arviz(self, names: list[str] | None = None) -> dict[str, Any]:
        """A dictionary of arrays by name, as ``arviz.from_dict({"posterior": ...})`` reads it.

        Args:
            names: a name for each coordinate, whose array is ``(chain, draw)``. None takes the parameters of the fit, each
                ``(chain, draw, *shape)``; without parameters all coordinates are one array "x", ``(chain, draw, D)``.

        Raises:
            ConfigError: for another number of names than coordinates.
        """
        if names is None:
            values = {"x": self.draws} if self.parameters is None else self.parameters.unflatten(self.draws)
            return {name: value.numpy() for name, value in values.items()}
        width = self.draws.shape[-1]
        if len(names) != width:
            raise ConfigError(
                f"there are {width} coordinates and {len(names)} names: give one name for each coordinate."
            )
        return {name: self.draws[..., index].numpy() for index, name in enumerate(names)}

    def __repr__(self) -> str:
        chains, count, width = self.draws.shape
        return (
            f"ChainDraws({chains} chains of {count} draws of {width} coordinates, acceptance {self.acceptance:.2f}, R-hat "
            f"{self.r_hat:.3f}, smallest ESS {self.ess:.0f}, {self.divergences} divergences)"
        )


def independent_metropolis(fit: TargetFit, draws: int = 1000, *, chains: int = 4, seed: int = 0) -> ChainDraws:
    """Metropolis-Hastings with proposals of the flow, independent of the present state (Tierney 1994).

    A proposal x' is accepted with probability min(1, w(x') / w(x)), w = p / q. All proposals are drawn at once, so the cost is
    that of ``draws * chains`` importance weights. It mixes well exactly where the weights are nearly equal.

    Args:
        fit: of :func:`~pushforward.inference.fit_to_target`.
        draws: number of draws of each chain; a tenth more is made first and dropped.
        chains: number of chains, at least 2.
        seed: of the proposals.

    Example:
        >>> import torch, pushforward as pf
        >>> fit = pf.inference.fit_to_target(2, lambda x: -0.5 * x.square().sum(-1), max_steps=10, progress="silent")
        >>> chains = pf.inference.independent_metropolis(fit, 500)
        >>> chains.draws.shape, chains.acceptance > 0.5
        (torch.Size([4, 500, 2]), True)
    """
    from pushforward.inference.reverse_kl import log_ratios

    check_integer("draws", draws, 20)
    check_integer("chains", chains, 2)
    device = fit.draws.device
    generator = torch.Generator(device).manual_seed(mix(seed, 201))
    total = draws + draws // 10
    with torch.no_grad():
        z = fit.flow.base.sample(torch.Size((total * chains,)), generator=generator)
    parts = [log_ratios(fit.flow, fit.target, part)[:2] for part in z.split(4096)]
    points = torch.cat([x for x, _ in parts]).reshape(total, chains, -1)
    ratios = torch.cat([ratio for _, ratio in parts]).reshape(total, chains)
    state, weight = points[0], ratios[0]
    path, accepted = [], 0.0
    for x, ratio in zip(points[1:], ratios[1:], strict=True):
        u = torch.rand(chains, generator=generator, device=device, dtype=torch.float64)
        move = (u.log() < ratio - weight) | torch.isneginf(weight)
        state, weight = torch.where(move[:, None], x, state), torch.where(move, ratio, weight)
        accepted += float(move.double().mean())
        path.append(state)
    unconstrained = torch.stack(path[-draws:], 1).double()
    return _result(fit, unconstrained, accepted / (total - 1), 0)


def neutra(
    fit: TargetFit,
    draws: int = 500,
    *,
    warmup: int = 200,
    chains: int = 2,
    seed: int = 0,
    target_acceptance: float = 0.8,
) -> ChainDraws:
    """NUTS of Pyro in the latent space of the flow (Hoffman et al. 2019, NeuTra): the flow removes most of the geometry.

    The chain moves in z, with the density p(T(z)) abs det dT/dz, and starts at draws of the flow that are resampled by their
    weights. Chains run one after the other, in this process. Needs the extra ``inference``.

    Args:
        fit: of :func:`~pushforward.inference.fit_to_target`.
        draws: number of draws of each chain.
        warmup: steps of adaptation before them.
        chains: number of chains.
        seed: of the chains.
        target_acceptance: to which the step size adapts.

    Raises:
        ConfigError: without Pyro.

    Example:
        >>> import warnings, torch, pushforward as pf
        >>> fit = pf.inference.fit_to_target(2, lambda v: -0.5 * v.square().sum(-1), max_steps=10, progress="silent")
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # so few draws do not agree yet
        ...     print(pf.inference.neutra(fit, draws=20, warmup=10).draws.shape)
        torch.Size([2, 20, 2])
    """
    check_integer("draws", draws, 4)
    check_integer("warmup", warmup, 1)
    check_integer("chains", chains)
    check_number("target_acceptance", target_acceptance, 0, 1)
    try:
        from pyro.infer import MCMC, NUTS
    except ImportError:
        raise ConfigError("neutra needs Pyro, of the extra inference: pip install 'pushforward[inference]'.") from None
    flow, target = fit.flow, fit.target

    def potential(parameters: dict[str, Tensor]) -> Tensor:
        x, contribution = flow.chain.decode_with_contribution(parameters["z"][None].to(flow.latent_dtype))
        value = target(x)[0] - contribution[0].double()
        return -torch.where(torch.isfinite(value), value, -1e30).to(parameters["z"].dtype)

    start = fit.weights.resample(chains, torch.Generator().manual_seed(mix(seed, 202)))
    paths, acceptance, divergences = [], [], 0
    trainable = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    with seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            for row in start.tolist():
                z = flow.encode(fit.unconstrained[row][None].to(flow.dtype))[0].detach()
                kernel = NUTS(potential_fn=potential, target_accept_prob=target_acceptance)
                chain = MCMC(
                    kernel, num_samples=draws, warmup_steps=warmup, initial_params={"z": z}, disable_progbar=True
                )
                chain.run()
                latent = chain.get_samples()["z"]
                with torch.no_grad():
                    paths.append(flow.chain.decode(latent.to(flow.latent_dtype)).double())
                found = chain.diagnostics()
                acceptance += [float(rate) for rate in found["acceptance rate"].values()]
                divergences += sum(len(each) for each in found["divergences"].values())
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
    return _result(fit, torch.stack(paths), sum(acceptance) / len(acceptance), divergences)


def _result(fit: TargetFit, unconstrained: Tensor, acceptance: float, divergences: int) -> ChainDraws:
    chains, count, width = unconstrained.shape
    with torch.no_grad():
        draws = fit.target.constrain(unconstrained.reshape(-1, width)).double().cpu().reshape(chains, count, -1)
    r_hat, ess = _diagnose(draws)
    if r_hat > 1.01 or divergences:
        warn_caller(
            f"R-hat is {r_hat:.3f} and {divergences} transitions diverged: the chains do not agree yet. Run longer chains, or "
            "fit the flow better first."
        )
    return ChainDraws(draws, acceptance, r_hat, ess, divergences, fit.parameters)


def _diagnose(draws: Tensor) -> tuple[float, float]:
    """Largest R-hat and smallest bulk effective sample size, by arviz-stats."""
    try:
        from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        raise ConfigError(
            "diagnostics of chains need arviz-stats, of the extra inference: pip install 'pushforward[inference]'."
        ) from None
    values = draws.numpy()
    if values.shape[0] < 2:  # one chain: R-hat of its halves
        half = values.shape[1] // 2
        values = values[:, : 2 * half].reshape(2, half, -1)
    r_hat: Any = array_stats.rhat(values, chain_axis=0, draw_axis=1)
    ess: Any = array_stats.ess(values, chain_axis=0, draw_axis=1)
    return float(max(r_hat.max(), 0.0)) if math.isfinite(float(r_hat.max())) else math.inf, float(ess.min())
