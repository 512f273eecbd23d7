import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, constraints

from pushforward import distributions, transforms
from pushforward.errors import InputError, KindError, PushforwardError
from pushforward.models import NSF, Flow
from pushforward.models.torch_distribution import ModelDistribution
from pushforward.transforms.base import Step, Transform


class Shift(Transform):
    """x = scale z + W c: a normal base gives a normal of known mean, for every context."""

    def __init__(self, features: int, context: int = 0, scale: float = 2.0) -> None:
        super().__init__(features)
        self.context, self.scale = context, scale
        self.weight = torch.nn.Parameter(torch.arange(1.0, features * context + 1).reshape(features, context))

    def shift(self, context: Tensor | None) -> Tensor:
        return torch.zeros(()) if context is None else context @ self.weight.T

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise=None) -> Step:
        contribution = self.zero_log_det(x) - self.in_shape[0] * math.log(self.scale)
        return Step((x - self.shift(context)) / self.scale, contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise=None) -> Tensor:
        return z * self.scale + self.shift(context)


CONTEXT = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [0.0, 0.5, 0.0], [2.0, -1.0, 0.0], [0.0, 0.0, 0.3]])


def conditional() -> Flow:
    return Flow(Shift(2, context=3), distributions.Normal(2))


def means(context: Tensor = CONTEXT) -> np.ndarray:
    return context.numpy() @ np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).T


def plain() -> Flow:
    return Flow(Shift(2), distributions.Normal(2))


def test_shapes():
    distribution = conditional().distribution(CONTEXT)
    assert isinstance(distribution, ModelDistribution)
    assert (distribution.batch_shape, distribution.event_shape) == ((5,), (2,))
    assert distribution.sample().shape == (5, 2)
    assert distribution.sample((4, 3)).shape == (4, 3, 5, 2)
    assert distribution.rsample((4,)).shape == (4, 5, 2)
    assert distribution.log_prob(torch.zeros(4, 3, 5, 2)).shape == (4, 3, 5)
    assert distribution.log_prob(torch.zeros(2)).shape == (5,)
    assert distribution.log_prob(torch.zeros(4, 1, 2)).shape == (4, 5)
    distribution = plain().distribution()
    assert (distribution.batch_shape, distribution.event_shape) == ((), (2,))
    assert distribution.sample((7,)).shape == (7, 2)
    assert distribution.log_prob(torch.zeros(7, 2)).shape == (7,)
    assert "Flow, batch_shape=(), event_shape=(2,)" in repr(distribution)


def test_log_prob_against_scipy():
    x = torch.randn(7, 5, 2, generator=torch.Generator().manual_seed(0))
    expected = stats.norm(means(), 2.0).logpdf(x.numpy()).sum(-1)
    np.testing.assert_allclose(conditional().distribution(CONTEXT).log_prob(x).detach(), expected, rtol=1e-5)


def test_samples_follow_the_density_of_each_context():
    torch.manual_seed(3)
    x = conditional().distribution(CONTEXT).sample((2000,)).numpy()
    for k in range(5):
        for i in range(2):
            assert stats.kstest(x[:, k, i], stats.norm(means()[k, i], 2.0).cdf).pvalue > 1e-3


def test_samples_follow_the_global_seed():
    distribution = conditional().distribution(CONTEXT)
    torch.manual_seed(3)
    first = distribution.sample((2,))
    assert not torch.equal(first, distribution.sample((2,)))
    torch.manual_seed(3)
    assert torch.equal(first, distribution.sample((2,)))


def test_rsample_carries_gradients_to_weights_and_context():
    model, context = conditional(), CONTEXT.clone().requires_grad_()
    distribution = model.distribution(context)
    weight, given = torch.autograd.grad(distribution.rsample((6,)).sum(), [model.chain.transforms[0].weight, context])
    # x = 2 z + W c, so the sum over 6 draws has derivative 6 sum_k c_k in each row of W, and 6 sum_i W_i in each c.
    torch.testing.assert_close(weight, 6 * CONTEXT.sum(0).expand(2, 3))
    torch.testing.assert_close(given, 6 * torch.tensor([5.0, 7.0, 9.0]).expand(5, 3))
    assert distribution.has_rsample
    assert not distribution.sample((6,)).requires_grad


