"""Shifts modulo K: against plain integer arithmetic, a permutation of all states, gradients of the right sign."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Counting, Lebesgue
from pushforward.transforms import Chain, Integers, ModuloAutoregressive, ModuloCoupling, OneHot
from pushforward.transforms.discrete.modulo import rotate


def states(features: int, categories: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(categories), repeat=features)), dtype=torch.float64)


MAKE = {
    "autoregressive": lambda d, k: ModuloAutoregressive(d, k, hidden=(16,)),
    "reverse": lambda d, k: ModuloAutoregressive(d, k, order="reverse", hidden=(16,)),
    "bipartite": lambda d, k: ModuloCoupling(d, k, hidden=(16,)),
    "bipartite, flipped": lambda d, k: ModuloCoupling(d, k, flip=True, hidden=(16,)),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize(("features", "categories"), [(1, 5), (2, 2), (3, 4)])
def test_it_permutes_all_states(make, features, categories, check):
    torch.manual_seed(0)
    chain = check.perturb(Chain(OneHot(features, categories), make(features, categories)), size=1.0).double()
    x = states(features, categories)
    step = chain.encode(x)
    assert torch.equal(step.contribution, torch.zeros(len(x), dtype=torch.float64))
    assert torch.equal(chain.decode(step.z), x)
    seen = {tuple(row) for row in step.z.argmax(-1).tolist()}
    assert len(seen) == categories**features
    if features > 1:  # a free shift of one column may be 0
        assert not torch.equal(step.z.argmax(-1).double(), x)
    # Any batch gives the same.
    assert torch.equal(chain.encode(x[3:4]).z, step.z[3:4])


@pytest.mark.parametrize("categories", [2, 3, 7])
def test_rotation_is_addition_modulo_k(categories):
    one = torch.eye(categories)
    for x, m in itertools.product(range(categories), repeat=2):
        assert rotate(one[x], one[m]).argmax().item() == (x + m) % categories
        assert rotate(one[x], one[m], backward=True).argmax().item() == (x - m) % categories


def test_each_shift_depends_on_the_coordinates_before_it(check):
    torch.manual_seed(0)
    transform = check.perturb(ModuloAutoregressive(4, 3, hidden=(32,)), size=1.0)
    x = torch.eye(3)[torch.randint(3, (300, 4))]
    z = transform.encode(x).z
    other = x.clone()
    other[:, 2] = other[:, 2].roll(1, -1)
    moved = (transform.encode(other).z != z).any(-1)
    assert not moved[:, :2].any()
    assert moved[:, 2].all()
    assert moved[:, 3].any()


def test_the_straight_through_gradient_descends(check):
    """One column that must be shifted by 2: following the gradient of the log-probability of 0 finds it."""
    transform = ModuloCoupling(1, 5)
    x = torch.eye(5)[torch.full((8, 1), 2)]
    weights = torch.tensor([5.0, 1.0, 1.0, 1.0, 1.0])
    optimizer = torch.optim.SGD(transform.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        (-(transform.encode(x).z * weights).sum()).backward()
        optimizer.step()
    assert (transform.encode(x).z.argmax(-1) == 0).all()


def test_values_that_are_not_categories_are_impossible():
    step = OneHot(2, 3).encode(torch.tensor([[0.0, 2.0], [0.5, 1.0], [3.0, 0.0], [-1.0, 0.0], [1e20, -1e20]]))
    assert step.contribution[0] == 0
    assert torch.isneginf(step.contribution[1:]).all()
    assert torch.isfinite(step.z).all()


def test_measures_and_arguments():
    assert Chain(OneHot(2, 3), ModuloCoupling(2, 3)).measure(Counting(2)) == Counting(2)
    for transform in (OneHot(2, 3), ModuloCoupling(2, 3), ModuloAutoregressive(2, 3)):
        with pytest.raises(KindError, match="Lebesgue"):
            transform.measure(Lebesgue(2))
    for make in (
        lambda: OneHot(2, 1),
        lambda: ModuloAutoregressive(2, 3, order="odd"),
        lambda: ModuloCoupling(2, 3, temperature=0.0),
        lambda: ModuloCoupling(2, 0),
    ):
        with pytest.raises(ConfigError):
            make()


def test_integer_tensors_have_impossible_rows_too():
    x = torch.tensor([[9, 9], [1, 2]])
    for part in (Integers(2, levels=4), OneHot(2, categories=4)):
        assert part.encode(x).contribution.tolist() == [-math.inf, 0.0]


@pytest.mark.parametrize("make", [OneHot, ModuloAutoregressive, ModuloCoupling])
def test_the_shape_of_a_vector_is_a_width(make):
    assert make((3,), 4).in_shape == make(3, 4).in_shape
    assert make((3,), 4).out_shape == (3, 4)
