"""The numerical guards: sums, clamps, logarithms of differences, monotone roots, and noise keyed by rows."""

from __future__ import annotations

import math

import pytest
import scipy.special
import scipy.stats
import torch

from pushforward.numerics import (
    RowNoise,
    RunningMean,
    batch_jacobian,
    bound_input,
    bound_square,
    draw_category,
    inverse_softplus,
    log1mexp,
    log1p_square,
    logmeanexp,
    monotone_root,
    normal_like,
    soft_clamp,
    softplus_positive,
    split_infinite,
    sum_event,
    uniform_like,
)

FLOATS = [torch.float32, torch.float64]


def rows(count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestSumEvent:
    def test_no_event_dimensions(self):
        x = rows(3, 2)
        assert sum_event(x, 0) is x

    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_sums_the_last_dimensions(self, dims):
        x = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
        torch.testing.assert_close(sum_event(x, dims), x.sum(tuple(range(-dims, 0))))
        assert sum_event(x, dims).shape == x.shape[: 4 - dims]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_keeps_the_type(self, dtype):
        assert sum_event(torch.ones(2, 5000, dtype=dtype), 1).dtype is dtype

    def test_long_sums_keep_their_digits(self):
        # 2^24 + 1 + 1 + ... : in float32 each 1 is lost beside 2^24.
        x = torch.ones(1, 3001)
        x[0, 0] = 2.0**24
        assert sum_event(x, 1).item() == 2.0**24 + 3000
        # 1e8 terms' worth of cancellation: the exact sum is 3001 - 1.
        y = torch.tensor([1e8, *[1.0] * 3000, -1e8]).reshape(1, -1)
        assert sum_event(y, 1).item() == 3000.0

    def test_an_empty_batch(self):
        assert sum_event(torch.zeros(0, 3), 1).shape == (0,)


class TestClamps:
    def test_soft_clamp_is_the_identity_near_zero_and_bounded(self):
        x = torch.tensor([0.0, 1e-4, -1e-4, 1e30, -1e30, math.inf, -math.inf], dtype=torch.float64, requires_grad=True)
        y = soft_clamp(x, 3.0)
        y.sum().backward()
        # tanh(u) = u - u^3 / 3 + ...
        torch.testing.assert_close(y[:3], x[:3] - x[:3] ** 3 / 27, rtol=0, atol=1e-20)
        assert y[3:].tolist() == [3.0, -3.0, 3.0, -3.0]
        assert x.grad is not None
        torch.testing.assert_close(x.grad, torch.tensor([1.0, 1.0, 1.0, 0, 0, 0, 0]).double(), rtol=0, atol=1e-8)

    def test_bound_input(self):
        x = torch.tensor([-1e20, -2.0, 0.5, 2.0, math.inf])
        assert bound_input(x, 1.0).tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("terms", [1, 7, 1000])
    def test_squares_of_bounded_inputs_sum_to_a_finite_number(self, dtype, terms):
        far = torch.full((terms,), torch.finfo(dtype).max, dtype=dtype)
        assert torch.isfinite((bound_square(far, terms) ** 2).sum())
        near = torch.tensor([-1e15, 0.0, 3.0], dtype=dtype)
        assert torch.equal(bound_square(near, terms), near)

    def test_split_infinite(self):
        x = torch.tensor([[1.0, 2.0], [math.inf, 2.0], [1.0, -math.inf], [math.inf, math.inf]])
        finite, far = split_infinite(x, 1)
        assert finite.tolist() == [[1.0, 2.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.0]]
        assert far.tolist() == [0.0, -math.inf, -math.inf, -math.inf]
        finite, far = split_infinite(x[:, 0], 0)
        assert finite.tolist() == [1.0, 0.0, 1.0, 0.0]
        assert far.tolist() == [0.0, -math.inf, 0.0, -math.inf]

    @pytest.mark.parametrize("y", [1e-300, 1e-8, 0.5, 1.0, 10.0, 700.0, 1e10])
    def test_inverse_softplus(self, y):
        x = inverse_softplus(y)
        assert math.log1p(math.exp(-abs(x))) + max(x, 0.0) == pytest.approx(y, rel=1e-12)

    @pytest.mark.parametrize("minimum", [1e-3, 0.5])
    def test_softplus_positive(self, minimum):
        raw = torch.tensor([0.0, -1e4, 1e4], dtype=torch.float64)
        y = softplus_positive(raw, minimum)
        assert y[0].item() == pytest.approx(1.0, abs=1e-15)
        assert y[1].item() == pytest.approx(minimum, abs=1e-15)
        assert y[2] > 9e3


class TestLogarithms:
    @pytest.mark.parametrize("x", [1e-300, 1e-20, 1e-9, 1e-3, 0.6, 0.6931, 0.6932, 1.0, 20.0, 50.0, 700.0])
    def test_log1mexp(self, x):
        # Independent: log(1 - exp(-x)) = log(2 sinh(x / 2)) - x / 2, and for large x the series -exp(-x).
        expected = -math.exp(-x) if x > 40 else math.log(2 * math.sinh(x / 2)) - x / 2
        t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y = log1mexp(t)
        assert y.item() == pytest.approx(expected, rel=1e-12)
        (slope,) = torch.autograd.grad(y, t)
        assert slope.item() == pytest.approx(1 / math.expm1(x), rel=1e-12)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_log1mexp_has_finite_gradients_at_both_ends(self, dtype):
        x = torch.tensor([1e-30, 1e-9, 0.693, 100.0, 1e5, 1e30], dtype=dtype, requires_grad=True)
        log1mexp(x).sum().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()

    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_logmeanexp(self, dim):
        x = 30 * rows(4, 5)
        expected = scipy.special.logsumexp(x.numpy(), axis=dim) - math.log(x.shape[dim])
        torch.testing.assert_close(logmeanexp(x, dim), torch.from_numpy(expected), rtol=1e-13, atol=1e-13)

    def test_logmeanexp_of_impossible_terms(self):
        x = torch.tensor(
            [[-math.inf, -math.inf], [0.0, -math.inf], [-1e4, -1e4]], dtype=torch.float64, requires_grad=True
        )
        y = logmeanexp(x, 1)
        y.sum().backward()
        torch.testing.assert_close(y.detach(), torch.tensor([-math.inf, -math.log(2.0), -1e4]).double())
        assert x.grad is not None
        expected = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
        torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-11)

    def test_logmeanexp_of_an_empty_batch(self):
        assert logmeanexp(torch.zeros(3, 0), 0).shape == (0,)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_log1p_square(self, dtype):
        x = torch.tensor([0.0, 1e-10, -0.5, 1.0, -3.0, 1e15, -1e30], dtype=dtype)
        expected = [math.log1p(v * v) for v in x.double().tolist()]
        torch.testing.assert_close(log1p_square(x).double(), torch.tensor(expected).double(), rtol=3e-7, atol=1e-40)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_log1p_square_has_the_right_gradient_everywhere(self, dtype):
        x = torch.tensor([0.0, 1e-20, 0.5, 1.0, -2.0, 1e15, 1e30], dtype=dtype, requires_grad=True)
        log1p_square(x).sum().backward()
        expected = [2 * v / (1 + v * v) for v in x.detach().double().tolist()]
        assert x.grad is not None
        torch.testing.assert_close(x.grad.double(), torch.tensor(expected).double(), rtol=1e-6, atol=0)


