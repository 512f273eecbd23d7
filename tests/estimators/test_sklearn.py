"""scikit-learn's own estimator checks."""

import warnings

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from pushforward.estimators import FlowDensity, Guard

GUARD_EXPECTED = {
    # Columns are matched by name, and a reordered frame is scored as the same table instead of being refused.
    "check_dataframe_column_names_consistency": "reordered columns are matched by name",
}


def quick_density() -> FlowDensity:
    return FlowDensity("nice", max_steps=5)


def run_checks(estimator, expected: dict[str, str]) -> list[str]:
    failed = []
    for each, check in estimator_checks_generator(estimator):
        name = check.func.__name__ if hasattr(check, "func") else check.__name__
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(each)
        except Exception as error:
            if name not in expected and type(error).__name__ != "SkipTest":
                failed.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    return failed


@pytest.mark.parametrize(
    ("make", "expected"), [(Guard, GUARD_EXPECTED), (quick_density, {})], ids=["Guard", "FlowDensity"]
)
def test_estimator_checks(make, expected: dict[str, str]) -> None:
    assert run_checks(make(), expected) == []
