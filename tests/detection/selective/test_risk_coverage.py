"""Risk-coverage metrics against their definitions, written out as loops over rows and pairs of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.detection import auroc
from pushforward.detection.selective import (
    augrc,
    aurc,
    correct_rate_at_acceptance,
    excess_aurc,
    open_set_curve,
    oscr,
    risk_coverage_curve,
)
from pushforward.errors import ConfigError, InputError

steady = settings(deadline=None, derandomize=True)
coarse = st.lists(
    st.tuples(st.sampled_from([-math.inf, 0.0, 1.0, 2.0, math.inf]), st.booleans()), min_size=1, max_size=20
)
fine = st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=20)
rows = st.one_of(coarse, fine)


def columns(pairs):
    return np.array([score for score, _ in pairs]), np.array([error for _, error in pairs])


@steady
@given(rows)
def test_aurc_is_the_mean_selective_risk_at_the_rows_own_scores(pairs):
    risks = [np.mean([error for score, error in pairs if score <= threshold]) for threshold, _ in pairs]
    assert aurc(*columns(pairs)) == pytest.approx(np.mean(risks), abs=1e-12)


@steady
@given(rows)
def test_augrc_is_the_rate_of_pairs_in_which_an_error_is_accepted_before_a_row(pairs):
    total = sum(error * (1.0 if a < b else 0.5 if a == b else 0.0) for a, error in pairs for b, _ in pairs)
    assert augrc(*columns(pairs)) == pytest.approx(total / len(pairs) ** 2, abs=1e-12)


@steady
@given(rows)
def test_augrc_is_the_formula_of_traub_with_the_auroc_of_errors(pairs):
    scores, errors = columns(pairs)
    accuracy = 1 - errors.mean()
    separation = auroc(scores[~errors], scores[errors]) if 0 < accuracy < 1 else 0.0
    wanted = (1 - separation) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert augrc(scores, errors) == pytest.approx(wanted, abs=1e-12)


def test_aurc_has_the_harmonic_weights_of_zhou_without_ties():
    rng = np.random.default_rng(0)
    scores, losses = rng.normal(size=50), rng.uniform(size=50)
    rank = np.argsort(np.argsort(scores))  # 0 is accepted first
    weights = [sum(1 / k for k in range(r + 1, 51)) for r in rank]
    assert aurc(scores, losses) == pytest.approx(np.mean(weights * losses), abs=1e-12)


def test_aurc_converges_to_the_population_value():
    # Errors with probability s for a uniform score s: risk below t is t/2, and its mean over t is 1/4.
    rng = np.random.default_rng(1)
    values = []
    for _ in range(200):
        scores = rng.uniform(size=1000)
        values.append(aurc(scores, rng.uniform(size=1000) < scores))
    assert np.mean(values) == pytest.approx(0.25, abs=4 * np.std(values) / math.sqrt(200))


@steady
@given(rows)
def test_no_ranking_is_better_than_the_one_that_excess_aurc_subtracts(pairs):
    scores, errors = columns(pairs)
    assert excess_aurc(scores, errors) >= -1e-12
    n, wrong = len(errors), int(errors.sum())
    best = np.mean([max(0, k - (n - wrong)) / k for k in range(1, n + 1)])  # the correct rows first
    assert excess_aurc(scores, errors) == pytest.approx(aurc(scores, errors) - best, abs=1e-12)


@steady
@given(rows)
def test_the_points_of_the_curve(pairs):
    scores, errors = columns(pairs)
    curve = risk_coverage_curve(scores, errors)
    assert list(curve.threshold) == sorted(set(scores))
    for threshold, coverage, risk, generalized in zip(*curve, strict=True):
        accepted = errors[scores <= threshold]
        assert (coverage, risk) == pytest.approx((len(accepted) / len(scores), accepted.mean()))
        assert generalized == pytest.approx(accepted.sum() / len(scores))


def test_a_ranking_that_finds_all_errors_against_one_that_finds_none():
    errors = np.arange(1000) >= 900
    assert excess_aurc(np.arange(1000), errors) == 0.0
    assert aurc(np.arange(1000), errors) < aurc(np.zeros(1000), errors) < aurc(-np.arange(1000), errors)
    assert augrc(np.zeros(1000), errors) == pytest.approx(0.05)  # half of the error rate


@steady
@given(rows, st.lists(st.sampled_from([-math.inf, 0.0, 0.5, 1.0, 2.0, math.inf]), min_size=1, max_size=10))
def test_open_set_curve_and_its_area(pairs, anomalous):
    normal, correct = columns(pairs)
    curve = open_set_curve(normal, correct, anomalous)
    for threshold, accepted, right in zip(*curve, strict=True):
        assert accepted == pytest.approx(np.mean(np.array(anomalous) <= threshold))
        assert right == pytest.approx(np.mean(correct & (normal <= threshold)))
    x, y = np.append(0.0, curve.accepted_anomalies), np.append(0.0, curve.correct_rate)
    assert np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) == pytest.approx(oscr(normal, correct, anomalous), abs=1e-12)
    for acceptance in (0.0, 0.3, 1.0):
        rates = [
            np.mean(correct & (normal <= t))
            for t in [*normal, *anomalous]
            if np.mean(np.array(anomalous) <= t) <= acceptance
        ]
        assert correct_rate_at_acceptance(normal, correct, anomalous, acceptance) == pytest.approx(
            max(rates, default=0.0)
        )


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="each of the 2 rows"):
        aurc([0.0, 1.0], [True])
    with pytest.raises(InputError, match=r"numbers in \[0, 1\]; row 1 has 2"):
        augrc([0.0, 1.0], [0.0, 2.0])
    with pytest.raises(InputError, match="row 0 has nan"):
        augrc([0.0], [math.nan])
    with pytest.raises(InputError, match="NaN"):
        aurc([math.nan], [True])
    with pytest.raises(InputError, match="empty"):
        aurc([], [])
    with pytest.raises(InputError, match="one boolean for each of the 1"):
        open_set_curve([0.0], [1], [2.0])
    with pytest.raises(InputError, match="correct must be an array"):
        open_set_curve([0.0, 1.0], [[True], [True, False]], [2.0])
    with pytest.raises(ConfigError, match="acceptance"):
        correct_rate_at_acceptance([0.0], [True], [2.0], acceptance=1.5)
