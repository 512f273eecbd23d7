"""Permutation and Reverse."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import Permutation, Reverse


@pytest.mark.parametrize(
    "transform", [Permutation(4, seed=1), Permutation(1), Permutation((2, 3)), Reverse(4), Reverse((2, 3))]
)
def test_is_a_volume_preserving_bijection(transform, check):
    x = check.normal(6, *transform.in_shape)
    check.round_trip(transform, x, 0.0)
    check.contribution(transform, x, 0.0)
    check.shapes(transform)
    check.extremes(transform)
    check.compiles(transform, x)
    assert transform.domain is None
    assert transform.codomain is None


def test_order_lists_the_source_of_each_coordinate():
    x = torch.tensor([[10.0, 11.0, 12.0, 13.0]])
    assert Permutation(4, order=(3, 1, 0, 2)).encode(x).z.tolist() == [[13.0, 11.0, 10.0, 12.0]]
    assert Reverse(4).encode(x).z.tolist() == [[13.0, 12.0, 11.0, 10.0]]


def test_seed_decides_and_state_dict_keeps():
    assert torch.equal(Permutation(50, seed=3).permutation, Permutation(50, seed=3).permutation)
    assert not torch.equal(Permutation(50, seed=3).permutation, Permutation(50, seed=4).permutation)
    other = Permutation(50, seed=4)
    other.load_state_dict(Permutation(50, seed=3).state_dict())
    x = torch.arange(50.0)
    assert torch.equal(other.encode(x).z, Permutation(50, seed=3).encode(x).z)


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3)])
def test_invalid_permutations_are_refused(order):
    with pytest.raises(ConfigError, match="order"):
        Permutation(3, order=order)
    with pytest.raises(ConfigError):
        Permutation(())
