"""Pareto-smoothed importance weights against arviz-stats and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.inference import ImportanceWeights, effective_sample_size, khat_threshold, pareto_smooth


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5, 2.5])
@pytest.mark.parametrize("draws", [100, 1000, 4000])
def test_smoothing_agrees_with_arviz(scale, draws):
    stats = pytest.importorskip("arviz_stats.base").array_stats
    log_ratios = np.random.default_rng(0).standard_normal(draws) ** 2 * scale / 4
    log_weights, k_hat = pareto_smooth(log_ratios)
    expected, expected_k = stats.psislw(-log_ratios)  # it reads log-likelihoods, the negative of the log weights
    assert k_hat == pytest.approx(float(expected_k), abs=1e-10)
    np.testing.assert_allclose(log_weights, expected - np.logaddexp.reduce(expected), atol=1e-10)


def test_k_hat_finds_the_tail_of_a_known_distribution():
    """p = N(0, 1), q = N(0, s^2), s < 1: w has a Pareto tail of shape 1 - s^2 at extreme values."""
    for s in (0.5, 0.8):
        x = s * np.random.default_rng(1).standard_normal(200_000)
        _, k_hat = pareto_smooth(-0.5 * x**2 + 0.5 * (x / s) ** 2)
        assert k_hat == pytest.approx(1 - s**2, abs=0.12)


def test_evidence_of_a_scaled_normal_and_its_error():
    """log Z of 5 exp(-x^2 / 2) is log 5 + log sqrt(2 pi); the stated error covers the truth in most of 200 repetitions."""
    truth = math.log(5) + 0.5 * math.log(2 * math.pi)
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        x = 1.3 * torch.randn(1000, generator=generator, dtype=torch.float64)
        log_q = -0.5 * (x / 1.3) ** 2 - math.log(1.3) - 0.5 * math.log(2 * math.pi)
        weights = ImportanceWeights.of(math.log(5) - 0.5 * x**2 - log_q)
        covered += abs(weights.log_evidence - truth) < 1.96 * weights.log_evidence_error
    assert 180 <= covered <= 199  # 95 % of 200 is 190; binomial standard deviation 3


def test_effective_sample_size_of_equal_and_of_one_weight():
    assert effective_sample_size(torch.zeros(100)) == pytest.approx(100)
    assert effective_sample_size(torch.tensor([0.0, -math.inf, -math.inf])) == pytest.approx(1)


def test_resampling_gives_each_draw_its_weight_up_to_one():
    log_ratios = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = ImportanceWeights.of(log_ratios)
    counts = torch.bincount(weights.resample(10_000, torch.Generator().manual_seed(1)), minlength=500)
    expected = 10_000 * weights.log_weights.exp()
    assert (counts - expected).abs().max() < 1 + 1e-6


def test_smoothed_weights_are_normalized_and_keep_zero_weights():
    log_ratios = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_ratios[:300] = -math.inf
    weights = ImportanceWeights.of(log_ratios)
    assert float(weights.log_weights.exp().sum()) == pytest.approx(1)
    assert torch.isneginf(weights.log_weights[:300]).all()
    assert weights.mean(torch.ones(1000, 2)).tolist() == pytest.approx([1, 1])


def test_threshold_of_k_hat():
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(100_000) == 0.7


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        (torch.zeros(10), "at least 25"),
        (torch.zeros(30, 1) - torch.zeros(30), r"must have the shape \(n,\), one for each draw; got \(30, 30\)"),
        (torch.full((100,), -math.inf), "-inf at every draw"),
        (torch.cat((torch.zeros(99), torch.tensor([math.nan]))), "NaN or"),
        (torch.cat((torch.zeros(99), torch.tensor([math.inf]))), "NaN or"),
    ],
)
def test_bad_ratios_are_refused(ratios, message):
    with pytest.raises(InputError, match=message):
        ImportanceWeights.of(ratios)


def test_few_positive_weights_have_an_infinite_k_hat():
    log_ratios = torch.full((1000,), -math.inf, dtype=torch.float64)
    log_ratios[:3] = 0.0
    assert ImportanceWeights.of(log_ratios).k_hat == math.inf


def test_arrays_and_tensors_give_the_same():
    ratios = np.random.default_rng(0).normal(size=500)
    smoothed, k_hat = pareto_smooth(ratios)
    again, same = pareto_smooth(torch.from_numpy(ratios))
    assert k_hat == same
    assert np.array_equal(smoothed, again)
    assert effective_sample_size(ratios) == effective_sample_size(torch.from_numpy(ratios))


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        (np.zeros((3, 2)), r"shape \(n,\)"),
        (np.zeros(0), r"shape \(n,\)"),
        (np.array([0.0, np.nan]), "1 of 2 log-ratios are NaN"),
    ],
)
def test_ratios_that_cannot_be_smoothed_are_refused(ratios, message):
    with pytest.raises(InputError, match=message):
        pareto_smooth(ratios)


@pytest.mark.parametrize("few", [1, 3, 4, 6, 15])
def test_a_few_draws_with_all_the_weight_are_no_reliable_tail(few):
    ratios = np.zeros(5000)
    ratios[:few] = 14.0
    assert pareto_smooth(ratios)[1] == np.inf


def test_equal_weights_of_many_draws_are_a_bounded_tail():
    assert pareto_smooth(np.zeros(500))[1] == -np.inf
    some = np.full(5000, -np.inf)
    some[:400] = 0.0
    assert pareto_smooth(some)[1] == -np.inf


@pytest.mark.parametrize("ratios", [np.full(100, -np.inf), np.r_[np.inf, np.zeros(99)]])
def test_weights_that_are_none_are_refused(ratios):
    with pytest.raises(InputError, match="use other draws"):
        pareto_smooth(ratios)


def test_weights_that_differ_by_rounding_are_fitted():
    """Log-ratios of 0 but for some draws in a narrow peak, and numbers of 1e-15 beside it: differences of weights round to 0."""
    z = np.random.default_rng(0).standard_normal(1000)
    k_hat = pareto_smooth(3 * np.exp(-(((z - 2.8) / 0.1) ** 2)))[1]
    assert k_hat > 0.7


@pytest.mark.parametrize(("draws", "spread", "size", "count"), [
    (10_000, 0.05, 20.0, 1), (10_000, 0.05, 10.0, 2), (10_000, 0.5, 10.0, 3), (10_000, 1.0, 10.0, 1), (100_000, 0.5, 20.0, 3), (100_000, 0.05, 10.0, 5),
])  # fmt: skip
def test_a_few_draws_with_much_of_the_weight_are_not_reliable(draws, spread, size, count):
    """They are too few to move the fitted tail, and a fit that misses a part of the target looks like this."""
    ratios = spread * torch.randn(draws, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert ImportanceWeights.of(ratios).reliable
    ratios[:count] += size
    raw = ratios.exp()
    assert raw[:count].sum() > 0.1 * raw.sum()
    weights = ImportanceWeights.of(ratios)
    assert weights.k_hat == math.inf
    assert not weights.reliable


@pytest.mark.parametrize("k", [0.3, 0.5, 0.65])
def test_the_largest_of_weights_that_follow_one_tail_are_no_outliers(k):
    """Weights of Pareto distributions, 100 samples each: none has an infinite k-hat."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        uniform = torch.rand(2000, dtype=torch.float64, generator=generator)
        assert math.isfinite(ImportanceWeights.of(-k * uniform.log()).k_hat)


