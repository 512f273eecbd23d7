import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import pushforward as pf
from pushforward import io
from pushforward.detection import Monitor, SequentialPValues
from pushforward.detection.martingales import MixtureMartingale, PowerMartingale, RestartedMartingale, log_mixture
from pushforward.errors import ConfigError, InputError, PushforwardWarning, StorageError

MARTINGALES = ("power", "mixture", "restarted")


# sequential p-values


def ties_and_all(rng, size):
    return np.round(rng.normal(size=size), 0) if rng.random() < 0.5 else rng.normal(size=size)


def test_the_definition():
    rng = np.random.default_rng(0)
    for seed in range(20):
        reference, stream = ties_and_all(rng, 7), ties_and_all(rng, 15)
        p = SequentialPValues(reference, seed)(stream)
        earlier = list(reference)
        for t, score in enumerate(stream):
            above = sum(s > score for s in earlier)
            ties = 1 + sum(s == score for s in earlier)
            # u lies in (0, 1).
            assert above / (len(earlier) + 1) < p[t] < (above + ties) / (len(earlier) + 1)
            earlier.append(score)


def test_ranks_of_all_orders_are_uniform_and_independent():
    """Exact: over the 24 orders of 4 scores each combination of ranks (1 of 1, 1 of 2, ...) occurs once."""
    seen = set()
    for order in itertools.permutations([1.0, 2.0, 3.0, 4.0]):
        p = SequentialPValues()(order)
        seen.add(tuple(int(value * (t + 1)) for t, value in enumerate(p)))
    assert seen == set(itertools.product(range(1), range(2), range(3), range(4)))


@pytest.mark.parametrize("kind", ["continuous", "ties", "one value", "infinite"])
def test_p_values_are_independent_uniform_under_exchangeability(kind):
    rng = np.random.default_rng(1)
    draw = {
        "continuous": lambda: rng.normal(size=120),
        "ties": lambda: rng.poisson(1.0, size=120),
        "one value": lambda: np.zeros(120),
        "infinite": lambda: np.where(rng.random(120) < 0.3, np.inf, rng.normal(size=120)),
    }[kind]
    runs = np.stack([SequentialPValues(draw(), seed)(draw()) for seed in range(60)])
    assert stats.kstest(runs.ravel(), "uniform").pvalue > 1e-4
    lagged = stats.pearsonr(runs[:, 1:].ravel(), runs[:, :-1].ravel())
    assert lagged.pvalue > 1e-4
    assert stats.kstest(runs.sum(1), stats.norm(60, math.sqrt(10)).cdf).pvalue > 1e-4  # as 120 independent ones sum up


def test_one_calibration_set_gives_dependent_p_values_where_these_are_independent():
    """What the sheet warns of: the mean of split-conformal p-values varies by its calibration set too."""
    rng = np.random.default_rng(2)
    fixed, ours = [], []
    for seed in range(200):
        reference, stream = rng.normal(size=30), rng.normal(size=300)
        fixed.append(pf.detection.ConformalCalibrator(reference).p_value(stream).mean())
        ours.append(SequentialPValues(reference, seed)(stream).mean())
    assert np.std(ours) == pytest.approx(math.sqrt(1 / 12 / 300), rel=0.2)
    assert np.std(fixed) > 2 * np.std(ours)


def test_single_updates_equal_one_update_of_many():
    scores = np.random.default_rng(3).normal(size=50).round(1)
    whole = SequentialPValues(seed=5)(scores)
    stream = SequentialPValues(seed=5)
    assert np.concatenate([stream(float(score)) for score in scores]).tolist() == whole.tolist()
    stream = SequentialPValues(scores[:20], seed=5)
    assert stream(torch.tensor(scores[20:])).tolist() == whole[20:].tolist()  # the history is all that counts
    assert SequentialPValues(seed=6)(scores).tolist() != whole.tolist()
    assert SequentialPValues()(torch.tensor(1.0)).shape == (1,)


