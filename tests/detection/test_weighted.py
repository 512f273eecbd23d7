"""Weighted conformal p-values: the definition, exact validity by enumeration, and 20 redraws against a simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.naive_bayes import GaussianNB

from pushforward.detection import ClassifierRatio, ConformalCalibrator, WeightedCalibrator
from pushforward.errors import ConfigError, InputError

steady = settings(deadline=None, derandomize=True)
scores = st.one_of(st.sampled_from([-math.inf, -1.0, 0.0, 1.0, math.inf]), st.floats(allow_nan=False))
counts = st.integers(0, 9)


def slow_p(calibration, weights, score, weight):
    """Lemma 3 of Tibshirani et al. 2019, written as a sum over rows."""
    at_least = sum(w for s, w in zip(calibration, weights, strict=True) if s >= score)
    return Fraction(weight + at_least, weight + sum(weights))


@steady
@given(
    st.lists(st.tuples(scores, counts), min_size=1, max_size=20).filter(lambda rows: any(w for _, w in rows)),
    st.lists(st.tuples(scores, counts), max_size=8),
)
def test_p_value_is_the_definition(calibration, new):
    s, w = map(list, zip(*calibration, strict=True))
    calibrator = WeightedCalibrator(s, w)
    p = calibrator.p_value([a for a, _ in new], [b for _, b in new])
    expected = [float(slow_p(s, w, a, b)) for a, b in new]
    np.testing.assert_allclose(p, expected, rtol=1e-14)
    smallest = calibrator.smallest([b for _, b in new])
    np.testing.assert_allclose(smallest, [b / (b + sum(w)) for _, b in new], rtol=1e-14)


@steady
@given(st.lists(scores, min_size=1, max_size=20), st.lists(scores, max_size=8), st.floats(1e-9, 1e9))
def test_equal_weights_are_the_plain_p_value(calibration, new, weight):
    p = WeightedCalibrator(calibration, [weight] * len(calibration)).p_value(new, [weight] * len(new))
    np.testing.assert_allclose(p, ConformalCalibrator(calibration).p_value(new), rtol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_super_uniform_under_the_shift_by_enumeration(n):
    """Every calibration set from P and new row from Q on four points, with exact probabilities: P(p <= a) <= a for all a."""
    p = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 8), Fraction(1, 8)]
    q = [Fraction(1, 8), Fraction(1, 8), Fraction(1, 4), Fraction(1, 2)]
    ratio = [float(b / a) for a, b in zip(p, q, strict=True)]
    score = [0.0, 2.0, 1.0, 2.0]  # ties, and the order of the scores is not that of the weights
    mass: dict[float, Fraction] = {}
    plain: dict[float, Fraction] = {}
    for points in itertools.product(range(4), repeat=n + 1):
        *calibration, new = points
        chance = math.prod((p[x] for x in calibration), start=q[new])
        s = [score[x] for x in calibration]
        value = WeightedCalibrator(s, [ratio[x] for x in calibration]).p_value([score[new]], [ratio[new]]).item()
        mass[value] = mass.get(value, Fraction(0)) + chance
        value = ConformalCalibrator(s).p_value([score[new]]).item()
        plain[value] = plain.get(value, Fraction(0)) + chance
    for a in mass:
        assert sum(chance for value, chance in mass.items() if value <= a) <= Fraction(a).limit_denominator(
            10**9
        ) + Fraction(1, 10**9)
    assert any(sum(c for v, c in plain.items() if v <= a) > Fraction(a).limit_denominator(10**9) for a in plain)


SHIFT, N, M, ALPHA = 0.7, 1000, 2000, 0.05


def rate_by_hand(rng):
    """The false-alarm rate of one calibration set, with code of its own: P = N(0, 1), Q = N(0.7, 1), score x."""
    x, new = rng.normal(size=N), rng.normal(SHIFT, 1, size=M)
    weight = np.exp(SHIFT * x)
    own = np.exp(SHIFT * new)
    order = np.argsort(-x)
    cumulative = np.concatenate(([0.0], np.cumsum(weight[order])))
    above = cumulative[np.searchsorted(-x[order], -new, side="right")]
    return np.mean(own + above <= ALPHA * (own + weight.sum()))


def test_false_alarms_of_20_redraws_are_inside_their_distribution():
    """Each of 20 rates is inside the central 99.9% of 4000 simulated ones, and their mean is at most alpha within its error.

    Without weights all of them are far outside.
    """
    rng = np.random.default_rng(1)
    simulated = np.array([rate_by_hand(rng) for _ in range(4000)])
    low, high = np.quantile(simulated, [0.0005, 0.9995])
    rates, plain = [], []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        x, new = rng.normal(size=N), rng.normal(SHIFT, 1, size=M)
        calibrator = WeightedCalibrator(x, np.exp(SHIFT * x))
        rates.append(calibrator.alarm(new, np.exp(SHIFT * new), ALPHA).mean())
        plain.append((ConformalCalibrator(x).p_value(new) <= ALPHA).mean())
    assert low <= min(rates) <= max(rates) <= high
    assert abs(np.mean(rates) - simulated.mean()) < 4 * simulated.std() / math.sqrt(20)
    assert np.mean(rates) < ALPHA + 3 * simulated.std() / math.sqrt(20)
    assert min(plain) > high


def test_huge_and_tiny_weights_do_not_overflow():
    calibrator = WeightedCalibrator([1.0, 2.0, 3.0], [1e308, 1e308, 1e308])
    np.testing.assert_allclose(calibrator.p_value([2.5], [1e308]), [0.5])
    assert calibrator.effective_rows == pytest.approx(3)
    calibrator = WeightedCalibrator([1.0, 2.0], [1e-300, 0])
    assert calibrator.effective_rows == pytest.approx(1)
    assert calibrator.p_value([3.0], [1e300]) == 1


@pytest.mark.parametrize(
    ("calibration", "weights", "words"),
    [
        ([1.0], [0.0], "all 0"),
        ([1.0, 2.0], [1.0], "there are 1 for 2 scores"),
        ([1.0], [-1.0], "at least 0; the one at index 0 is -1"),
        ([1.0], [math.inf], "must be finite"),
        ([1.0], [math.nan], "NaN"),
        ([math.nan], [1.0], "NaN"),
        ([], [], "empty"),
    ],
)
def test_impossible_weights(calibration, weights, words):
    with pytest.raises(InputError, match=words):
        WeightedCalibrator(calibration, weights)


def test_impossible_questions():
    calibrator = WeightedCalibrator([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(InputError, match="there are 1 for 2 scores"):
        calibrator.p_value([1.0, 2.0], [1.0])
    with pytest.raises(ConfigError, match="alpha"):
        calibrator.alarm([1.0], [1.0], 2)
    assert calibrator.p_value([], []).shape == (0,)
    assert repr(calibrator) == "WeightedCalibrator(2 rows, 1.8 effective)"


# -- estimated ratios --


def test_the_ratio_of_two_normal_distributions_is_found():
    """log w = 0.7 x - 0.245 for N(0.7, 1) against N(0, 1), with different numbers of rows of the two."""
    rng = np.random.default_rng(0)
    ratio = ClassifierRatio().fit(rng.normal(size=(20_000, 2)), rng.normal([SHIFT, 0], 1, size=(5000, 2)))
    x = np.linspace(-2, 2, 9)
    found = np.log(ratio(np.column_stack((x, np.zeros(9)))))
    np.testing.assert_allclose(found, SHIFT * x - SHIFT**2 / 2, atol=0.15)
    assert ratio.auroc_ == pytest.approx(0.69, abs=0.02)  # Phi(0.7 / sqrt 2) = 0.690


def test_a_shift_of_the_fraction_of_missing_cells_is_found():
    rng = np.random.default_rng(0)
    p, q = (np.where(rng.random((5000, 1)) < rate, np.nan, rng.normal(size=(5000, 1))) for rate in (0.1, 0.4))
    ratio = ClassifierRatio().fit(p, q)
    np.testing.assert_allclose(ratio([[np.nan], [0.0]]), [4, 0.6 / 0.9], rtol=0.15)


def test_far_rows_have_a_weight_without_a_warning():
    rng = np.random.default_rng(0)
    ratio = ClassifierRatio().fit(1e-5 * rng.normal(size=(100, 1)), 1e-5 * rng.normal(0.5, 1, size=(100, 1)))
    assert ratio([[1e308]]) == ratio([[np.inf]]) == ratio([[1.0]])


def test_no_shift_gives_equal_weights():
    rng = np.random.default_rng(0)
    ratio = ClassifierRatio().fit(rng.normal(size=(5000, 2)), rng.normal(size=(5000, 2)))
    assert ratio.auroc_ == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(ratio(rng.normal(size=(500, 2))), 1, atol=0.3)


def test_impossible_ratios():
    rows = np.zeros((20, 2))
    for reference, shifted, words in (
        (rows, np.zeros((20, 3)), "2 columns and the shifted rows 3"),
        (rows[:5], rows, "the reference rows must be a matrix of at least 10"),
        (rows, [["a", "b"]] * 20, "the shifted rows must be a matrix of numbers"),
        (rows, [[1.0, 2.0], [3.0]], "the shifted rows must be an array of numbers"),
        (1e200 * np.ones((20, 2)), rows, r"numbers beyond 1e\+100"),
    ):
        with pytest.raises(InputError, match=words):
            ClassifierRatio().fit(reference, shifted)
    with pytest.raises(InputError, match="not fitted"):
        ClassifierRatio()(rows)
    for classifier in (None, GaussianNB()):
        fitted = ClassifierRatio(classifier).fit(
            torch.randn(20, 2, requires_grad=True), np.random.default_rng(0).normal(size=(20, 2))
        )
        with pytest.raises(InputError, match="fitted on 2 columns; got 3"):
            fitted(np.ones((4, 3)))
        with pytest.raises(InputError, match=r"must be a matrix; got shape \(2,\)"):
            fitted([0.1, 0.2])
    with pytest.raises(ConfigError, match="clip"):
        ClassifierRatio(clip=0.7)
