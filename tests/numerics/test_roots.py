"""Roots of monotone functions, with their gradients."""

from __future__ import annotations

import pytest
import torch

from pushforward.numerics import (
    batch_jacobian,
    contraction_root,
    monotone_root,
)

FLOATS = [torch.float32, torch.float64]


def rows(count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestMonotoneRoot:
    """f(x) = x + a sinh(x) with a > 0, whose inverse has no closed form, and functions with exact inverses."""

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("width", [1e-3, 1.0, 100.0])
    def test_a_narrow_bracket_costs_steps_and_not_accuracy(self, dtype, width):
        target = torch.tensor([-1e6, -30.0, -1.0, 0.0, 1e-3, 2.0, 1e6], dtype=dtype)

        def function(x):  # inverse of asinh, exactly
            return torch.asinh(x), torch.rsqrt(1 + x * x)

        for start in (-5.0, 0.0, 5.0):
            low = torch.full_like(target, start)
            root = monotone_root(function, torch.asinh(target), low, low + width)
            tolerance = 1e-12 if dtype == torch.float64 else 1e-5
            torch.testing.assert_close(root, target, rtol=tolerance * 20, atol=tolerance)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_targets_at_the_end_of_the_type(self, dtype):
        most = torch.finfo(dtype).max
        target = torch.tensor([-most, -most / 4, most / 2, most, torch.inf, -torch.inf], dtype=dtype)
        end = torch.full_like(target, 2 * most ** (1 / 3))
        root = monotone_root(lambda x: (x**3, 3 * x * x), target, -end, end)
        exact = (target.double().sign() * target.double().abs() ** (1 / 3)).to(dtype)
        torch.testing.assert_close(root, exact, rtol=1e-5, atol=0)
        end = torch.ones_like(target)
        root = monotone_root(lambda x: (torch.sinh(x), torch.cosh(x)), target, -end, end)
        torch.testing.assert_close(
            root, torch.asinh(target.double() / 2).to(dtype) + target.sign() * 0.69315, rtol=1e-4, atol=0
        )

    def test_flat_intervals_do_not_stop_it(self):
        # The slope is 1e-8 in the middle, where Newton's step leaves every bracket.
        def function(x):
            return x**3 + 1e-8 * x, 3 * x**2 + 1e-8

        root = torch.tensor([-2.0, -1e-3, 0.0, 1e-6, 0.5], dtype=torch.float64)
        low = torch.full_like(root, -10.0)
        torch.testing.assert_close(monotone_root(function, function(root)[0], low, -low), root, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("width", [1e-3, 20.0])
    def test_gradients_are_those_of_the_implicit_function(self, width):
        a = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64, requires_grad=True)
        target = torch.tensor([-4.0, 0.1, 3.0], dtype=torch.float64, requires_grad=True)

        def solve(y, scale):
            def function(x):
                return x + scale * torch.sinh(x), 1 + scale * torch.cosh(x)

            low = torch.full_like(y, -width / 2)
            return monotone_root(function, y, low, low + width)

        root = solve(target, a)
        torch.testing.assert_close(root + a * torch.sinh(root), target, rtol=0, atol=1e-13)
        by_target, by_a = torch.autograd.grad(root.sum(), (target, a))
        slope = 1 + a * torch.cosh(root)
        torch.testing.assert_close(by_target, 1 / slope, rtol=1e-12, atol=0)
        torch.testing.assert_close(by_a, -torch.sinh(root) / slope, rtol=1e-12, atol=0)
        assert torch.autograd.gradcheck(solve, (target, a))
        assert torch.autograd.gradgradcheck(solve, (target, a))

    @pytest.mark.parametrize("outer", [torch.func.jacrev, torch.func.jacfwd])
    @pytest.mark.parametrize("inner", [torch.func.jacrev, torch.func.jacfwd])
    def test_second_derivatives_in_every_mode(self, inner, outer):
        """By hand: x'' = -f''(x) / f'(x)^3."""
        batch_jacobian(lambda x: x, torch.zeros(1, 1))  # forward mode is loaded, with torch's own warning, once
        target = torch.tensor([-4.0, 0.1, 3.0], dtype=torch.float64)

        def solve(y):
            low = torch.full_like(y, -10.0)
            return monotone_root(lambda x: (x + torch.sinh(x), 1 + torch.cosh(x)), y, low, -low).sum()

        low = torch.full_like(target, -10.0)
        root = monotone_root(lambda x: (x + torch.sinh(x), 1 + torch.cosh(x)), target, low, -low)
        expected = torch.diag(-torch.sinh(root) / (1 + torch.cosh(root)) ** 3)
        torch.testing.assert_close(outer(inner(solve))(target), expected, rtol=1e-12, atol=1e-15)

    def test_values_are_the_same_with_and_without_gradients(self):
        target = 20 * rows(50, 1)[:, 0]
        low = torch.full_like(target, -30.0)

        def solve(y):
            return monotone_root(lambda x: (x + x**3, 1 + 3 * x**2), y, low, -low)

        assert torch.equal(solve(target), solve(target.clone().requires_grad_()).detach())

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("power", [3, 9])
    def test_roots_of_any_order_and_size(self, dtype, power):
        # Newton's step gains only a factor 1 - 1 / power each time near a multiple root; the safeguard bisects there.
        def function(x):
            return x**power, power * x ** (power - 1)

        root = torch.tensor([-50.0, -1.0, -1e-2, 1e-1, 3.0, 50.0], dtype=dtype)
        found = monotone_root(function, root**power, torch.full_like(root, -1.0), torch.full_like(root, 1.0))
        torch.testing.assert_close(found, root, rtol=4 * torch.finfo(dtype).eps, atol=0)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_fifty_and_a_million_are_inverted_within_rounding(self, dtype):
        """A function with a nearly flat middle, from a bracket of width 2 about 0: within rounding."""

        def function(x):
            return x - 0.99 * torch.tanh(x), 1 - 0.99 * (1 - torch.tanh(x) ** 2)

        x = torch.tensor([50.0, -50.0, 1e6, -1e6, 1e-3], dtype=dtype)
        root = monotone_root(function, function(x)[0], torch.full_like(x, -1.0), torch.full_like(x, 1.0))
        torch.testing.assert_close(root, x, rtol=4 * torch.finfo(dtype).eps, atol=100 * torch.finfo(dtype).eps)

    def test_a_root_does_not_depend_on_its_neighbors(self):
        def function(x):
            return (
                x + x * x * x,
                1 + 3 * x * x,
            )  # no library functions: those may round differently at different positions of a batch

        target = 20 * rows(50, 1)[:, 0]
        whole = monotone_root(function, target, torch.full_like(target, -1.0), torch.full_like(target, 1.0))
        for i in range(50):
            one = target[i : i + 1]
            assert torch.equal(
                monotone_root(function, one, -torch.ones_like(one), torch.ones_like(one)), whole[i : i + 1]
            )

    def test_a_good_start_only_saves_steps(self):
        calls = 0

        def function(x):
            nonlocal calls
            calls += 1
            return x + torch.sinh(x), 1 + torch.cosh(x)

        root = torch.linspace(-3, 3, 7, dtype=torch.float64)
        target, low = function(root)[0], torch.full_like(root, -10.0)
        for start, most in ((None, 20), (root + 1e-3, 6)):
            calls = 0
            found = monotone_root(function, target, low, -low, start=start, doublings=0)
            torch.testing.assert_close(found, root, rtol=1e-14, atol=1e-14)
            assert calls <= most

    def test_under_vmap(self):
        def solve(y):
            return monotone_root(lambda x: (x + x**3, 1 + 3 * x**2), y, y * 0 - 1, y * 0 + 1)

        y = 5 * rows(4, 3)
        torch.testing.assert_close(torch.vmap(solve)(y), solve(y), rtol=1e-14, atol=1e-14)
        derivative = torch.func.vmap(torch.func.grad(lambda t: solve(t)))(y[:, 0])
        torch.testing.assert_close(derivative, 1 / (1 + 3 * solve(y[:, 0]) ** 2), rtol=1e-12, atol=0)

    def test_an_empty_batch(self):
        empty = torch.zeros(0, 2)
        assert monotone_root(lambda x: (x, torch.ones_like(x)), empty, empty - 1, empty + 1).shape == (0, 2)


def test_a_root_where_the_function_is_flat():
    def cube(x):
        return x**3, 3 * x**2

    found = monotone_root(cube, torch.tensor([0.0, 8.0]), torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0]))
    assert found.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_rounding_error_of_a_nearly_flat_function_is_no_long_step(dtype):
    """The last Newton step once led out of the bracket, as far as 1e291."""
    near = 1 - torch.finfo(dtype).eps / 2
    target = torch.tensor([0.5, near, -near, 1.0, -1.0], dtype=dtype)
    low = torch.full_like(target, -1.0)
    root = monotone_root(lambda x: (torch.tanh(x), 1 - torch.tanh(x) ** 2), target, low, -low)
    torch.testing.assert_close(torch.tanh(root), target, rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert (root.abs() < 100).all()
    target = torch.tensor([-near, 1e30, 2.0], dtype=dtype)  # its bracket doubles until exp overflows
    low = torch.full_like(target, -1.0)
    root = monotone_root(lambda x: (torch.expm1(x), torch.exp(x)), target, low, -low)
    torch.testing.assert_close(torch.expm1(root), target, rtol=100 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_contractions_in_16_bits(dtype):
    y = torch.tensor([[1.0, -2.0], [3e4, torch.inf]], dtype=dtype)
    x = contraction_root(lambda x: 0.5 * torch.sin(x), y, rate=0.5)
    torch.testing.assert_close(x[0] + 0.5 * torch.sin(x[0]), y[0], rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert x[1].tolist() == pytest.approx([3e4, torch.inf], rel=1e-2)
