"""Continuous flows: traces and log-determinants against autograd, closed forms, estimators, and the inverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pushforward import distributions, models
from pushforward.errors import ConfigError, ConvergenceError, KindError
from pushforward.likelihood import Kind
from pushforward.networks import VelocityMLP
from pushforward.numerics import RowNoise
from pushforward.transforms import Chain, Continuous, Inverse

FINE = {"solver": "dopri5", "atol": 1e-12, "rtol": 1e-12}


class Linear(nn.Module):
    """v = A x."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x @ self.matrix.mT


class Plain(nn.Module):
    """The built-in network, without its explicit Jacobian."""

    def __init__(self, network: VelocityMLP) -> None:
        super().__init__()
        self.network = network

    def forward(self, t, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(t, x, context)


class MixtureVelocity(nn.Module):
    """The minimizer of flow matching from N(0, I) to a mixture of Gaussians of deviation s around means m_k.

    v = sum_k r_k (m_k + c (x - t m_k)), c = (t s^2 - (1 - t)) / (t^2 s^2 + (1 - t)^2), r_k the responsibilities.
    """

    def __init__(self, means: Tensor, deviation: float) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.deviation = deviation

    means: Tensor

    def forward(self, t, x: Tensor, context: Tensor | None = None) -> Tensor:
        t = torch.as_tensor(t, dtype=x.dtype)
        variance = t**2 * self.deviation**2 + (1 - t) ** 2
        away = x.unsqueeze(-2) - t.unsqueeze(-1) * self.means
        responsibility = torch.softmax(-away.square().sum(-1) / (2 * variance), -1).unsqueeze(-1)
        slope = (t * self.deviation**2 - (1 - t)) / variance
        return (responsibility * (self.means + slope.unsqueeze(-1) * away)).sum(-2)


def lively(features: int = 3, dtype: torch.dtype = torch.float64, **more) -> Continuous:
    """A flow with large weights."""
    torch.manual_seed(6)
    flow = Continuous(features, **{"hidden": (12, 10), **more}).to(dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in flow.parameters():
            size = 0.8 / math.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 0.3
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype))
    return flow


@pytest.mark.parametrize("activation", ["tanh", "softplus", "silu", "elu", "lipswish"])
@pytest.mark.parametrize("hidden", [(), (9,), (9, 8), (9, 8, 7)], ids=str)
def test_exact_trace(check, hidden, activation):
    flow = lively(4, hidden=hidden, activation=activation, context=2)
    assert flow.network is not None
    x, context, t = check.normal(5, 4), check.normal(5, 2, seed=1), torch.rand(5, 1, dtype=torch.float64)
    found = flow.network.at(t, x, flow.network.prepare(context)).trace()
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda r, i=i: flow.network(t[i], r, context[i]), x[i])  # pyright: ignore
        assert found[i].item() == pytest.approx(jacobian.trace().item(), abs=1e-12)


@pytest.mark.parametrize("hidden", [(12,), (12, 10), (8, 8, 8)], ids=str)
@pytest.mark.parametrize("solver", [{"steps": 60, "time": 0.5}, FINE], ids=["rk4", "dopri5"])
def test_contribution_is_the_log_determinant(check, hidden, solver):
    flow = lively(hidden=hidden, **solver)
    x = check.normal(2, 3)
    check.contribution(flow, x, 1e-9)
    assert flow.encode(x).contribution.abs().max() > 0.01


