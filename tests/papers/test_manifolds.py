"""Surfaces with known densities: mass one, area from finite differences, samples that follow the density."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

import pushforward as pf
from papers.claims import rectangular
from papers.distances import frechet
from papers.experiment import Experiment
from papers.surfaces import rectangular_tables, two_step_circle
from papers.surfaces.manifolds import (
    Level,
    ManifoldDistribution,
    _loss_after,
    circle,
    held_out_loss,
    rotated,
    sphere,
    swiss_roll,
    train_until_level,
)
from pushforward.errors import TrainingError

TARGETS = [circle(), sphere(), swiss_roll(), rotated(swiss_roll(), 20)]


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request) -> ManifoldDistribution:
    return request.param


def test_mass_is_one(target):
    assert target.masses(20, 20).sum().item() == pytest.approx(1.0, abs=2e-3)


def test_area_element_is_that_of_the_chart(target):
    u = target.draw(20, torch.Generator().manual_seed(0))
    for row, expected in zip(u, target.log_area(u), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda t: target.point(t[None])[0], row)
        volume = 0.5 * torch.linalg.slogdet(jacobian.T @ jacobian)[1]
        assert volume.item() == pytest.approx(expected.item(), abs=1e-9)


def test_the_chart_of_a_point_is_inverted(target):
    u = target.draw(500, torch.Generator().manual_seed(1))
    torch.testing.assert_close(target.locate(target.point(u)), u, rtol=1e-9, atol=1e-9)
    x = target.sample(500, 2)
    assert x.shape == (500, target.ambient)
    assert target.distance(x).max() < 1e-5
    moved = target.distance(
        x.double() + 1e-3 * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    assert 1e-4 < moved.median() < 1e-2


def test_samples_follow_the_density(target):
    count, cells = 40_000, 8
    expected = count * target.masses(cells)
    seen = torch.bincount(target.cell(target.sample(count, 3), cells), minlength=len(expected)).double()
    big = expected > 5
    scaled = expected[big] * seen[big].sum() / expected[big].sum()
    assert scipy.stats.chisquare(seen[big], scaled).pvalue > 1e-3


def test_entropy_of_the_circle():
    """-E log p = log(2 pi I0(kappa)) - kappa I1(kappa) / I0(kappa)."""
    ratio = scipy.special.i1(1.0) / scipy.special.i0(1.0)
    expected = math.log(2 * math.pi * scipy.special.i0(1.0)) - ratio
    assert expected == pytest.approx(1.6274, abs=1e-4)
    target = circle()
    u, size = target.grid(2000)
    log_density = target.log_density(target.point(u))
    assert -(log_density.exp() * log_density * size).sum().item() == pytest.approx(expected, abs=1e-6)


def test_rotation_changes_no_density():
    flat, turned = swiss_roll(), rotated(swiss_roll(), 20)
    x, y = flat.sample(50, 5), turned.sample(50, 5)
    torch.testing.assert_close(flat.log_density(x), turned.log_density(y), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.cdist(x.double(), x.double()), torch.cdist(y.double(), y.double()), rtol=1e-5, atol=1e-5
    )


def test_total_variation_of_the_true_distribution_is_the_floor_and_of_another_is_larger():
    target = circle()
    floor = target.floor(100_000, 64)
    assert floor < 0.02
    assert target.total_variation(circle(concentration=0.5).sample(100_000, 0), 64) > 5 * floor
    uniform = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    exact = 0.5 * (target.masses(64) - 1 / 64).abs().sum().item()
    assert target.total_variation(target.point(uniform), 64) == pytest.approx(exact, abs=0.02)


def test_frechet_distance_of_normals_is_that_of_their_moments():
    """With equal axes it is the squared difference of means and of deviations, and a rotation of both samples does not change it."""
    x = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T  # moments 0 and I, exactly
    y = x * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64) + torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    assert frechet(x, y) == pytest.approx(9 + 0 + 1 + 0.25, abs=1e-9)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    assert frechet(x @ turn, y @ turn) == pytest.approx(10.25, abs=1e-9)
    assert frechet(y, y) == pytest.approx(0.0, abs=1e-9)


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    return Experiment("toy", "smoke", tmp_path, say=lambda line: None)


def test_training_ends_when_its_loss_is_level(experiment):
    rows, held_out = torch.randn(2, 100, 2, generator=torch.Generator().manual_seed(0))

    def train(key: str, most: int, rate: float):
        level = Level(stage=2, most=most, patience=2)
        make = lambda: pf.models.NICE(features=2, layers=2, hidden=(8,))  # noqa: E731
        return train_until_level(experiment, key, make, rows, held_out, level, learning_rate=rate, batch_size=50)

    # With hardly any learning rate nothing improves after the first stage, so two more stages end it.
    assert train("still", 6, 1e-9)[1] == {"steps": 6, "unfinished": 0}
    assert train("short", 2, 1e-9)[1] == {"steps": 4, "unfinished": 1}
    model, _ = train("moving", 4, 0.3)
    losses = [
        value
        for key, value in experiment.measurements.values.items()
        if key.startswith("moving") and key.endswith("held out")
    ]
    assert held_out_loss(model, held_out) == pytest.approx(min(losses), abs=1e-6)


def test_the_arc_ends_and_its_total_variation_has_a_floor():
    arc = two_step_circle.Curve.of("arc", 2.0, 20_000, (10,), 50_000)
    angles = torch.atan2(arc.rows[:, 1], arc.rows[:, 0]).abs()
    assert 1.98 < angles.max() <= 2.0
    assert arc.floor() < 0.02
    uniform = torch.linspace(-2, 2, 50_000)
    rows = torch.stack((uniform.cos(), uniform.sin()), 1)
    normalizer, _ = scipy.integrate.quad(lambda t: math.exp(math.cos(t)), -2, 2)
    exact, _ = scipy.integrate.quad(lambda t: 0.5 * abs(math.exp(math.cos(t)) / normalizer - 0.25), -2, 2, limit=200)
    assert two_step_circle._variation(rows, 2.0) == pytest.approx(exact, abs=0.02)


def scripted(experiment, monkeypatch, losses):
    """Let the stages end with these losses on held-out rows; None is a training whose loss became infinite."""
    left, rates = list(losses), []
    rows = torch.zeros(4, 2)

    def judge(train, held_out):
        rates.append(train.keywords["learning_rate"])
        return left.pop(0)

    monkeypatch.setattr(Experiment, "train", lambda self, key, start, *arguments, **options: (start(), {}))
    monkeypatch.setattr("papers.surfaces.manifolds._loss_after", judge)
    make = lambda: pf.models.NICE(features=2, layers=2, hidden=(8,))  # noqa: E731
    _, facts = train_until_level(experiment, "a run", make, rows, rows, Level(1, 9), learning_rate=1.0)
    return facts["steps"], rates


def test_small_improvements_in_a_row_count_together(experiment, monkeypatch):
    """Two stages that each gain 0.004 nats gain more than 0.005; noise around one value gains nothing."""
    steps, _ = scripted(experiment, monkeypatch, [1.0, 0.996, 0.992, 0.991, 0.993])
    assert steps == 5
    steps, _ = scripted(Experiment("noise", "smoke", experiment.out), monkeypatch, [1.0, 1.003, 0.997])
    assert steps == 3


def test_a_stage_that_diverges_is_one_without_improvement(experiment, monkeypatch):
    steps, rates = scripted(experiment, monkeypatch, [1.0, None, 0.9, None, None])
    assert steps == 5
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_stage_starts_from_the_best_one(experiment, monkeypatch):
    """Stage 1 ends worse than stage 0, so stage 2 starts from stage 0 again; a weight has the number of the last stage."""
    losses, starts = [1.0, 2.0, 0.5], {}

    def number(model) -> torch.Tensor:
        return next(model.parameters()).data.flatten()[:1]

    def make():
        model = pf.models.NICE(features=2, layers=2, hidden=(8,))
        number(model).fill_(-1.0)
        return model

    def train(self, key, start, *arguments, **options):
        model, stage = start(), int(key.split()[-1])
        starts[stage] = number(model).item()
        number(model).fill_(stage)
        return model, {}

    def judge(train, held_out):
        train()
        return losses.pop(0)

    monkeypatch.setattr(Experiment, "train", train)
    monkeypatch.setattr("papers.surfaces.manifolds._loss_after", judge)
    rows = torch.zeros(4, 2)
    model, _ = train_until_level(experiment, "a run", make, rows, rows, Level(1, 3))
    assert starts == {0: -1.0, 1: 0.0, 2: 0.0}
    assert number(model).item() == 2.0


def test_an_infinite_loss_ends_a_stage_and_other_errors_end_the_run():
    def fail(message):
        raise TrainingError(message)

    assert _loss_after(lambda: fail("the loss is nan at step 3"), torch.zeros(1, 2)) is None
    with pytest.raises(TrainingError, match="another run"):
        _loss_after(lambda: fail("the checkpoint belongs to another run"), torch.zeros(1, 2))


def test_every_measurement_has_the_seeds_that_were_asked_for(tmp_path, monkeypatch):
    """Two seeds instead of the one of a smoke run, also where a run has its own number."""
    experiment = Experiment("toy", "smoke", tmp_path, seeds=2, say=lambda line: None)
    parts = torch.randn(3, 150, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(rectangular_tables, "load_table", lambda name, *, seed, folder: parts)
    rectangular._overfitting(experiment, {method: [{"tv": 0.1}] for method in ("exact", "two-step")})
    rectangular_tables.study_tables(experiment)
    assert {"ambient 0", "ambient 1", "protein RNF 0", "protein RNF 1", "kin40k M-flow 1"} <= set(
        experiment.measurements.values
    )


def test_a_rise_of_the_total_variation_counts_above_the_floor(tmp_path):
    """A likelihood that rises while the total variation moves by less than its noise is not overfitting."""
    for rise, expected in ((0.005, False), (0.05, True)):
        experiment = Experiment(f"rise {rise}", "quick", tmp_path, seeds=2, say=lambda line: None)
        stages = [
            {"nats": float(k), "tv": 0.1 + rise * (k == 3), "floor": 0.01, "truth": 0.0, "distance": 0.0}
            for k in range(5)
        ]
        for seed in (0, 1):
            experiment.measurements.values[f"ambient {seed}"] = stages
        rectangular._overfitting(experiment, {method: [{"tv": 0.1}] for method in ("exact", "two-step")})
        assert experiment.findings[-1].confirmed is expected
