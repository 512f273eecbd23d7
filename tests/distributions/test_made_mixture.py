import numpy as np
import pytest
import torch
from scipy import stats
from torch import Size

from pushforward.distributions import MADEMixture
from pushforward.numerics import draw_category


def rough(features: int, context: int = 0, components: int = 3, spread: float = 0.2) -> MADEMixture:
    """A base in float64 whose weights are far from the start's."""
    torch.manual_seed(4)
    base = MADEMixture(features, components=components, hidden=(24, 24), context=context, activation="tanh").double()
    with torch.no_grad():
        for weight in base.parameters():
            weight.add_(spread * torch.randn_like(weight))
    return base


@pytest.mark.parametrize("features", [1, 2, 4])
@pytest.mark.parametrize("context", [0, 2])
def test_each_conditional_sees_the_coordinates_before_it_and_the_context(features, context):
    base = rough(features, context)
    z = torch.randn(features, dtype=torch.float64)
    given = torch.randn(context, dtype=torch.float64) if context else None
    parameters = torch.cat(base._mixture(z, given), -1)
    assert parameters.shape == (features, 9)
    jacobian = torch.autograd.functional.jacobian(lambda z: torch.cat(base._mixture(z, given), -1), z)
    seen = (jacobian != 0).any(1)
    assert torch.equal(seen, torch.ones(features, features).tril(-1).bool())
    if given is not None:
        jacobian = torch.autograd.functional.jacobian(lambda c: torch.cat(base._mixture(z, c), -1), given)
        assert bool((jacobian != 0).any(1).all())


def test_density_is_the_product_of_its_conditionals():
    base = rough(3)
    z = torch.randn(5, 3, dtype=torch.float64)
    weights, means, scales = (part.detach().numpy() for part in base._mixture(z, None))
    np.testing.assert_allclose(np.exp(weights).sum(-1), 1.0, rtol=1e-12)
    each = (np.exp(weights) * stats.norm.pdf(z.numpy()[..., None], means, np.exp(scales))).sum(-1)
    np.testing.assert_allclose(base.log_prob(z).detach(), np.log(each).sum(-1), rtol=1e-10)


@pytest.mark.parametrize("context", [0, 2])
def test_mass(mass, context):
    given = torch.tensor([0.7, -1.3], dtype=torch.float64) if context else None
    line, plane = rough(1, context), rough(2, context)
    assert abs(mass(lambda z: line.log_prob(z, given), -40, 40, 1, 40_000) - 1) < 1e-6
    assert abs(mass(lambda z: plane.log_prob(z, given), -20, 20, 2, 500) - 1) < 1e-6


@pytest.mark.parametrize("components", [1, 2, 10])
def test_the_start_is_near_a_standard_normal_with_distinct_components(components):
    torch.manual_seed(0)
    base = MADEMixture(2, components=components)
    z = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))
    difference = base.log_prob(z) - torch.from_numpy(stats.norm.logpdf(z.numpy()).sum(-1))
    assert difference.abs().mean() < 0.1
    means = base._mixture(torch.zeros(2), None)[1]
    assert all(len(set(row)) == components for row in means.tolist())


def test_samples_follow_the_density(assert_follows, numeric_cdf, generator):
    base = rough(2, spread=0.5)
    z = base.sample(Size((4000,)), generator=generator)

    def first(x):
        """Log-density of z_1: the joint without its second conditional, which integrates to 1."""
        weight, mean, scale = (part[:, 0] for part in base._mixture(x.expand(-1, 2), None))
        return torch.logsumexp(weight + torch.distributions.Normal(mean, scale.exp()).log_prob(x), -1)

    assert_follows(z[:, 0], numeric_cdf(first, -200, 200, 100_001))
    # Given z_1, the distribution function of z_2 at the draw is uniform (probability integral transform).
    weight, mean, scale = (part[:, 1] for part in base._mixture(z, None))
    u = (weight.exp() * torch.special.ndtr((z[:, 1:] - mean) / scale.exp())).sum(-1)
    below = z[:, 0] < z[:, 0].median()
    assert_follows(u[below], stats.uniform.cdf)
    assert_follows(u[~below], stats.uniform.cdf)


def test_the_context_moves_density_and_samples():
    base = rough(2, context=1)
    low, high = torch.full((1,), -2.0).double(), torch.full((1,), 2.0).double()
    z = torch.zeros(1, 2, dtype=torch.float64)
    assert abs((base.log_prob(z, low) - base.log_prob(z, high)).item()) > 1e-3
    draw = [base.sample(Size((500,)), c, generator=torch.Generator().manual_seed(0)).mean(0) for c in (low, high)]
    assert (draw[0] - draw[1]).abs().max() > 0.05
    # Rows of one batch follow their own contexts: the same seeds, the same draws.
    both = base.sample(Size((500, 2)), torch.stack([low, high]), generator=torch.Generator().manual_seed(0))
    assert (both[:, 0].mean(0) - draw[0]).abs().max() < 0.5
    assert (both[:, 1].mean(0) - draw[1]).abs().max() < 0.5


def test_it_learns_a_dependence_that_is_not_affine():
    generator = torch.Generator().manual_seed(0)
    z1 = torch.randn(1000, 1, generator=generator)
    side = torch.randint(0, 2, (1000, 1), generator=generator) * 2.0 - 1.0
    z = torch.cat([z1, side * (1 + z1.abs()) + 0.2 * torch.randn(1000, 1, generator=generator)], 1)
    torch.manual_seed(0)
    base = MADEMixture(2, components=4, hidden=(32, 32))
    optimizer = torch.optim.Adam(base.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        loss = -base.log_prob(z).mean()
        loss.backward()
        optimizer.step()
    # Entropy of the truth: a normal, a side, a normal of scale 0.2.
    entropy = 2 * 0.5 * np.log(2 * np.pi * np.e) + np.log(2) + np.log(0.2)
    assert loss.item() == pytest.approx(entropy, abs=0.15)


@pytest.mark.parametrize("features", [1, 4, 40])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("batch", [(6,), (2, 3), (), (0,)], ids=str)
def test_samples_are_those_of_a_whole_pass_for_each_coordinate(features, context, batch):
    base = rough(features, context)
    given = torch.randn(*batch, context, dtype=torch.float64) if context else None
    z = base.sample(Size(batch), given, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(*batch, features, generator=generator, dtype=torch.float64)
    expected = torch.zeros_like(noise)
    for i in range(features):
        weight, mean, scale = (part[..., i, :] for part in base._mixture(expected, given))
        index = draw_category(weight, generator).unsqueeze(-1)
        expected[..., i] = (mean.gather(-1, index) + scale.exp().gather(-1, index) * noise[..., i, None]).squeeze(-1)
    assert z.shape == (*batch, features)
    torch.testing.assert_close(z, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("context", [0, 2])
def test_float64_coordinates_pass_through_float32_weights(features, context):
    base = rough(features, context).float()
    z = torch.randn(6, features, dtype=torch.float64)
    given = torch.randn(6, context, dtype=torch.float64) if context else None
    found = base.log_prob(z, given)
    assert found.dtype is torch.float64
    assert base.sample(Size((6,)), given).dtype is torch.float32
    torch.testing.assert_close(found, base.double().log_prob(z, given), rtol=1e-4, atol=1e-4)
