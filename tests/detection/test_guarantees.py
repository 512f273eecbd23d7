import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pushforward.detection import (
    ConformalCalibrator,
    FalseAlarmDistribution,
    false_alarm_distribution,
    realized_interval,
    rows_needed,
)
from pushforward.detection.conformal import guarantees
from pushforward.errors import CalibrationError, ConfigError, PushforwardError

steady = settings(deadline=None, derandomize=True)  # the same examples every time, on any machine
RARE = 1e-6

# rows_needed


def test_marginal_rows_in_exact_arithmetic():
    for denominator in (100, 1000, 10_000):
        for numerator in range(1, denominator):
            n = -(-denominator // numerator) - 1  # ceil(1 / alpha) - 1
            assert rows_needed(numerator / denominator) == max(n, 1)


@pytest.mark.parametrize(
    ("alpha", "n"),
    [(0.01, 99), (0.05, 19), (0.07, 14), (0.1, 9), (1 - 0.9, 9), (1 / 3, 2), (0.5, 1), (0.9, 1), (1e-6, 999_999),
     (1e-9, 10**9 - 1)],
)  # fmt: skip
def test_marginal_rows(alpha, n):
    assert rows_needed(alpha) == n


@pytest.mark.parametrize("delta", [Fraction(1, 2), Fraction(1, 20), Fraction(1, 100), Fraction(1, 1000)])
def test_pac_rows_in_exact_arithmetic(delta):
    for percent in [1, 2, 3, 5, 7, 10, 15, 20, 29, 30, 50, 75, 95, 99]:
        quiet = 1 - Fraction(percent, 100)
        n, power = 1, quiet
        while power > delta:
            n, power = n + 1, power * quiet
        assert rows_needed(percent / 100, "pac", float(delta)) == n


@pytest.mark.parametrize(
    ("alpha", "delta", "n"), [(0.1, 0.05, 29), (0.05, 0.05, 59), (0.01, 0.05, 299), (0.01, 0.01, 459)]
)
def test_pac_rows_of_the_literature(alpha, delta, n):
    assert rows_needed(alpha, "pac", delta) == n


@steady
@given(st.floats(1e-4, 0.99), st.sampled_from(["marginal", "pac"]), st.floats(1e-9, 0.99, exclude_max=True))
def test_threshold_exists_from_exactly_the_needed_rows_on(alpha, guarantee, delta):
    n = rows_needed(alpha, guarantee, delta)
    assert ConformalCalibrator(np.zeros(n)).threshold(alpha, guarantee, delta) > 0
    if n > 1:
        with pytest.raises(CalibrationError):
            ConformalCalibrator(np.zeros(n - 1)).threshold(alpha, guarantee, delta)


def test_extreme_guarantees_are_computed_quickly():
    assert rows_needed(1e-9, "pac", 1e-300) == pytest.approx(math.log(1e-300) / math.log1p(-1e-9), rel=1e-9)
    assert rows_needed(math.nextafter(1, 0), "pac", 5e-324) == pytest.approx(math.log(5e-324) / math.log(2**-53), abs=1)
    assert false_alarm_distribution(10**9, 0.05, "pac").mean == pytest.approx(0.05, rel=1e-3)


# the error


@pytest.mark.parametrize("guarantee", ["marginal", "pac"])
@pytest.mark.parametrize("n", [1, 2, 13, 58, 98])
@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_the_error_names_rows_needed_rows_there_and_an_alpha_that_works(guarantee, n, delta):
    calibrator = ConformalCalibrator(np.arange(n))
    with pytest.raises(CalibrationError) as caught:
        calibrator.threshold(0.001, guarantee, delta)
    says = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PushforwardError)
    assert f"needs at least {rows_needed(0.001, guarantee, delta)} calibration rows" in says
    assert re.search(rf"there (is|are) {n}:", says)
    proposed = float(re.search(r"or alpha=(\S+) or more", says).group(1))
    exact = 1 / (n + 1) if guarantee == "marginal" else 1 - delta ** (1 / n)
    assert exact * (1 - 1e-9) <= proposed <= exact * 1.01
    calibrator.threshold(proposed, guarantee, delta)


