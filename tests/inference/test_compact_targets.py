"""Targets whose log-density is -inf outside a set that no constraint of the parameters describes."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import pushforward as pf
from pushforward import inference
from pushforward.distributions import Normal
from pushforward.errors import InputError, PushforwardWarning
from pushforward.inference.modes import _joined
from pushforward.inference.reverse_kl import NoiseSource, TargetLoss, TargetRun, lower_bound
from pushforward.inference.targets import POINT_ERRORS
from pushforward.training.config import TrainingConfig
from pushforward.training.progress import make_reporter
from pushforward.training.run import make_plan
from pushforward.transforms import Affine, Chain

START = [[0.2, 0.2], [0.4, 0.4]]


def on(inside, log_density):
    """A log-density that is -inf where ``inside`` is false."""
    return lambda x: torch.where(inside(x), log_density(x), -math.inf)


def flat(x):
    return 0 * x[:, 0]


def disc(x):
    return x.square().sum(-1) < 1


def triangle(x):
    return (x > 0).all(-1) & (x.sum(-1) < 1)


def normal_flow(mean):
    """A normal distribution of one coordinate as a flow that can be trained, in double precision."""
    return pf.models.Flow(Chain(Affine(1, shift=-mean, trainable=True)), Normal(1)).double().eval()


def gradient(flow, loss):
    found = torch.autograd.grad(loss, [p for p in flow.parameters() if p.requires_grad])
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize(
    ("log_density", "truth"),
    [
        (on(disc, flat), math.log(math.pi)),
        (on(triangle, flat), math.log(0.5)),
        (on(disc, lambda x: torch.where(disc(x), 3 * x[:, 0], math.nan)), math.log(2 * math.pi * 3.9533702 / 3)),
    ],
    ids=["disc", "triangle", "slope"],  # the last is 2 pi I_1(3) / 3
)
def test_the_evidence_of_a_bounded_support(log_density, truth):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)  # draws outside
        fit = inference.fit_to_target(
            pf.models.NSF(2, layers=2, hidden=(16,)), log_density, starts=START, spread=0.5, max_steps=150, batch_size=256,
            draws=4_000, seed=0, progress="silent",
        )  # fmt: skip
    assert fit.log_evidence == pytest.approx(truth, abs=5 * fit.log_evidence_error)
    assert fit.training.best_step > 0  # better than the untrained flow


def test_the_gradient_of_the_mass_inside_is_that_of_a_quadrature():
    """With p = q on the support the loss is -log Q - log Z, and log Z = log Q0 is fixed."""
    flow, frozen = normal_flow(0.5), normal_flow(0.5)

    def log_density(x):
        return torch.where(x[:, 0].abs() < 1, frozen.log_prob(x), -math.inf)

    z = torch.randn(100_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = TargetLoss(flow, inference.Target(log_density, 1), "reverse-kl", 1, "path")(
        z, None, generator=torch.Generator()
    )
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    log_mass = torch.trapezoid(flow.log_prob(grid[:, None]).exp(), grid).log()
    assert float(loss.detach()) == pytest.approx(
        -2 * float(log_mass.detach()), abs=0.02
    )  # f = 0, and its mean is that of log q - log p
    # The score has a standard deviation of about 1, so its mean over 1e5 draws an error of 0.003.
    torch.testing.assert_close(gradient(flow, loss), gradient(flow, -log_mass), atol=0.02, rtol=0)


def test_rows_of_wide_noise_do_not_enter_the_mass_inside():
    flow = normal_flow(0.5)
    target = inference.Target(on(lambda x: x[:, 0].abs() < 1, lambda x: -x[:, 0]), 1)
    loss = TargetLoss(flow, target, "reverse-kl", 1, "path")
    z = torch.randn(1_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    far = torch.cat((z, torch.full((100, 1), 9.0, dtype=torch.float64)))
    own = torch.arange(1_100) < 1_000
    alone = loss(z, None, generator=torch.Generator())
    marked = loss(far, own, generator=torch.Generator())
    torch.testing.assert_close(gradient(flow, marked), gradient(flow, alone))


def test_a_nan_outside_counts_as_no_density():
    flow, grads = normal_flow(0.5), []
    z = torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for outside in (math.nan, -math.inf):
        target = inference.Target(lambda x, v=outside: torch.where(x[:, 0].abs() < 1, -x[:, 0], v), 1)
        loss = TargetLoss(flow, target, "reverse-kl", 1, "path")
        grads.append(gradient(flow, loss(z, None, generator=torch.Generator())))
    assert torch.equal(*grads)
    assert grads[0].isfinite().all()


@pytest.mark.parametrize("objective", ["reverse-kl", "importance-weighted"])
def test_a_flow_outside_is_pulled_back_to_the_start(objective):
    """Its draws lie near 50, the support is [-1, 1], and the rows of the start near 0."""
    flow = normal_flow(50.0)
    target = inference.Target(on(lambda x: x[:, 0].abs() < 1, flat), 1)
    rows = torch.linspace(-2, 2, 101, dtype=torch.float64)[:, None]
    loss = TargetLoss(flow, target, objective, 1, "path", lambda: rows)
    value = loss(torch.randn(64, 1, dtype=torch.float64), None, generator=torch.Generator().manual_seed(0))
    assert float(value.detach()) == pytest.approx(
        0.5 * 50**2 + 0.5 * math.log(2 * math.pi), rel=0.05
    )  # -log q at 0, all rows inside


def test_the_error_says_whether_draws_were_ever_inside():
    flow = normal_flow(0.0)
    target = inference.Target(on(lambda x: x[:, 0].abs() < 1, flat), 1)
    loss = TargetLoss(flow, target, "reverse-kl", 1, "path")
    outside = torch.full((8, 1), 9.0, dtype=torch.float64)
    with pytest.raises(InputError, match="start the flow inside its support"):
        loss(outside, None, generator=torch.Generator())
    loss(0 * outside, None, generator=torch.Generator())
    with pytest.raises(InputError, match="has left the support"):
        loss(outside, None, generator=torch.Generator())


def test_the_bound_counts_draws_outside():
    assert lower_bound(torch.tensor([1.0, 3.0])) == 2.0
    assert lower_bound(torch.tensor([1.0, 3.0, -math.inf, -math.inf])) == pytest.approx(2 + 2 * math.log(0.5))
    assert lower_bound(torch.full((3,), -math.inf)) == -math.inf


@pytest.mark.parametrize(
    ("inside", "starts", "count"),
    [
        (disc, [[0.0, 0.0], [0.8, 0.0], [-0.5, 0.6]], 1),
        (lambda x: disc(x) | disc(x - 4), [[0.0, 0.0], [0.8, 0.0], [4.0, 4.0], [4.5, 4.0]], 2),
    ],
    ids=["one disc", "two discs"],
)
def test_starts_on_a_flat_part_are_one_mode(inside, starts, count):
    modes = inference.find_modes(inference.Target(on(inside, flat), 2), torch.tensor(starts, dtype=torch.float64))
    assert len(modes) == count


def test_maxima_with_a_dip_between_them_are_two_modes():
    """Two normal distributions 2.6 deviations apart have a dip of 0.19 nats; at 2.2 it is 0.03, and they count as one."""

    def two(distance):
        return lambda x: torch.logaddexp(-0.5 * (x[:, 0] - distance / 2) ** 2, -0.5 * (x[:, 0] + distance / 2) ** 2)

    starts = torch.tensor([[-2.0], [2.0]], dtype=torch.float64)
    assert [len(inference.find_modes(inference.Target(two(d), 1), starts)) for d in (2.2, 2.6)] == [1, 2]


@pytest.mark.parametrize("location", [0.0, 1e3, 1e5, 1e7])
def test_widths_of_modes_do_not_depend_on_where_they_are(location):
    """The steps of the Hessian were 1e-4 of the location: those of a t-distribution at 1e5 had the wrong width."""
    density = torch.distributions.StudentT(torch.tensor(5.0, dtype=torch.float64), location, 0.5)
    target = inference.Target(lambda x: density.log_prob(x[:, 0]), 1)
    starts = location + torch.tensor([[0.3], [-1.0]], dtype=torch.float64)
    (mode,) = inference.find_modes(target, starts)
    assert mode.factor.item() == pytest.approx(0.5 * math.sqrt(5 / 6), rel=0.01)


@pytest.mark.parametrize("error", POINT_ERRORS)
def test_a_log_density_that_fails_between_two_maxima_leaves_them_apart(error):
    """As that of a covariance without a Cholesky factor there."""
    assert len(POINT_ERRORS) == 3
    starts = torch.tensor([[-9.0], [9.0]], dtype=torch.float64)
    bimodal = inference.Target(lambda x: -0.5 * (x[:, 0].abs() - 9) ** 2, 1)
    one, other = inference.find_modes(bimodal, starts)

    def fails(x):
        raise error("no factor")

    assert not _joined(fails, one, other)  # pyright: ignore[reportArgumentType]


def test_an_evaluation_without_a_draw_inside_the_support_is_no_error():
    """So that training can go on, which pulls the flow back to the rows of the start."""
    flow = normal_flow(40.0)
    target = inference.Target(on(lambda x: x[:, 0].abs() < 1, flat), 1)
    noise = NoiseSource(flow, target, lambda: torch.zeros(4, 1), 64, 64, 0)
    config = TrainingConfig(max_steps=1)
    run = TargetRun(flow, noise, noise, config, make_plan(config, None), make_reporter("silent"))
    run.target = target
    assert run.measure() == (-math.inf, 64, (0, -math.inf))
    assert not run.converged
