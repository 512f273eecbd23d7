"""Solvers against matrix exponentials, order conditions and finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from pushforward.errors import ConvergenceError
from pushforward.transforms.continuous import ode

A = torch.tensor([[-0.5, 2.0, 0.0], [-2.0, -0.3, 0.1], [0.4, 0.0, 0.7]], dtype=torch.float64)
START = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
END = START @ torch.linalg.matrix_exp(A).mT


def linear(s, y: Tensor) -> Tensor:
    return y @ A.mT


def pendulum(s, y: Tensor) -> Tensor:
    """Depends on s, and is not linear."""
    return torch.stack((y[:, 1], -4 * y[:, 0].sin() + torch.cos(3 * torch.as_tensor(s) + 0 * y[:, :1])[:, 0]), -1)


def test_order_conditions():
    c = torch.tensor(ode._C, dtype=torch.float64)
    b = torch.tensor(ode._B, dtype=torch.float64)
    for row, node in zip(ode._A, ode._C, strict=True):
        assert sum(row) == pytest.approx(node, abs=1e-15)
    for k in range(5):  # order 5 on polynomials
        assert (b * c**k).sum().item() == pytest.approx(1 / (k + 1), abs=1e-14)
    last = torch.tensor(ode._E, dtype=torch.float64)
    fourth = torch.cat((b, torch.zeros(1).double())) - last
    nodes = torch.cat((c, torch.ones(1).double()))
    for k in range(4):  # the embedded solution has order 4
        assert (fourth * nodes**k).sum().item() == pytest.approx(1 / (k + 1), abs=1e-14)
    assert abs((fourth * nodes**4).sum().item() - 1 / 5) > 1e-4


def test_fixed_steps_have_order_four():
    errors = [(ode.solve_fixed(linear, START, n) - END).abs().max().item() for n in (8, 16, 32)]
    assert [math.log2(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([4, 4], abs=0.2)


def test_fixed_steps_on_a_polynomial_are_exact():
    y = ode.solve_fixed(lambda s, y: torch.full_like(y, 4 * s**3), START, 3)
    torch.testing.assert_close(y, START + 1, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9, 1e-12])
def test_own_steps_keep_the_tolerance(tolerance):
    error = (ode.solve_adaptive(linear, START, atol=tolerance, rtol=tolerance) - END).abs().max()
    assert error < 20 * tolerance
    fine = ode.solve_fixed(pendulum, START[:, :2], 4000)
    error = (ode.solve_adaptive(pendulum, START[:, :2], atol=tolerance, rtol=tolerance) - fine).abs().max()
    assert error < 50 * tolerance


def test_a_finer_tolerance_than_the_type_has_is_raised():
    y = ode.solve_adaptive(lambda s, y: y @ A.float().mT, START.float(), atol=1e-15, rtol=1e-15)
    torch.testing.assert_close(y.double(), END, rtol=1e-4, atol=1e-4)


def test_rows_have_their_own_steps():
    """A fast and a slow row: each has the result, and the steps, that it has alone."""
    rate = torch.tensor([[0.1], [40.0], [3.0]], dtype=torch.float64)

    def run(rows: slice) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        def turn(s, y: Tensor) -> Tensor:
            return rate[rows] * torch.stack((-y[:, 1], y[:, 0]), -1)

        return ode._find_steps(turn, torch.ones(3, 2, dtype=torch.float64)[rows], 1e-8, 1e-8, 1000)

    steps, whole = run(slice(None))
    taken = torch.cat([h for _, h in steps], -1)
    torch.testing.assert_close(taken.sum(-1), torch.ones(3).double())
    count = (taken > 0).sum(-1)
    assert count[1] > 5 * count[0]
    for i in range(3):
        alone, end = run(slice(i, i + 1))
        assert torch.equal(end, whole[i : i + 1])
        assert (torch.cat([h for _, h in alone], -1) > 0).sum() == count[i]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("solver", ["fixed", "adaptive"])
def test_gradients(solver, recompute):
    def solve(y: Tensor, a: Tensor) -> Tensor:
        def field(s, y: Tensor) -> Tensor:
            return torch.tanh(y @ a.mT) + s * y

        if solver == "fixed":
            return ode.solve_fixed(field, y, 5, recompute=recompute)
        return ode.solve_adaptive(field, y, atol=1e-8, rtol=1e-8, recompute=recompute)

    assert torch.autograd.gradcheck(solve, (START[:1].clone().requires_grad_(), A.clone().requires_grad_()), atol=1e-6)


def test_with_and_without_a_gradient_alike():
    y = START.clone().requires_grad_()
    with torch.no_grad():
        plain = ode.solve_adaptive(pendulum, y[:, :2], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ode.solve_adaptive(pendulum, y[:, :2], atol=1e-6, rtol=1e-6).detach(), plain, rtol=1e-12,
                               atol=1e-12)  # fmt: skip


def test_recomputing_keeps_less():
    def kept(recompute: bool) -> int:
        sizes = []
        a = A.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            ode.solve_fixed(lambda s, y: torch.tanh(y @ a.mT), START.clone(), 10, recompute=recompute)
        return sum(sizes)

    assert kept(True) < kept(False) / 3


def test_what_blows_up_is_withheld():
    with pytest.raises(ConvergenceError, match="steps"):
        ode.solve_adaptive(lambda s, y: y * y, torch.full((1, 1), 2.0), atol=1e-5, rtol=1e-5)  # infinite at s = 1/2
