"""Sylvester flow: orthonormal frame, constraint, back-substitution."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import Inverse, Sylvester


@pytest.mark.parametrize(("width", "rank"), [(1, 1), (3, 1), (3, 3), (6, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_contract(width, rank, seed, check):
    transform = check.perturb(Sylvester(width, rank, seed=seed), seed=seed, size=1.0).double()
    for spread in (1.0, 5.0, 1e3):
        check.round_trip(transform, check.normal(50, width, spread=spread), 1e-10)
        check.round_trip(transform.float(), check.normal(50, width, spread=spread).float(), 2e-3)
        transform.double()
    check.contribution(transform, check.normal(5, width))
    check.contribution(Inverse(transform), check.normal(5, width))
    check.decode_gradients(transform, check.normal(2, width))
    check.extremes(transform)
    check.shapes(transform.float())


def test_compiles(check):
    check.compiles(Sylvester(3, 2), check.normal(4, 3, dtype=torch.float32))


def test_frame_is_orthonormal_and_factors_are_triangular(check):
    transform = check.perturb(Sylvester(7, 4), size=3.0).double()
    frame, outer, inner, slope = transform._factors(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(frame.T @ frame, torch.eye(4, dtype=torch.float64))
    assert torch.equal(outer, outer.triu())
    assert torch.equal(inner, inner.triu())
    torch.testing.assert_close(outer.diagonal() * inner.diagonal(), slope - 1)
    assert (slope >= 1e-3).all()


def test_stays_invertible_at_the_edge_of_the_constraint(check):
    transform = Sylvester(4, 3).double()
    with torch.no_grad():
        transform.raw_slope.fill_(-1e3)
        transform.raw_inner.fill_(3.0)
    assert torch.isfinite(transform.encode(torch.zeros(1, 4, dtype=torch.float64)).contribution).all()
    check.round_trip(transform, check.normal(200, 4), 1e-9)


def test_a_planar_flow_is_its_rank_one_case(check):
    transform = Sylvester(3, 1).double()
    x = check.normal(5, 3)
    frame, outer, inner, _ = transform._factors(x)
    w, u = inner[0, 0] * frame[:, 0], outer[0, 0] * frame[:, 0]
    torch.testing.assert_close(transform.encode(x).z, x + torch.tanh(x @ w + transform.bias).unsqueeze(-1) * u)


def test_autocast_does_not_lower_the_precision(check):
    transform = Sylvester(6, 3)
    x = check.normal(20, 6, dtype=torch.float32)
    plain = transform.encode(x).z
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(transform.encode(x).z, plain, atol=0, rtol=0)


def test_start_is_near_but_not_at_the_identity(check):
    x = check.normal(200, 4, dtype=torch.float32)
    change = (Sylvester(4, 3).encode(x).z - x).abs()
    assert 1e-3 < change.max() < 2.0


@pytest.mark.parametrize("rank", [0, 4, -1])
def test_refusals(rank):
    with pytest.raises(ConfigError, match="rank"):
        Sylvester(3, rank)
    with pytest.raises(ConfigError, match="vectors"):
        Sylvester((2, 2), 1)
