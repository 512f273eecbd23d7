"""FactorOut: the order of the channels, one bijection in all, and the conditional prior as a coupling before it."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from pushforward import distributions, models
from pushforward.errors import ConfigError, KindError
from pushforward.transforms import Affine, BatchNorm, Chain, FactorOut, ImageCoupling, Logit, Squeeze, UniformDequantize


def nested() -> Chain:
    inner = Chain(ImageCoupling((4, 2, 1), hidden=(3,)), FactorOut((4, 2, 1), Affine((1, 2, 1), scale=3.0)))
    return Chain(Squeeze((2, 4, 2)), ImageCoupling((8, 2, 1), hidden=(3,)), FactorOut((8, 2, 1), inner))


@pytest.mark.parametrize("build", [nested, lambda: FactorOut((3, 1, 2))])
def test_is_a_bijection_with_inners_contribution(build, check):
    transform = check.perturb(build().double())
    x = check.normal(3, *transform.in_shape)
    check.round_trip(transform, x, 1e-12)
    check.contribution(transform, x)
    check.decode_contribution(transform, check.normal(3, *transform.out_shape))
    check.shapes(transform.float())


def test_the_first_channels_are_kept_and_come_first():
    x = torch.arange(1.0, 13.0).reshape(3, 2, 2)
    z = FactorOut((3, 2, 2), Affine((2, 2, 2), scale=10.0)).encode(x).z
    assert z.tolist() == [*(10.0 * k for k in range(1, 9)), 9.0, 10.0, 11.0, 12.0]


def test_a_coupling_before_it_is_the_learned_conditional_prior(check):
    """log N(b; mu(a), sigma(a)) + log N(a; 0, 1), from the raw outputs of the coupling's own network."""
    coupling = check.perturb(ImageCoupling((4, 2, 2), hidden=()).double(), size=0.3)
    model = models.Flow(Chain(coupling, FactorOut((4, 2, 2))), distributions.Normal(16)).double()
    x = check.normal(5, 4, 2, 2)
    a, b = x[:, :2], x[:, 2:]
    raw = coupling.network(a).reshape(5, 2, 2, 2, 2)
    log_scale = raw[:, 1] / (1 + raw[:, 1].abs() / 3.0)
    sigma = torch.exp(-log_scale)  # b exp(s) + t is standard normal
    prior = Normal(-raw[:, 0] * sigma, sigma)
    expected = prior.log_prob(b).sum((1, 2, 3)) + Normal(0.0, 1.0).log_prob(a).sum((1, 2, 3))
    torch.testing.assert_close(model.log_prob(x), expected, rtol=1e-12, atol=1e-12)


def test_state_and_context_reach_the_inner_transform(check):
    inner = Chain(BatchNorm((1, 2, 1)), ImageCoupling((1, 2, 1), mask="checkerboard", context=2, hidden=(3,)))
    transform = FactorOut((2, 2, 1), inner)
    assert transform.context == 2
    assert transform.needs_refresh
    check.perturb(transform)
    x = 5 + 3 * torch.randn(200, 2, 2, 1)
    for run in (transform.initialize, transform.refresh):
        z = run(x, torch.zeros(200, 2))
        assert z.shape == (200, 4)
    assert next(iter(inner)).mean.item() == pytest.approx(x[:, 0].double().mean().item(), rel=1e-6)
    assert not torch.equal(transform.encode(x, torch.zeros(200, 2)).z, transform.encode(x, torch.ones(200, 2)).z)
    assert not FactorOut((2, 2, 1)).needs_refresh


def test_arguments_that_do_not_fit_are_refused():
    for features, inner in [((1, 2, 2), None), ((2, 2, 2), Affine((2, 2, 2))), ((2, 2, 2), Affine((1, 2, 1)))]:
        with pytest.raises(ConfigError, match="must read some, but not all"):
            FactorOut(features, inner)
    with pytest.raises(KindError, match="not a bijection"):
        FactorOut((2, 2, 2), UniformDequantize((1, 2, 2)))
    with pytest.raises(ConfigError, match="all reals"):
        FactorOut((2, 2, 2), Logit((1, 2, 2)))
    with pytest.raises(ConfigError, match="inner must be a transform"):
        FactorOut((2, 2, 2), "flow")  # pyright: ignore[reportArgumentType]
