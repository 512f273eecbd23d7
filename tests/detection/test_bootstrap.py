import tracemalloc

import numpy as np
import pytest

from pushforward.detection import auroc, average_precision, bootstrap_interval, fpr_at_tpr, partial_auroc
from pushforward.errors import ConfigError, InputError


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_many_resamples_at_once_equal_a_loop(metric):
    """The draws have the same distribution as those of the plain method, which is used for unknown functions."""
    rng = np.random.default_rng(0)
    normal, anomalous = np.round(rng.normal(size=60), 1), np.round(rng.normal(size=40) + 1, 1)  # with ties
    fast = bootstrap_interval(metric, normal, anomalous, n_resamples=20_000, seed=1)
    slow = bootstrap_interval(lambda *groups: metric(*groups), normal, anomalous, n_resamples=4000, seed=2)
    # The quantile of 4,000 draws varies by about 0.003 here.
    assert fast == pytest.approx(slow, abs=0.015)


def test_counts_of_draws_equal_the_draws():
    from pushforward.detection.bootstrap import _FROM_COUNTS

    rng = np.random.default_rng(1)
    for metric, counted in _FROM_COUNTS.items():
        for _ in range(50):
            counts = rng.integers(0, 4, size=(2, 8)) + (np.arange(8) == 3)
            values = [np.repeat(np.arange(8.0), row) for row in counts]
            found = counted(*(row[None].astype(float) for row in counts))
            assert found == pytest.approx([metric(*values)], abs=1e-12)


def test_coverage_of_a_known_auroc():
    """N(0, 1) against N(1, 1): AUROC is Phi(1/sqrt 2) = 0.7602. 95% intervals contain it in about 95% of samples."""
    rng = np.random.default_rng(2)
    held = 0
    for k in range(200):
        low, high = bootstrap_interval(auroc, rng.normal(size=150), rng.normal(size=150) + 1, n_resamples=400, seed=k)
        held += low <= 0.76025 <= high
    assert 175 <= held <= 200  # binomial of 0.94: the chance to be outside is below 1e-3


def test_the_interval_narrows_with_the_root_of_the_rows():
    rng = np.random.default_rng(3)
    widths = []
    for n in (100, 1600):
        low, high = bootstrap_interval(auroc, rng.normal(size=n), rng.normal(size=n) + 1)
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)


def test_options_seeds_and_refusals():
    normal, anomalous = np.arange(30.0), np.arange(20.0) + 15
    ours = bootstrap_interval(fpr_at_tpr, normal, anomalous, n_resamples=200, tpr=0.8)
    assert ours == bootstrap_interval(lambda a, b: fpr_at_tpr(a, b, 0.8), normal, anomalous, n_resamples=200)
    assert ours != bootstrap_interval(fpr_at_tpr, normal, anomalous, n_resamples=200, tpr=0.5)
    assert bootstrap_interval(auroc, normal, anomalous, seed=1) == bootstrap_interval(auroc, normal, anomalous, seed=1)
    assert bootstrap_interval(partial_auroc, [0.0], [1.0], n_resamples=10) == (1.0, 1.0)
    wide, narrow = (bootstrap_interval(auroc, normal, anomalous, level=level) for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    with pytest.raises(ConfigError, match="n_resamples"):
        bootstrap_interval(auroc, normal, anomalous, n_resamples=0)
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval(auroc, normal, anomalous, level=1.0)
    with pytest.raises(ConfigError, match="seed must be an integer"):
        bootstrap_interval(auroc, normal, anomalous, seed=1.5)
    assert 0 < bootstrap_interval(auroc, normal, anomalous, n_resamples=20, seed=-1)[0] < 1
    with pytest.raises(InputError, match="anomalous"):
        bootstrap_interval(auroc, normal, [])


def test_ties_take_no_more_memory():
    tracemalloc.start()
    try:
        bootstrap_interval(auroc, np.zeros(20_000), np.ones(20_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
