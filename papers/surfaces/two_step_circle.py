"""Manifold overfitting on a circle and an arc: a flow on the plane against an autoencoder and a density of its codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import vonmises
from torch import Tensor

from papers.experiment import PAPER_TRAINING, Experiment, clearly_below, spread
from papers.surfaces.manifolds import Level, train_until_level
from pushforward.distributions import Distribution, GaussianMixture
from pushforward.models import NSF, AutoEncoder, Model, TwoStep
from pushforward.training import fit_two_step

__all__ = ["level_of", "study_circle"]


_END = 0.75 * math.pi
"""Largest angle of the arc."""


def _angles(count: int, seed: int, end: float = math.pi) -> np.ndarray:
    """Angles of a von Mises distribution that are at most ``end`` from 0."""
    source = np.random.default_rng(seed)
    found = source.vonmises(0.0, 1.0, count if end == math.pi else 2 * count)
    return found[np.abs(found) <= end][:count]


def _on_circle(angles: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack((np.cos(angles), np.sin(angles)), 1)).float()


def _variation(x: Tensor, end: float = math.pi) -> float:
    """Total variation between the histogram of the angles over 64 bins and the von Mises distribution up to ``end``."""
    counts, edges = np.histogram(np.arctan2(x[:, 1].numpy(), x[:, 0].numpy()), 64, (-math.pi, math.pi))
    truth = np.diff(vonmises.cdf(np.clip(edges, -end, end), 1.0))
    return 0.5 * float(np.abs(counts / counts.sum() - truth / truth.sum()).sum())


def level_of(experiment: Experiment) -> Level | None:
    """The long run trains the autoencoder until it is level on held-out rows, the others for a number of steps."""
    return Level(1000, 10) if experiment.budget == "long" else None


@dataclass(frozen=True)
class Curve:
    """Angles on a circle or an arc of it, from a von Mises distribution.

    Attributes:
        name: "circle", "arc" or "large circle".
        rows: training rows.
        test: test rows.
        held_out: rows that tell when an autoencoder is level.
        steps: of the flow on the plane, at which its likelihood is measured; the last is also that of the density of the codes.
        draws: number of samples for the total variation.
        end: largest angle.
    """

    name: str
    rows: Tensor
    test: Tensor
    held_out: Tensor
    steps: tuple[int, ...]
    draws: int
    end: float

    @classmethod
    def of(cls, name: str, end: float, count: int, steps: tuple[int, ...], draws: int) -> Curve:
        """Rows, test rows and held-out rows."""
        sizes = (count, 2000, 2000 if name == "circle" else 20_000)
        rows, test, held_out = (
            _on_circle(_angles(size, seed, end)) for size, seed in zip(sizes, (0, 1, 3), strict=True)
        )
        return cls(name, rows, test, held_out, steps, draws, end)

    def variation(self, model: Model) -> float:
        """Total variation of the angles of samples."""
        return _variation(model.sample(self.draws, seed=0), self.end)

    def floor(self) -> float:
        """Total variation of as many true samples."""
        return _variation(_on_circle(_angles(self.draws, 2, self.end)), self.end)


def study_circle(experiment: Experiment) -> None:
    """A flow on the plane, and two steps, on a circle; on an arc, which a code of one number can cover; and on a circle with as many rows."""
    steps = experiment.choose(smoke=(2, 3), quick=(200, 1000), long=(1000, 10_000), full=(1000, 10_000))
    draws = experiment.choose(smoke=500, quick=50_000, full=100_000)
    count = experiment.choose(smoke=200, quick=10_000, full=10_000)
    _study_circle(experiment, Curve.of("circle", math.pi, count, steps, draws))
    count = experiment.choose(smoke=200, quick=10_000, long=200_000, full=200_000)
    _study_many_rows(
        experiment, Curve.of("arc", _END, count, steps[-1:], draws), "on an arc, which a code of one number covers,",
        "angles to 135 degrees; two seeds were looked at before the arc was added, with the autoencoder trained for 8,000 steps; ",
    )  # fmt: skip
    if experiment.budget != "quick":  # the arc's rows are as few there
        _study_many_rows(
            experiment, Curve.of("large circle", math.pi, count, steps[-1:], draws), "on a circle, with as many rows as on the arc,",
            "a code of one number must cut the circle at a point; ",
        )  # fmt: skip


def _study_circle(experiment: Experiment, circle: Curve) -> None:
    logs: dict[int, list[float]] = {count: [] for count in circle.steps}
    ambient: list[float] = []
    two: list[dict[str, float]] = []
    for seed in experiment.few(3, long=5):
        nats, variation = _flow_on_plane(experiment, circle, seed)
        for count, value in nats.items():
            logs[count].append(value)
        ambient.append(variation)
        two.append(
            experiment.measure(f"circle two steps {seed}", partial(_two_steps, experiment, circle, seed, _mixture))
        )
    first, last = circle.steps
    experiment.report(
        "a density on the plane has no highest likelihood on a circle: it rises as training goes on",
        paper="its theorem on manifold overfitting",
        ours=f"test log-likelihood {spread(logs[first])} nats after {first:,} steps, {spread(logs[last])} after {last:,}",
        confirmed=clearly_below(logs[first], logs[last]),
        seeds=len(logs[last]),
    )
    values = [facts["tv"] for facts in two]
    experiment.report(
        "two steps learn the distribution of the angles better than a flow on the plane",
        ours=f"total variation {spread(values)} against {spread(ambient)}",
        confirmed=clearly_below(values, ambient),
        seeds=len(values),
        note=f"as many true samples have {circle.floor():.3f}, and the training rows {_variation(circle.rows):.3f}; a code of one number must cut the circle at a point; "
        + _conditions(experiment, circle, two),
    )


def _study_many_rows(experiment: Experiment, curve: Curve, where: str, note: str) -> None:
    """A flow on the plane, and two steps with two densities of the codes."""
    ambient: list[float] = []
    two: dict[str, list[dict[str, float]]] = {"NF": [], "mixture": []}
    for seed in experiment.few(3, long=5):
        ambient.append(_flow_on_plane(experiment, curve, seed)[1])
        for (name, found), make in zip(two.items(), (_flow_of_codes, _mixture), strict=True):
            found.append(
                experiment.measure(f"{curve.name} {name} {seed}", partial(_two_steps, experiment, curve, seed, make))
            )
    values = {name: [facts["tv"] for facts in found] for name, found in two.items()}
    experiment.report(
        f"{where} two steps learn the distribution of the angles better than a flow on the plane",
        ours=f"total variation with a flow of the codes {spread(values['NF'], 3)}, with a mixture {spread(values['mixture'], 3)}, of the flow on "
        f"the plane {spread(ambient, 3)}",
        confirmed=clearly_below(values["NF"], ambient),
        seeds=len(ambient),
        note=f"as many true samples have {curve.floor():.3f}, and the {len(curve.rows):,} training rows {_variation(curve.rows, curve.end):.3f}; {note}"
        + _conditions(experiment, curve, two["NF"]),
    )


def _conditions(experiment: Experiment, curve: Curve, two: list[dict[str, float]]) -> str:
    """Text on the training."""
    return f"the flow and the density of the codes train for {curve.steps[-1]:,} steps, the autoencoder " + (
        "for as many"
        if level_of(experiment) is None
        else f"until level on {len(curve.held_out):,} held-out rows, which took "
        f"{min(f['steps'] for f in two):,.0f} to {max(f['steps'] for f in two):,.0f} steps; "
        f"{sum(f['unfinished'] > 0 for f in two)} of {len(two)} reached the limit"
    )


def _mixture(seed: int) -> Distribution:
    return GaussianMixture(1, 20, seed=seed)


def _flow_of_codes(seed: int) -> Model:
    torch.manual_seed(seed)
    return NSF(1, layers=3, hidden=(32, 32))


def _flow_on_plane(experiment: Experiment, curve: Curve, seed: int) -> tuple[dict[int, float], float]:
    """Mean log-likelihood of test rows by number of steps, and the total variation of samples after the last of them."""
    nats: dict[int, float] = {}
    flows: list[Model] = []

    def score(flow: Model) -> float:
        with torch.no_grad():
            return flow.log_prob(curve.test).mean().item()

    for count in curve.steps:
        key = f"{curve.name} flow {count} {seed}"
        flow, _ = experiment.train(
            key, lambda: NSF(2, layers=3, hidden=(32, 32)), curve.rows, None, seed=seed, max_steps=count,
            batch_size=500, schedule=None,
        )  # fmt: skip
        flows.append(flow)
        nats[count] = experiment.measure(f"{key} nats", partial(score, flow))
    return nats, experiment.measure(f"{curve.name} flow {seed} TV", partial(curve.variation, flows[-1]))


def _two_steps(
    experiment: Experiment, curve: Curve, seed: int, density: Callable[[int], Model | Distribution]
) -> dict[str, float]:
    """Total variation of a two-step model.

    The long run trains the autoencoder until it is level on held-out rows, without a penalty of the codes, which bends the curve.
    """
    shared: dict[str, Any] = {"seed": seed, "batch_size": 500, "learning_rate": 3e-3, "config": PAPER_TRAINING}
    if (level := level_of(experiment)) is None:
        torch.manual_seed(seed)
        model = TwoStep(AutoEncoder(2, latent=1, hidden=(64, 64)), density(seed))
        fit_two_step(model, curve.rows, validation=None, max_steps=curve.steps[-1], **shared)
        return {"tv": curve.variation(model)}
    make = partial(AutoEncoder, 2, latent=1, hidden=(64, 64), penalty="mmd", penalty_weight=0.0)
    options = {name: value for name, value in shared.items() if name != "config"}
    first, facts = train_until_level(
        experiment, f"{curve.name} autoencoder {seed}", make, curve.rows, curve.held_out, level, **options
    )  # fmt: skip
    model = TwoStep(cast("AutoEncoder", first), density(seed))
    fit_two_step(
        model, curve.rows, validation=curve.held_out, autoencoder=False, max_steps=curve.steps[-1], patience=None,
        evaluate_every=max(1, level.stage // 4), **shared,
    )  # fmt: skip
    return {"tv": curve.variation(model), **facts}
