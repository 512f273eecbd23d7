"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox, Guestrin 2014, arXiv 1402.4102), scale-adapted as by
Springenberg et al. 2016 (Bayesian Optimization with Robust Bayesian Neural Networks, sec. 4)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer, check_number, check_positive
from pushforward.training.bayes.common import (
    choose_parameters,
    count_rows,
    open_data,
    recorded_names,
    require_samples,
    sampling_callback,
    sampling_config,
    train_only,
)
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.config import TrainingConfig, TrainingOptions, with_options
from pushforward.training.fit import fit
from pushforward.training.sources import Rows

__all__ = ["AdaptiveSGHMC", "sghmc"]

_FLOOR = 0.01
"""Smallest scale of a weight's gradient, relative to its tensor. It limits the steps of rarely used weights."""


@with_options
def sghmc(
    model: Model,
    data: Any,
    n_samples: int = 20,
    *,
    context: Any = None,
    parameters: Sequence[str] | None = None,
    burn_in: int = 1000,
    thin: int = 100,
    step_size: float = 0.01,
    friction: float = 0.05,
    prior_scale: float = 1.0,
    n_rows: int | None = None,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> Posterior:
    """Sample p(theta | data), proportional to exp(-U) with U = N loss(theta) + sum theta^2 / (2 prior_scale^2).

    It simulates a chain of the weights with momentum, friction, and noise that keeps its temperature at 1
    (:class:`AdaptiveSGHMC`). The first ``burn_in`` steps estimate the scale of each weight's gradient; then every
    ``thin``-th state is a sample. Start from a trained model, because burn-in does not optimize. loss is the model's
    own, -mean log-likelihood (of a VAE the bound). Weights that are not chosen do not change. Batches are drawn with
    replacement, unless the data come from a loader, so that their noise is independent from step to step.

    Args:
        model: a model that ``fit`` has trained. It ends with the last weights of the chain.
        data: training rows, as for :func:`pushforward.fit`.
        n_samples: number of samples M.
        context: context of array data, as for ``fit``.
        parameters: names of the sub-modules or weights to sample, which are consecutive parts of the dotted names of
            ``model.named_parameters()``: ``["decoder"]`` for a VAE's decoder, ``["last"]`` for the last layers; None
            for all.
        burn_in: steps before the first sample, rounded up to a multiple of ``thin``.
        thin: steps between two samples.
        step_size: step size eps; eps^2 is the learning rate of a gradient that is divided by its own scale.
        friction: fraction of the momentum that is lost at each step, in (0, 1).
        prior_scale: standard deviation of the normal prior of each weight.
        n_rows: number of training rows N; needed for a loader without a length.
        config: options of the training; the options below replace its values. ``batch_size`` is 512 by default. The
            method sets ``optimizer``, ``learning_rate``, ``weight_decay``, ``schedule``, ``ema``, ``gradient_clip``,
            ``patience``, ``max_steps`` and ``evaluate_every`` itself, and has no checkpoints. With ``max_time`` it
            returns the samples taken by then.
        options: fields of :class:`TrainingConfig`.

    Raises:
        ConfigError: for a value that an option does not take.
        TrainingError: if the loss is not finite (lower ``step_size``), or if the time ended before the first sample.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.NICE(2, layers=2, hidden=(8,))
        >>> result = pf.fit(model, x, max_steps=50, progress="silent")
        >>> posterior = bayes.sghmc(model, x, 3, burn_in=20, thin=10, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([3, 200])
    """
    fixed = ("optimizer", "learning_rate", "weight_decay", "schedule", "ema", "gradient_clip", "patience", "max_steps",
             "evaluate_every")  # fmt: skip
    config = sampling_config("sghmc", config, options, fixed)
    check_integer("n_samples", n_samples)
    check_integer("thin", thin)
    check_positive("step_size", step_size)
    burn_in = math.ceil(check_integer("burn_in", burn_in) / thin) * thin
    source, _ = open_data(model, data, context, None, config)
    count = count_rows(source, n_rows)
    if isinstance(source, Rows):
        source.replacement = source.batch_size < len(source.rows)
    chosen = choose_parameters(model, parameters)
    posterior = Posterior(model, n_samples, recorded_names(model, chosen))
    callback, steps = sampling_callback(posterior, burn_in, thin, config.callback)

    def make(weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return AdaptiveSGHMC(
            weights, step_size, rows=count, burn_in=burn_in, friction=friction, prior_scale=prior_scale
        )

    config = dataclasses.replace(
        config, optimizer=make, schedule=None, ema=None, gradient_clip=None, patience=None, callback=callback,
        max_steps=burn_in + n_samples * thin, evaluate_every=thin,
    )  # fmt: skip
    with train_only(model, chosen):
        fit(model, source, validation=None, config=config)
    require_samples(len(steps), "sghmc")
    return posterior.trimmed(len(steps))


class AdaptiveSGHMC(torch.optim.Optimizer):
    """Makes one step of the chain in each call, from the gradient g of the mean loss.

    With g' = g + theta / (N prior_scale^2), the gradient of U / N, and a = eps^2 / sqrt(V) for each weight:

        v <- (1 - friction) v - a g' + N(0, 2 friction a / N - a^2 S),    theta <- theta + v.

    V is the mean square of g', and S is the variance of its noise (half the mean square of the difference of two
    successive g'). Both are exponential averages that are fixed when burn-in ends (Springenberg et al. 2016, sec. 4,
    where S is V). For U / N = c theta^2 / 2 the stationary variance is 1 / (N c) times 1 / (1 - a c / (4 - 2 friction))
    for any noise. If the noise of the batches is too large for the friction, a is lowered to friction / (N S). The
    averages cover an eighth of burn-in; the paper's own rule covers about one step if gradients have no noise.

    Args:
        params: weights of the chain.
        lr: step size eps.
        rows: number of training rows N.
        burn_in: number of steps of burn-in.
        friction: fraction of the momentum that is lost at each step, in (0, 1).
        prior_scale: standard deviation of the normal prior.

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
        """Change every weight that has a gradient. The noise comes from torch's global generator."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, self.state[weight], group["lr"], group["friction"])

    def _move(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], lr: float, friction: float) -> None:
        gradient = gradient + weight / (self.rows * self.prior_scale**2)
        if not state:
            zeros = torch.zeros_like(weight)
            state.update(step=0, momentum=zeros, square=zeros.clone(), noise=zeros.clone(), previous=gradient)
        if state["step"] <= self.burn_in:
            rate = 1 / (1 + min(state["step"], max(10, self.burn_in // 8)))
            state["square"].lerp_(gradient.square(), rate)
            state["noise"].lerp_((gradient - state["previous"]).square() / 2, rate)
            state["previous"] = gradient
            scale = state["square"].sqrt()
            floor = max(_FLOOR * scale.square().mean().sqrt().item(), 1 / (self.rows * self.prior_scale))
            limit = friction / (self.rows * state["noise"])  # infinite without noise
            state["rate"] = torch.minimum(lr**2 / scale.clamp(min=floor), limit)
            variance = 2 * friction / self.rows * state["rate"] - state["rate"].square() * state["noise"]
            state["spread"] = variance.sqrt()
        state["step"] += 1
        momentum = state["momentum"].mul_(1 - friction).addcmul_(state["rate"], gradient, value=-1)
        weight.add_(momentum.addcmul_(state["spread"], torch.randn_like(weight)))
