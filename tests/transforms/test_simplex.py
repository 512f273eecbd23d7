"""Proportions by stick breaking: rounding does not leave the simplex."""

import pytest
import torch

from pushforward.distributions import Normal
from pushforward.models import Flow
from pushforward.transforms import Affine, Chain, StickBreaking


@pytest.mark.parametrize(("features", "scale"), [(5, 0.3), (5, 0.1), (1, 0.2), (50, 1.0)])
def test_samples_of_a_model_are_possible(features, scale):
    model = Flow(Chain(StickBreaking(features), Affine(features, scale=scale)), Normal(features))
    drawn = model.sample((5000,), seed=0)
    assert (drawn > 0).all()
    assert (drawn.sum(-1) < 1).all()
    assert model.log_prob(drawn).isfinite().all()


@pytest.mark.parametrize("far", [-1e6, -200.0, 200.0, 1e6])
def test_far_latents_stay_inside_and_have_finite_gradients(far):
    z = torch.full((3, 4), far, requires_grad=True)
    x, contribution = StickBreaking(4).decode_with_contribution(z)
    assert (x > 0).all()
    assert (x.sum(-1) < 1).all()
    (x.sum() + contribution.sum()).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
