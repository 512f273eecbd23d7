"""Local dimension of densities whose singular values are known."""

import math

import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.detection.scores import DualThreshold, LocalDimension, local_pca_dimension
from pushforward.errors import ConfigError, InputError, KindError

DRAW = torch.Generator().manual_seed(0)
SIGMA = torch.tensor([3.0, 1.0, 0.05, 0.01], dtype=torch.float64)


def thin() -> models.Model:
    """x = R diag(sigma) z, with a rotation R: singular values sigma, right singular vectors e_i."""
    rotate = transforms.Householder(4).double()
    scale = transforms.Affine(4, scale=tuple((1 / SIGMA).tolist()), trainable=True)
    return models.Flow(transforms.Chain(rotate, scale), distributions.Normal(4)).double()


def test_counts_of_known_singular_values():
    model = thin()
    for scale, count in ((5.0, 0), (2.0, 1), (0.1, 2), (0.02, 3), (0.001, 4)):
        values = LocalDimension(model, scale=scale).fit(model.sample(3, seed=0)).values(model.sample(5, seed=1))
        assert values.flatten().tolist() == [count] * 5


def test_smooth_is_the_derivative_of_the_convolved_density():
    """Of N(0, R diag(sigma^2) R^T) with N(0, s^2 I), which is again normal: d/d log s by autograd."""
    model = thin()
    x = model.sample(4, seed=0)
    rotation = next(iter(model.chain)).encode(torch.eye(4).double()).z.mT.detach()  # y = Q x
    log_s = torch.tensor(math.log(0.04), dtype=torch.float64, requires_grad=True)
    covariance = rotation.mT @ torch.diag(SIGMA**2) @ rotation + (2 * log_s).exp() * torch.eye(4).double()
    law = torch.distributions.MultivariateNormal(torch.zeros(4).double(), covariance)
    expected = [4 + torch.autograd.grad(law.log_prob(row), log_s, retain_graph=True)[0] for row in x]
    found = LocalDimension(model, scale=0.04, smooth=True).fit(x).values(x)[:, 0]
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_scale_is_found_by_local_pca():
    """Two wide directions among four: the local PCA sees two, and the scale lies between them and the thin ones."""
    model = thin()
    x = model.sample(400, seed=0)
    statistic = LocalDimension(model, neighbors=350, rows=50).fit(x)
    assert 0.05 < statistic.log_scale.exp() < 1.0
    assert statistic.values(x[:5]).flatten().tolist() == [2.0] * 5


def test_local_pca_on_a_plane_in_space():
    plane = torch.randn(300, 2, generator=DRAW) @ torch.randn(2, 10, generator=DRAW)
    assert local_pca_dimension(plane, neighbors=50, fraction=1e-6) == 2.0
    assert local_pca_dimension(torch.randn(500, 3, generator=DRAW), neighbors=400) == 3.0
    with pytest.raises(InputError, match="three rows"):
        local_pca_dimension(plane[:2])


def test_the_jacobian_of_a_bent_flow():
    """Where the slope of an elementwise transform falls, the generator stretches: sigma = 1 / slope."""
    model = models.NSF(3, layers=2, bins=4, hidden=(8,)).double().eval()
    x = torch.randn(2, 3, dtype=torch.float64, generator=DRAW)
    z = model.encode(x)
    found = LocalDimension(model, scale=1.0)._spectrum(x)[..., 0].exp()
    for row, sigma in zip(z, found, strict=True):
        generator = torch.autograd.functional.jacobian(lambda z: model.decode(z[None])[0], row)
        torch.testing.assert_close(sigma.flip(0), torch.linalg.svdvals(generator).detach())


def test_dual_threshold_by_hand():
    flow = models.Flow(transforms.Affine(2, trainable=True), distributions.Normal(2)).double()
    reference = torch.randn(50, 2, dtype=torch.float64, generator=DRAW)
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 4.0]], dtype=torch.float64)
    score = DualThreshold(flow, scale=0.5).fit(reference)  # the dimension is 2 everywhere: p_2 = 1
    expected = [-math.log((1 + (reference.norm(dim=1) >= row.norm()).sum().item()) / 51) for row in x]
    torch.testing.assert_close(score(x), torch.tensor(expected, dtype=torch.float64))


def test_few_dimensions_alarm_at_an_ordinary_likelihood():
    """A reference of rows with a wide direction; rows with none are not unlikely, and only that gives them away."""
    torch.manual_seed(0)
    flow = models.Flow(transforms.Monotone(2, transforms.SplineTransformer(8, 3.0)), distributions.Normal(2)).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64))
    x = flow.sample(300, seed=1)
    dimension = LocalDimension(flow, scale=0.2).fit(x).values(x)[:, 0]
    wide, thin = x[dimension > 0], x[dimension == 0]
    assert len(thin) > 0
    assert flow.log_prob(thin).min() > flow.log_prob(wide).quantile(0.2)
    score = DualThreshold(flow, scale=0.2).fit(wide)
    top = math.log(len(wide) + 1)
    torch.testing.assert_close(score(thin), torch.full((len(thin),), top, dtype=torch.float64))
    assert (score(wide) < top).all()


def test_models_without_a_square_jacobian_are_refused():
    with pytest.raises(KindError, match="bijection"):
        LocalDimension(models.VAE(3, latent=1, hidden=(8,)))
    with pytest.raises(ConfigError, match="standard normal"):
        LocalDimension(models.NICE(2), smooth=True)
    with pytest.raises(ConfigError, match="scale"):
        LocalDimension(models.NICE(2), scale=0.0)
