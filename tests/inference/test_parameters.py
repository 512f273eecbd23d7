"""Named parameters with constraints: densities keep their mass through the transforms, and bad input has a sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributions as td

from pushforward import inference
from pushforward.errors import ConfigError, InputError


def everything() -> inference.Parameters:
    return inference.Parameters(
        mu=inference.real(2), sigma=inference.positive(), above=inference.positive(low=3.0), p=inference.interval(-1, 2),
        shares=inference.simplex(3), order=inference.ordered(3), corr=inference.correlation(3),
    )  # fmt: skip


def test_values_have_their_shapes_and_meet_their_constraints():
    space = everything()
    u = torch.randn(50, space.features, dtype=torch.float64)
    values = space.unflatten(space.transform().double().decode(u))
    assert values["mu"].shape == (50, 2)
    assert (values["sigma"] > 0).all()
    assert (values["above"] > 3).all()
    assert ((values["p"] > -1) & (values["p"] < 2)).all()
    torch.testing.assert_close(values["shares"].sum(-1), torch.ones(50, dtype=torch.float64))
    assert (values["shares"] > 0).all()
    assert (values["order"].diff(dim=-1) > 0).all()
    assert (torch.linalg.eigvalsh(values["corr"]) > 0).all()
    torch.testing.assert_close(torch.diagonal(values["corr"], dim1=1, dim2=2), torch.ones(50, 3, dtype=torch.float64))


def test_flatten_inverts_unflatten():
    space = everything()
    x = space.transform().double().decode(torch.randn(5, space.features, dtype=torch.float64))
    torch.testing.assert_close(space.flatten(space.unflatten(x)), x)


def test_names_number_the_coordinates():
    assert everything().names == [
        "mu[0]", "mu[1]", "sigma", "above", "p", "shares[0]", "shares[1]", "order[0]", "order[1]", "order[2]", "corr[0]",
        "corr[1]", "corr[2]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("constraint", "log_density", "log_evidence"),
    [
        (inference.positive(), lambda v: 2 * v.log() - v, math.lgamma(3)),  # a gamma density without its constant
        (
            inference.interval(0, 1),
            lambda v: v.log() + 2 * torch.log1p(-v),
            math.lgamma(2) + math.lgamma(3) - math.lgamma(5),
        ),
        (inference.interval(2, 5), lambda v: torch.zeros_like(v), math.log(3)),
        (inference.simplex(3), lambda v: v.log().sum(-1), -math.lgamma(6)),  # Dirichlet(2, 2, 2)
        (inference.ordered(2), lambda v: -0.5 * v.square().sum(-1), math.log(2 * math.pi) - math.log(2)),
        # The volume of the 3 x 3 correlation matrices is pi^2 / 2.
        (inference.correlation(3), lambda v: torch.zeros(v.shape[0], dtype=v.dtype), math.log(math.pi**2 / 2)),
    ],
    ids=["gamma", "beta", "uniform", "dirichlet", "ordered", "correlation"],
)
def test_the_log_determinant_is_inside(constraint, log_density, log_evidence):
    """The integral over the reals is that over the constrained set: importance sampling with a wide normal."""
    space = inference.Parameters(v=constraint)
    target = inference.Target(lambda values: log_density(values["v"]), space.features, space)
    q = td.Independent(td.StudentT(5.0, torch.zeros(space.features, dtype=torch.float64), 1.5), 1)
    u = q.sample((200_000,))
    weights = inference.ImportanceWeights.of(target(u) - q.log_prob(u))
    assert weights.log_evidence == pytest.approx(log_evidence, abs=max(4 * weights.log_evidence_error, 1e-3))
    assert weights.log_evidence_error < 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: inference.Parameters(), "at least one parameter"),
        (lambda: inference.Parameters(a="positive"), "'a' needs a constraint"),
        (lambda: inference.interval(1, 1), "low < high"),
        (lambda: inference.interval(0, math.inf), "finite ends"),
        (lambda: inference.interval("0", 1), "finite ends"),
        (lambda: inference.interval(None, 1), "finite ends"),
        (lambda: inference.positive(low="a"), "finite bound"),
        (lambda: inference.real(2.5), "shape must be"),
        (lambda: inference.simplex(1), "size must be"),
    ],
)
def test_bad_constraints_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_shape_may_be_an_integer_of_numpy():
    assert inference.real(np.int64(3)).shape == (3,)


def test_wrong_values_are_refused():
    space = inference.Parameters(mu=inference.real(2))
    with pytest.raises(InputError, match="'mu' is missing"):
        space.flatten({})
    with pytest.raises(InputError, match="has the shape"):
        space.flatten({"mu": torch.zeros(4, 3)})
    with pytest.raises(InputError, match="2 coordinates"):
        space.unflatten(torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("constraint", "log_density", "log_evidence"),
    [
        (
            inference.interval(0, 1, 2),
            lambda v: (-0.5 * v.log() - 0.5 * torch.log1p(-v)).sum(-1),  # Beta(1/2, 1/2), Jeffreys' prior of a share
            2 * math.log(math.pi),
        ),
        (inference.interval(0, 1), lambda v: -0.9 * v.log(), math.log(10)),  # Beta(1/10, 1)
    ],
    ids=["beta of a half", "beta of a tenth"],
)
def test_densities_that_are_infinite_at_a_bound_are_fitted(constraint, log_density, log_evidence):
    """No draw reaches the bound, where the density is +inf, and the mass beside it is found."""
    fit = inference.fit_to_target(
        None, lambda values: log_density(values["v"]), parameters=inference.Parameters(v=constraint), max_steps=200,
        progress="silent",
    )  # fmt: skip
    assert fit.log_evidence == pytest.approx(log_evidence, abs=0.01)
    assert fit.weights.reliable
