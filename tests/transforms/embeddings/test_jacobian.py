"""The volume of an embedding, its value against slogdet, and the estimators of its gradient against the exact one."""

import math

import pytest
import torch
from torch import Tensor

from pushforward import transforms
from pushforward.networks import MLP
from pushforward.numerics import batch_jacobian
from pushforward.transforms.embeddings.jacobian import (
    conjugate_gradients,
    encoder_surrogate,
    log_volume,
    push_forward,
    volume_surrogate,
)


def rows(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def decoder() -> MLP:
    torch.manual_seed(0)
    return MLP(3, 5, (8,), activation="tanh").double()


def flat_gradient(value: Tensor, network: torch.nn.Module, z: Tensor) -> Tensor:
    return torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(value, [*network.parameters(), z], allow_unused=True)
            if g is not None
        ]
    )


def test_volume_is_that_of_slogdet(decoder):
    columns = batch_jacobian(decoder, rows(4, 3))[1]
    torch.testing.assert_close(log_volume(columns), 0.5 * torch.linalg.slogdet(columns.mT @ columns)[1])


def test_without_full_rank_the_volume_is_infinite():
    columns = torch.zeros(3, 4, 2, dtype=torch.float64)
    columns[0] = rows(4, 2)
    columns[1, :, 0] = columns[1, :, 1] = 1.0  # two equal columns
    volume = log_volume(columns)
    assert torch.isfinite(volume[0])
    assert (volume[1:] == math.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_decoder_that_ignores_a_code_makes_rows_impossible_and_no_nan(dtype):
    layer = transforms.FreeFormEmbedding(3, 2, hidden=(4,)).to(dtype)
    with torch.no_grad():
        layer.decoder.body[0].weight[:, 1] = 0.0
    step = layer.encode(torch.zeros(2, 3, dtype=dtype))
    assert (step.contribution == -math.inf).all()
    assert torch.isfinite(step.residual).all()


def test_volume_of_matrices():
    source = torch.Generator().manual_seed(0)
    for height, width in ((5, 1), (5, 3), (3, 3)):
        j = torch.randn(7, height, width, dtype=torch.float64, generator=source)
        expected = 0.5 * torch.linalg.slogdet(j.mT @ j)[1]
        torch.testing.assert_close(log_volume(j), expected)
        units = torch.logspace(-9, 9, width, dtype=torch.float64)  # of the codes
        torch.testing.assert_close(log_volume(j * units), expected + units.log().sum())
    j = torch.randn(4, 5, 2, dtype=torch.float64, generator=source)
    j[0, :, 1] = 0
    j[1, :, 1] = 2 * j[1, :, 0]
    j[2, 0, 0] = math.inf
    j.requires_grad_()
    found = log_volume(j)
    assert torch.isinf(found.detach()).tolist() == [True, True, True, False]
    found[3].backward()
    assert j.grad is not None
    assert torch.isfinite(j.grad).all()


def test_nearly_parallel_columns_keep_their_digits_in_float32():
    """The squared condition number 1e12 would leave float32; the Gram matrix is formed in float64."""
    columns = torch.tensor([[1.0, 1.0], [0.0, 1e-6], [0.0, 0.0]])
    assert log_volume(columns).item() == pytest.approx(math.log(1e-6), rel=1e-5)


def test_gradient_of_the_volume_is_that_of_finite_differences(decoder):
    z = rows(4, 3).requires_grad_()
    gradient = flat_gradient(log_volume(batch_jacobian(decoder, z)[1]).sum(), decoder, z)
    weight = decoder.body[0].weight
    step = 1e-5
    with torch.no_grad():
        for index in (0, 7, 20):
            entry = divmod(index, weight.shape[1])
            sides = []
            for sign in (1, -1):
                weight[entry] += sign * step
                sides.append(log_volume(batch_jacobian(decoder, z)[1]).sum().item())
                weight[entry] -= sign * step
            assert gradient[index].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-5, abs=1e-7)


