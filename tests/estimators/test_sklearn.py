"""scikit-learn's own checks of estimators, as a user calls them."""

from __future__ import annotations

import warnings

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import check_estimator

from pushforward.estimators import FlowDensity, Guard


def check(estimator: BaseEstimator) -> None:
    """All checks; none is left out or expected to fail, and a check that is skipped is skipped by scikit-learn itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tables of a few rows, which the checks use, are too small for alarms
        results = check_estimator(estimator)
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    assert [r["check_name"] for r in results if r["status"] == "skipped"] in ([], ["check_array_api_input"])


def test_a_guard_with_plain_defaults() -> None:
    check(Guard())


def test_a_density_that_trains_for_a_moment() -> None:
    check(FlowDensity("nice", max_steps=5))


@pytest.mark.slow
def test_a_density_with_plain_defaults() -> None:
    check(FlowDensity())