def test_a_refused_update_changes_nothing():
    stream = SequentialPValues([1.0, 2.0])
    for bad in (math.nan, [1.0, math.nan], [[1.0]], "a", None, True):
        with pytest.raises(InputError, match="the scores"):
            stream(bad)
    assert stream.seen == [1.0, 2.0]
    assert stream([]).shape == (0,)
    with pytest.raises(InputError, match="the reference scores"):
        SequentialPValues([math.nan])
    for bad in (-1, 1.5, True, None):
        with pytest.raises(ConfigError, match="seed"):
            SequentialPValues(seed=bad)


# martingales


def test_the_power_martingale_by_hand():
    p = np.array([0.5, 0.01, 1.0])
    assert np.exp(PowerMartingale(0.5).update(p)) == pytest.approx(np.cumprod(0.5 * p**-0.5))


@pytest.mark.parametrize(("n", "total"), [(1, 0.3), (1, 5.0), (4, 0.0), (10, 2.0), (50, 50.0), (30, 200.0), (300, 2.0)])
def test_the_mixture_is_its_integral(n, total):
    peak = min(1.0, n / total) if total else 1.0
    top = n * math.log(peak) + (1 - peak) * total
    value, _ = integrate.quad(
        lambda e: math.exp(n * math.log(e) + (1 - e) * total - top), 0, 1, points=[peak], epsabs=0, epsrel=1e-11, limit=200
    )  # fmt: skip
    assert log_mixture(np.array([float(n)]), np.array([total])) == pytest.approx(top + math.log(value), abs=1e-9)


def test_closed_form_and_series_agree():
    """Where the incomplete gamma function is near 1e-200, on both sides; the function is smooth in S."""
    n = np.full(31, 500.0)
    total = np.linspace(60.0, 120.0, 31)
    from scipy.special import gammainc

    assert gammainc(n + 1, total).min() < 1e-200 < gammainc(n + 1, total).max()
    values = log_mixture(n, total)
    # d/dS log M = E[1 - epsilon], between 0 and 1 and increasing in S.
    slopes = np.diff(values) / np.diff(total)
    assert ((slopes > 0) & (slopes < 1)).all()
    assert (np.diff(slopes) > 0).all()


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_the_mixture_has_mean_one_under_uniform_p(n):
    """S is then Gamma(n, 1)."""

    def integrand(s):
        return math.exp(log_mixture(np.array([float(n)]), np.array([s]))[0] + stats.gamma.logpdf(s, n))

    total = sum(
        integrate.quad(integrand, a, b, limit=200)[0] for a, b in ((0, n), (n, 10 * n + 50), (10 * n + 50, np.inf))
    )
    assert total == pytest.approx(1.0, abs=1e-6)


def test_the_restarted_is_its_sum_over_starts():
    p = np.random.default_rng(4).uniform(size=12) ** 2
    epsilon = np.arange(1, 4) / 4
    ours = np.exp(RestartedMartingale(3).update(p))
    for t in range(1, 13):
        staked = sum(
            np.mean([np.prod(e * p[s - 1 : t] ** (e - 1)) for e in epsilon]) / (s * (s + 1)) for s in range(1, t + 1)
        )
        assert ours[t - 1] == pytest.approx(staked + 1 / (t + 1), rel=1e-12)


@pytest.mark.parametrize("make", [lambda: PowerMartingale(0.3), MixtureMartingale, RestartedMartingale])
def test_bets_do_not_depend_on_how_updates_are_divided(make):
    p = np.random.default_rng(5).uniform(size=60)
    whole, parts = make(), make()
    expected = whole.update(p)
    found = np.concatenate([parts.update(part) for part in (p[:1], p[1:1], p[1:20], p[20:])])
    assert found == pytest.approx(expected, abs=1e-10)
    assert parts.state == pytest.approx(whole.state, abs=1e-10)


