"""Distributions of absolute and of sorted values, against scipy."""

import math

import numpy as np
import scipy.stats
import torch
from torch import Size

from pushforward.distributions import HalfNormal, SortedNormal
from pushforward.likelihood import Support


def test_half_normal_is_scipys():
    base = HalfNormal(2).double()
    z = torch.tensor([[0.0, 0.5], [2.0, 1.0], [-0.1, 1.0]], dtype=torch.float64)
    expected = scipy.stats.halfnorm.logpdf(z.numpy()).sum(1)
    np.testing.assert_allclose(base.log_prob(z).numpy(), expected, rtol=1e-12)
    assert base.support == Support(0.0, math.inf)
    drawn = base.sample(Size((4000,)), generator=torch.Generator().manual_seed(0))
    for column in drawn.T:
        assert scipy.stats.kstest(column.numpy(), scipy.stats.halfnorm.cdf).pvalue > 1e-3


def test_sorted_normals_are_order_statistics():
    """The largest of D has the distribution function Phi^D; the density is D! times the product on the cone, else 0."""
    base = SortedNormal(3).double()
    drawn = base.sample(Size((4000,)), generator=torch.Generator().manual_seed(0))
    assert base.support.contains(drawn).all()
    assert scipy.stats.kstest(drawn[:, 2].numpy(), lambda t: scipy.stats.norm.cdf(t) ** 3).pvalue > 1e-3
    assert scipy.stats.kstest(drawn[:, 0].numpy(), lambda t: 1 - scipy.stats.norm.sf(t) ** 3).pvalue > 1e-3
    expected = scipy.stats.norm.logpdf(drawn.numpy()).sum(1) + math.log(6)
    np.testing.assert_allclose(base.log_prob(drawn).numpy(), expected, rtol=1e-12)
    assert (base.log_prob(drawn.flip(-1)) == -math.inf).all()
