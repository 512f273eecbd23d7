"""Manifold overfitting on a circle: a flow on the plane against an autoencoder and a density of its codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from papers.experiment import PAPER_TRAINING, Experiment, clearly_below, spread
from papers.surfaces.manifolds import Level, train_until_level
from pushforward.distributions import GaussianMixture
from pushforward.models import NSF, AutoEncoder, Model, TwoStep
from pushforward.training import fit_two_step

__all__ = ["level_of", "study_circle"]


def _angles(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).vonmises(0.0, 1.0, count)


def _on_circle(angles: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack((np.cos(angles), np.sin(angles)), 1)).float()


def _variation(x: Tensor) -> float:
    """Total variation between the histogram of the angles over 64 bins and the von Mises distribution."""
    counts, edges = np.histogram(np.arctan2(x[:, 1].numpy(), x[:, 0].numpy()), 64, (-math.pi, math.pi))
    middle = np.exp(np.cos(0.5 * (edges[1:] + edges[:-1])))
    return 0.5 * float(np.abs(counts / counts.sum() - middle / middle.sum()).sum())


def level_of(experiment: Experiment) -> Level | None:
    """The long run trains the autoencoder until it is level on held-out rows, the others for a number of steps."""
    return Level(1000, 10) if experiment.budget == "long" else None


@dataclass(frozen=True)
class Circle:
    """Angles on a circle, from a von Mises distribution.

    Attributes:
        rows: training rows.
        test: test rows.
        steps: of the flow on the plane, at which its likelihood is measured; the last is also that of the density of the codes.
        draws: number of samples for the total variation.
    """

    rows: Tensor
    test: Tensor
    steps: tuple[int, int]
    draws: int

    def variation(self, model: Model) -> float:
        """Total variation of the angles of samples."""
        return _variation(model.sample(self.draws, seed=0))


def study_circle(experiment: Experiment) -> None:
    """A flow on the plane, and two steps, on a circle."""
    circle = Circle(
        _on_circle(_angles(experiment.choose(smoke=200, quick=10_000, full=10_000), 0)),
        _on_circle(_angles(2000, 1)),
        experiment.choose(smoke=(2, 3), quick=(200, 1000), long=(1000, 10_000), full=(1000, 10_000)),
        experiment.choose(smoke=500, quick=50_000, full=100_000),
    )
    logs: dict[int, list[float]] = {count: [] for count in circle.steps}
    ambient: list[float] = []
    two: list[dict[str, float]] = []
    for seed in experiment.few(3, long=5):
        nats, variation = _flow_on_plane(experiment, circle, seed)
        for count, value in nats.items():
            logs[count].append(value)
        ambient.append(variation)
        two.append(experiment.measure(f"circle two steps {seed}", partial(_two_steps, experiment, circle, seed)))
    values = [facts["tv"] for facts in two]
    first, last = circle.steps
    experiment.report(
        "a density on the plane has no highest likelihood on a circle: it rises as training goes on",
        paper="its theorem on manifold overfitting",
        ours=f"test log-likelihood {spread(logs[first])} nats after {first:,} steps, {spread(logs[last])} after {last:,}",
        confirmed=clearly_below(logs[first], logs[last]),
    )
    experiment.report(
        "two steps learn the distribution of the angles better than a flow on the plane",
        ours=f"total variation {spread(values)} against {spread(ambient)}",
        confirmed=clearly_below(values, ambient),
        note=f"as many true samples have {_variation(_on_circle(_angles(circle.draws, 2))):.3f}; the flow and the density of the codes train for "
        + f"{last:,} steps, the autoencoder "
        + (
            "for as many"
            if level_of(experiment) is None
            else "until level on 2,000 held-out rows, which took "
            f"{min(f['steps'] for f in two):,.0f} to {max(f['steps'] for f in two):,.0f} steps; "
            f"{sum(f['unfinished'] > 0 for f in two)} of {len(two)} reached the limit"
        ),
    )


def _flow_on_plane(experiment: Experiment, circle: Circle, seed: int) -> tuple[dict[int, float], float]:
    """Mean log-likelihood of test rows by number of steps, and the total variation of samples after the last of them."""
    nats: dict[int, float] = {}
    flows: list[Model] = []

    def score(flow: Model) -> float:
        with torch.no_grad():
            return flow.log_prob(circle.test).mean().item()

    for count in circle.steps:
        key = f"circle flow {count} {seed}"
        flow, _ = experiment.train(
            key, lambda: NSF(2, layers=3, hidden=(32, 32)), circle.rows, None, seed=seed, max_steps=count,
            batch_size=500, schedule=None,
        )  # fmt: skip
        flows.append(flow)
        nats[count] = experiment.measure(f"{key} nats", partial(score, flow))
    return nats, experiment.measure(f"circle flow {seed} TV", partial(circle.variation, flows[-1]))


def _two_steps(experiment: Experiment, circle: Circle, seed: int) -> dict[str, float]:
    """Total variation of a two-step model."""
    if (level := level_of(experiment)) is not None:
        return _two_steps_until(experiment, circle, seed, level)
    torch.manual_seed(seed)
    model = TwoStep(AutoEncoder(2, latent=1, hidden=(64, 64)), GaussianMixture(1, 20, seed=seed))
    fit_two_step(
        model,
        circle.rows,
        validation=None,
        seed=seed,
        batch_size=500,
        config=PAPER_TRAINING,
        learning_rate=3e-3,
        max_steps=circle.steps[1],
    )
    return {"tv": circle.variation(model)}


def _two_steps_until(experiment: Experiment, circle: Circle, seed: int, level: Level) -> dict[str, float]:
    """The autoencoder trained until it is level on held-out rows, and no penalty of the codes, which bends the curve."""
    kept = _on_circle(_angles(2000, 3))
    make = partial(AutoEncoder, 2, latent=1, hidden=(64, 64), penalty="mmd", penalty_weight=0.0)
    shared: dict[str, Any] = {"seed": seed, "batch_size": 500, "learning_rate": 3e-3}
    first, facts = train_until_level(
        experiment, f"circle autoencoder {seed}", make, circle.rows, kept, level, **shared
    )  # fmt: skip
    model = TwoStep(cast("AutoEncoder", first), GaussianMixture(1, 20, seed=seed))
    fit_two_step(
        model, circle.rows, validation=kept, autoencoder=False, config=PAPER_TRAINING, max_steps=circle.steps[1], patience=None,
        evaluate_every=max(1, level.stage // 4), **shared,
    )  # fmt: skip
    return {"tv": circle.variation(model), **facts}
