"""MAF: its parts in the order of the paper, its conditionals, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.distributions import MADEMixture
from pushforward.errors import ConfigError, KindError
from pushforward.models import MAF

from ..tools import jolted, parts


def test_parts_and_alternating_order():
    model = MAF(3, layers=3, hidden=(8,))
    assert parts(model) == ["Standardize", *["MaskedAutoregressive"] * 3]
    assert [part.autoregressive_order for part in list(model.chain)[1:]] == [(0, 1, 2), (2, 1, 0), (0, 1, 2)]


def test_with_two_layers_no_marginal_is_gaussian():
    """Under one layer z_0 depends on x_0 alone; the second, reversed, layer lifts that."""
    one, two = (jolted(MAF(3, layers=n, hidden=(32,), activation="tanh")) for n in (1, 2))
    x = torch.randn(3, dtype=torch.float64)
    assert (torch.func.jacrev(one.encode)(x)[0] != 0).tolist() == [True, False, False]
    assert (torch.func.jacrev(two.encode)(x)[0] != 0).all()


def test_mixture_base():
    model = MAF(3, layers=1, hidden=(8,), components=4)
    assert isinstance(model.base, MADEMixture)
    assert model.base.components == 4


def test_is_the_product_of_its_conditionals():
    """log p of one affine layer by hand: sum log N((x_i exp(s_i) + t_i); 0, 1) + s_i."""
    model = jolted(MAF(3, layers=1, hidden=(16,), standardize=False))
    x = torch.randn(5, 3, dtype=torch.float64)
    layer = next(iter(model.chain))
    t, raw = layer.network(x)
    s = raw / (1 + raw.abs() / 3)
    u = x * s.exp() + t
    expected = (-0.5 * u**2 - 0.5 * math.log(2 * math.pi) + s).sum(-1)
    torch.testing.assert_close(model.log_prob(x), expected)
    torch.testing.assert_close(model.conditional_log_prob(x), -0.5 * u**2 - 0.5 * math.log(2 * math.pi) + s)


def test_conditionals_need_one_order():
    with pytest.raises(KindError, match="order"):
        MAF(3, layers=2, hidden=(8,)).conditional_log_prob(torch.zeros(1, 3))


@pytest.mark.parametrize("options", [{"layers": 0}, {"components": -1}, {"components": 1.5}, {"layers": True}])
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        MAF(3, **options)


def test_conditionals_of_mixtures_add_up():
    model = MAF(3, layers=1, components=2, hidden=(8,))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    terms = model.conditional_log_prob(x)
    torch.testing.assert_close(terms.sum(-1), model.log_prob(x))
    changed = torch.cat((x[:, :2], x[:, 2:] + 1), 1)
    torch.testing.assert_close(model.conditional_log_prob(changed)[:, :2], terms[:, :2])
