"""WoodburyLinear: the determinant lemma, Woodbury's identity, the guard, and what it can reach."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import Inverse, WoodburyLinear


@pytest.mark.parametrize(("width", "rank"), [(1, 1), (2, 2), (5, 3)])
def test_contract(width, rank, check):
    transform = check.perturb(WoodburyLinear(width, rank)).double()
    for spread in (1.0, 50.0, 1e6):
        check.round_trip(transform, check.normal(50, width, spread=spread), 1e-10)
    check.contribution(transform, check.normal(5, width))
    check.contribution(Inverse(transform), check.normal(5, width))
    check.decode_contribution(transform, check.normal(5, width))
    check.decode_gradients(transform, check.normal(3, width))
    check.shapes(transform.float())
    check.extremes(transform)
    check.compiles(transform, check.normal(4, width, dtype=torch.float32))


def test_it_is_a_product_of_rank_one_steps(check):
    transform = check.perturb(WoodburyLinear(6, rank=4, bias=False)).double()
    expected = torch.eye(6, dtype=torch.float64)
    for u, v in zip(transform._factors(torch.ones(6).double())[0], transform.right, strict=True):
        expected = expected @ (torch.eye(6, dtype=torch.float64) + torch.outer(u, v))
    x = check.normal(5, 6)
    torch.testing.assert_close(transform.encode(x).z, x @ expected.mT)


def test_it_reaches_every_update_with_positive_leading_minors(check):
    """U' and V given: the LU factors of I + V^T U' give the parameters, and the transform must be I + U' V^T."""
    right = check.normal(3, 7, seed=1)
    outer = 0.3 * check.normal(7, 3, seed=2)
    capacitance = torch.eye(3, dtype=torch.float64) + right @ outer
    lower, upper = torch.eye(3, dtype=torch.float64), capacitance.clone()
    for i in range(3):  # elimination without pivoting, then the diagonal moved to L
        for j in range(i + 1, 3):
            lower[j, i] = upper[j, i] / upper[i, i]
            upper[j] = upper[j] - lower[j, i] * upper[i]
    diagonal = upper.diagonal().clone()
    assert (diagonal > 0.01).all()
    left = outer @ torch.linalg.inv(upper / diagonal[:, None])
    transform = WoodburyLinear(7, rank=3, bias=False).double()
    with torch.no_grad():
        transform.right.copy_(right)
        # The guard moves u_k along v_k until 1 + v_k.u_k is softplus(raw); start where it lands on the wanted value.
        shift = torch.log(torch.expm1(torch.tensor(1 - 1e-3, dtype=torch.float64)))
        raw = torch.log(torch.expm1(diagonal - 1e-3)) - shift
        push = (raw - (right * left.mT).sum(-1)) / right.square().sum(-1)
        transform.left.copy_(left.mT + push[:, None] * right)
    dense = torch.eye(7, dtype=torch.float64) + outer @ right
    x = check.normal(6, 7)
    torch.testing.assert_close(transform.encode(x).z, x @ dense.mT)
    torch.testing.assert_close(transform.encode(x).contribution, torch.linalg.slogdet(dense).logabsdet.expand(6))
    torch.testing.assert_close(transform.decode(x), torch.linalg.solve(dense, x.mT).mT)


def test_it_stays_invertible_whatever_the_weights(check):
    transform = WoodburyLinear(3, rank=2).double()
    with torch.no_grad():
        transform.left.copy_(-1e3 * transform.right)  # I + U V^T would have the determinant of a large negative number
    assert (transform._factors(torch.ones(3).double())[3] >= 1e-3).all()
    x = check.normal(5, 3)
    step = transform.encode(x)
    assert torch.isfinite(step.contribution).all()
    torch.testing.assert_close(transform.decode(step.z), x, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        transform.right.zero_()
    torch.testing.assert_close(transform.encode(x).z, x)


def test_impossible_arguments_are_refused():
    for rank in (0, 4):
        with pytest.raises(ConfigError, match="rank"):
            WoodburyLinear(3, rank=rank)
