"""SWAG: a normal distribution fitted to the weights that SGD visits (Maddox et al. 2019, arXiv 1902.02476)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.training.bayes.common import (
    choose_parameters,
    open_data,
    recorded_names,
    refresh,
    require_samples,
    sampling_config,
    train_only,
)
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.config import TrainingConfig, TrainingOptions, with_options
from pushforward.training.fit import fit
from pushforward.training.result import TrainingEvent
from pushforward.training.seeds import generator, preserved
from pushforward.training.sources import Source

__all__ = ["swag"]

_SCALES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01)
_TUNING_SAMPLES, _TUNING_ROWS = 10, 1000
"""Number of samples and of held-out rows by which a scale is chosen."""
_SAMPLE_SEED, _TUNING_SEED = 101, 102


@with_options
def swag(
    model: Model,
    data: Any,
    n_samples: int = 20,
    *,
    context: Any = None,
    parameters: Sequence[str] | None = None,
    validation: Any = 0.1,
    snapshots: int = 40,
    snapshot_every: int | None = None,
    rank: int = 20,
    scale: float | Sequence[float] = _SCALES,
    config: TrainingConfig | None = None,
    **options: Unpack[TrainingOptions],
) -> Posterior:
    """Sample theta = mean + scale (sqrt(diag / 2) z_1 + D z_2 / sqrt(2 (rank - 1))) (alg. 1, eq. 1).

    z_1 and z_2 are normal. SGD with a constant learning rate (Nesterov momentum 0.9) continues from a trained model and
    takes a snapshot of the weights every ``snapshot_every`` steps. mean and diag are the mean and the variance of the
    snapshots, and the columns of D are the deviations of the last ``rank`` snapshots from the running mean.

    The spread of SGD depends on its learning rate, so ``scale`` is chosen: of several values the one with the greatest
    predictive likelihood of the held-out rows, mean_n log mean_i p(x_n | theta_i). These are rows like the training
    data. Statistics of batch normalization are recomputed for each sample.

    Args:
        model: a model that ``fit`` has trained. It ends with the mean weights.
        data: training rows, as for :func:`pushforward.fit`.
        n_samples: number of samples M.
        context: context of array data, as for ``fit``.
        parameters: names of the sub-modules or weights with a posterior, as for :func:`sghmc`; None for all.
        validation: held-out rows, as for ``fit`` (the same rows with the same seed and fraction). None needs a single
            scale.
        snapshots: number of snapshots.
        snapshot_every: steps between two snapshots; None is one pass, but at most 500 steps.
        rank: number of deviations K, at least 2 and at most ``snapshots``.
        scale: a number, or several to choose from. The paper uses 1.
        config: options of the training; the options below replace its values. ``batch_size`` is 512 by default. The
            method sets ``optimizer``, ``schedule``, ``ema``, ``patience``, ``max_steps`` and ``evaluate_every`` itself,
            and has no checkpoints.
        options: fields of :class:`TrainingConfig`.

    Raises:
        ConfigError: for a value that an option does not take.
        TrainingError: if the loss is not finite (lower ``learning_rate``), or if the time ended before the second
            snapshot.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.NICE(2, layers=2, hidden=(8,))
        >>> result = pf.fit(model, x, max_steps=50, progress="silent")
        >>> posterior = bayes.swag(model, x, 3, snapshots=5, rank=3, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([3, 200])
    """
    fixed = ("optimizer", "schedule", "ema", "patience", "max_steps", "evaluate_every")
    config = sampling_config("swag", config, options, fixed)
    check_integer("n_samples", n_samples)
    check_integer("snapshots", snapshots, 2)
    if check_integer("rank", rank, 2) > snapshots:
        raise ConfigError(f"rank must be at most the number of snapshots; got rank={rank} and snapshots={snapshots}.")
    scales = [check_positive("scale", s) for s in (scale if isinstance(scale, Sequence) else [scale])]
    train, held_out = open_data(model, data, context, validation, config)
    if not scales:
        raise ConfigError("scale must be a positive number, or at least one to choose from; got none.")
    if len(scales) > 1 and held_out is None:
        raise ConfigError("the scale is chosen by held-out rows: pass validation=, or a single number as scale=.")
    if snapshot_every is None:
        snapshot_every = 500 if train.steps is None else min(max(round(train.steps), 1), 500)
    check_integer("snapshot_every", snapshot_every)
    chosen = choose_parameters(model, parameters)
    trajectory = Trajectory(chosen, rank)
    callback = config.callback

    def take_snapshot(event: TrainingEvent) -> object:
        if event.step and event.step % snapshot_every == 0:  # not at the end of a run that time ended
            trajectory.add()
        return None if callback is None else callback(event)

    config = dataclasses.replace(
        config, optimizer="sgd", schedule=None, ema=None, patience=None, callback=take_snapshot,
        evaluate_every=snapshot_every, max_steps=snapshots * snapshot_every,
    )  # fmt: skip
    with train_only(model, chosen):
        fit(model, train, validation=None, config=config)
    require_samples(trajectory.count > 1, "swag")
    if len(scales) > 1 and held_out is not None:
        rows, seed = _tuning_rows(held_out), (config.seed, _TUNING_SEED)
        best = max(scales, key=lambda s: _quality(_sample(model, trajectory, train, s, _TUNING_SAMPLES, seed), *rows))
    else:
        best = scales[0]
    posterior = _sample(model, trajectory, train, best, n_samples, (config.seed, _SAMPLE_SEED))
    trajectory.set_weights(0.0, None)
    refresh(model, train, config.seed)
    return posterior.trimmed(n_samples)


class Trajectory:
    """Running mean, variance and last deviations of changing weights; mean and variance in float64.

    Args:
        weights: weights by name. They are read, and set to samples.
        rank: number of last deviations that are stored.
    """

    def __init__(self, weights: dict[str, nn.Parameter], rank: int) -> None:
        self.weights, self.rank, self.count = weights, rank, 0
        self.mean = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in weights.items()}
        self.squares = {name: torch.zeros_like(mean) for name, mean in self.mean.items()}
        self.deviations: dict[str, list[Tensor]] = {name: [] for name in weights}

    @torch.no_grad()
    def add(self) -> None:
        """Add the present weights (Welford 1962, which is precise where the variance is far below the squared mean)."""
        self.count += 1
        for name, weight in self.weights.items():
            step = weight.double() - self.mean[name]
            self.mean[name] += step / self.count
            deviation = weight.double() - self.mean[name]
            self.squares[name] += step * deviation
            self.deviations[name] = [*self.deviations[name], deviation.to(weight.dtype)][-self.rank :]

    @torch.no_grad()
    def set_weights(self, scale: float, noise: torch.Generator | None) -> None:
        """Set the weights to a sample, or to the mean with scale 0."""
        columns = min(self.rank, self.count)
        shared = torch.randn(columns, generator=noise).tolist() if scale else []  # one z_2 for all weights
        for name, weight in self.weights.items():
            value = self.mean[name].clone()
            if scale:
                own = torch.randn(weight.shape, generator=noise).to(value)
                value += scale * (self.squares[name] / self.count / 2).sqrt() * own
                for z, deviation in zip(shared, self.deviations[name], strict=True):
                    value += scale * z / (2 * (columns - 1)) ** 0.5 * deviation.to(value)
            weight.copy_(value)


def _sample(
    model: Model, trajectory: Trajectory, source: Source, scale: float, n_samples: int, seed: tuple[int, int]
) -> Posterior:
    posterior = Posterior(model, n_samples, recorded_names(model, trajectory.weights))
    for k in range(n_samples):
        trajectory.set_weights(scale, generator(*seed, k))  # the same z for every scale
        refresh(model, source, seed[0])
        posterior.record(k)
    return posterior


def _tuning_rows(held_out: Source) -> tuple[Tensor, Tensor | None]:
    with preserved(held_out.spec.device):
        x, context = held_out.spec.cast(*held_out.raw_sample(_TUNING_ROWS))
    return x[:_TUNING_ROWS], None if context is None else context[:_TUNING_ROWS]


def _quality(posterior: Posterior, x: Tensor, context: Tensor | None) -> float:
    """Mean predictive log-likelihood, or -inf if it is undefined."""
    value = posterior.predictive(x, context).value.mean().item()
    return value if value == value else -torch.inf
