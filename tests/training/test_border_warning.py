"""Training on values that lie on a bound warns, because a map of bounded data to the reals takes a bound to infinity."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

from pushforward import distributions, models, transforms
from pushforward.errors import PushforwardWarning
from pushforward.training import fit

ROWS = np.random.default_rng(0).uniform(0.1, 0.9, (300, 2))


def warned(first: transforms.Transform, x: np.ndarray) -> list[str]:
    model = models.Flow(transforms.Chain(first, transforms.Affine(2, trainable=True)), distributions.Normal(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, x, validation=None, max_steps=1, progress="silent")
    assert all(warning.category is PushforwardWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def with_value(value: float, column: int = 1, count: int = 3) -> np.ndarray:
    x = ROWS.copy()
    x[5 : 5 + count, column] = value
    return x


@pytest.mark.parametrize(
    ("first", "value"),
    [
        (lambda: transforms.Bounds(2, low=(None, 0.0), high=(None, 1.0)), 0.0),
        (lambda: transforms.Bounds(2, low=(None, 0.0), high=(None, 1.0)), 1.0),
        (lambda: transforms.Bounds(2, low=(None, 0.0), high=(None, 1.0)), 1.0 - 1e-12),  # 1 in float32
        (lambda: transforms.Logit(2), 0.0),
        (lambda: transforms.Inverse(transforms.Exp(2)), 0.0),
    ],
)
def test_rows_on_a_bound_are_counted_and_named(first, value):
    (message,) = warned(first(), with_value(value))
    assert message.startswith("3 of 300 rows have a value on an end of the domain of")
    assert "in column 1" in message
    assert "give slightly wider bounds" in message
    assert re.search(r"^1 of 300 rows has", warned(first(), with_value(value, count=1))[0])


@pytest.mark.parametrize(
    "first",
    [lambda: transforms.Bounds(2, low=(None, 0.0), high=(None, 1.0)), lambda: transforms.Standardize(2)],
    ids=["bounds", "reals"],
)
def test_rows_inside_and_columns_without_bounds_do_not_warn(first):
    assert warned(first(), ROWS) == []
    assert warned(first(), with_value(0.0, column=0)) == []
