"""Every exact model has mass 1 and samples from its own density; bounds have mass at most 1, and 1 in the mean weight."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from pushforward import distributions, models, transforms
from pushforward.errors import KindWarning
from pushforward.likelihood import REAL, Kind
from pushforward.models import Model

from .cases import MODELS, ModelCase
from .tools import box_line, built, context_of, line

DENSITIES = [case for case in MODELS if case.kind is Kind.EXACT and case.measure is None]
EXACT_1D = [case for case in DENSITIES if built(case).shape == (1,)]
EXACT_2D = [case for case in DENSITIES if built(case).shape == (2,)]


def one_context(model: Model) -> Tensor | None:
    context = context_of(model)
    return None if context is None else context[0]


def axes(model: Model, count: int) -> list[tuple[Tensor, Tensor]]:
    """Quadrature points and weights of each coordinate: the domain where it is bounded, else very wide."""
    domain = model.base.support if model.chain.domain is None else model.chain.domain
    if math.isfinite(domain.high):
        return [box_line(domain.low, domain.high, count)] * model.shape[0]
    x = model.sample(2000, one_context(model), seed=11)
    if domain == REAL:
        center, spread = x.quantile(0.5, dim=0), x.quantile(0.84, dim=0) - x.quantile(0.16, dim=0)
        return [line(c.item(), 0.3 * s.item(), count) for c, s in zip(center, spread, strict=True)]
    assert domain.low == 0  # positive data: the midpoint rule in log x
    result = []
    for column in x.log().T:
        points, weights = line(column.quantile(0.5).item(), 0.3 * column.std().item(), count)
        points = points.clamp(-300, 300)
        result.append((points.exp(), weights * points.exp()))
    return result


def masses(model: Model, count: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """The axes, and the probability of each cell of the grid."""
    grid = axes(model, count)
    context = one_context(model)
    weights = grid[0][1] if len(grid) == 1 else torch.outer(grid[0][1], grid[1][1])
    x = torch.cartesian_prod(*[points for points, _ in grid]).reshape(-1, len(grid))
    with torch.no_grad():
        log_prob = torch.cat([model.log_prob(part, context) for part in x.split(50_000)])
    return grid, log_prob.exp().reshape(weights.shape) * weights


@pytest.mark.parametrize("jolted", [0.0, 1.0], ids=["start", "moved"])
@pytest.mark.parametrize("case", EXACT_1D, ids=str)
def test_mass_is_one_in_one_dimension(case, jolted):
    assert masses(built(case, jolted=jolted), 20_000)[1].sum().item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("case", EXACT_2D, ids=str)
def test_mass_is_one_in_two_dimensions_at_the_start(case):
    assert masses(built(case, jolted=0.0), 300)[1].sum().item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("case", EXACT_1D, ids=str)
def test_samples_follow_the_density_in_one_dimension(case):
    """Kolmogorov-Smirnov on the probability integral transform, found by quadrature."""
    model = built(case)
    [(points, _)], mass = masses(model, 20_000)
    edges = 0.5 * (points[1:] + points[:-1])
    x = model.sample(4000, one_context(model), seed=21)[:, 0]
    uniform = np.interp(x.numpy(), edges.numpy(), mass.cumsum(0)[:-1].numpy())
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("case", EXACT_2D, ids=str)
def test_mass_is_one_in_two_dimensions_and_samples_follow_it(case):
    """Chi-square over cells of 25 x 25 points of the grid, joined in order until each expects at least 10."""
    model = built(case, jolted=0.6)
    grid, mass = masses(model, 750)
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-3)
    count = 6000
    x = model.sample(count, one_context(model), seed=22)
    cells = []
    for (points, _), column in zip(grid, x.T, strict=True):
        edges = 0.5 * (points[1:] + points[:-1])
        cells.append(torch.searchsorted(edges, column.contiguous()).clamp(0, 749) // 25)
    expected = count * mass.reshape(30, 25, 30, 25).sum((1, 3)).flatten()
    observed = torch.bincount(cells[0] * 30 + cells[1], minlength=900).double()
    assert chi_square(observed, expected) > 1e-3


def chi_square(observed: Tensor, expected: Tensor) -> float:
    """P-value, cells joined until each expects at least 10."""
    joined: list[list[float]] = [[0.0, 0.0]]
    for seen, hoped in zip(observed.tolist(), expected.tolist(), strict=True):
        if joined[-1][1] >= 10:
            joined.append([0.0, 0.0])
        joined[-1][0] += seen
        joined[-1][1] += hoped
    if joined[-1][1] < 10 and len(joined) > 1:
        seen, hoped = joined.pop()
        joined[-1][0] += seen
        joined[-1][1] += hoped
    table = np.array(joined).T
    assert table.shape[1] > 10  # else the test could not fail
    return scipy.stats.chisquare(table[0], table[1] * table[0].sum() / table[1].sum()).pvalue


def test_chi_square_finds_a_wrong_model():
    """The test above is sharp: against the same model with a slightly other scale it fails."""
    case = next(case for case in EXACT_2D if str(case) == "NSF[coupling, D=2]")
    model = built(case, jolted=0.6)
    grid, mass = masses(model, 750)
    x = model.sample(6000, seed=22)
    x = x.mean(0) + 1.1 * (x - x.mean(0))
    cells = []
    for (points, _), column in zip(grid, x.T, strict=True):
        edges = 0.5 * (points[1:] + points[:-1])
        cells.append(torch.searchsorted(edges, column.contiguous()).clamp(0, 749) // 25)
    observed = torch.bincount(cells[0] * 30 + cells[1], minlength=900).double()
    assert chi_square(observed, 6000 * mass.reshape(30, 25, 30, 25).sum((1, 3)).flatten()) < 1e-6


@pytest.mark.parametrize("case", [case for case in MODELS if case.kind is Kind.EXACT and case.measure is None], ids=str)
def test_samples_and_density_agree_in_any_dimension(case):
    """E[q(x) / p(x)] = 1 over samples of p for every density q; a narrow normal at the median keeps its variance finite."""
    model = built(case, jolted=0.4)
    context = one_context(model)
    count = 20_000
    x = model.sample(count, context, seed=23)
    domain = model.base.support if model.chain.domain is None else model.chain.domain
    flat = x.flatten(1)
    center = flat.quantile(0.5, dim=0)
    spread = 0.15 * (flat.quantile(0.84, dim=0) - flat.quantile(0.16, dim=0))
    q = torch.distributions.Normal(center, spread)
    with torch.no_grad():
        ratio = (q.log_prob(flat).sum(-1) - model.log_prob(x, context)).exp()
    low, high = (torch.full_like(center, edge) for edge in (domain.low, domain.high))
    expected = (q.cdf(high) - q.cdf(low)).prod().item()
    error = (ratio.std() / math.sqrt(count)).item()
    assert abs(ratio.mean().item() - expected) < 4 * error
    assert error < 0.1  # else the test could not fail


def lattice_of(case: ModelCase) -> Tensor:
    """Every point that a dequantized case can take."""
    levels = {"dequantized": 4, "dequantized, context": 6}[case.label]
    width = built(case).shape[0]
    return torch.tensor(list(itertools.product(range(levels), repeat=width)), dtype=torch.float64)


@pytest.mark.parametrize("case", [case for case in MODELS if case.label.startswith("dequantized")], ids=str)
def test_a_dequantized_model_has_mass_one_in_the_mean_weight(case):
    """The mean over noise of exp(value) is the probability itself, so it sums to 1; exp of the mean value to less."""
    model = built(case)
    x, context = lattice_of(case), one_context(model)
    draws = 600
    with torch.no_grad():
        values = torch.stack([model.evaluate(x, context, seed=seed).value for seed in range(draws)])
        tight = model.evaluate(x, context, samples=draws, seed=1).value
    weights = values.exp()
    mass, error = weights.mean(0).sum(), (weights.var(0) / draws).sum().sqrt()
    assert abs(mass - 1) < 4 * error
    assert error < 0.02
    assert values.mean(0).exp().sum() < 1  # Jensen
    assert tight.exp().sum() == pytest.approx(1.0, abs=5 * error.item())
    # More draws tighten the bound, toward the probability of the cell.
    assert (tight >= values.mean(0) - 0.05).all()


@pytest.mark.parametrize("case", [case for case in MODELS if case.label.startswith("dequantized")], ids=str)
def test_dequantized_samples_follow_their_probabilities(case):
    model = built(case)
    x, context = lattice_of(case), one_context(model)
    with torch.no_grad():
        expected = 5000 * model.evaluate(x, context, samples=2000, seed=1).value.exp()
    drawn = model.sample(5000, context, seed=2)
    observed = (drawn[:, None] == x).all(-1).sum(0).double()
    assert observed.sum() == 5000
    big = expected > 10
    assert scipy.stats.chisquare(observed[big], expected[big] * observed[big].sum() / expected[big].sum()).pvalue > 1e-3


def test_a_margin_that_the_base_does_not_respect_loses_mass():
    """Logit with a margin lands in a box, and the normal has mass outside: the mass is that of the box, below 1."""
    case = next(case for case in MODELS if case.label.startswith("margin"))
    model = built(case)
    points, weights = box_line(0.0, 1.0, 1000)
    x = torch.cartesian_prod(points, points)
    mass = (model.evaluate(x).value.exp() * torch.outer(weights, weights).flatten()).sum().item()
    edge = math.log(0.95 / 0.05)
    one = scipy.stats.norm.cdf(edge) - scipy.stats.norm.cdf(-edge)
    assert mass == pytest.approx(one**2, abs=1e-5)


def test_a_margin_warns_when_it_is_built():
    with pytest.warns(KindWarning, match="Logit"):
        transforms.Chain(transforms.Logit(2, alpha=0.05), transforms.SoftTail(2))
    with pytest.warns(
        KindWarning, match="the chain lands in .* but Normal"
    ):  # a fixed affine transform carries the margin along
        models.Flow(transforms.Chain(transforms.Logit(2, alpha=0.05), transforms.Affine(2)), distributions.Normal(2))
    with pytest.warns(KindWarning, match="Normal"):
        models.Flow(transforms.Logit(2, alpha=0.05), distributions.Normal(2))


def test_missing_values_are_integrated_out_in_the_mean_weight():
    """Over (value, indicator) with a standard normal: a seen row has its density, a missing one that of the indicator."""
    chain = transforms.Chain(transforms.AugmentMissing(2, columns=(0,), indicators=(1,)))
    model = models.Flow(chain, distributions.Normal(2)).double()
    next(iter(model.chain)).mean.fill_(0.7)
    next(iter(model.chain)).scale.fill_(1.5)
    seen = model.evaluate(torch.tensor([[0.3, 0.0]], dtype=torch.float64)).value
    log_normal = scipy.stats.norm.logpdf
    assert seen.item() == pytest.approx(log_normal(0.3) + log_normal(0.0), abs=1e-12)
    row = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    values = torch.cat([model.evaluate(row, seed=seed).value for seed in range(2000)])
    weights = values.exp()
    expected = math.exp(log_normal(1.0))
    assert abs(weights.mean().item() - expected) < 4 * weights.std().item() / math.sqrt(2000)
    assert values.mean().item() < log_normal(1.0)
    assert model.evaluate(row, samples=2000).value.item() == pytest.approx(log_normal(1.0), abs=0.05)


@pytest.mark.parametrize("step", [0.01, 1.0, 100.0])
def test_a_missing_value_of_a_dequantized_column_is_integrated_out(step):
    """Over (value on a lattice, indicator): the mass of a missing row is that of the indicator, whatever the step."""
    augment = transforms.AugmentMissing(2, columns=(0,), indicators=(1,), steps=step)
    dequantize = transforms.LatticeDequantize(2, columns=(0, 1), steps=(step, 1.0))
    scale = transforms.Affine(2, scale=(1 / (4 * step), 1.0))
    model = models.Flow(transforms.Chain(augment, dequantize, scale), distributions.Normal(2)).double()
    augment.scale.fill_(4.0 * step)
    row = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    weights = torch.cat([model.evaluate(row, seed=seed).value for seed in range(2000)]).exp()
    mass = scipy.stats.norm.cdf(2) - scipy.stats.norm.cdf(1)
    assert abs(weights.mean().item() - mass) < 4 * weights.std().item() / math.sqrt(2000)
