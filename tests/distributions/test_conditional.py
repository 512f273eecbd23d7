import numpy as np
import torch
from scipy import stats
from torch import Size

from pushforward.distributions import ConditionalNormal


def rough() -> ConditionalNormal:
    torch.manual_seed(2)
    base = ConditionalNormal(2, context=3, hidden=(16,)).double()
    with torch.no_grad():
        for weight in base.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return base


def moments(base: ConditionalNormal, context: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale at a context, read from the density: its gradient is 0 at the mean, its curvature -1/scale^2."""
    z = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(base.log_prob(z, context), z, create_graph=True)
    curvature = torch.stack([torch.autograd.grad(slope[i], z, retain_graph=True)[0][i] for i in range(2)])
    scale = (-curvature) ** -0.5
    return (slope * scale**2).detach().numpy(), scale.numpy()


def test_the_start_is_near_standard_normal_for_any_context():
    torch.manual_seed(0)
    base = ConditionalNormal(3, context=2)
    z = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    context = 3 * torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
    difference = base.log_prob(z, context) - torch.from_numpy(stats.norm.logpdf(z.numpy()).sum(-1))
    assert difference.abs().mean() < 0.05


def test_density_is_normal_at_each_context():
    base = rough()
    context = torch.randn(4, 3, dtype=torch.float64)
    z = torch.randn(4, 2, dtype=torch.float64)
    for k in range(4):
        mean, scale = moments(base, context[k])
        expected = stats.norm(mean, scale).logpdf(z[k].numpy()).sum()
        np.testing.assert_allclose(base.log_prob(z[k], context[k]).item(), expected, rtol=1e-10)


def test_contexts_differ():
    base = rough()
    near, far = (moments(base, torch.full((3,), c).double()) for c in (-1.0, 1.0))
    assert abs(near[0] - far[0]).max() > 0.05
    assert abs(near[1] - far[1]).max() > 0.01


def test_mass(mass):
    base, context = rough(), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    assert abs(mass(lambda z: base.log_prob(z, context), -30, 30, 2, 1200) - 1) < 1e-6


def test_samples_follow_the_density(assert_follows, generator):
    base, context = rough(), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    z = base.sample(Size((4000,)), context, generator=generator)
    mean, scale = moments(base, context)
    for i in range(2):
        assert_follows(z[:, i], stats.norm(mean[i], scale[i]).cdf)


def test_extreme_contexts_stay_finite():
    base = rough().float()
    context = torch.tensor([[1e20, -1e20, 0.0], [1e30, 3e38, -1e6]], requires_grad=True)
    value = base.log_prob(torch.zeros(2, 2), context)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(torch.autograd.grad(value.sum(), context)[0]).all())