def test_rsample_is_refused_if_the_base_is_discrete():
    distribution = Flow(Shift(2), distributions.GaussianMixture(2)).distribution()
    assert not distribution.has_rsample
    assert distribution.sample((3,)).shape == (3, 2)
    with pytest.raises(KindError, match=r"GaussianMixture carry no gradient: call sample\(\)"):
        distribution.rsample((3,))


def test_log_prob_has_the_errors_of_the_model():
    distribution = Flow(transforms.UniformDequantize(2, 4), distributions.Uniform(2)).distribution()
    assert distribution.sample((3,)).shape == (3, 2)
    with pytest.raises(KindError, match="evaluate"):
        distribution.log_prob(torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("model", "inside", "outside"),
    [
        (lambda: Flow(Shift(2), distributions.Normal(2)), [-5.0, 5.0], None),
        (lambda: Flow(transforms.Logit(2), distributions.Normal(2)), [0.2, 0.8], [0.2, 1.5]),
        (lambda: Flow(transforms.Inverse(transforms.Exp(2)), distributions.Normal(2)), [0.2, 8.0], [-0.2, 8.0]),
        (lambda: Flow(transforms.Reverse(2), distributions.VonMises(2)), [0.2, -3.0], [0.2, 3.5]),
        (
            lambda: Flow(transforms.Bounds(2, (None, None), (1.0, None)), distributions.Normal(2)),
            [1.0, 8.0],
            [1.1, 0.0],
        ),
        (lambda: Flow(transforms.Bounds(2, (None, None), (1.0, 1.0)), distributions.Normal(2)), [1.0, 1.0], [1.1, 0.0]),
    ],
)
def test_support(model, inside, outside):
    distribution = ModelDistribution(model(), validate_args=True)
    assert isinstance(distribution.support, constraints.Constraint)
    assert distribution.support.event_dim == 1
    assert bool(distribution.support.check(torch.tensor(inside)))
    assert bool(torch.isfinite(distribution.log_prob(torch.tensor(inside))))
    assert bool(distribution.support.check(distribution.sample((50,))).all())
    if outside is not None:
        assert not bool(distribution.support.check(torch.tensor(outside)))
        with pytest.raises(InputError, match="outside"):
            distribution.log_prob(torch.tensor(outside))
        assert ModelDistribution(model(), validate_args=False).log_prob(torch.tensor(outside)) == -math.inf


def test_supports_are_torch_constraints_that_map_to_the_reals():
    distribution = Flow(transforms.Logit(2), distributions.Normal(2)).distribution()
    x = torch.distributions.biject_to(distribution.support)(torch.tensor([-1.0, 2.0]))
    assert bool(distribution.support.check(x))
    assert distribution.support.base_constraint.upper_bound == 1.0


def test_an_end_of_a_half_line_is_inside_and_maps_to_the_reals():
    model = Flow(transforms.Bounds(2, (None, None), (1.0, 1.0)), distributions.Normal(2)).double()
    distribution, x = model.distribution(), torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    assert bool(distribution.support.check(x).all())
    assert torch.equal(distribution.log_prob(x), model.log_prob(x))
    for to in (torch.distributions.biject_to, torch.distributions.transform_to):
        assert bool((to(distribution.support)(torch.tensor([-1.0, 2.0])) < 1).all())


def test_angles_of_float32_are_inside():
    """pi in float32 is more than pi in float64."""
    angles = torch.tensor([[math.pi, -math.pi]]).double()
    for make in (
        lambda: Flow(transforms.Reverse(2), distributions.VonMises(2)),
        lambda: Flow(transforms.Reverse(2), distributions.Uniform(2, -math.pi, math.pi)),
        lambda: NSF(2, circular=True, layers=1, hidden=(8,)),
        lambda: NSF(2, circular=(1,), layers=1, hidden=(8,)),
        lambda: NSF(2, circular=True, layer="autoregressive", layers=1, hidden=(8,)),
    ):
        model = make().double().eval()
        found = model.log_prob(angles)
        torch.testing.assert_close(found, model.log_prob(angles.clamp(-math.pi, math.pi)), rtol=0, atol=1e-5)
        torch.testing.assert_close(model.distribution().log_prob(angles), found)
        outside = torch.tensor([[0.0, math.pi + 1e-6]], dtype=torch.float64)
        assert model.log_prob(outside) == -math.inf
    unit = Flow(transforms.Reverse(2), distributions.Uniform(2)).double()  # no other support is wider than it says
    assert unit.log_prob(torch.tensor([[0.5, 1 + 1e-9]], dtype=torch.float64)) == -math.inf