def test_categories_are_drawn_with_their_probabilities():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0], dtype=torch.float64)
    drawn = draw_category(probabilities.log().expand(20_000, 5), torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=5)
    assert counts[4] == 0
    assert scipy.stats.chisquare(counts[:4].numpy(), 20_000 * probabilities[:4].numpy()).pvalue > 1e-3


class TestMonotoneRoot:
    """f(x) = x + a sinh(x) with a > 0, whose inverse has no closed form, and laws with exact inverses."""

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("width", [1e-3, 1.0, 100.0])
    def test_a_narrow_bracket_costs_steps_and_no_wrong_answer(self, dtype, width):
        target = torch.tensor([-1e6, -30.0, -1.0, 0.0, 1e-3, 2.0, 1e6], dtype=dtype)

        def law(x):  # inverse of asinh, exactly
            return torch.asinh(x), torch.rsqrt(1 + x * x)

        for start in (-5.0, 0.0, 5.0):
            low = torch.full_like(target, start)
            root = monotone_root(law, torch.asinh(target), low, low + width)
            tolerance = 1e-12 if dtype == torch.float64 else 1e-5
            torch.testing.assert_close(root, target, rtol=tolerance * 20, atol=tolerance)

    def test_flat_stretches_do_not_stop_it(self):
        # The slope is 1e-8 in the middle, where Newton's step leaves every bracket.
        def law(x):
            return x**3 + 1e-8 * x, 3 * x**2 + 1e-8

        root = torch.tensor([-2.0, -1e-3, 0.0, 1e-6, 0.5], dtype=torch.float64)
        low = torch.full_like(root, -10.0)
        torch.testing.assert_close(monotone_root(law, law(root)[0], low, -low), root, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("width", [1e-3, 20.0])
    def test_gradients_are_those_of_the_implicit_function(self, width):
        a = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64, requires_grad=True)
        target = torch.tensor([-4.0, 0.1, 3.0], dtype=torch.float64, requires_grad=True)

        def solve(y, scale):
            def law(x):
                return x + scale * torch.sinh(x), 1 + scale * torch.cosh(x)

            low = torch.full_like(y, -width / 2)
            return monotone_root(law, y, low, low + width)

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
        def law(x):
            return x**power, power * x ** (power - 1)

        root = torch.tensor([-50.0, -1.0, -1e-2, 1e-1, 3.0, 50.0], dtype=dtype)
        found = monotone_root(law, root**power, torch.full_like(root, -1.0), torch.full_like(root, 1.0))
        torch.testing.assert_close(found, root, rtol=4 * torch.finfo(dtype).eps, atol=0)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_fifty_comes_back_as_fifty_and_a_million_as_a_million(self, dtype):
        """Through a law with a nearly flat middle, from a bracket of width 2 about 0: within rounding."""

        def law(x):
            return x - 0.99 * torch.tanh(x), 1 - 0.99 * (1 - torch.tanh(x) ** 2)

        x = torch.tensor([50.0, -50.0, 1e6, -1e6, 1e-3], dtype=dtype)
        root = monotone_root(law, law(x)[0], torch.full_like(x, -1.0), torch.full_like(x, 1.0))
        torch.testing.assert_close(root, x, rtol=4 * torch.finfo(dtype).eps, atol=100 * torch.finfo(dtype).eps)

    def test_a_root_does_not_depend_on_its_neighbors(self):
        def law(x):
            return x + x * x * x, 1 + 3 * x * x  # no library functions: those may round by place in the batch

        target = 20 * rows(50, 1)[:, 0]
        whole = monotone_root(law, target, torch.full_like(target, -1.0), torch.full_like(target, 1.0))
        for i in range(50):
            one = target[i : i + 1]
            assert torch.equal(monotone_root(law, one, -torch.ones_like(one), torch.ones_like(one)), whole[i : i + 1])

    def test_a_good_start_saves_steps_and_changes_nothing_else(self):
        calls = 0

        def law(x):
            nonlocal calls
            calls += 1
            return x + torch.sinh(x), 1 + torch.cosh(x)

        root = torch.linspace(-3, 3, 7, dtype=torch.float64)
        target, low = law(root)[0], torch.full_like(root, -10.0)
        for start, most in ((None, 20), (root + 1e-3, 6)):
            calls = 0
            found = monotone_root(law, target, low, -low, start=start, doublings=0)
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