def test_conjugate_gradients_solve_each_row():
    root = rows(6, 5, 5)
    matrix = root @ root.mT + 0.5 * torch.eye(5, dtype=torch.float64)
    b = rows(6, 5, seed=1)
    solve = conjugate_gradients(lambda v: (matrix @ v[..., None])[..., 0], b, 1e-10, 50)
    torch.testing.assert_close(solve.solution, torch.linalg.solve(matrix, b), rtol=1e-7, atol=1e-7)
    assert solve.iterations <= 12
    assert (solve.residual <= 1e-10).all()
    loose = conjugate_gradients(lambda v: (matrix @ v[..., None])[..., 0], b, 0.5, 50)
    assert loose.iterations < solve.iterations
    assert (loose.residual <= 0.5).all()
    assert loose.residual.max() > 1e-3  # the residual shows that it did not converge


def test_conjugate_gradients_report_a_singular_matrix():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    solve = conjugate_gradients(lambda v: v @ matrix, torch.ones(2, 3, dtype=torch.float64), 1e-8, 10)
    assert torch.isfinite(solve.solution).all()
    assert (solve.residual > 0.1).all()


def relative_errors(decoder: MLP, probes: int, repeats: int, tolerance: float = 1e-8) -> Tensor:
    z = rows(4, 3).requires_grad_()
    exact = flat_gradient(log_volume(batch_jacobian(decoder, z)[1]).sum(), decoder, z)
    errors = []
    for seed in range(repeats):
        generator = torch.Generator().manual_seed(seed)
        value, solve = volume_surrogate(decoder, z, probes=probes, tolerance=tolerance, generator=generator)
        assert (solve.residual <= tolerance).all()
        errors.append((flat_gradient(value.sum(), decoder, z) - exact).norm() / exact.norm())
    return torch.stack(errors)


def test_gradient_of_the_surrogate_is_unbiased_and_its_error_falls_with_the_probes(decoder):
    few, many = relative_errors(decoder, 20, 100), relative_errors(decoder, 500, 100)
    ratio = (few.square().mean() / many.square().mean()).sqrt().item()
    assert ratio == pytest.approx(5.0, rel=0.2)  # sqrt(500 / 20)
    expected = many.square().mean().sqrt().item() * (500 / 20_000) ** 0.5
    assert relative_errors(decoder, 20_000, 1).item() < 4 * expected  # no bias is left


def test_a_loose_solver_biases_the_gradient(decoder):
    assert relative_errors(decoder, 1600, 1, tolerance=0.9).item() > 3 * relative_errors(decoder, 1600, 1).item()


def test_the_value_of_the_surrogate_has_no_meaning(decoder):
    """It is d / 2 for signs, for any volume."""
    value, _ = volume_surrogate(decoder, rows(4, 3), probes=2, tolerance=1e-10)
    torch.testing.assert_close(value, torch.full((4,), 1.5, dtype=torch.float64))


def test_encoder_surrogate_of_a_scalar():
    """F(x) = a x and g(z) = z / a: the gradient of log a is 1 / a."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = rows(5, 1)
    value = encoder_surrogate(lambda t: a * t, lambda z: z / a, x, a * x)
    value.mean().backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(1 / 0.7)


def test_encoder_surrogate_of_a_bijection_is_the_gradient_of_its_log_determinant():
    flow = transforms.Chain(
        transforms.LULinear(3), transforms.Coupling(3, hidden=(8,)), transforms.Coupling(3, hidden=(8,), flip=True)
    ).double()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = rows(4, 3)
    parameters = list(flow.parameters())
    exact = torch.autograd.grad(flow.encode(x).contribution.sum(), parameters, allow_unused=True)
    value = encoder_surrogate(lambda t: flow.encode(t).z, flow.decode, x, flow.encode(x).z, probes=3)
    found = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
    compared = 0
    for a, b in zip(exact, found, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(b, a)
            compared += 1
    assert compared > 4


def test_forward_mode_of_a_function():
    value, slope = push_forward(torch.sin, torch.tensor(0.5), torch.tensor(2.0))
    assert (value.item(), slope.item()) == pytest.approx((math.sin(0.5), 2 * math.cos(0.5)))
