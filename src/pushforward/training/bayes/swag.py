"""SWAG: a normal law from the path of SGD (Maddox et al. 2019, arXiv 1902.02476)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.models.base import Model
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.training.bayes.common import (
    Callback,
    check_options,
    choose,
    opened,
    refresh,
    require_samples,
    trained_alone,
    varying,
)
from pushforward.training.bayes.posterior import Posterior
from pushforward.training.fit import fit
from pushforward.training.result import TrainingEvent
from pushforward.training.seeds import generator, preserved
from pushforward.training.sources import Source

__all__ = ["swag"]

_SCALES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01)
_DRAWS, _ROWS = 10, 1000
"""Samples and held-out rows by which a scale is chosen."""
_DRAW, _TUNE = 101, 102


def swag(
    model: Model,
    data: Any,
    samples: int = 20,
    *,
    context: Any = None,
    parameters: Sequence[str] | None = None,
    validation: Any = 0.1,
    lr: float = 1e-3,
    snapshots: int = 40,
    snapshot_every: int | None = None,
    rank: int = 20,
    scale: float | Sequence[float] = _SCALES,
    batch_size: int = 512,
    seed: int = 0,
    device: Any = None,
    callback: Callback = None,
    **options: Any,
) -> Posterior:
    """theta = mean + scale (sqrt(diag / 2) z_1 + D z_2 / sqrt(2 (rank - 1))) with normal z_1 and z_2 (alg. 1, eq. 1).

    From a trained model SGD goes on with a constant step; of the weights after each ``snapshot_every`` steps, mean and
    diag are the mean and the variance, and D has the last ``rank`` deviations from the mean so far as columns. How far SGD
    strays depends on its step, so the spread is chosen: of several scales that with the greatest predictive likelihood of
    the held-out rows, mean_n log mean_i p(x_n | theta_i). They are in-distribution rows, as they must be. Statistics of batch
    norm are brought to each sample's weights.

    Args:
        model: trained by ``fit``; ends with the mean weights.
        data: as for :func:`pushforward.fit`.
        samples: M.
        context: as for ``fit``.
        parameters: names of the sub-modules or weights with a posterior, as for :func:`sghmc`; None for all.
        validation: held-out rows, as for ``fit`` (with the same seed and fraction the same rows); None only with one scale.
        lr: SGD's step, with Nesterov momentum 0.9.
        snapshots: how many weights to look at.
        snapshot_every: steps between them; by default one pass, but at most 500 steps.
        rank: K, at least 2 and at most ``snapshots``.
        scale: a number, or several to choose from; 1 is the paper's.
        batch_size: rows of a step.
        seed: of batches and draws.
        device: where to run.
        callback: as for ``fit``; called at each snapshot.
        options: further options of ``fit``, as ``max_time``, ``gradient_clip`` or ``progress``.

    Raises:
        ConfigError: for an option that does not work.
        TrainingError: if the loss is not finite (lower ``lr``), or time was up before the second snapshot.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.training import bayes
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.NICE(2, couplings=2, hidden=(8,))
        >>> result = pf.fit(model, x, max_steps=50, progress="silent")
        >>> posterior = bayes.swag(model, x, 3, snapshots=5, rank=3, progress="silent")
        >>> posterior.log_likelihoods(x).shape
        torch.Size([3, 200])
    """
    check_options(options)
    check_integer("samples", samples)
    check_integer("snapshots", snapshots, 2)
    if check_integer("rank", rank, 2) > snapshots:
        raise ConfigError(f"rank={rank} deviations need as many snapshots, and there are {snapshots}.")
    scales = [check_positive("scale", s) for s in (scale if isinstance(scale, Sequence) else [scale])]
    train, held_out = opened(model, data, context, validation, batch_size, seed, device)
    if not scales or (len(scales) > 1 and held_out is None):
        raise ConfigError("a scale is chosen by held-out rows: give validation=, or one number as scale=.")
    every = snapshot_every or (500 if train.steps is None else min(max(round(train.steps), 1), 500))
    chosen = choose(model, parameters)
    path = Trajectory(chosen, rank)

    def look(event: TrainingEvent) -> object:
        if event.step:
            path.add()
        return None if callback is None else callback(event)

    with trained_alone(model, chosen):
        fit(
            model, train, validation=None, optimizer="sgd", lr=lr, schedule=None, average=None, patience=None, seed=seed,
            max_steps=snapshots * check_integer("snapshot_every", every), evaluate_every=every, callback=look, **options,
        )  # fmt: skip
    require_samples(path.count > 1, "SGD")
    if len(scales) > 1 and held_out is not None:
        rows = _rows(held_out)
        best = max(scales, key=lambda s: _worth(_draw(model, path, train, s, _DRAWS, (seed, _TUNE)), *rows))
    else:
        best = scales[0]
    posterior = _draw(model, path, train, best, samples, (seed, _DRAW))
    path.place(0.0, None)
    refresh(model, train, seed)
    return posterior.trimmed(samples)


class Trajectory:
    """Mean, variance and last deviations of weights that move, in float64 but for the deviations.

    Args:
        weights: by name; they are read, and set to samples.
        rank: deviations that are kept.
    """

    def __init__(self, weights: dict[str, nn.Parameter], rank: int) -> None:
        self.weights, self.rank, self.count = weights, rank, 0
        self.mean = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in weights.items()}
        self.squares = {name: torch.zeros_like(mean) for name, mean in self.mean.items()}
        self.deviations: dict[str, list[Tensor]] = {name: [] for name in weights}

    @torch.no_grad()
    def add(self) -> None:
        """The weights as they are now (Welford 1962: variances far below the square of the mean keep their digits)."""
        self.count += 1
        for name, weight in self.weights.items():
            step = weight.double() - self.mean[name]
            self.mean[name] += step / self.count
            deviation = weight.double() - self.mean[name]
            self.squares[name] += step * deviation
            self.deviations[name] = [*self.deviations[name], deviation.to(weight.dtype)][-self.rank :]

    @torch.no_grad()
    def place(self, scale: float, noise: torch.Generator | None) -> None:
        """Set the weights to a sample; to the mean with scale 0."""
        columns = min(self.rank, self.count)
        shared = torch.randn(columns, generator=noise).tolist()  # one z_2 for all weights
        for name, weight in self.weights.items():
            value = self.mean[name].clone()
            if scale:
                own = torch.randn(weight.shape, generator=noise).to(value)
                value += scale * (self.squares[name] / self.count / 2).sqrt() * own
                for z, deviation in zip(shared, self.deviations[name], strict=True):
                    value += scale * z / (2 * (columns - 1)) ** 0.5 * deviation.to(value)
            weight.copy_(value)


def _draw(
    model: Model, path: Trajectory, source: Source, scale: float, samples: int, seed: tuple[int, int]
) -> Posterior:
    posterior = Posterior(model, samples, varying(model, path.weights))
    for k in range(samples):
        path.place(scale, generator(*seed, k))  # the same z for every scale
        refresh(model, source, seed[0])
        posterior.record(k)
    return posterior


def _rows(held_out: Source) -> tuple[Tensor, Tensor | None]:
    with preserved(held_out.form.device):
        x, context = held_out.form.cast(*held_out.raw_sample(_ROWS))
    return x[:_ROWS], None if context is None else context[:_ROWS]


def _worth(posterior: Posterior, x: Tensor, context: Tensor | None) -> float:
    """Mean predictive log-likelihood; -inf where it is undefined."""
    value = posterior.predictive(x, context).value.mean().item()
    return value if value == value else -torch.inf