class TestRowNoise:
    """Statistics are of 20,000 fixed rows; thresholds are the tails of their laws at a level of 1e-3 or less."""

    COUNT = 20_000

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("make", ["gaussian", "integers", "constant columns"])
    def test_uniform(self, dtype, make):
        if make == "gaussian":
            x = rows(self.COUNT, 3, dtype=dtype)
        elif make == "integers":
            x = torch.arange(self.COUNT, dtype=dtype)[:, None] * torch.tensor([1, 0, 0], dtype=dtype)
        else:
            x = torch.cat((torch.full((self.COUNT, 2), 7.0), torch.arange(self.COUNT)[:, None] / 8), 1).to(dtype)
        u = RowNoise(3).uniform(x, 1)
        assert u.dtype is dtype
        assert u.shape == x.shape
        assert (u >= 0).all()
        assert (u < 1).all()
        for column in u.T:
            assert scipy.stats.kstest(column.double().numpy(), "uniform").pvalue > 1e-3

    def independent(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Correlation of two columns, and chi-square of their joint law on a 10 x 10 grid."""
        count = a.numel()
        correlation = torch.corrcoef(torch.stack((a, b)).double())[0, 1].item()
        assert abs(correlation) < 3.9 / math.sqrt(count)  # 3.9 standard deviations: 1e-4
        cell = (a.double() * 10).long() * 10 + (b.double() * 10).long()
        assert scipy.stats.chisquare(torch.bincount(cell, minlength=100).numpy()).pvalue > 1e-4

    def test_coordinates_are_independent(self):
        u = RowNoise().uniform(rows(self.COUNT, 3), 1)
        self.independent(u[:, 0], u[:, 1])
        self.independent(u[:, 0], u[:, 2])
        self.independent(u[:, 1], u[:, 2])

    def test_coordinates_of_rows_with_equal_entries_are_independent(self):
        u = RowNoise().uniform(rows(self.COUNT, 1).expand(-1, 2), 1)
        self.independent(u[:, 0], u[:, 1])

    def test_neighboring_rows_are_independent(self):
        u = RowNoise().uniform(torch.arange(2.0 * self.COUNT, dtype=torch.float64)[:, None], 1)[:, 0]
        self.independent(u[0::2], u[1::2])

    def test_rows_that_differ_in_one_bit_are_independent(self):
        x = rows(self.COUNT, 2)
        y = x.clone()
        y[:, 1] = torch.nextafter(y[:, 1], torch.full_like(y[:, 1], math.inf))
        self.independent(RowNoise().uniform(x, 1)[:, 0], RowNoise().uniform(y, 1)[:, 0])

    def test_swapped_coordinates_give_other_noise(self):
        x = rows(self.COUNT, 2)
        u, v = RowNoise().uniform(x, 1), RowNoise().uniform(x.flip(1), 1)
        self.independent(u[:, 0], v[:, 0])
        self.independent(u[:, 0], v[:, 1])

    @pytest.mark.parametrize("other", [RowNoise(1), RowNoise(0, 1), RowNoise(0, 2), RowNoise(-1), RowNoise(2**62)])
    def test_seeds_and_draws_are_independent(self, other):
        x = rows(self.COUNT, 1)
        self.independent(RowNoise().uniform(x, 1)[:, 0], other.uniform(x, 1)[:, 0])

    def test_seeds_and_draws_do_not_meet(self):
        x = rows(1, 8)
        seen = {tuple(RowNoise(s, d).uniform(x, 1)[0].tolist()) for s in range(30) for d in range(30)}
        assert len(seen) == 900

    def test_noise_belongs_to_the_row(self):
        x = rows(50, 4)
        u = RowNoise(5, 2).uniform(x, 1)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
        assert torch.equal(RowNoise(5, 2).uniform(x[order], 1), u[order])
        assert torch.equal(RowNoise(5, 2).uniform(x[7:8], 1), u[7:8])
        assert torch.equal(RowNoise(5, 2).uniform(x[7], 1), u[7])
        assert torch.equal(RowNoise(5, 2).uniform(x.reshape(5, 10, 4), 1), u.reshape(5, 10, 4))
        assert torch.equal(RowNoise(5, 2).uniform(torch.cat((x, x)), 1), torch.cat((u, u)))

    def test_memory_layout_does_not_matter(self):
        x = rows(50, 4)
        assert torch.equal(RowNoise().uniform(x.T.contiguous().T, 1), RowNoise().uniform(x, 1))
        image = x.reshape(50, 2, 2)
        assert torch.equal(RowNoise().uniform(image, 2), RowNoise().uniform(x, 1).reshape(50, 2, 2))

    def test_equal_numbers_give_equal_noise(self):
        x = torch.tensor([[0.0, 1.0], [-0.0, 1.0]])
        u = RowNoise().uniform(x, 1)
        assert torch.equal(u[0], u[1])
        single = rows(100, 3, dtype=torch.float32)
        # The same numbers in float64: the same noise to more digits.
        difference = RowNoise().uniform(single.double(), 1) - RowNoise().uniform(single, 1).double()
        assert (difference >= 0).all()
        assert (difference < 2.0**-24).all()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_one_never_appears(self, dtype, monkeypatch):
        # The largest number that the hash can give: all bits set.
        monkeypatch.setattr("pushforward.numerics.noise.mix_tensor", lambda bits: torch.full_like(bits, -1))
        u = RowNoise().uniform(torch.zeros(2, 3, dtype=dtype), 1)
        assert (u < 1).all()
        assert (u > 0.99).all()

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("bits", [0, -1])
    def test_normal_noise_is_finite_at_both_ends(self, dtype, bits, monkeypatch):
        monkeypatch.setattr("pushforward.numerics.noise.mix_tensor", lambda value: torch.full_like(value, bits))
        z = normal_like(torch.zeros(2, 3, dtype=dtype), 1, RowNoise())
        assert torch.isfinite(z).all()
        assert (z > 5).all() if bits else (z < -5).all()

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_normal_noise_is_normal(self, dtype):
        z = normal_like(rows(self.COUNT, 2, dtype=dtype), 1, None)
        assert z.dtype is dtype
        for column in z.T:
            assert scipy.stats.kstest(column.double().numpy(), "norm").pvalue > 1e-3

    def test_none_is_seed_zero(self):
        x = rows(5, 2)
        assert torch.equal(uniform_like(x, 1, None), RowNoise(0).uniform(x, 1))

    @pytest.mark.parametrize("draw", [uniform_like, normal_like])
    def test_a_generator_is_used_when_given(self, draw):
        x = torch.zeros(4, 2, dtype=torch.float64)
        first = draw(x, 1, torch.Generator().manual_seed(3))
        assert torch.equal(first, draw(x, 1, torch.Generator().manual_seed(3)))
        assert not torch.equal(first, draw(x, 1, torch.Generator().manual_seed(4)))
        assert first.unique().numel() == 8  # equal rows are drawn apart
        assert first.dtype is torch.float64

    def test_an_empty_batch(self):
        assert RowNoise().uniform(torch.zeros(0, 3), 1).shape == (0, 3)

    def test_it_compiles(self):
        x = rows(5, 3)
        draw = torch.compile(lambda t: RowNoise(3, 1).uniform(t, 1), fullgraph=True, backend="eager")
        assert torch.equal(draw(x), RowNoise(3, 1).uniform(x, 1))


class TestNoiseOfAnotherShape:
    def test_it_belongs_to_the_row_and_begins_as_the_row_s_own(self):
        x = rows(50, 4)
        u = RowNoise(5, 2).uniform(x, 1, (3, 2))
        assert u.shape == (50, 3, 2)
        assert torch.equal(RowNoise(5, 2).uniform(x[7], 1, (3, 2)), u[7])
        assert torch.equal(u.flatten(1)[:, :4], RowNoise(5, 2).uniform(x, 1))
        assert scipy.stats.kstest(RowNoise().uniform(rows(2000, 1), 1, (5,)).flatten().numpy(), "uniform").pvalue > 1e-3

    @pytest.mark.parametrize("draw", [uniform_like, normal_like])
    def test_from_a_generator_or_the_rows(self, draw):
        x = rows(6, 4).reshape(3, 2, 4)
        for noise in (None, RowNoise(1), torch.Generator().manual_seed(0)):
            assert draw(x, 1, noise, (7,)).shape == (3, 2, 7)
            assert draw(x, 2, noise, (7,)).shape == (3, 7)


class TestRunningMean:
    def test_against_all_at_once(self):
        values = 300 * rows(40, 5) - 1e4
        values[3, 0] = values[0, 1] = -math.inf
        values[:, 2] = -math.inf
        mean = RunningMean(values[0])
        for value in values[1:]:
            mean.add(value)
        expected = scipy.special.logsumexp(values.numpy(), 0) - math.log(40)
        assert mean.log_mean_exp().tolist() == pytest.approx(expected.tolist(), rel=1e-13)
        torch.testing.assert_close(mean.mean(), values.mean(0))
        finite = values.masked_fill(torch.isinf(values), 0.0)
        torch.testing.assert_close(mean.standard_error(), finite.std(0) / math.sqrt(40))

    def test_thousands_of_single_precision_values_lose_nothing(self):
        values = (rows(5000, 3) * 0.01 - 1000).float()
        mean = RunningMean(values[0])
        for value in values[1:]:
            mean.add(value)
        assert mean.log_mean_exp().dtype is torch.float32
        expected = scipy.special.logsumexp(values.double().numpy(), 0) - math.log(5000)
        assert mean.log_sum.sub(math.log(5000)).tolist() == pytest.approx(expected.tolist(), abs=1e-8)

    def test_impossible_values_have_finite_gradients(self):
        first = torch.tensor([-math.inf, 0.0, -math.inf], dtype=torch.float64, requires_grad=True)
        second = torch.tensor([-math.inf, -math.inf, 1.0], dtype=torch.float64, requires_grad=True)
        mean = RunningMean(first)
        mean.add(second)
        mean.log_mean_exp()[1:].sum().backward()
        assert first.grad.tolist() == [0.0, 1.0, 0.0]
        assert second.grad.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_common_signs_are_those_of_the_common_numbers(dtype):
    for seed, draw, salt in ((0, 0, 0), (7, 0, 1), (123_456, 3, 99)):
        noise = RowNoise(seed, draw)
        expected = [1.0 if unit < 0.5 else -1.0 for unit in noise.common(200, salt)]
        found = noise.common_signs(200, salt, torch.zeros(1, dtype=dtype))
        assert found.dtype is dtype
        assert found.tolist() == expected