def test_the_error_in_full():
    with pytest.raises(CalibrationError) as caught:
        ConformalCalibrator(np.arange(40)).threshold(0.01, "pac")
    assert str(caught.value) == (
        "alpha=0.01 with the pac guarantee (delta=0.05) needs at least 299 calibration rows and there are 40: "
        "use more rows, or alpha=0.0722 or more, which these rows support."
    )
    with pytest.raises(CalibrationError) as caught:
        false_alarm_distribution(1, 0.5, "pac", 1e-6)
    assert str(caught.value).endswith("needs at least 20 calibration rows and there is 1: use more rows.")


@pytest.mark.parametrize("bad", [0, 1, -0.1, 1.5, math.nan, math.inf, 1e-10, "0.05", None, True, 0.05j, [0.05]])
def test_bad_promises(bad):
    calibrator = ConformalCalibrator([1.0])
    for ask in (
        calibrator.threshold,
        calibrator.score_threshold,
        rows_needed,
        lambda alpha: false_alarm_distribution(9, alpha),
    ):
        with pytest.raises(ConfigError, match="alpha must be a number"):
            ask(bad)
    if bad != 1e-10:
        with pytest.raises(ConfigError, match="delta must be a number"):
            rows_needed(0.1, "pac", bad)
        with pytest.raises(ConfigError, match="level must be a number"):
            realized_interval(100, 100, 0.1, bad)
    for guarantee in ("PAC", "conditional", None, 1, ["pac"]):
        with pytest.raises(ConfigError, match="'marginal' or 'pac'"):
            rows_needed(0.1, guarantee)


@pytest.mark.parametrize("bad", [0, -1, 1.0, "10", None, True, math.nan])
def test_bad_counts(bad):
    with pytest.raises(ConfigError, match="must be an integer of at least 1"):
        false_alarm_distribution(bad, 0.1)
    with pytest.raises(ConfigError, match="must be an integer of at least 1"):
        realized_interval(bad, 10, 0.1)
    with pytest.raises(ConfigError, match="must be an integer of at least 1"):
        realized_interval(100, bad, 0.1)


# the law


TABLE = {  # (alpha, delta): k at n = 300, 1,000 and 10,000
    (0.10, 0.05): (22, 85, 951),
    (0.05, 0.05): (9, 39, 464),
    (0.01, 0.05): (1, 5, 84),
    (0.01, 0.01): (None, 3, 78),
}


@pytest.mark.parametrize(("promise", "expected"), TABLE.items())
def test_pac_levels(promise, expected):
    """The table, once more by counting: fewer than k of n uniform rows within alpha, with probability <= delta."""
    alpha, delta = promise
    for n, k in zip((300, 1000, 10_000), expected, strict=True):
        if k is None:
            assert stats.binom.cdf(0, n, alpha) > delta
            with pytest.raises(CalibrationError):
                false_alarm_distribution(n, alpha, "pac", delta)
        else:
            assert stats.binom.cdf(k - 1, n, alpha) <= delta < stats.binom.cdf(k, n, alpha)
            assert false_alarm_distribution(n, alpha, "pac", delta) == FalseAlarmDistribution(k, n + 1 - k)


@pytest.mark.parametrize(
    ("n", "alpha", "guarantee"), [(19, 0.05, "marginal"), (100, 0.1, "marginal"), (500, 0.05, "pac")]
)
def test_distribution_of_the_realized_rate(n, alpha, guarantee):
    """2,000 calibration sets of uniform scores, whose true rate above t is 1 - t."""
    rng = np.random.default_rng(4)
    rates = [1 - ConformalCalibrator(rng.random(n)).score_threshold(alpha, guarantee) for _ in range(2000)]
    law = false_alarm_distribution(n, alpha, guarantee)
    assert stats.kstest(rates, stats.beta(law.a, law.b).cdf).pvalue > RARE
    # A neighboring law is told apart, so the test above can fail.
    assert stats.kstest(rates, stats.beta(law.a + 1, law.b).cdf).pvalue < RARE
    assert law.interval() == law.interval(0.95)
    assert rows_needed(0.02, "pac") == rows_needed(0.02, "pac", 0.05)
    low, high = law.interval(0.9)
    inside = int(((low <= np.array(rates)) & (np.array(rates) <= high)).sum())
    assert stats.binom.ppf(RARE, 2000, 0.9) <= inside <= stats.binom.isf(RARE, 2000, 0.9)


