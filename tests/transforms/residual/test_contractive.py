"""Residual blocks: log-determinants against linear algebra, estimators against theory, and the inverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward.errors import ConfigError, ConvergenceError, KindError
from pushforward.likelihood import Kind
from pushforward.numerics import RowNoise, contraction_root
from pushforward.transforms import Chain, Inverse, InvertibleResidual


def block(features: int = 4, dtype: torch.dtype = torch.float64, **more) -> InvertibleResidual:
    """A block of nearly the largest Lipschitz constant: J is near the coefficient times a rotation."""
    made = InvertibleResidual(features, **{"hidden": (16, 16), **more}).to(dtype)
    generator = torch.Generator().manual_seed(5)

    def orthogonal(rows: int, columns: int) -> Tensor:
        return torch.linalg.qr(torch.randn(rows, columns, dtype=torch.float64, generator=generator))[0]

    frames = [orthogonal(width, features) for width in made.hidden]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator).to(dtype))
        for linear, after, before in zip(made.network.linears, [*frames, None], [None, *frames], strict=True):
            after = orthogonal(features, features) if after is None else after
            linear.weight.copy_(2 * (after if before is None else after @ before.mT))  # pyright: ignore
    return made


def linear(features: int, coefficient: float, **more) -> tuple[InvertibleResidual, Tensor]:
    """g(x) = W x + b with W symmetric of norm near the coefficient, and W."""
    made = InvertibleResidual(features, hidden=(), coefficient=coefficient, input_bound=1e6, **more).double()
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(features, features, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        made.network.linears[0].weight.copy_(root + root.mT)  # pyright: ignore
    return made, made.network.layers()[0][0].detach()


@pytest.mark.parametrize("activation", ["lipswish", "elu", "softplus", "tanh"])
@pytest.mark.parametrize("features", [1, 2, 6])
def test_exact_log_determinant(check, features, activation):
    check.contribution(block(features, activation=activation), check.normal(8, features), 1e-9)


def test_the_block_is_near_its_bound():
    """The tests below say something only if J is not small."""
    jacobian = block().network.at(torch.randn(200, 4, dtype=torch.float64)).jacobian()
    assert 0.3 < torch.linalg.matrix_norm(jacobian, 2).max() < 0.9


@pytest.mark.parametrize("terms", [1, 3, 5, 10])
def test_power_series_within_its_bound(check, terms):
    made = block(log_det="power", terms=terms, probes=4000)
    x = check.normal(6, 4)
    step = made.encode(x)
    made.set_log_det("exact")
    exact = made.encode(x).contribution
    level = made.coefficient
    bound = -4 * (math.log(1 - level) + sum(level**k / k for k in range(1, terms + 1)))
    assert step.stderr is not None
    assert ((step.contribution - exact).abs() <= bound + 4 * step.stderr).all()
    if terms == 1:  # the bias is there
        assert ((step.contribution - exact).abs() > 4 * step.stderr).any()


@pytest.mark.parametrize("terms", [1, 2, 6])
def test_power_series_of_a_linear_map_is_the_truncated_series(check, terms):
    made, weight = linear(3, 0.9, log_det="power", terms=terms, probes=20_000)
    step = made.encode(check.normal(2, 3))
    powers = [torch.linalg.matrix_power(weight, k).trace() for k in range(1, terms + 1)]
    expected = sum((-1) ** (k + 1) * power / k for k, power in enumerate(powers, 1))
    assert step.stderr is not None
    assert ((step.contribution - expected).abs() < 4 * step.stderr).all()
    assert (step.stderr < 0.02).all()


@pytest.mark.parametrize(
    ("coefficient", "terms"),
    [
        (0.5, 1),
        (0.97, 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((0.97, 4), (0.5, 4), (0.9, 1), (0.9, 4))),
    ],
)
def test_roulette_is_unbiased(check, coefficient, terms):
    """At a Lipschitz constant that is the coefficient itself, where the tail of the series is largest."""
    made, weight = linear(2, coefficient, log_det="roulette", terms=terms, probes=20_000, seed=7)
    step = made.encode(check.normal(2, 2))
    expected = torch.linalg.slogdet(torch.eye(2).double() + weight).logabsdet
    assert step.stderr is not None
    assert ((step.contribution - expected).abs() < 4 * step.stderr).all()
    assert (step.stderr < 0.05).all()
    short = sum((-1) ** (k + 1) * torch.linalg.matrix_power(weight, k).trace() / k for k in range(1, terms + 1))
    assert coefficient < 0.9 or abs(short - expected) > 3 * step.stderr.max()  # a series without its tail would fail


def test_roulette_of_a_network_is_unbiased_over_seeds_and_its_standard_error_is_honest(check):
    made = block(log_det="roulette", terms=2, probes=8)
    x = check.normal(5, 4)
    with torch.no_grad():
        steps = [made.encode(x, noise=RowNoise(seed)) for seed in range(600)]
        made.set_log_det("exact")
        exact = made.encode(x).contribution
    values = torch.stack([step.contribution for step in steps])
    squares = torch.stack([step.stderr for step in steps if step.stderr is not None]).square()
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - exact).abs() < 4 * error).all()
    assert (squares.mean(0) / values.var(0) - 1).abs().max() < 0.25


@pytest.mark.parametrize("log_det", ["power", "roulette"])
def test_neumann_gradient_is_that_of_the_exact_log_determinant(check, log_det):
    """Mean over draws of a generator, in 20 groups; with 40 terms the bias of the power series is negligible."""
    made = block(2, log_det=log_det, terms=40 if log_det == "power" else 2, hidden=(8,))
    parameters = list(made.parameters())
    point = check.normal(1, 2)

    def gradient(noise) -> Tensor:
        x = point.expand(1 if noise is None else 2000, 2).clone().requires_grad_()
        value = made.encode(x, noise=noise).contribution.mean()
        grads = torch.autograd.grad(value, [x, *parameters], allow_unused=True)
        grads = [torch.zeros(1).double() if g is None else g for g in grads]
        return torch.cat([grads[0].sum(0), *(g.flatten() for g in grads[1:])])

    groups = torch.stack([gradient(torch.Generator().manual_seed(k)) for k in range(20)])
    made.set_log_det("exact")
    exact = gradient(None)
    error = groups.std(0) / math.sqrt(20)
    assert ((groups.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all()
    assert exact.abs().max() > 20 * error.max()  # the error is small compared with the gradient


def test_memory_of_the_gradient_does_not_grow_with_the_terms(check):
    def kept(terms: int) -> int:
        sizes = []
        made = block(log_det="power", terms=terms)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            made.encode(check.normal(50, 4), noise=torch.Generator().manual_seed(0))
        return sum(sizes)

    assert kept(2) == kept(40)


def test_scoring_noise_depends_on_the_seed_alone(check):
    made = block(log_det="roulette", probes=3)
    x = check.normal(6, 4)
    first = made.encode(x, noise=RowNoise(3))
    assert torch.equal(made.encode(x, noise=RowNoise(3)).contribution, first.contribution)
    torch.testing.assert_close(made.encode(x[2:3], noise=RowNoise(3)).contribution, first.contribution[2:3])
    for other in (RowNoise(4), RowNoise(3, 1)):
        assert not torch.equal(made.encode(x, noise=other).contribution, first.contribution)
    assert torch.equal(made.encode(x).contribution, made.encode(x, noise=RowNoise()).contribution)
    assert made.encode(x, noise=torch.Generator().manual_seed(0)).stderr is None


def test_noise_for_all_rows_is_uniform_and_differs_between_keys():
    units = torch.tensor(RowNoise(3, 1).common(20_000, 5), dtype=torch.float64)
    assert ((units >= 0) & (units < 1)).all()
    counts = torch.histc(units, 20, 0, 1)
    assert ((counts - 1000).square() / 1000).sum() < 43.8  # chi-square with 19 degrees of freedom, one in a thousand
    assert RowNoise(3, 1).common(4, 5) == units[:4].tolist()
    for other in (RowNoise(4, 1).common(2000, 5), RowNoise(3, 0).common(2000, 5), RowNoise(3, 1).common(2000, 6)):
        pair = torch.stack((units[:2000], torch.tensor(other, dtype=torch.float64)))
        assert torch.corrcoef(pair)[0, 1].abs() < 0.1


def test_kind_follows_log_det(check):
    made = block()
    chain = Chain(made, block(2 * 2))
    assert chain.kind is Kind.EXACT
    chain.set_log_det("power")
    assert (made.kind, chain.kind) == (Kind.ESTIMATE, Kind.ESTIMATE)
    made.set_log_det("roulette")
    assert chain.kind is Kind.ESTIMATE  # the other part still is one
    chain.set_log_det("roulette")
    assert chain.kind is Kind.UNBIASED
    assert chain.encode(check.normal(3, 4)).stderr is not None
    with pytest.raises(KindError, match="not a bijection"):
        Inverse(chain)
    with pytest.raises(ConfigError, match="log_det"):
        chain.set_log_det("guess")


@pytest.mark.parametrize("coefficient", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_round_trip(check, coefficient, dtype, tolerance):
    made = block(6, dtype, coefficient=coefficient)
    for spread in (0.01, 1.0, 20.0, 1e4):
        check.round_trip(made, check.normal(500, 6, spread=spread, dtype=dtype), tolerance / (1 - coefficient))


def test_the_inverse_of_a_linear_map_is_the_solution(check):
    """At Lipschitz constant 0.999, where a plain iteration would take 20,000 steps to eight digits."""
    made, weight = linear(5, 0.999)
    z = check.normal(50, 5)
    bias = made.network.linears[0].bias  # pyright: ignore
    expected = torch.linalg.solve(torch.eye(5).double() + weight, (z - bias).mT).mT  # pyright: ignore
    torch.testing.assert_close(made.decode(z), expected, rtol=1e-9, atol=1e-9)


def test_each_row_stops_separately(check):
    made = block()
    z = check.normal(300, 4, spread=3.0)
    with torch.no_grad():
        whole = made.decode(z)
        for i in (0, 17, 299):
            torch.testing.assert_close(made.decode(z[i : i + 1]), whole[i : i + 1], rtol=1e-14, atol=1e-14)


def test_gradient_of_the_inverse(check):
    check.decode_gradients(block(3, hidden=(6,), activation="elu"), check.normal(4, 3))


def test_gradient_of_the_inverse_reaches_the_context(check):
    made = block(2, context=3)
    z, context = check.normal(4, 2), check.normal(4, 3, seed=1)
    assert torch.autograd.gradcheck(made.decode, (z.requires_grad_(), context.requires_grad_()), atol=1e-6)


def test_extremes(check):
    check.extremes(block(3))
    made = block(2)
    z = torch.tensor([[math.inf, 1.0], [-math.inf, math.inf], [0.5, 0.5]], dtype=torch.float64)
    x = made.decode(z)
    assert torch.equal(torch.isinf(x), torch.isinf(z))
    assert not torch.isnan(x).any()


def test_equations_that_cannot_be_solved_raise_an_error():
    made = block(2)
    with torch.no_grad():
        made.network.linears[0].bias.fill_(math.nan)  # pyright: ignore
    with pytest.raises(ConvergenceError, match="inverted"):
        made.decode(torch.zeros(1, 2, dtype=torch.float64))
    with pytest.raises(ConvergenceError):  # no contraction, and no root
        contraction_root(lambda x: 1 - x, torch.zeros(1, 2), 0.5)


@pytest.mark.parametrize("bad", [0.0, 1.0, 1.5, -0.1, math.nan])
def test_coefficients_that_are_refused(bad):
    with pytest.raises(ConfigError, match="coefficient"):
        InvertibleResidual(2, coefficient=bad)


@pytest.mark.parametrize("option", [{"log_det": "guess"}, {"terms": 0}, {"probes": 0}, {"activation": "relu"}])
def test_options_that_are_refused(option):
    with pytest.raises(ConfigError):
        InvertibleResidual(2, **option)


def test_derivatives_of_the_contribution_under_function_transforms():
    from torch.func import grad, hessian, jacfwd, vmap

    made = block(3)

    def value(x):
        return made.encode(x).contribution

    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(vmap(jacfwd(value))(x), vmap(grad(value))(x))
    expected = torch.stack([torch.autograd.functional.hessian(value, row) for row in x])  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(vmap(hessian(value))(x), expected)
