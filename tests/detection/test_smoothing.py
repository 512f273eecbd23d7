"""The bound of smoothed scores, against distributions that are known and attacks that are the worst there are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, ks_2samp, norm

from pushforward.detection.projected_mixture import ProjectedMixture
from pushforward.detection.smoothing import NoisyFunction, Smoothing
from pushforward.errors import ConfigError, InputError, StorageError

FIRST = NoisyFunction(lambda rows: rows[:, 0])
"""The score of half-spaces, for which the bound of the ball is an equality."""


def binomial_tail(n, p, k):
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def test_the_ranks_are_those_of_the_proof():
    smoothing = Smoothing(0.5, draws=50)
    assert smoothing.rank == 25
    q, failure = smoothing._guaranteed(0.9, attempts=100)
    assert failure == pytest.approx(0.05)
    assert binomial_tail(50, q, 25) == pytest.approx(0.05 / 100)  # at most B attempts fail with 0.05 in all
    shifted = norm.cdf(norm.ppf(q) - 0.25 / 0.5)
    j = smoothing.certified_rank(0.25, 200, 0.9, 100)
    assert 1 - binomial_tail(200, shifted, j) <= 0.05 < 1 - binomial_tail(200, shifted, j + 1)
    assert smoothing.certified_rank(3.0, 200, 0.9, 100) == 0  # too few draws for six standard deviations


def test_the_bound_fails_as_rarely_as_it_says_against_the_worst_attack():
    # The score is a coordinate, so the attack moves against it by the whole radius. One attempt, confidence 0.8.
    broken, moved_too_far = 0, 0
    for seed in range(400):
        smoothing = Smoothing(0.5, draws=40, seed=seed)
        lower = smoothing.lower_bound(FIRST, np.zeros((1, 2)), 0.3, draws=100, confidence=0.8, attempts=1)[0]
        broken += smoothing.score(FIRST, np.array([[-0.3, 0.0]]))[0] < lower
        moved_too_far += smoothing.score(FIRST, np.array([[-0.9, 0.0]]))[0] < lower
    assert binomtest(broken, 400, 0.2, alternative="greater").pvalue > 0.001
    assert moved_too_far > 300  # the test would see a bound that is too high


def test_the_bound_of_the_exact_smoothed_score_fails_with_half_the_probability():
    smoothing = Smoothing(0.5, draws=40)
    q, _ = smoothing._guaranteed(0.8, 1)
    exact = -0.3 + 0.5 * norm.ppf(q)  # h_q at the worst point of the ball
    bounds = smoothing.lower_bound(
        FIRST, np.c_[np.zeros(400), np.arange(400)], 0.3, draws=100, confidence=0.8, attempts=1
    )
    assert binomtest(int((bounds > exact).sum()), 400, 0.1, alternative="greater").pvalue > 0.001
    assert np.median(bounds) > exact - 0.2  # and it is not trivial


def test_many_attempts_are_paid_for():
    """An attacker who tries inputs until the noise is lucky breaks a bound for one attempt, but not one for his number."""
    rng, tries = np.random.default_rng(0), 300
    cheap, paid = 0, 0
    for seed in range(30):
        smoothing = Smoothing(0.5, draws=40, seed=seed)
        attack = np.c_[np.full(tries, -0.3), 1e-9 * rng.normal(size=tries)]
        lowest = smoothing.score(FIRST, attack).min()
        options = {"draws": 2000, "confidence": 0.9}
        cheap += lowest < smoothing.lower_bound(FIRST, np.zeros((1, 2)), 0.3, attempts=1, **options)[0]
        paid += lowest < smoothing.lower_bound(FIRST, np.zeros((1, 2)), 0.3, attempts=tries, **options)[0]
    assert cheap > 20
    assert binomtest(paid, 30, 0.1, alternative="greater").pvalue > 0.001


def test_bounds_fall_with_radius_confidence_and_attempts():
    smoothing, row = Smoothing(0.5), np.ones((1, 3))

    def lower(radius=0.2, **options):
        return smoothing.lower_bound(FIRST, row, radius, **({"draws": 2000} | options))[0]

    assert lower(0.4) < lower(0.2) < lower(0.0) < smoothing.score(FIRST, row)[0]
    assert lower(confidence=0.999) < lower(confidence=0.9)
    assert lower(attempts=10**9) < lower(attempts=1)
    assert lower(5.0) == -math.inf


def test_the_radius_is_where_the_bound_reaches_the_threshold():
    smoothing, rows = Smoothing(0.5), np.array([[3.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
    radii = smoothing.certified_radius(FIRST, rows, 1.5, draws=2000)
    assert math.isnan(radii[2])
    for row, radius in zip(rows[:2, None], radii[:2], strict=True):
        assert smoothing.lower_bound(FIRST, row, radius - 1e-6, draws=2000)[0] >= 1.5
        assert smoothing.lower_bound(FIRST, row, radius + 1e-6, draws=2000)[0] < 1.5
    everything = smoothing.certified_radius(FIRST, rows, -math.inf, draws=100)
    assert (everything > 0).all()
    assert np.isnan(smoothing.certified_radius(FIRST, rows, math.inf, draws=100)).all()


def test_a_score_is_a_function_of_the_row():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 4))
    smoothing = Smoothing(0.3, draws=16)
    together = smoothing.score(FIRST, rows)
    assert all(smoothing.score(FIRST, rows[i : i + 1])[0] == together[i] for i in range(20))
    assert smoothing.score(FIRST, np.array([[0.0, -0.0]])) == smoothing.score(FIRST, np.array([[-0.0, 0.0]]))
    assert (smoothing.score(FIRST, rows + 1e-12) != together).all()
    assert (Smoothing(0.3, draws=16, seed=1).score(FIRST, rows) != together).all()
    assert (Smoothing(0.3, draws=16, seed=np.int64(0)).score(FIRST, rows) == together).all()
    bounds = smoothing.lower_bound(FIRST, rows, 0.1, draws=200)
    assert (bounds == smoothing.lower_bound(FIRST, rows, 0.1, draws=200)).all()


def test_the_median_of_draws_is_unbiased_and_its_noise_independent_between_rows():
    rows = np.c_[np.zeros(3000), np.arange(3000)]
    scores = Smoothing(1.0, draws=101).score(FIRST, rows)
    assert abs(scores.mean()) < 4 * scores.std() / math.sqrt(3000)
    assert scores.std() == pytest.approx(math.sqrt(math.pi / 2 / 101), rel=0.1)  # the median of 101 normal draws
    assert abs(np.corrcoef(scores[1:], scores[:-1])[0, 1]) < 4 / math.sqrt(3000)


def test_infinite_scores_and_other_quantiles():
    base = NoisyFunction(lambda rows: np.where(rows[:, 0] > 0, math.inf, 0.0))
    assert Smoothing(0.1).score(base, np.array([[5.0]]))[0] == math.inf
    assert Smoothing(0.1).lower_bound(base, np.array([[5.0]]), 0.1, draws=1000)[0] == math.inf
    row = np.zeros((1, 1))
    low, high = (Smoothing(1.0, draws=1000, quantile=q).score(FIRST, row)[0] for q in (0.1, 0.9))
    assert (low, high) == pytest.approx((norm.ppf(0.1), norm.ppf(0.9)), abs=0.25)
    assert Smoothing(1.0, draws=10, quantile=1.0).rank == 10
    assert Smoothing(1.0, draws=10, quantile=1e-9).rank == 1


def test_wrong_use():
    for wrong in (
        {"sigma": 0.0}, {"sigma": 1.0, "draws": 0}, {"sigma": 1.0, "quantile": 0.0}, {"sigma": 1.0, "seed": -1},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=list(wrong)[-1]):
            Smoothing(**wrong)
    smoothing, row = Smoothing(1.0), np.zeros((1, 2))
    for wrong in ({"radius": -1.0}, {"draws": 0}, {"confidence": 1.0}, {"attempts": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            smoothing.lower_bound(FIRST, row, **({"radius": 0.1} | wrong))
    with pytest.raises(InputError, match="row 0 is not"):
        smoothing.score(FIRST, np.array([[math.nan, 0.0]]))
    for function in (lambda x: x, lambda x: x.sum(), lambda x: x[:1, 0], lambda x: ["a"] * len(x)):
        with pytest.raises(InputError, match="one number for each row"):
            smoothing.score(NoisyFunction(function), row)
    with pytest.raises(InputError, match="rows to smooth must be an array"):
        smoothing.score(FIRST, [[1.0, 2.0], [3.0]])
    tensor = torch.ones(1, 2, requires_grad=True)
    one = NoisyFunction(lambda x: (torch.from_numpy(x) * tensor).sum(1))  # scores with a gradient
    assert smoothing.score(one, tensor) == pytest.approx(
        smoothing.score(NoisyFunction(lambda x: x.sum(1)), np.ones((1, 2)))
    )
    with pytest.raises(InputError, match="shape"):
        smoothing.score(FIRST, np.zeros(3))
    with pytest.raises(InputError, match="base score is NaN"):
        smoothing.score(NoisyFunction(lambda rows: rows[:, 0] * math.nan), row)


@pytest.mark.parametrize("width", [1, 3, 4, 5, 20])
def test_draws_of_the_mixture_are_those_of_noise_on_the_row(width):
    """The shortcut through principal coordinates has the distribution of the score of row + noise, exactly."""
    rng = np.random.default_rng(width)
    rows = rng.normal(size=(400, width)) * np.linspace(2, 0.1, width)
    base = ProjectedMixture.fit(rows, 0.4, directions=3, components=3)
    row = rows[0] + 0.7
    quick = base.noisy_scores(row, 0.4, np.random.default_rng(0), 4000)
    direct = base.score(row + 0.4 * rng.normal(size=(4000, width)))
    assert ks_2samp(quick, direct).pvalue > 0.001
    other = base.score(row + 0.6 * rng.normal(size=(4000, width)))
    assert ks_2samp(quick, other).pvalue < 1e-6  # the test sees a wrong sigma


def test_a_mixture_of_more_values_than_rows():
    """Images of 160 x 160 x 3: a d x d matrix would have 44 GiB. The mixture has at most n - 1 directions."""
    rng = np.random.default_rng(0)
    rows = rng.random((25, 76_800))
    base = ProjectedMixture.fit(rows, 0.2)
    directions = base.parts["directions"]
    assert directions.shape == (76_800, 24)
    np.testing.assert_allclose(directions.T @ directions, np.eye(24), atol=1e-10)
    np.testing.assert_allclose((rows - rows.mean(0)) @ directions @ directions.T, rows - rows.mean(0), atol=1e-8)
    again = ProjectedMixture.unpack(*base.pack("a."), "a.")
    assert again.score(rows[:2]).tolist() == base.score(rows[:2]).tolist()
    row = rng.random(2000)
    thin = ProjectedMixture.fit(rng.random((60, 2000)), 0.3, directions=8)
    quick = thin.noisy_scores(row, 0.3, np.random.default_rng(0), 2000)
    direct = thin.score(row + 0.3 * rng.standard_normal((2000, 2000)))
    assert ks_2samp(quick, direct).pvalue > 0.001


def test_the_mixtures_against_scipy():
    rng = np.random.default_rng(0)
    rows = np.r_[rng.normal(size=(300, 8)) - 3, rng.normal(size=(300, 8)) + 3]
    base = ProjectedMixture.fit(rows, 0.1, directions=6, components=2)
    parts = base.parts
    from scipy.stats import multivariate_normal

    def surprise(kind, columns):
        center, spread, weights, means, whitenings = (
            parts[f"{kind}_{n}"] for n in ("center", "spread", "log_weights", "means", "whitenings")
        )
        white = (columns - center) / spread
        pairs = zip(weights, means, whitenings, strict=True)
        return -np.log(
            sum(math.exp(w) * multivariate_normal(m, np.linalg.inv(a @ a.T)).pdf(white) for w, m, a in pairs)
        )

    centered = rows - parts["mean"]
    y = centered @ parts["directions"]
    e = ((centered - y @ parts["directions"].T) ** 2).sum(1)
    columns = np.c_[y, np.log(np.sqrt(e))]
    z = ((columns - parts["rows_center"]) / parts["rows_spread"])[:, :6] ** 2
    statistics = np.c_[
        surprise("rows", columns), np.log(z[:, :4].mean(1) + 1e-6), np.log(z[:, 4:].mean(1) + 1e-6), columns[:, 6]
    ]
    assert base.score(rows) == pytest.approx(surprise("statistics", statistics), abs=1e-6)


def test_rows_that_are_too_likely_are_found():
    """A Gaussian's mode is the likeliest point and no typical one."""
    rows = np.random.default_rng(0).normal(size=(2000, 60))
    base = ProjectedMixture.fit(rows, 0.1, components=2)
    smoothing = Smoothing(0.1, draws=32)
    typical, mode = smoothing.score(base, rows[:200]), smoothing.score(base, 0.3 * rows[:50])
    assert np.quantile(mode, 0.1) > np.quantile(typical, 0.95)


def test_damaged_mixtures_are_refused():
    base = ProjectedMixture.fit(np.random.default_rng(0).normal(size=(100, 5)), 0.3, directions=3, components=2)
    _, tensors = base.pack("a.")
    again = ProjectedMixture.unpack({}, tensors, "a.")
    assert (again.score(np.ones((2, 5))) == base.score(np.ones((2, 5)))).all()
    for name in tensors:
        for change in (lambda t: t[:0], lambda t: t.float(), lambda t: t * math.nan, lambda t: t[None]):
            with pytest.raises(StorageError):
                ProjectedMixture.unpack({}, tensors | {name: change(tensors[name])}, "a.")
        with pytest.raises(StorageError, match="lacks a part"):
            ProjectedMixture.unpack({}, {k: v for k, v in tensors.items() if k != name}, "a.")
    with pytest.raises(InputError, match="at least 20 rows"):
        ProjectedMixture.fit(np.zeros((5, 2)), 0.1)
    for wrong in ({"directions": 0}, {"components": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ProjectedMixture.fit(np.zeros((50, 2)), 0.1, **wrong)