def test_distribution_with_ties_is_smaller():
    """Scores in {0, 1, 2, 3}: each quantile of the realized rate is at most that of the Beta distribution."""
    rng = np.random.default_rng(5)
    law = false_alarm_distribution(50, 0.3)
    rates = np.array([(4 - math.ceil(ConformalCalibrator(rng.integers(0, 4, 50)).score_threshold(0.3))) / 4
                      for _ in range(2000)])  # fmt: skip
    for rate in (0.0, 0.25, 0.5):
        above = int((rates > rate).sum())
        assert above <= stats.binom.isf(RARE, 2000, stats.beta(law.a, law.b).sf(rate))


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 99), (50, 951), (464, 9537)])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 1 - 1e-9])
def test_mean_and_interval_of_the_distribution(a, b, level):
    law = FalseAlarmDistribution(a, b)
    assert law.mean == pytest.approx(stats.beta(a, b).mean(), rel=1e-12)
    assert law.interval(level) == pytest.approx(stats.beta(a, b).interval(level), rel=1e-8)


@pytest.mark.parametrize(("n_cal", "n_test"), [(19, 1), (19, 7), (100, 50), (1000, 2000), (300, 20_000)])
@pytest.mark.parametrize("guarantee", ["marginal", "pac"])
@pytest.mark.parametrize("level", [0.05, 0.9, 0.95, 1 - 1e-6])
def test_realized_interval_is_the_beta_binomial_one(n_cal, n_test, guarantee, level):
    alpha = 0.2
    low, high = realized_interval(n_cal, n_test, alpha, level, guarantee)
    law = false_alarm_distribution(n_cal, alpha, guarantee)
    reference = stats.betabinom(n_test, law.a, law.b)
    first, last = round(low * n_test), round(high * n_test)
    assert (low, high) == (first / n_test, last / n_test)
    tail = (1 - level) / 2
    mass = reference.pmf(np.arange(n_test + 1))
    # Outside is at most `tail` on each side, and one count more on either side would be too much.
    assert mass[:first].sum() <= tail * (1 + 1e-6)
    assert mass[: first + 1].sum() >= tail * (1 - 1e-6)
    assert mass[last + 1 :].sum() <= tail * (1 + 1e-6)
    assert mass[last:].sum() >= tail * (1 - 1e-6)


def test_realized_interval_contains_observed_rates():
    rng = np.random.default_rng(6)
    low, high = realized_interval(200, 300, 0.05, 0.9)
    inside = 0
    for _ in range(2000):
        calibrator = ConformalCalibrator(rng.gumbel(size=200))
        observed = (calibrator.p_value(rng.gumbel(size=300)) <= calibrator.threshold(0.05)).mean()
        inside += low <= observed <= high
    assert inside >= stats.binom.ppf(RARE, 2000, 0.9)
    assert inside <= stats.binom.isf(RARE, 2000, 0.95)  # counts are coarse, but not that coarse


def test_realized_interval_of_a_million_rows():
    low, high = realized_interval(10**6, 10**6, 0.01)
    spread = math.sqrt(2 * 0.01 * 0.99 / 10**6)  # binomial and Beta variance are equal here
    assert (low, high) == pytest.approx((0.01 - 1.96 * spread, 0.01 + 1.96 * spread), abs=0.05 * spread)


@pytest.mark.parametrize(
    ("a", "b", "n"), [(1, 1, 1), (5, 95, 5000), (1, 999_999, 1000), (500, 9501, 20_000), (99, 1, 4000)]
)
def test_the_interval_of_many_rows_is_the_exact_one(monkeypatch, a, b, n):
    rate = FalseAlarmDistribution(a, b)
    levels = (0.1, 0.95, 1 - 1e-9)
    summed = [rate.realized_interval(n, level) for level in levels]
    monkeypatch.setattr(guarantees, "_SUMMED", 0)
    assert [rate.realized_interval(n, level) for level in levels] == summed


@pytest.mark.parametrize("n_test", [10**9, 10**40])
def test_more_rows_than_fit_into_memory(n_test):
    rate = false_alarm_distribution(1000, 0.05)
    low, high = realized_interval(1000, n_test, 0.05)
    assert (low, high) == pytest.approx(rate.interval(), rel=1e-6)
    assert low < rate.interval()[0] < rate.interval()[1] < high
