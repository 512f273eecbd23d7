"""Log-densities of users: what is refused, in one sentence each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pushforward.errors import ConfigError, InputError
from pushforward.inference import Parameters, Target, find_modes, positive

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


def test_a_constant_is_named():
    with pytest.raises(InputError, match="a constant is no density of the reals"):
        Target(lambda x: torch.zeros(len(x)), 3).value_and_gradient(X)


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


def raises_beyond(limit):
    """A normal log-density whose distribution has a scale of 0 beyond a limit, as where a scale underflows."""

    def log_density(x):
        scale = (x[:, 0].abs() < limit).to(x.dtype)
        return torch.distributions.Normal(0.0, scale, validate_args=True).log_prob(0 * x[:, 0]) - 0.5 * x.square().sum(
            -1
        )

    return log_density


def test_points_that_raise_count_as_outside_once_errors_are_tolerated():
    x = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    far = x[:, 0].abs() >= 2
    target = Target(raises_beyond(2.0), 2)
    with pytest.raises(InputError, match="state the constraints of the parameters"):
        target(x)
    target.tolerate_errors()
    values, gradient = target.value_and_gradient(x)
    assert torch.equal(torch.isneginf(values), far)
    torch.testing.assert_close(gradient[~far], -x[~far])
    assert not gradient[far].any()
    assert target.error_count == far.sum()
    assert target.first_error.startswith("ValueError: Expected parameter scale")
    assert "\n" not in target.first_error


def test_an_error_at_every_point_stays_an_error():
    target = Target(raises_beyond(2.0), 1)
    target.tolerate_errors()
    with pytest.raises(InputError, match="state the constraints of the parameters"):
        target(torch.full((20, 1), 3.0))
    value, gradient = target.value_and_gradient(torch.full((1, 1), 3.0))  # a step of a search
    assert (value.tolist(), gradient.tolist()) == ([-math.inf], [[0.0]])


def test_other_errors_than_those_of_points_are_raised():
    def log_density(x):
        raise KeyError("mu")

    target = Target(log_density, 1)
    target.tolerate_errors()
    with pytest.raises(KeyError):
        target(torch.zeros(3, 1))


def test_a_pair_may_raise_at_a_point_too():
    def value(x):
        if (np.abs(np.asarray(x)) > 2).any():
            raise np.linalg.LinAlgError("singular matrix")
        return -0.5 * (np.asarray(x) ** 2).sum(-1)

    target = Target((value, lambda x: -np.asarray(x)), 1)
    target.tolerate_errors()
    x = torch.linspace(-3, 3, 20, dtype=torch.float64)[:, None]
    values, gradient = target.value_and_gradient(x)
    assert torch.equal(torch.isneginf(values), x[:, 0].abs() > 2)
    torch.testing.assert_close(gradient, torch.where(x.abs() > 2, 0.0, -x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": -2}, "features must be an integer of at least 1; got -2"),
        ({"features": 1, "parameters": 3}, r"parameters must be pf\.inference\.Parameters"),
        ({"features": 7, "parameters": Parameters(a=positive())}, "the parameters have 1 coordinates; got features=7"),
    ],
)
def test_coordinates_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Target(lambda x: x.sum(-1), **options)


@pytest.mark.parametrize(
    ("starts", "options", "error", "message"),
    [
        (torch.ones(1, 2), {"iterations": 0}, ConfigError, "iterations must be an integer of at least 1; got 0"),
        (torch.ones(1, 2), {"iterations": -1}, ConfigError, "iterations must be an integer of at least 1; got -1"),
        (
            torch.ones(1, 3),
            {},
            ConfigError,
            r"starts must have the shape \(k, 2\), with at least one row; got \(1, 3\)",
        ),
        (torch.ones(0, 2), {}, ConfigError, r"at least one row; got \(0, 2\)"),
        ([[1.0, 2.0], [1.0]], {}, InputError, "starts must be real numbers of one shape"),
    ],
)
def test_searches_for_modes_that_cannot_start_are_refused(starts, options, error, message):
    with pytest.raises(error, match=message):
        find_modes(Target(lambda x: -x.square().sum(-1), 2), starts, **options)


def test_modes_are_those_of_a_target_and_starts_may_be_a_list():
    with pytest.raises(ConfigError, match=r"target must be a Target.*; got function"):
        find_modes(lambda x: -x.square().sum(-1), torch.ones(1, 2))  # type: ignore[arg-type]
    starts = [[1.0, 1.0]]
    (mode,) = find_modes(Target(lambda x: -x.square().sum(-1), 2), starts)  # type: ignore[arg-type]
    assert mode.location.abs().max() < 1e-6