def test_far_p_values_stay_finite():
    p = np.full(2000, 1e-300)
    for betting in (PowerMartingale(), MixtureMartingale(), RestartedMartingale()):
        capital = betting.update(p)
        assert np.isfinite(capital).all()
        assert (np.diff(capital) > 0).all()
    long = MixtureMartingale()
    long.state = [1e7, 1.0001e7]
    assert np.isfinite(long.update(np.array([0.5, 1.0, 1e-12]))).all()


# the monitor


@pytest.mark.parametrize("betting", MARTINGALES)
def test_false_alarms_are_within_villes_bound(betting):
    rng = np.random.default_rng(6)
    count = 0
    for seed in range(200):
        scores = rng.normal(size=320).round(rng.integers(0, 3))  # few values, or many
        monitor = Monitor(scores[:20], 0.05, betting=betting, seed=seed)
        monitor.update(scores[20:])
        count += monitor.alarm
    assert count <= stats.binom.isf(1e-4, 200, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("betting", MARTINGALES)
def test_false_alarms_of_long_streams(betting):
    """500 streams of 20,000 points at a level of 1%."""
    rng = np.random.default_rng(7)
    count = 0
    for seed in range(500):
        monitor = Monitor(alpha=0.01, betting=betting, seed=seed)
        monitor.update(rng.normal(size=20_000))
        count += monitor.alarm
    assert count <= stats.binom.isf(1e-3, 500, 0.01)


@pytest.mark.parametrize("betting", ["mixture", "restarted"])
def test_delay_after_a_tenth_of_the_rows_went_wrong(betting):
    rng = np.random.default_rng(8)
    delays = []
    for seed in range(20):
        monitor = Monitor(rng.normal(size=1000), 0.01, betting=betting, seed=seed)
        monitor.update(rng.normal(size=500))
        assert not monitor.alarm
        bad = rng.random(1500) < 0.1
        monitor.update(rng.normal(size=1500) + 5 * bad)
        assert monitor.alarm_at is not None
        delays.append(monitor.alarm_at - 500)
    assert min(delays) > 0
    assert np.median(delays) < 400


def test_the_restarted_martingale_reacts_after_a_long_stream_without_change():
    """The mixture has spent its capital by then; this is why there is the other."""
    rng = np.random.default_rng(9)
    delays = {betting: [] for betting in ("mixture", "restarted")}
    for seed in range(9):
        quiet, after = rng.normal(size=5000), rng.normal(size=1000) + 2
        for betting, found in delays.items():
            monitor = Monitor(quiet[:500], alpha=0.01, betting=betting, seed=seed)
            monitor.update(quiet[500:])
            monitor.update(after)
            found.append(monitor.alarm_at - 4500)
    assert sum(delay <= 0 for found in delays.values() for delay in found) <= 1  # 1% of 18 expected
    assert np.median(delays["restarted"]) < 0.5 * np.median(delays["mixture"])


def test_the_alarm_stays_until_a_restart():
    monitor = Monitor(np.arange(100.0), alpha=0.01)
    evidence = monitor.update(np.full(20, 1000.0) + np.arange(20))
    first = int(np.flatnonzero(evidence >= math.log(100))[0]) + 1
    assert (monitor.alarm, monitor.alarm_at, monitor.count) == (True, first, 20)
    assert monitor.p_value == pytest.approx(math.exp(-evidence.max()))
    monitor.update(np.full(300, -5.0))
    assert monitor.log_evidence < 0 < monitor.highest
    assert monitor.alarm_at == first
    assert "alarm at" in repr(monitor)
    seen = len(monitor.p_values.seen)
    monitor.restart()
    assert (monitor.alarm, monitor.count, monitor.log_evidence, monitor.p_value) == (False, 0, 0.0, 1.0)
    assert len(monitor.p_values.seen) == seen
    assert "quiet" in repr(monitor)


@pytest.mark.parametrize("betting", MARTINGALES)
@pytest.mark.parametrize("fed", [0, 30])
def test_it_survives_a_file(betting, fed, tmp_path):
    rng = np.random.default_rng(10)
    monitor = Monitor(rng.normal(size=50), 0.2, betting=betting, epsilon=0.3, seed=4)
    monitor.update(rng.normal(size=fed) + 1)
    monitor.save(tmp_path / "m.safetensors")
    other = Monitor.load(tmp_path / "m.safetensors")
    assert repr(other) == repr(monitor)
    assert (other.alarm_at, other.highest, other.epsilon) == (monitor.alarm_at, monitor.highest, 0.3)
    more = rng.normal(size=40)
    assert other.update(more).tolist() == monitor.update(more).tolist()


def test_other_files_are_refused(tmp_path):
    header, tensors = Monitor([1.0, 2.0]).state()
    path = tmp_path / "m.safetensors"
    for wrong in (
        {"options": {"alpha": 2.0}},
        {"options": {"betting": "roulette"}},
        {"options": {"surprise": 1}},
        {"options": None},
        {"count": 3},
        {"count": -1},
        {"count": 1.0},
        {"alarm_at": 1},
        {"alarm_at": "now"},
    ):
        with pytest.raises(StorageError, match="monitor"):
            Monitor.from_state({**header, **wrong}, tensors)
    for wrong in (
        {"seen": torch.tensor([1.0, math.nan], dtype=torch.float64)},
        {"seen": torch.tensor([1.0])},
        {"figures": torch.zeros(3, dtype=torch.float64)},
        {"figures": torch.full((4,), math.nan, dtype=torch.float64)},
    ):
        with pytest.raises(StorageError, match="monitor"):
            Monitor.from_state(header, {**tensors, **wrong})
    with pytest.raises(StorageError, match="monitor"):
        Monitor.from_state(header, {})
    pf.save(pf.models.NICE(2, layers=2, hidden=(4,)), path)
    with pytest.raises(StorageError, match="contains a model, not a monitor"):
        Monitor.load(path)
    io.write(path, {"kind": "monitor"}, {})
    with pytest.raises(StorageError, match="monitor"):
        Monitor.load(path)


def test_impossible_options():
    with pytest.raises(ConfigError, match="betting must be 'power', 'mixture' or 'restarted'"):
        Monitor(betting="all")
    with pytest.raises(ConfigError, match="alpha"):
        Monitor(alpha=1.0)
    with pytest.raises(ConfigError, match="epsilon"):
        Monitor(betting="power", epsilon=1.0)
    with pytest.raises(ConfigError, match="grid"):
        RestartedMartingale(0)


@pytest.mark.parametrize("name", MARTINGALES)
def test_martingales_refuse_what_is_no_p_value(name):
    martingale = {"power": PowerMartingale, "mixture": MixtureMartingale, "restarted": RestartedMartingale}[name]()
    before = list(martingale.state)
    for wrong in ([0.5, 0.0], [1.5], [-0.1], [np.nan]):
        with pytest.raises(InputError):
            martingale.update(wrong)
    assert martingale.state == before
    assert len(martingale.update([0.1, 1.0])) == 2


def test_numbers_that_are_no_anomaly_scores_are_said_to_be_none() -> None:
    rng = np.random.default_rng(0)
    reference = 3 + rng.gamma(2.0, size=99)
    p = rng.integers(1, 101, 40) / 100
    for numbers, word in ((p, "p-values"), (-reference[:40], "below all reference scores")):
        monitor = Monitor(reference)
        with pytest.warns(PushforwardWarning, match=f"{word}.*anomaly_score"):
            [monitor.update(part) for part in np.split(numbers, 8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for stream in (3 + rng.gamma(2.0, size=300), 100 + p):
            Monitor(reference).update(stream)
        Monitor().update(p)
        Monitor(np.append(reference, np.inf)).update([np.inf, 5.0])
        assert Monitor(np.zeros(99), 0.01).update(np.ones(30)).size == 30  # an alarm, and no warning
        Monitor(rng.integers(1, 60, 99) / 100).update(rng.integers(60, 100, 50) / 100)