@pytest.mark.parametrize("solver", [{"steps": 20}, FINE], ids=["rk4", "dopri5"])
def test_linear_dynamics(check, solver):
    matrix = check.normal(3, 3, seed=3) / 2
    flow = Continuous(3, Linear(matrix), time=0.7, **solver).double()
    x = check.normal(5, 3)
    step = flow.encode(x)
    tolerance = 1e-10 if solver is FINE else 1e-5
    torch.testing.assert_close(step.z, x @ torch.linalg.matrix_exp(-0.7 * matrix).mT, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(step.contribution, -0.7 * matrix.trace().expand(5), rtol=1e-10, atol=1e-10)
    back, contribution = flow.decode_with_contribution(step.z)
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(contribution, step.contribution, rtol=1e-10, atol=1e-10)


def test_own_dynamics_give_what_the_built_in_ones_give(check):
    flow = lively(context=2, steps=5)
    assert flow.network is not None
    own = Continuous(3, Plain(flow.network), context=2, steps=5)
    x, context = check.normal(4, 3).requires_grad_(), check.normal(4, 2, seed=1)
    for way in ("exact", "hutchinson"):
        flow.set_log_det(way)
        own.set_log_det(way)
        a, b = flow.encode_with_regularizers(x, context), own.encode_with_regularizers(x, context)
        for left, right in zip([*a[0][:2], *a[1]], [*b[0][:2], *b[1]], strict=True):
            torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
        parameters = [x, *flow.network.parameters()]
        left = torch.autograd.grad(a[0].contribution.sum() + a[1].jacobian.sum(), parameters, allow_unused=True)
        right = torch.autograd.grad(b[0].contribution.sum() + b[1].jacobian.sum(), parameters, allow_unused=True)
        for p, q in zip(left, right, strict=True):
            assert (p is None) == (q is None)
            if p is not None and q is not None:
                torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(own.encode(x, context).contribution, b[0].contribution.detach())


@pytest.mark.parametrize(("steps", "error"), [(10, 2e-2), (20, 1e-3), (50, 2e-5)])
def test_mixture_of_gaussians_in_closed_form(check, steps, error):
    """The flow of the known velocity has the mixture's own density; errors as an independent solver measured them."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 2 * torch.stack((angle.cos(), angle.sin()), -1)
    generator = torch.Generator().manual_seed(1)
    x = means[torch.randint(8, (200,), generator=generator)] + 0.2 * check.normal(200, 2)
    components = torch.distributions.Independent(torch.distributions.Normal(means, 0.2), 1)
    weights = torch.distributions.Categorical(logits=torch.zeros(8, dtype=torch.float64))
    expected = torch.distributions.MixtureSameFamily(weights, components).log_prob(x)
    flow = Continuous(2, MixtureVelocity(means, 0.2), steps=steps)
    model = models.Flow(flow, distributions.Normal(2)).double()
    with torch.no_grad():
        assert (model.log_prob(x) - expected).abs().mean() < error
        if steps == 50:
            flow.set_log_det("hutchinson")
            flow.probes = 40
            estimate = model.evaluate(x)
            assert estimate.stderr is not None
            inside = (estimate.value - expected).abs() < 4 * estimate.stderr
            assert inside.double().mean() > 0.97
            assert estimate.stderr.mean() < 0.4
    flow.set_log_det("exact")
    flow.solver = "dopri5"
    flow.atol = flow.rtol = 1e-6
    with torch.no_grad():
        assert (model.log_prob(x) - expected).abs().max() < 1e-3


def test_hutchinson_is_unbiased_over_seeds_and_its_standard_error_is_honest(check):
    flow = lively(log_det="hutchinson", probes=8, steps=5)
    x = check.normal(5, 3)
    with torch.no_grad():
        steps = [flow.encode(x, noise=RowNoise(seed)) for seed in range(400)]
        flow.set_log_det("exact")
        exact = flow.encode(x).contribution
    values = torch.stack([step.contribution for step in steps])
    squares = torch.stack([step.stderr for step in steps if step.stderr is not None]).square()
    assert ((values.mean(0) - exact).abs() < 4 * values.std(0) / math.sqrt(400)).all()
    assert (squares.mean(0) / values.var(0) - 1).abs().max() < 0.25
    assert values.std(0).min() > 1e-3


def test_training_draws_one_probe_for_each_row(check):
    flow = lively(log_det="hutchinson", steps=4)
    x = check.normal(1, 3).expand(4000, 3)
    step = flow.encode(x, noise=torch.Generator().manual_seed(0))
    assert step.stderr is None
    flow.set_log_det("exact")
    exact = flow.encode(x[:1]).contribution.item()
    assert step.contribution.std() > 0
    assert abs(step.contribution.mean().item() - exact) < 4 * step.contribution.std().item() / math.sqrt(4000)


def test_kinds():
    flow = lively()
    chain = Chain(flow)
    assert chain.kind is Kind.EXACT
    chain.set_log_det("hutchinson")
    assert chain.kind is flow.kind is Kind.UNBIASED
    with pytest.raises(KindError):
        Inverse(flow)
    with pytest.raises(ConfigError, match="log_det"):
        chain.set_log_det("roulette")


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [({"steps": 20}, 1e-4), ({"steps": 80}, 1e-6), ({"solver": "dopri5"}, 2e-4), (FINE, 1e-10)],
    ids=["rk4, 20", "rk4, 80", "dopri5", "dopri5, fine"],
)
def test_round_trip_to_the_solver_s_error(check, solver, tolerance):
    flow = lively(5, **solver)
    for spread in (0.01, 1.0, 20.0, 1e4):
        check.round_trip(flow, check.normal(200, 5, spread=spread), tolerance)


@pytest.mark.parametrize("solver", [{"steps": 20}, {"solver": "dopri5"}], ids=["rk4", "dopri5"])
def test_a_row_does_not_depend_on_its_neighbors(check, solver):
    """Also with neighbors that need many more steps, or far fewer."""
    flow = lively(**solver)
    x = check.normal(6, 3)
    wild = torch.cat((x, 1e3 * check.normal(3, 3, seed=2), torch.full((1, 3), 1e20, dtype=torch.float64)))
    with torch.no_grad():
        whole = flow.encode(wild)
        for i in range(6):
            alone = flow.encode(x[i : i + 1])
            torch.testing.assert_close(alone.z, whole.z[i : i + 1], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(alone.contribution, whole.contribution[i : i + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", [{"steps": 4}, {"steps": 4, "recompute": True}, {"solver": "dopri5", "atol": 1e-9, "rtol": 1e-9}],
                         ids=str)  # fmt: skip
def test_gradient_of_decode(check, solver):
    check.decode_gradients(lively(2, hidden=(4,), **solver), check.normal(2, 2))


@pytest.mark.parametrize("log_det", ["exact", "hutchinson"])
@pytest.mark.parametrize("hidden", [(6,), (6, 5), (6, 5, 4)], ids=str)
def test_gradient_of_the_contribution(check, log_det, hidden):
    flow = lively(2, hidden=hidden, steps=3, log_det=log_det, context=1)
    x, context = check.normal(3, 2).requires_grad_(), check.normal(3, 1, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, c: flow.encode(x, c).contribution, (x, context))


def test_recomputing_changes_no_gradient(check):
    gradients = []
    for recompute in (False, True):
        flow = lively(recompute=recompute, steps=6)
        flow.encode(check.normal(4, 3)).contribution.sum().backward()
        gradients.append([p.grad for p in flow.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-12)


def test_regularizers_in_closed_form(check):
    """v = A x with A diagonal: x_i = z_i exp(a_i t), and |e^T A|^2 is the same for every probe of signs."""
    a = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
    flow = Continuous(3, Linear(torch.diag(a)), time=2.0, steps=60).double()
    x = check.normal(5, 3)
    step, effort = flow.encode_with_regularizers(x, noise=torch.Generator().manual_seed(0))
    kinetic = ((a * x) ** 2 * (1 - torch.exp(-4 * a)) / (2 * a)).sum(-1) / 3
    torch.testing.assert_close(effort.kinetic, kinetic, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(effort.jacobian, (2 * a.square().sum() / 3).expand(5), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(step.contribution, flow.encode(x).contribution)


@pytest.mark.parametrize(
    "solver", [{"steps": 5}, {"solver": "dopri5", "atol": 1e-3, "rtol": 1e-3}], ids=["rk4", "dopri5"]
)
def test_solver_error_is_about_the_error(check, solver):
    flow = lively(**solver)
    x = check.normal(100, 3)
    reported = flow.solver_error(x)
    true = (flow.encode(x).contribution - lively(**FINE).encode(x).contribution).abs()
    assert reported.shape == (100,)
    assert 0.5 < (reported.mean() / true.mean()).item() < 2
    assert (flow.steps, flow.atol) == (solver.get("steps", 20), solver.get("atol", 1e-5))


@pytest.mark.parametrize("solver", [{"steps": 4}, {"solver": "dopri5"}], ids=["rk4", "dopri5"])
def test_extremes(check, solver):
    check.extremes(lively(3, **solver))


def test_equations_that_cannot_be_solved_raise_an_error():
    flow = lively(solver="dopri5")
    with torch.no_grad():
        next(flow.parameters()).fill_(math.nan)
    with pytest.raises(ConvergenceError, match="steps"):
        flow.encode(torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    "option",
    [{"solver": "euler"}, {"steps": 0}, {"atol": 0.0}, {"rtol": -1.0}, {"time": 0.0}, {"time": math.nan}, {"probes": 0},
     {"activation": "relu"}, {"log_det": "guess"}],
    ids=str,
)  # fmt: skip
def test_options_that_are_refused(option):
    with pytest.raises(ConfigError):
        Continuous(2, **option)


class Constant(nn.Module):
    """v = 1 in every coordinate of x, or in ``width`` coordinates."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width = width

    def forward(self, t, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.ones_like(x[..., : self.width])


@pytest.mark.parametrize("log_det", ["exact", "hutchinson"])
def test_a_constant_velocity_is_a_shift(log_det):
    step = Continuous(2, Constant(), steps=2, log_det=log_det).encode(torch.zeros(3, 2))
    torch.testing.assert_close(step.z, torch.full((3, 2), -1.0))
    assert torch.equal(step.contribution, torch.zeros(3))


def test_a_velocity_of_another_shape_is_refused():
    """One column would be broadcast to both coordinates of the state."""
    flow = Continuous(2, Constant(1), steps=2)
    x = torch.zeros(3, 2)
    for call in (flow.encode, flow.decode, flow.decode_with_contribution, lambda x: flow.velocity(0.5, x)):
        with pytest.raises(ConfigError, match=r"in the shape of x, \(3, 2\); got the shape \(3, 1\)"):
            call(x)


@pytest.mark.parametrize("dynamics", [3, Constant], ids=str)
def test_dynamics_must_be_a_module(dynamics):
    with pytest.raises(ConfigError, match="dynamics must be a module"):
        Continuous(2, dynamics)


@pytest.mark.parametrize("log_det", ["exact", "hutchinson"])
@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_own_dynamics_in_inference_mode(solver, log_det):
    flow = Continuous(2, Linear(torch.tensor([[0.3, 0.1], [-0.2, 0.4]])), steps=4, solver=solver, log_det=log_det)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    expected = flow.encode(x)
    with torch.inference_mode():
        step = flow.encode(x)
        back = flow.decode_with_contribution(step.z)
        assert torch.isfinite(flow.encode_with_regularizers(x)[1].jacobian).all()
    torch.testing.assert_close(step.z, expected.z.detach())
    torch.testing.assert_close(step.contribution, expected.contribution.detach())
    torch.testing.assert_close(back[0], x, atol=1e-3, rtol=0)
