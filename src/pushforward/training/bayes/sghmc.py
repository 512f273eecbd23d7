"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox, Guestrin 2014, arXiv 1402.4102), scale-adapted as by Springenberg
et al. 2016 (Bayesian Optimization with Robust Bayesian Neural Networks, sec. 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer, check_number, check_positive
from pushforward.training.bayes.common import (
    Callback,
    check_options,
    choose,
    collector,
    count_rows,
    opened,
    require_samples,
    trained_alone,
    varying,
)
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.fit import fit
from pushforward.training.sources import Rows

__all__ = ["AdaptiveSGHMC", "sghmc"]

_FLOOR = 0.01
"""Least scale of a weight's gradient, as part of its tensor's: rarely used weights take no wild steps."""


def sghmc(
    model: Model,
    data: Any,
    samples: int = 20,
    *,
    context: Any = None,
    parameters: Sequence[str] | None = None,
    burn_in: int = 1000,
    thin: int = 100,
    lr: float = 0.01,
    friction: float = 0.05,
    prior_scale: float = 1.0,
    rows: int | None = None,
    batch_size: int = 512,
    seed: int = 0,
    device: Any = None,
    callback: Callback = None,
    **options: Any,
) -> Posterior:
    """Samples of p(theta | data), proportional to exp(-U) with U = N loss(theta) + sum theta^2 / (2 prior_scale^2).

    A chain of the weights with momentum, friction, and the noise that keeps it at temperature 1
    (:class:`AdaptiveSGHMC`): ``burn_in`` steps, in which the scale of each weight's gradient is learned, then a sample every
    ``thin`` steps. Start from a trained model: burn-in is no optimizer. loss is the model's own, -mean log-likelihood
    (of a VAE the bound). Weights that are not chosen stay as they are; batches are drawn with replacement, so that their
    noise is independent from step to step, unless the data come from a loader.

    Args:
        model: trained by ``fit``; ends with the chain's last weights.
        data: as for :func:`pushforward.fit`.
        samples: M.
        context: as for ``fit``.
        parameters: names of the sub-modules or weights to sample, as they stand anywhere in the dotted names of
            ``model.named_parameters()``: ``["decoder"]`` for a VAE's decoder, ``["last"]`` for the last layers; None for all.
        burn_in: steps before the first sample; rounded up to a multiple of ``thin``.
        thin: steps between samples.
        lr: eps, the step; eps^2 is the rate of a gradient that is divided by its own scale.
        friction: part of the momentum that is lost at each step, in (0, 1).
        prior_scale: standard deviation of the normal prior of each weight.
        rows: N, where a loader does not say.
        batch_size: rows of a step.
        seed: of batches and noise.
        device: where to run.
        callback: as for ``fit``; called every ``thin`` steps.
        options: further options of ``fit``, as ``max_time`` (after which the samples so far are returned) or ``progress``.

    Raises:
        ConfigError: for an option that does not work.
        TrainingError: if the loss is not finite (lower ``lr``), or time was up before the first sample.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.NICE(2, couplings=2, hidden=(8,))
        >>> result = pf.fit(model, x, max_steps=50, progress="silent")
        >>> posterior = bayes.sghmc(model, x, 3, burn_in=20, thin=10, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([3, 200])
    """
    check_options(options)
    check_integer("samples", samples)
    check_integer("thin", thin)
    burn_in = math.ceil(check_integer("burn_in", burn_in) / thin) * thin
    source, _ = opened(model, data, context, None, batch_size, seed, device)
    count = count_rows(source, rows)
    if isinstance(source, Rows):
        source.replacement = source.batch_size < len(source.rows)
    chosen = choose(model, parameters)
    posterior = Posterior(model, samples, varying(model, chosen))
    collect, taken = collector(posterior, burn_in, callback)

    def make(weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return AdaptiveSGHMC(weights, lr, rows=count, burn_in=burn_in, friction=friction, prior_scale=prior_scale)

    with trained_alone(model, chosen):
        fit(
            model, source, validation=None, optimizer=make, schedule=None, average=None, gradient_clip=None, patience=None, seed=seed,
            max_steps=burn_in + samples * thin, evaluate_every=thin, callback=collect, **options,
        )  # fmt: skip
    require_samples(len(taken), "the chain")
    return posterior.trimmed(len(taken))


class AdaptiveSGHMC(torch.optim.Optimizer):
    """One step of the chain for each call, from the gradient g of the mean loss.

    With g' = g + theta / (N prior_scale^2), the gradient of U / N, and a = eps^2 / sqrt(V) for each weight:

        v <- (1 - friction) v - a g' + N(0, 2 friction a / N - a^2 S),    theta <- theta + v.

    V, the mean square of g', and S, the variance of its noise (half the mean square of the difference of two g' in a row),
    are exponential averages that are fixed when burn-in ends (Springenberg et al. 2016, sec. 4, where S is V). For U / N = c theta^2 / 2
    the stationary variance is 1 / (N c) times 1 / (1 - a c / (4 - 2 friction)), whatever the noise. Where batches are so noisy that friction could not take their heat, a is lowered to friction / (N S). The
    averages look back over an eighth of burn-in: the paper's own rule looks at about one step where gradients have no noise.

    Args:
        params: the weights.
        lr: eps.
        rows: N.
        burn_in: steps.
        friction: in (0, 1).
        prior_scale: of the normal prior.

    Raises:
        ConfigError: for a value outside its range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        rows: int,
        burn_in: int,
        friction: float = 0.05,
        prior_scale: float = 1.0,
    ) -> None:
        check_positive("lr", lr)
        check_positive("prior_scale", prior_scale)
        check_number("friction", friction, 0, 1)
        super().__init__(params, {"lr": float(lr), "friction": float(friction)})
        self.rows, self.burn_in, self.prior_scale = rows, burn_in, prior_scale

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every weight that has a gradient; noise comes from torch's global generator."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, self.state[weight], group["lr"], group["friction"])

    def _move(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], lr: float, friction: float) -> None:
        gradient = gradient + weight / (self.rows * self.prior_scale**2)
        if not state:
            zeros = torch.zeros_like(weight)
            state.update(step=0, momentum=zeros, square=zeros.clone(), noise=zeros.clone(), before=gradient)
        if state["step"] <= self.burn_in:
            rate = 1 / (1 + min(state["step"], max(10, self.burn_in // 8)))
            state["square"].lerp_(gradient.square(), rate)
            state["noise"].lerp_((gradient - state["before"]).square() / 2, rate)
            state["before"] = gradient
            scale = state["square"].sqrt()
            floor = max(_FLOOR * scale.square().mean().sqrt().item(), 1 / (self.rows * self.prior_scale))
            limit = friction / (self.rows * state["noise"])  # infinite without noise
            state["rate"] = torch.minimum(lr**2 / scale.clamp(min=floor), limit)
            heat = 2 * friction / self.rows * state["rate"] - state["rate"].square() * state["noise"]
            state["spread"] = heat.sqrt()
        state["step"] += 1
        momentum = state["momentum"].mul_(1 - friction).addcmul_(state["rate"], gradient, value=-1)
        weight.add_(momentum.addcmul_(state["spread"], torch.randn_like(weight)))
