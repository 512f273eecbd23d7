"""LULinear and Householder: against dense linear algebra, orthogonality, tiny vectors, autocast."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.distributions import Normal
from pushforward.errors import ConfigError
from pushforward.models import Flow
from pushforward.transforms import Householder, Inverse, LULinear, QRLinear
from pushforward.transforms.linear.factored import reflections_product


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("kind", [LULinear, Householder])
def test_contract(kind, width, check):
    transform = check.perturb(kind(width)).double()
    for spread in (1.0, 5.0, 1e3):
        check.round_trip(transform, check.normal(50, width, spread=spread), 1e-10)
        check.round_trip(check.perturb(kind(width)), check.normal(50, width, spread=spread).float(), 1e-4)
    check.contribution(transform, check.normal(5, width))
    check.contribution(Inverse(transform), check.normal(5, width))
    check.decode_contribution(transform, check.normal(5, width))
    check.decode_gradients(transform, check.normal(3, width))
    check.shapes(transform.float())
    check.extremes(transform)
    check.compiles(transform, check.normal(4, width, dtype=torch.float32))


def test_lu_starts_at_the_identity(check):
    x = check.normal(5, 4, dtype=torch.float32)
    z, contribution = LULinear(4)(x)
    torch.testing.assert_close(z, x, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(contribution, torch.zeros(5), atol=1e-6, rtol=0)


def test_lu_represents_every_matrix_with_positive_leading_minors(check):
    # The LU factors of a matrix A, written into the parameters, must reproduce A.
    a = torch.eye(4, dtype=torch.float64) * 3 + check.normal(4, 4)
    lower, upper = _plain_lu(a)
    transform = LULinear(4, bias=False).double()
    with torch.no_grad():
        raw = upper.diagonal() - 1e-3
        shift = torch.log(torch.expm1(torch.tensor(1 - 1e-3, dtype=torch.float64)))
        transform.packed.copy_(lower.tril(-1) + upper.triu(1) + torch.diag(torch.log(torch.expm1(raw)) - shift))
    x = check.normal(6, 4)
    torch.testing.assert_close(transform.encode(x).z, x @ a.T)
    torch.testing.assert_close(transform.encode(x).contribution, torch.linalg.slogdet(a).logabsdet.expand(6))
    torch.testing.assert_close(transform.decode(x), torch.linalg.solve(a, x.T).T)


def _plain_lu(a):
    """Gaussian elimination without pivoting."""
    lower, upper = torch.eye(len(a), dtype=a.dtype), a.clone()
    for i in range(len(a)):
        for j in range(i + 1, len(a)):
            lower[j, i] = upper[j, i] / upper[i, i]
            upper[j] = upper[j] - lower[j, i] * upper[i]
    return lower, upper


def test_lu_without_bias():
    assert {name for name, _ in LULinear(3, bias=False).named_parameters()} == {"packed"}
    assert {name for name, _ in LULinear(3).named_parameters()} == {"packed", "offset"}


def test_lu_diagonal_cannot_vanish():
    transform = LULinear(2).double()
    with torch.no_grad():
        transform.packed.fill_(-1e4)
    contribution = transform.encode(torch.ones(1, 2, dtype=torch.float64)).contribution
    torch.testing.assert_close(contribution, 2 * torch.tensor([1e-3], dtype=torch.float64).log())


@pytest.mark.parametrize("reflections", [1, 2, 3, 8])
def test_product_of_reflections_one_by_one(reflections, check):
    vectors = check.normal(reflections, 5, seed=reflections)
    expected = torch.eye(5, dtype=torch.float64)
    for v in vectors:
        expected = expected @ (torch.eye(5, dtype=torch.float64) - 2 * torch.outer(v, v) / v.dot(v))
    transform = Householder(5, reflections=reflections).double()
    with torch.no_grad():
        transform.vectors.copy_(vectors)
    x = check.normal(4, 5)
    torch.testing.assert_close(transform.encode(x).z, x @ expected.T)
    torch.testing.assert_close(transform.decode(x), x @ expected)


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30, 1e-20, 1e-12, 1e20, 1e38])
def test_householder_is_orthogonal_for_vectors_of_any_length(size):
    transform = Householder(4, seed=2)
    with torch.no_grad():
        transform.vectors[1].mul_(size)
    matrix = transform.encode(torch.eye(4)).z
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(4), atol=1e-5, rtol=0)
    matrix.sum().backward()
    assert torch.isfinite(transform.vectors.grad).all()


def test_householder_is_orthogonal_for_nearly_parallel_vectors_in_float32(check):
    vectors = torch.ones(64, 64) + 1e-3 * check.normal(64, 64, dtype=torch.float32)
    units, mixed = reflections_product(vectors)
    q = torch.eye(64) - units.T @ mixed
    torch.testing.assert_close(q @ q.T, torch.eye(64), atol=2e-4, rtol=0)


@pytest.mark.parametrize("kind", [Householder, QRLinear])
@pytest.mark.parametrize("row", [[3.4e38, 3.4e38, 3.4e38], [3.4e38, -3.4e38, 3.4e38], [-3.4e38, 0.0, 1.0]])
def test_rows_at_the_end_of_float32_are_not_nan(kind, row):
    transform, x = kind(3), torch.tensor([row])
    exact = transform.encode(x.double()).z
    torch.testing.assert_close(transform.encode(x).z, exact.float(), rtol=1e-5, atol=1e33)
    assert not Inverse(Householder(3)).encode(x).z.isnan().any()
    assert Flow(transform, Normal(3)).log_prob(x).tolist() == [-math.inf]


def test_householder_seed():
    assert torch.equal(Householder(3, seed=1).vectors, Householder(3, seed=1).vectors)
    assert not torch.equal(Householder(3, seed=1).vectors, Householder(3, seed=2).vectors)
    assert Householder(3, reflections=2).vectors.shape == (2, 3)


def test_meta_device_start_is_empty():
    with torch.device("meta"):
        assert Householder(3).vectors.is_meta
        assert LULinear(3).packed.is_meta


@pytest.mark.parametrize("kind", [LULinear, Householder])
def test_autocast_does_not_lower_the_precision(kind, check):
    transform = check.perturb(kind(6))
    x = check.normal(20, 6, dtype=torch.float32)
    plain, back = transform.encode(x).z, transform.decode(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(transform.encode(x).z, plain, atol=0, rtol=0)
        torch.testing.assert_close(transform.decode(x), back, atol=0, rtol=0)


@pytest.mark.parametrize("kind", [LULinear, Householder])
def test_only_vectors(kind):
    with pytest.raises(ConfigError, match="vectors"):
        kind((3, 4, 4))
    with pytest.raises(ConfigError):
        Householder(3, reflections=0)
