"""Noise of rows: its distribution, and that it depends on the row alone."""

from __future__ import annotations

import math

import pytest
import scipy.special
import scipy.stats
import torch

from pushforward.numerics import (
    RowNoise,
    draw_category,
    normal_like,
    uniform_like,
)

FLOATS = [torch.float32, torch.float64]


def rows(count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_categories_are_drawn_with_their_probabilities():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0], dtype=torch.float64)
    drawn = draw_category(probabilities.log().expand(20_000, 5), torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=5)
    assert counts[4] == 0
    assert scipy.stats.chisquare(counts[:4].numpy(), 20_000 * probabilities[:4].numpy()).pvalue > 1e-3


class TestRowNoise:
    """Statistics are of 20,000 fixed rows; thresholds are the tails of their distributions at a level of 1e-3 or less."""

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
        """Correlation of two columns, and chi-square of their joint distribution on a 10 x 10 grid."""
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

    def test_seeds_and_draws_do_not_coincide(self):
        x = rows(1, 8)
        seen = {tuple(RowNoise(s, d).uniform(x, 1)[0].tolist()) for s in range(30) for d in range(30)}
        assert len(seen) == 900

    def test_noise_depends_only_on_the_row(self):
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
    def test_it_depends_only_on_the_row_and_begins_as_its_noise(self):
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_common_signs_are_those_of_the_common_numbers(dtype):
    for seed, draw, salt in ((0, 0, 0), (7, 0, 1), (123_456, 3, 99)):
        noise = RowNoise(seed, draw)
        expected = [1.0 if unit < 0.5 else -1.0 for unit in noise.common(200, salt)]
        found = noise.common_signs(200, salt, torch.zeros(1, dtype=dtype))
        assert found.dtype is dtype
        assert found.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_normal_noise_of_half_precision_is_that_of_float32(dtype):
    x = torch.randn(100, 3).to(dtype)
    noise = normal_like(x, 1, RowNoise())
    assert noise.dtype == dtype
    assert torch.equal(noise, normal_like(x.float(), 1, RowNoise()).to(dtype))
