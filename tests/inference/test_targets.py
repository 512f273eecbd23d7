"""Log-densities of users: what is refused, in one sentence each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.inference import Parameters, Target, positive

X = torch.zeros(4, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (lambda x: x.sum(), "sums over the points too"),
        (lambda x: x, "one number for each of the 4 points"),
        (lambda x: x.sum(-1, keepdim=True), "one number for each of the 4 points"),
        (lambda x: 0.0, "returned a float"),
        (lambda x: x.sum(-1) + 1j, "returned complex ones"),
        (
            # Explicitly, because torch's compiler turns the checks of distributions off for the whole process.
            lambda x: torch.distributions.Gamma(2.0, 1.0, validate_args=True).log_prob(x - 1).sum(-1),
            "state the constraints of the parameters",
        ),
        (lambda x: x.detach().numpy().sum(-1), "returned a ndarray"),
        (lambda x: torch.full((len(x),), math.inf), r"\+inf at"),
    ],
)
def test_wrong_results_are_refused(log_density, message):
    with pytest.raises(InputError, match=message):
        Target(log_density, 3)(X)


def test_a_value_without_gradient_is_refused_when_one_is_needed():
    target = Target(lambda x: x.detach().square().sum(-1), 3)
    target(X)
    with pytest.raises(InputError, match="without a gradient"):
        target.value_and_gradient(X)


@pytest.mark.parametrize("log_density", ["text", None, (abs,), (abs, 3)])
def test_what_is_not_a_function_is_refused(log_density):
    with pytest.raises(ConfigError, match="must be a function, or a pair"):
        Target(log_density, 3)


def test_a_pair_with_parameters_is_refused():
    with pytest.raises(ConfigError, match="reads unconstrained vectors"):
        Target((abs, abs), 1, Parameters(s=positive()))


def test_a_function_of_float32_gets_float32():
    weights = torch.ones(3)

    def log_density(x):
        return -(x @ weights)

    assert Target(log_density, 3)(X).dtype is torch.float64


def test_a_pair_of_numpy_functions_has_their_gradient():
    def value(x):
        return -0.5 * (np.asarray(x) ** 2).sum(-1)

    def gradient(x):
        return -np.asarray(x)

    target = Target((value, gradient), 3)
    x = torch.randn(5, 3, dtype=torch.float64)
    found, slope = target.value_and_gradient(x)
    torch.testing.assert_close(found, -0.5 * x.square().sum(-1))
    torch.testing.assert_close(slope, -x)


def test_a_gradient_of_a_wrong_shape_is_refused():
    target = Target((lambda x: x.sum(-1), lambda x: x[0]), 3)
    with pytest.raises(InputError, match="gradient must have the shape"):
        target.value_and_gradient(X)


def test_nan_counts_as_outside_and_is_counted():
    target = Target(lambda x: torch.where(x[:, 0] > 0, x.sum(-1), math.nan), 1)
    values = target(torch.tensor([[1.0], [-1.0]]))
    assert values.tolist() == [1.0, -math.inf]
    assert target.nan_count == 1
