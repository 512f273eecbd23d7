"""Jacobians of a batch against autograd, row by row."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from pushforward.networks import MLP
from pushforward.numerics import batch_jacobian, log_abs_det, push_forward


def rows(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network() -> MLP:
    torch.manual_seed(0)
    return MLP(3, 5, (8,), activation="tanh").double()


def test_values_and_jacobians_are_those_of_autograd(network):
    z = rows(4, 3)
    x, columns = batch_jacobian(network, z)
    torch.testing.assert_close(x, network(z))
    torch.testing.assert_close(columns, torch.stack([torch.autograd.functional.jacobian(network, row) for row in z]))


def test_more_dimensions_of_batch_and_result(network):
    z = rows(2, 4, 3)
    x, columns = batch_jacobian(lambda t: network(t)[..., :4].unflatten(-1, (2, 2)), z)
    assert x.shape == (2, 4, 2, 2)
    assert columns.shape == (2, 4, 4, 3)
    torch.testing.assert_close(columns, batch_jacobian(network, z)[1][..., :4, :])


def test_row_by_row_under_vmap(network):
    z = rows(4, 3)
    x, columns = torch.vmap(lambda row: batch_jacobian(network, row))(z)
    torch.testing.assert_close(x, network(z))
    torch.testing.assert_close(columns, batch_jacobian(network, z)[1])


def test_many_directions_take_several_passes():
    """More directions than one pass takes; a linear function is its own Jacobian."""
    matrix = rows(150, 130)
    x, columns = batch_jacobian(lambda z: z @ matrix.T, rows(2, 130, seed=1))
    assert x.shape == (2, 150)
    torch.testing.assert_close(columns, matrix.expand(2, -1, -1))


def test_gradients_reach_the_point_and_the_weights(network):
    z = rows(2, 3).requires_grad_()
    found = torch.autograd.grad(
        batch_jacobian(network, z)[1].square().sum(), [z, *network.parameters()], allow_unused=True
    )
    jacobians = [torch.autograd.functional.jacobian(network, row, create_graph=True) for row in z]
    expected = torch.autograd.grad(torch.stack(jacobians).square().sum(), [z, *network.parameters()], allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_product_with_one_direction(network):
    z, v = rows(4, 3), rows(4, 3, seed=1)
    value, slope = push_forward(network, z, v)
    torch.testing.assert_close(value, network(z))
    torch.testing.assert_close(slope, (batch_jacobian(network, z)[1] @ v.unsqueeze(-1)).squeeze(-1))


FIRST_USE = """
import warnings, torch
from pushforward.numerics.jacobian import batch_jacobian
warnings.simplefilter("error")
print(batch_jacobian(lambda z: z**2, torch.ones(1, 1))[1].item())
"""


def test_no_warning():
    """PyTorch warns of its own rules where they are first used, so this needs a process of its own."""
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2.0\n", "")


@pytest.mark.parametrize("nested", ["jacfwd", "jacrev", "hessian", "jacfwd of jacfwd", "jacrev of jacfwd"])
def test_derivatives_of_log_determinants_under_function_transforms(nested):
    from torch.autograd import functional
    from torch.func import hessian, jacfwd, jacrev, vmap

    shift = torch.arange(9.0, dtype=torch.float64).reshape(3, 3)

    def value(v):
        return log_abs_det(torch.eye(3, dtype=torch.float64) + 0.2 * torch.sin(torch.outer(v, v) + shift))

    made = {
        "jacfwd": jacfwd(value), "jacrev": jacrev(value), "hessian": hessian(value),
        "jacfwd of jacfwd": jacfwd(jacfwd(value)), "jacrev of jacfwd": jacrev(jacfwd(value)),
    }[nested]  # fmt: skip
    plain = functional.jacobian if nested in ("jacfwd", "jacrev") else functional.hessian
    x = rows(4, 3)
    expected = torch.stack([plain(value, row) for row in x])  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(vmap(made)(x), expected)
    torch.testing.assert_close(torch.stack([made(row) for row in x]), expected)
