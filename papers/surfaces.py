"""Curves and surfaces with known densities, and how far a law on them is from the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.distributions import VonMises, VonMisesFisher
from pushforward.models import Model

if TYPE_CHECKING:
    from papers.experiment import Experiment
    from pushforward.models import ManifoldModel

__all__ = ["Surface", "circle", "judge", "phased", "rotated", "sphere", "swiss_roll"]


@dataclass(frozen=True)
class Surface:
    """A law on a d-dimensional surface in R^D, in a chart: u in a box, with the surface's area element.

    Attributes:
        name: of the law.
        ambient: D.
        box: (low, high) of each chart coordinate.
        draw: chart coordinates of random points, ``(n, d)``, from a count and a generator.
        chart_log_density: of u, ``(n, d)`` to ``(n,)``, with respect to du.
        log_area: log of the area element of the chart at u.
        place: the point at u, ``(n, d)`` to ``(n, D)``.
        locate: chart coordinates of the (nearly) nearest point of the surface, ``(n, D)`` to ``(n, d)``.
    """

    name: str
    ambient: int
    box: tuple[tuple[float, float], ...]
    draw: Callable[[int, torch.Generator], Tensor]
    chart_log_density: Callable[[Tensor], Tensor]
    log_area: Callable[[Tensor], Tensor]
    place: Callable[[Tensor], Tensor]
    locate: Callable[[Tensor], Tensor]

    @property
    def dim(self) -> int:
        """d."""
        return len(self.box)

    def sample(self, count: int, seed: int) -> Tensor:
        """Points, ``(count, D)``, float32."""
        return self.place(self.draw(count, torch.Generator().manual_seed(seed))).float()

    def log_density(self, x: Tensor) -> Tensor:
        """Log-density with respect to area at the nearest points, nats, ``(n,)``, float64."""
        u = self.locate(x.double())
        return self.chart_log_density(u) - self.log_area(u)

    def distance(self, x: Tensor) -> Tensor:
        """To that nearest point, ``(n,)``."""
        x = x.double()
        return torch.linalg.vector_norm(x - self.place(self.locate(x)), dim=-1)

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
        """The cell of each point's nearest point."""
        u = self.locate(x.double())
        index = torch.zeros(len(u), dtype=torch.int64)
        for column, (low, high) in zip(u.T, self.box, strict=True):
            place = ((column - low) / (high - low) * cells).long().clamp(0, cells - 1)
            index = index * cells + place
        return index

    def total_variation(self, x: Tensor, cells: int) -> float:
        """Half the sum over cells of abs(frequency - probability): from 0 to 1, with a floor that :meth:`floor` measures."""
        count = cells**self.dim
        seen = torch.bincount(self.cell(x, cells), minlength=count).double() / len(x)
        return 0.5 * (seen - self.masses(cells)).abs().sum().item()

    def floor(self, count: int, cells: int, seed: int = 100) -> float:
        """The total variation that so many points of the true law have themselves."""
        return self.total_variation(self.sample(count, seed), cells)


def _generated(base: VonMises | VonMisesFisher, count: int, generator: torch.Generator) -> Tensor:
    return base.sample(torch.Size((count,)), generator=generator).double()


def circle(concentration: float = 1.0, center: float = math.pi / 2) -> Surface:
    """Von Mises angles on the unit circle in the plane; entropy 1.6274 nats at concentration 1."""
    base = VonMises(1, concentration).double()

    def wrap(angle: Tensor) -> Tensor:
        return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi

    return Surface(
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
) -> Surface:
    """A mixture of von Mises-Fisher laws on the unit sphere in R^3; the chart (height, angle) keeps area."""
    parts = [VonMisesFisher(3, mean, kappa).double() for mean, kappa in zip(means, concentrations, strict=True)]
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)

    def place(u: Tensor) -> Tensor:
        ring = (1 - u[:, 0].square()).clamp(min=0.0).sqrt()
        return torch.stack((ring * u[:, 1].cos(), ring * u[:, 1].sin(), u[:, 0]), -1)

    def locate(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1).clamp(min=1e-30)
        return torch.stack(((x[:, 2] / length).clamp(-1, 1), torch.atan2(x[:, 1], x[:, 0])), -1)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(shares, count, replacement=True, generator=generator)
        drawn = torch.stack([_generated(part, count, generator) for part in parts])
        return locate(drawn[chosen, torch.arange(count)])

    def log_density(u: Tensor) -> Tensor:
        each = torch.stack([part.log_prob(place(u)) for part in parts], -1)
        return torch.logsumexp(each + shares.log(), -1)

    return Surface("sphere", 3, ((-1.0, 1.0), (-math.pi, math.pi)), draw, log_density, lambda u: u.new_zeros(len(u)),
                   place, locate)  # fmt: skip


_LOW, _HIGH, _SCALE = 1.5 * math.pi, 4.5 * math.pi, 0.15