def test_expand():
    distribution = plain().distribution().expand((4, 3))
    assert distribution.batch_shape == (4, 3)
    draws = distribution.sample((6,))
    assert draws.shape == (6, 4, 3, 2)
    assert len(torch.unique(draws[..., 0])) == 72
    assert distribution.log_prob(draws).shape == (6, 4, 3)
    assert distribution.log_prob(torch.zeros(2)).shape == (4, 3)
    distribution = conditional().distribution(CONTEXT).expand((7, 5))
    assert distribution.rsample((2,)).shape == (2, 7, 5, 2)
    x = torch.randn(7, 5, 2)
    np.testing.assert_allclose(distribution.log_prob(x).detach(), stats.norm(means(), 2.0).logpdf(x).sum(-1), rtol=1e-5)
    with pytest.raises(InputError, match="does not expand"):
        distribution.expand((7, 6))


def test_independent_sums_over_the_batch():
    distribution = conditional().distribution(CONTEXT)
    whole = Independent(distribution, 1)
    x = torch.randn(4, 5, 2)
    assert (whole.batch_shape, whole.event_shape) == ((), (5, 2))
    torch.testing.assert_close(whole.log_prob(x), distribution.log_prob(x).sum(-1))
    assert whole.rsample((4,)).shape == (4, 5, 2)
    assert bool(whole.support.check(x).all())


def test_mixture_over_contexts():
    weights = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])
    mixture = MixtureSameFamily(Categorical(weights), conditional().distribution(CONTEXT))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    each = stats.norm(means(), 2.0).pdf(x.numpy()[:, None]).prod(-1)
    np.testing.assert_allclose(mixture.log_prob(x).detach(), np.log(each @ weights.double().numpy()), rtol=1e-5)
    torch.manual_seed(0)
    draws = mixture.sample((4000,))
    expected = weights.double().numpy() @ means()
    assert draws.shape == (4000, 2)
    np.testing.assert_allclose(draws.mean(0), expected, atol=5 * draws.std(0).max().item() / math.sqrt(4000))


def test_kl_by_monte_carlo():
    p = conditional().distribution(CONTEXT[1])
    q = plain().distribution()
    torch.manual_seed(0)
    x = p.rsample((20_000,))
    estimate = (p.log_prob(x) - q.log_prob(x)).mean()
    # Normals of one covariance 4 I whose means differ by m: KL = m.m / 8.
    expected = (means(CONTEXT[1]) ** 2).sum() / 8
    assert estimate.item() == pytest.approx(expected, abs=5 * math.sqrt(2 * expected / 20_000))
    estimate.backward()


def test_images():
    distribution = Flow(transforms.Sigmoid((1, 2, 3)), distributions.Uniform((1, 2, 3))).distribution()
    assert distribution.event_shape == (1, 2, 3)
    assert distribution.support.event_dim == 3
    x = distribution.sample((4,))
    assert x.shape == (4, 1, 2, 3)
    np.testing.assert_allclose(distribution.log_prob(x), stats.logistic.logpdf(x).sum((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda: conditional().distribution(), "needs a context"),
        (lambda: conditional().distribution(torch.zeros(5, 2)), "width 3"),
        (
            lambda: conditional().distribution(torch.full((5, 3), math.nan)).log_prob(torch.zeros(2)),
            "got NaN in its context",
        ),
        (lambda: plain().distribution().log_prob(torch.zeros(4, 3)), "shape"),
        (lambda: plain().distribution().log_prob(torch.full((4, 2), math.nan)), "NaN"),
        (lambda: conditional().distribution(CONTEXT).log_prob(torch.zeros(4, 2)), "do not broadcast"),
    ],
)
def test_errors_are_pushforward_errors_that_say_what_to_do(act, match):
    with pytest.raises(PushforwardError, match=match):
        act()


def test_infinitely_far():
    x = torch.tensor([[math.inf, 0.0], [0.0, 0.0]])
    value = plain().distribution().log_prob(x)
    assert value[0] == -math.inf
    assert value[1].item() == pytest.approx(-math.log(2 * math.pi) - 2 * math.log(2))
