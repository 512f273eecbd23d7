"""QRLinear: against dense linear algebra, and what it can reach."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import Inverse, QRLinear


@pytest.mark.parametrize("width", [1, 2, 5])
def test_contract(width, check):
    transform = check.perturb(QRLinear(width)).double()
    for spread in (1.0, 50.0, 1e6):
        check.round_trip(transform, check.normal(50, width, spread=spread), 1e-10)
    check.contribution(transform, check.normal(5, width))
    check.contribution(Inverse(transform), check.normal(5, width))
    check.decode_contribution(transform, check.normal(5, width))
    check.decode_gradients(transform, check.normal(3, width))
    check.shapes(transform.float())
    check.extremes(transform)
    check.compiles(transform, check.normal(4, width, dtype=torch.float32))


def test_it_starts_as_a_rotation(check):
    transform = QRLinear(4).double()
    x = check.normal(5, 4)
    z, contribution = transform(x)
    torch.testing.assert_close(z.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(contribution, torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_it_reaches_any_matrix_of_the_right_sign(seed, check):
    """Reflections and R from LAPACK's Householder QR, written into the parameters, give the matrix back."""
    a = check.normal(5, 5, seed=seed)
    packed, tau = torch.geqrf(a)
    if (torch.linalg.det(a) > 0) == (5 % 2 == 1):
        a = a[[1, 0, 2, 3, 4]]
        packed, tau = torch.geqrf(a)
    vectors = packed.tril(-1).mT + torch.eye(5, dtype=torch.float64)
    upper = packed.triu()
    # Negative rows of R move into Q: each costs one more reflection, so as many as rows with a minus sign, and D in all.
    flips = [i for i in range(5) if upper[i, i] < 0]
    used = [vectors[k] for k in range(5) if tau[k] != 0] + [torch.eye(5, dtype=torch.float64)[i] for i in flips]
    transform = QRLinear(5, reflections=len(used), bias=False).double()
    upper[flips] *= -1
    with torch.no_grad():
        transform.vectors.copy_(torch.stack(used))
        shift = torch.log(torch.expm1(torch.tensor(1 - 1e-3, dtype=torch.float64)))
        raw = torch.log(torch.expm1(upper.diagonal() - 1e-3)) - shift
        transform.packed.copy_(upper.triu(1) + torch.diag(raw))
    x = check.normal(6, 5)
    torch.testing.assert_close(transform.encode(x).z, x @ a.mT)
    torch.testing.assert_close(transform.encode(x).contribution, torch.linalg.slogdet(a).logabsdet.expand(6))
    torch.testing.assert_close(transform.decode(x), torch.linalg.solve(a, x.mT).mT)


def test_the_diagonal_cannot_vanish():
    transform = QRLinear(2).double()
    with torch.no_grad():
        transform.packed.fill_(-1e4)
    contribution = transform.encode(torch.ones(1, 2, dtype=torch.float64)).contribution
    torch.testing.assert_close(contribution, 2 * torch.tensor([1e-3], dtype=torch.float64).log())


def test_autocast_does_not_touch_it(check):
    transform = check.perturb(QRLinear(4))
    x = check.normal(5, 4, dtype=torch.float32)
    expected = transform.encode(x).z
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transform.encode(x).z, expected)
        torch.testing.assert_close(transform.decode(expected), x, atol=1e-4, rtol=1e-4)


def test_impossible_arguments_are_refused():
    with pytest.raises(ConfigError, match="reflections"):
        QRLinear(3, reflections=0)
    with pytest.raises(ConfigError, match="vectors"):
        QRLinear((1, 2, 2))