def swiss_roll() -> Surface:
    """0.15 (t cos t, h, t sin t) with beta laws for t in [3 pi/2, 9 pi/2] and h in [0, 12]: area element 0.15^2 sqrt(1 + t^2)."""
    laws = [torch.distributions.Beta(torch.tensor(a, dtype=torch.float64), b) for a, b in ((2.5, 2.0), (2.0, 3.0))]
    low = torch.tensor([_LOW, 0.0], dtype=torch.float64)
    width = torch.tensor([_HIGH - _LOW, 12.0], dtype=torch.float64)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        # The quantile function from a fine table: torch draws no beta from a generator of one's own.
        points = torch.linspace(0, 1, 200_001, dtype=torch.float64)
        columns = []
        for law in laws:
            density = law.log_prob(points.clamp(1e-12, 1 - 1e-12)).exp()
            rise = torch.cumulative_trapezoid(density, points)
            table = torch.cat((rise.new_zeros(1), rise / rise[-1]))
            u = torch.rand(count, dtype=torch.float64, generator=generator)
            right = torch.searchsorted(table, u).clamp(1, len(points) - 1)
            share = (u - table[right - 1]) / (table[right] - table[right - 1]).clamp(min=1e-300)
            columns.append(points[right - 1] + share * (points[right] - points[right - 1]))
        return low + width * torch.stack(columns, -1)

    def log_density(u: Tensor) -> Tensor:
        unit = ((u - low) / width).clamp(1e-12, 1 - 1e-12)
        return sum((law.log_prob(unit[:, k]) for k, law in enumerate(laws)), u.new_zeros(len(u))) - width.log().sum()

    def place(u: Tensor) -> Tensor:
        t, h = u.T
        return _SCALE * torch.stack((t * t.cos(), h, t * t.sin()), -1)

    def locate(x: Tensor) -> Tensor:
        a, h, b = (x / _SCALE).T
        angle, radius = torch.atan2(b, a), torch.hypot(a, b)
        turns = torch.round((radius - angle) / (2 * math.pi))
        lowest, highest = torch.ceil((_LOW - angle) / (2 * math.pi)), torch.floor((_HIGH - angle) / (2 * math.pi))
        t = angle + 2 * math.pi * torch.minimum(torch.maximum(turns, lowest), highest)
        return torch.stack((t, h.clamp(0.0, 12.0)), -1)

    return Surface("Swiss roll", 3, ((_LOW, _HIGH), (0.0, 12.0)), draw, log_density,
                   lambda u: 2 * math.log(_SCALE) + 0.5 * torch.log1p(u[:, 0].square()), place, locate)  # fmt: skip


def rotated(surface: Surface, ambient: int, seed: int = 0) -> Surface:
    """The same surface in R^ambient, with zeros behind and turned by a random rotation: the density stays what it is."""
    normal = torch.randn(ambient, ambient, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    columns = torch.linalg.qr(normal)[0][:, : surface.ambient]
    return Surface(
        f"{surface.name} in R^{ambient}", ambient, surface.box, surface.draw, surface.chart_log_density,
        surface.log_area, lambda u: surface.place(u) @ columns.T, lambda x: surface.locate(x @ columns),
    )  # fmt: skip


def judge(surface: Surface, model: Model, *, test: int, count: int, cells: int, seed: int = 0) -> dict[str, float]:
    """How far a model is from the law that its rows came from.

    Args:
        surface: the truth.
        model: any model of D coordinates.
        test: rows for the log-likelihood.
        count: samples of the model for the total variation.
        cells: of the chart in each dimension.
        seed: of the test rows and samples.

    Returns:
        "tv" of the samples' nearest points and its "floor", the "distance" of samples to the surface (median), mean "nats" of test
        rows, what the "truth" has of them on the surface, and the mean "residual" (0 for a model of the whole space).
    """
    with torch.no_grad():
        rows = surface.sample(test, 1000 + seed)
        result = model.evaluate(rows)
        samples = model.sample(count, seed=seed)
    residual = 0.0 if result.residual is None else result.residual.double().mean().item()
    return {
        "tv": surface.total_variation(samples, cells),
        "floor": surface.floor(count, cells),
        "distance": surface.distance(samples).median().item(),
        "nats": result.value.double().mean().item(),
        "truth": surface.log_density(rows).mean().item(),
        "residual": residual,
    }


def phased(
    experiment: Experiment,
    key: str,
    make: Callable[[], ManifoldModel],
    rows: Tensor,
    phases: dict[str, int],
    **options: Any,
) -> ManifoldModel:
    """A model trained in phases of so many steps, one after the other."""
    model: ManifoldModel | None = None
    for phase, steps in phases.items():

        def begun(before: ManifoldModel | None = model, phase: str = phase) -> ManifoldModel:
            model = make() if before is None else before
            model.set_phase(phase)
            return model

        model = experiment.train(f"{key} {phase}", begun, rows, None, max_steps=steps, **options)[0]
    assert model is not None
    return model