def test_a_large_weight_without_much_of_the_whole_is_no_outlier():
    ratios = 0.05 * torch.randn(10_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratios[0] = math.log(100.0)  # 1 % of the whole
    assert ImportanceWeights.of(ratios).reliable


def test_the_mean_of_one_number_for_each_draw_and_of_values_without_weight():
    log_ratios = torch.tensor([0.0, math.log(3), -math.inf], dtype=torch.float64).repeat_interleave(100)
    weights = ImportanceWeights.of(log_ratios)
    values = torch.tensor([1.0, 5.0, math.nan]).repeat_interleave(100)
    assert float(weights.mean(values)) == pytest.approx(4)  # (1 + 3 * 5) / 4
    assert weights.mean(values).shape == ()
    assert weights.mean(values.reshape(-1, 1, 1).expand(-1, 2, 3)).flatten().tolist() == pytest.approx([4] * 6)
    for wrong in (values[:10], torch.tensor(1.0)):
        with pytest.raises(InputError, match=r"values must have the shape \(300, ...\)"):
            weights.mean(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 1e6, -1e6])
def test_the_effective_sample_size_does_not_depend_on_a_constant(dtype, shift):
    assert effective_sample_size(torch.full((1000,), shift, dtype=dtype)) == pytest.approx(1000, rel=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([math.nan, 0.0], "1 of 2 log-weights are NaN"),
        ([math.inf, 0.0], "log-weights are infinite"),
        ([-math.inf, -math.inf], "no draw has any weight"),
        ([], r"shape \(n,\)"),
        ([[0.0, 0.0]], r"shape \(n,\)"),
        ("ab", "real numbers"),
    ],
)
def test_log_weights_without_an_effective_sample_size_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        effective_sample_size(values)


def test_weights_are_made_of_lists_too():
    assert ImportanceWeights.of([0.0] * 100).ess == pytest.approx(100)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="real numbers"):
        ImportanceWeights.of("ab")  # type: ignore[arg-type]


def test_numbers_of_draws_that_cannot_be_resampled_are_refused():
    ratios = torch.zeros(100)
    ratios[:40] = -math.inf
    weights, generator = ImportanceWeights.of(ratios), torch.Generator().manual_seed(0)
    with pytest.raises(ConfigError, match="count must be an integer of at least 0; got -1"):
        weights.resample(-1, generator)
    with pytest.raises(ConfigError, match="count must be an integer from 0 to 60; got 61"):
        weights.resample(61, generator, replacement=False)
    assert sorted(weights.resample(60, generator, replacement=False).tolist()) == list(range(40, 100))
    assert len(weights.resample(0, generator, replacement=False)) == 0
