import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from torch import Size

from pushforward.distributions import GaussianMixture

WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[-2.0, 1.0], [0.5, -1.0], [3.0, 2.0]])
SCALES = np.array([[0.5, 1.0], [1.5, 0.3], [0.8, 0.8]])


def known() -> GaussianMixture:
    """Set so that the bounded log-scales come out as SCALES."""
    base = GaussianMixture(2, components=3).double()
    bound = base.max_log_scale
    with torch.no_grad():
        base.logits.copy_(torch.from_numpy(np.log(WEIGHTS) + 1.7))
        base.loc.copy_(torch.from_numpy(MEANS))
        base.log_scale.copy_(torch.from_numpy(bound * np.arctanh(np.log(SCALES) / bound)))
    return base


def test_density_against_scipy():
    z = np.random.default_rng(0).normal(0, 3, (50, 2))
    each = stats.norm.logpdf(z[:, None, :], MEANS, SCALES).sum(-1) + np.log(WEIGHTS)
    np.testing.assert_allclose(known().log_prob(torch.from_numpy(z)).detach(), logsumexp(each, -1), rtol=1e-12)


def test_mass(mass):
    assert abs(mass(known().log_prob, -12, 12, 2, 600) - 1) < 1e-6
    assert abs(mass(GaussianMixture(1, components=5).double().log_prob, -12, 12, 1, 2000) - 1) < 1e-9


def test_samples_follow_the_density(assert_follows, generator):
    z = known().sample(Size((4000,)), generator=generator)
    for i in range(2):
        cdfs = [stats.norm(MEANS[c, i], SCALES[c, i]).cdf for c in range(3)]
        assert_follows(z[:, i], lambda x, cdfs=cdfs: sum(w * f(x) for w, f in zip(WEIGHTS, cdfs, strict=True)))
    # The coordinates of one draw come from one component.
    expected = (WEIGHTS[:, None] * MEANS).T @ MEANS - np.outer(WEIGHTS @ MEANS, WEIGHTS @ MEANS)
    assert np.cov(z.T.numpy())[0, 1] == pytest.approx(expected[0, 1], abs=0.15)


def test_the_seed_sets_the_first_means_alone():
    torch.manual_seed(0)
    first = GaussianMixture(2, seed=3)
    torch.manual_seed(1)
    assert torch.equal(first.loc, GaussianMixture(2, seed=3).loc)
    assert not torch.equal(first.loc, GaussianMixture(2, seed=4).loc)
    assert torch.equal(first.logits, torch.zeros(10))


def test_no_component_collapses_onto_a_row():
    base = GaussianMixture(1, components=2)
    with torch.no_grad():
        base.log_scale.fill_(-1e6)
        base.loc.zero_()
    assert base.log_prob(torch.zeros(1, 1)).item() == pytest.approx(7 - 0.5 * np.log(2 * np.pi), rel=1e-5)


def test_it_learns_two_clusters():
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(0, 2, (500, 1), generator=generator) * 2.0 - 1.0
    z = 4.0 * side + 0.5 * torch.randn(500, 2, generator=generator)
    base = GaussianMixture(2, components=4)
    optimizer = torch.optim.Adam(base.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -base.log_prob(z).mean()
        loss.backward()
        optimizer.step()
    # Entropy of the truth: log 2 for the side, and two normals of scale 0.5.
    entropy = np.log(2) + 2 * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.5))
    assert loss.item() == pytest.approx(entropy, abs=0.1)
