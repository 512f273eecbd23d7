"""Distributions with known densities on curves and surfaces, and the distance of a model from them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.distributions import VonMises, VonMisesFisher
from pushforward.errors import ConfigError, TrainingError
from pushforward.models import ManifoldModel, Model

if TYPE_CHECKING:
    from papers.experiment import Experiment

__all__ = [
    "Level",
    "ManifoldDistribution",
    "circle",
    "compare",
    "held_out_loss",
    "rotated",
    "sphere",
    "swiss_roll",
    "train_in_phases",
    "train_until_level",
]


@dataclass(frozen=True)
class ManifoldDistribution:
    """A distribution on a d-dimensional manifold in R^D, given in a chart: u in a box, and the area element of the manifold.

    Attributes:
        name: name of the distribution.
        ambient: D.
        box: (low, high) of each chart coordinate.
        draw: function of a count and a generator that returns chart coordinates of random points, ``(n, d)``.
        chart_log_density: log-density of u with respect to du, ``(n, d)`` to ``(n,)``.
        log_area: log of the area element of the chart at u, ``(n, d)`` to ``(n,)``.
        point: the point at u, ``(n, d)`` to ``(n, D)``.
        locate: chart coordinates of the nearest point of the manifold (approximately), ``(n, D)`` to ``(n, d)``.
    """

    name: str
    ambient: int
    box: tuple[tuple[float, float], ...]
    draw: Callable[[int, torch.Generator], Tensor]
    chart_log_density: Callable[[Tensor], Tensor]
    log_area: Callable[[Tensor], Tensor]
    point: Callable[[Tensor], Tensor]
    locate: Callable[[Tensor], Tensor]

    @property
    def dim(self) -> int:
        """d."""
        return len(self.box)

    def sample(self, count: int, seed: int) -> Tensor:
        """Random points, ``(count, D)``, float32."""
        return self.point(self.draw(count, torch.Generator().manual_seed(seed))).float()

    def log_density(self, x: Tensor) -> Tensor:
        """Log-density with respect to area at the nearest points, nats, ``(n,)``, float64."""
        u = self.locate(x.double())
        return self.chart_log_density(u) - self.log_area(u)

    def distance(self, x: Tensor) -> Tensor:
        """Distance of each point to its nearest point on the manifold, ``(n,)``."""
        x = x.double()
        return torch.linalg.vector_norm(x - self.point(self.locate(x)), dim=-1)

    def grid(self, cells: int, finer: int = 1) -> tuple[Tensor, float]:
        """Midpoints of a grid in the chart, ``(cells finer)^d`` rows, and the size of its cells."""
        count = cells * finer
        axes = [low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count for low, high in self.box]
        size = math.prod((high - low) / count for low, high in self.box)
        return torch.cartesian_prod(*axes).reshape(-1, self.dim), size

    def masses(self, cells: int, finer: int = 8) -> Tensor:
        """Probability of each cell of a grid in the chart, in the order of :meth:`cell`."""
        u, size = self.grid(cells, finer)
        each = self.chart_log_density(u).exp() * size
        if self.dim == 1:
            return each.reshape(cells, finer).sum(1)
        return each.reshape(cells, finer, cells, finer).sum((1, 3)).flatten()

    def cell(self, x: Tensor, cells: int) -> Tensor:
        """The index of the grid cell that contains the nearest point of each point."""
        u = self.locate(x.double())
        index = torch.zeros(len(u), dtype=torch.int64)
        for column, (low, high) in zip(u.T, self.box, strict=True):
            point = ((column - low) / (high - low) * cells).long().clamp(0, cells - 1)
            index = index * cells + point
        return index

    def total_variation(self, x: Tensor, cells: int) -> float:
        """Half the sum over cells of abs(frequency - probability): from 0 to 1, with the floor of :meth:`floor`."""
        count = cells**self.dim
        seen = torch.bincount(self.cell(x, cells), minlength=count).double() / len(x)
        return 0.5 * (seen - self.masses(cells)).abs().sum().item()

    def floor(self, count: int, cells: int, seed: int = 100) -> float:
        """The total variation of ``count`` points from the distribution itself, because of their finite number."""
        return self.total_variation(self.sample(count, seed), cells)


def _generated(base: VonMises | VonMisesFisher, count: int, generator: torch.Generator) -> Tensor:
    return base.sample(torch.Size((count,)), generator=generator).double()


def circle(concentration: float = 1.0, center: float = math.pi / 2) -> ManifoldDistribution:
    """Von Mises angles on the unit circle in the plane; entropy 1.6274 nats at concentration 1."""
    base = VonMises(1, concentration).double()

    def wrap(angle: Tensor) -> Tensor:
        return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi

    return ManifoldDistribution(
        "circle",
        2,
        ((-math.pi, math.pi),),
        lambda count, generator: wrap(_generated(base, count, generator) + center),
        lambda u: base.log_prob(wrap(u - center)),
        lambda u: u.new_zeros(len(u)),
        lambda u: torch.cat((u.cos(), u.sin()), -1),
        lambda x: torch.atan2(x[:, 1:], x[:, :1]),
    )


def sphere(
    means: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.3), (-0.6, 0.8, -0.2), (-0.5, -0.7, 0.4)),
    concentrations: tuple[float, ...] = (8.0, 5.0, 12.0),
    weights: tuple[float, ...] = (0.4, 0.35, 0.25),
) -> ManifoldDistribution:
    """A mixture of von Mises-Fisher distributions on the unit sphere in R^3; the chart (height, angle) preserves area."""
    parts = [VonMisesFisher(3, mean, kappa).double() for mean, kappa in zip(means, concentrations, strict=True)]
    probabilities = torch.tensor(weights, dtype=torch.float64) / sum(weights)

    def point(u: Tensor) -> Tensor:
        ring = (1 - u[:, 0].square()).clamp(min=0.0).sqrt()
        return torch.stack((ring * u[:, 1].cos(), ring * u[:, 1].sin(), u[:, 0]), -1)

    def locate(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1).clamp(min=1e-30)
        return torch.stack(((x[:, 2] / length).clamp(-1, 1), torch.atan2(x[:, 1], x[:, 0])), -1)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(probabilities, count, replacement=True, generator=generator)
        drawn = torch.stack([_generated(part, count, generator) for part in parts])
        return locate(drawn[chosen, torch.arange(count)])

    def log_density(u: Tensor) -> Tensor:
        each = torch.stack([part.log_prob(point(u)) for part in parts], -1)
        return torch.logsumexp(each + probabilities.log(), -1)

    return ManifoldDistribution("sphere", 3, ((-1.0, 1.0), (-math.pi, math.pi)), draw, log_density, lambda u: u.new_zeros(len(u)),
                   point, locate)  # fmt: skip


_LOW, _HIGH, _SCALE = 1.5 * math.pi, 4.5 * math.pi, 0.15


def swiss_roll() -> ManifoldDistribution:
    """0.15 (t cos t, h, t sin t) with beta distributions of t in [3 pi/2, 9 pi/2] and h in [0, 12]: area element 0.15^2 sqrt(1 + t^2)."""
    marginals = [torch.distributions.Beta(torch.tensor(a, dtype=torch.float64), b) for a, b in ((2.5, 2.0), (2.0, 3.0))]
    low = torch.tensor([_LOW, 0.0], dtype=torch.float64)
    width = torch.tensor([_HIGH - _LOW, 12.0], dtype=torch.float64)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        # The quantile function from a fine table: torch cannot draw from a beta distribution with a given generator.
        points = torch.linspace(0, 1, 200_001, dtype=torch.float64)
        columns = []
        for marginal in marginals:
            density = marginal.log_prob(points.clamp(1e-12, 1 - 1e-12)).exp()
            rise = torch.cumulative_trapezoid(density, points)
            table = torch.cat((rise.new_zeros(1), rise / rise[-1]))
            u = torch.rand(count, dtype=torch.float64, generator=generator)
            right = torch.searchsorted(table, u).clamp(1, len(points) - 1)
            fraction = (u - table[right - 1]) / (table[right] - table[right - 1]).clamp(min=1e-300)
            columns.append(points[right - 1] + fraction * (points[right] - points[right - 1]))
        return low + width * torch.stack(columns, -1)

    def log_density(u: Tensor) -> Tensor:
        unit = ((u - low) / width).clamp(1e-12, 1 - 1e-12)
        return (
            sum((marginal.log_prob(unit[:, k]) for k, marginal in enumerate(marginals)), u.new_zeros(len(u)))
            - width.log().sum()
        )

    def point(u: Tensor) -> Tensor:
        t, h = u.T
        return _SCALE * torch.stack((t * t.cos(), h, t * t.sin()), -1)

    def locate(x: Tensor) -> Tensor:
        a, h, b = (x / _SCALE).T
        angle, radius = torch.atan2(b, a), torch.hypot(a, b)
        turns = torch.round((radius - angle) / (2 * math.pi))
        lowest, highest = torch.ceil((_LOW - angle) / (2 * math.pi)), torch.floor((_HIGH - angle) / (2 * math.pi))
        t = angle + 2 * math.pi * torch.minimum(torch.maximum(turns, lowest), highest)
        return torch.stack((t, h.clamp(0.0, 12.0)), -1)

    return ManifoldDistribution("Swiss roll", 3, ((_LOW, _HIGH), (0.0, 12.0)), draw, log_density,
                   lambda u: 2 * math.log(_SCALE) + 0.5 * torch.log1p(u[:, 0].square()), point, locate)  # fmt: skip


def rotated(target: ManifoldDistribution, ambient: int, seed: int = 0) -> ManifoldDistribution:
    """The same manifold in R^ambient: zeros are appended and a random rotation is applied, which do not change the density."""
    normal = torch.randn(ambient, ambient, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    columns = torch.linalg.qr(normal)[0][:, : target.ambient]
    return ManifoldDistribution(
        f"{target.name} in R^{ambient}", ambient, target.box, target.draw, target.chart_log_density,
        target.log_area, lambda u: target.point(u) @ columns.T, lambda x: target.locate(x @ columns),
    )  # fmt: skip


def compare(
    target: ManifoldDistribution, model: Model, *, test: int, count: int, cells: int, seed: int = 0
) -> dict[str, float]:
    """Measure how far a model is from the distribution that its training rows came from.

    Args:
        target: the true distribution.
        model: any model of vectors with D coordinates.
        test: number of rows for the log-likelihood.
        count: number of samples of the model for the total variation.
        cells: number of grid cells in each dimension of the chart.
        seed: seed of the test rows and samples.

    Returns:
        "tv", the total variation of the nearest points of the samples, and its "floor"; "distance", the median distance of the
        samples to the manifold; "nats", the mean log-likelihood of test rows; "truth", the mean of their true log-density on
        the manifold; and "residual", the mean residual (0 for a model of the whole space).
    """
    with torch.no_grad():
        rows = target.sample(test, 1000 + seed)
        result = model.evaluate(rows)
        samples = model.sample(count, seed=seed)
    residual = 0.0 if result.residual is None else result.residual.double().mean().item()
    return {
        "tv": target.total_variation(samples, cells),
        "floor": target.floor(count, cells),
        "distance": target.distance(samples).median().item(),
        "nats": result.value.double().mean().item(),
        "truth": target.log_density(rows).mean().item(),
        "residual": residual,
    }


def train_in_phases(
    experiment: Experiment,
    key: str,
    make: Callable[[], ManifoldModel],
    rows: Tensor,
    phases: dict[str, int],
    **options: Any,
) -> ManifoldModel:
    """Train a model in several phases, one after the other; ``phases`` has the number of steps of each."""
    model: ManifoldModel | None = None
    for phase, steps in phases.items():

        def start(before: ManifoldModel | None = model, phase: str = phase) -> ManifoldModel:
            model = make() if before is None else before
            model.set_phase(phase)
            return model

        model = experiment.train(f"{key} {phase}", start, rows, None, max_steps=steps, **options)[0]
    if model is None:
        raise ConfigError("a model needs at least one training phase; got none.")
    return model


@dataclass(frozen=True)
class Level:
    """When a training is level: no stage of it lowers the loss on held-out rows any more.

    Each stage starts from the best one so far. It improves if its loss is lower than that of the last stage that improved by the
    least improvement, so that several small steps down count together. The learning rate is halved after each stage without
    improvement: at a high rate a stage may end worse than it started.

    Attributes:
        stage: steps of a stage, in which the learning rate falls from its start to 0.
        most: largest number of stages of a phase.
        patience: number of stages without improvement in a row after which training stops.
        nats: least improvement of a loss in nats.
        relative: least improvement of a squared distance, relative to that of the last stage that improved.
    """

    stage: int
    most: int
    patience: int = 2
    nats: float = 0.005
    relative: float = 0.02


@torch.no_grad()
def held_out_loss(model: Model, rows: Tensor) -> float:
    """What training minimizes, without the estimates that have its gradient only: nats, or a squared distance for "manifold".

    For a joint training it contains the reconstruction, so it does not prefer a small manifold as the likelihood alone would.
    """
    if isinstance(model, ManifoldModel) and model.phase == "joint":
        found = model.evaluate(rows)
        assert found.residual is not None
        return (model.reconstruction_weight * found.residual.double() - found.value.double()).mean().item()
    return model.loss(rows, generator=torch.Generator().manual_seed(0)).item()


def train_until_level(
    experiment: Experiment,
    key: str,
    make: Callable[[], Model],
    rows: Tensor,
    held_out: Tensor,
    level: Level,
    *,
    phases: Sequence[str] = ("",),
    seed: int = 0,
    learning_rate: float = 1e-3,
    **options: Any,
) -> tuple[Model, dict[str, int]]:
    """Train in stages, in each phase until its loss on held-out rows is level, and keep the best stage.

    A stage whose loss becomes infinite counts as one without improvement.

    Returns:
        The model; the number of steps of all phases, and of phases that ended before they were level.
    """
    model: Model | None = None
    steps, unfinished = 0, 0
    for phase in phases:
        best, reference, stale, failed = math.inf, math.inf, 0, 0
        for index in range(level.most):

            def start(before: Model | None = model, phase: str = phase, first: bool = index == 0) -> Model:
                model = make() if before is None else copy.deepcopy(before)
                if isinstance(model, ManifoldModel) and (first or model.phase != phase):
                    model.set_phase(phase)
                return model

            name = f"{key} {phase} {index}".replace("  ", " ")
            train = partial(
                experiment.train, name, start, rows, None, seed=seed + 1000 * index, max_steps=level.stage,
                learning_rate=learning_rate * 0.5**failed, **options,
            )  # fmt: skip
            loss = experiment.measure(f"{name} held out", partial(_loss_after, train, held_out))
            steps += level.stage
            margin = level.relative * abs(reference) if phase == "manifold" else level.nats
            if loss is not None and (not math.isfinite(reference) or loss < reference - margin):
                reference, stale = loss, 0
            else:
                stale, failed = stale + 1, failed + 1
            if loss is not None and (not math.isfinite(best) or loss < best):
                best, model = loss, train()[0]
            if stale >= level.patience:
                break
        else:
            unfinished += 1
    if model is None:
        raise ConfigError("a model needs a training phase with a finite loss; got none.")
    return model, {"steps": steps, "unfinished": unfinished}


def _loss_after(train: Callable[[], tuple[Model, Any]], held_out: Tensor) -> float | None:
    """The loss on held-out rows after a training; None if the loss of the training became infinite."""
    try:
        model, _ = train()
    except TrainingError as error:
        if not str(error).startswith("the loss is"):  # another mistake, such as a checkpoint of other settings
            raise
        return None
    return held_out_loss(model, held_out)
