"""ActNorm and BatchNorm: the start from data, whole-set statistics, gradients through the batch."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.transforms import ActNorm, Affine, BatchNorm, Chain, Standardize

SPREAD = torch.tensor([0.1, 1.0, 50.0], dtype=torch.float64)


@pytest.mark.parametrize("kind", [ActNorm, BatchNorm])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3, 4)])
def test_contract(kind, shape, check):
    transform = check.perturb(kind(shape)).double().eval()
    transform.initialize(3 + 2 * check.normal(100, *shape))
    check.perturb(transform, seed=1)
    for spread in (1.0, 5.0, 1e3):
        check.round_trip(transform, check.normal(20, *shape, spread=spread), 1e-10)
    check.contribution(transform, check.normal(4, *shape))
    check.decode_contribution(transform, check.normal(4, *shape))
    check.shapes(transform.float())
    check.extremes(transform)
    check.compiles(transform, check.normal(4, *shape, dtype=torch.float32))
    x = check.normal(4, *shape, dtype=torch.float32)
    z, terms = transform.encode_terms(x)
    torch.testing.assert_close(terms.flatten(1).sum(1), transform.encode(x).contribution)
    torch.testing.assert_close(z, transform.encode(x).z)


def test_actnorm_start(check):
    transform = ActNorm(3).double()
    x = check.normal(1000, 3) * SPREAD + 7
    torch.testing.assert_close(transform.encode(x).z, x)
    z = transform.initialize(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3, dtype=torch.float64))
    before = transform.log_scale.clone()
    transform.initialize(100 * x)
    assert torch.equal(transform.log_scale, before)
    assert transform.state_dict()["initialized"]
    assert transform.log_scale.requires_grad
    with pytest.raises(InputError):
        ActNorm(3).initialize(x[:0])


def test_actnorm_of_images_is_per_channel(check):
    transform = ActNorm((2, 3, 4)).double()
    x = check.normal(50, 2, 3, 4) * torch.tensor([1.0, 9.0], dtype=torch.float64).reshape(2, 1, 1)
    z = transform.initialize(x)
    assert transform.log_scale.shape == (2, 1, 1)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2, dtype=torch.float64))


def test_actnorm_of_a_constant_column():
    transform = ActNorm(2)
    z = transform.initialize(torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]]))
    assert transform.log_scale[0] == 0
    torch.testing.assert_close(z[:, 0], torch.zeros(3))


def test_batch_norm_training_mode_is_the_batch(check):
    transform = check.perturb(BatchNorm(3)).double()
    x = check.normal(64, 3) * SPREAD + 5
    step = transform.encode(x)
    expected = torch.nn.functional.batch_norm(
        x, None, None, transform.log_gamma.exp(), transform.beta, training=True, eps=1e-5
    )
    torch.testing.assert_close(step.z, expected)
    slope = transform.log_gamma - 0.5 * (x.var(0, correction=0) + 1e-5).log()
    torch.testing.assert_close(step.contribution, slope.sum().expand(64))
    assert torch.equal(transform.mean, torch.zeros(3, dtype=torch.float64)), "training must not touch the buffers"


def test_batch_norm_gradient_goes_through_the_statistics(check):
    transform = BatchNorm(2).double()
    x = check.normal(6, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transform.encode(x)[:2], (x,))


def test_batch_norm_evaluation_uses_the_whole_training_set(check):
    transform = BatchNorm(3).double()
    x = check.normal(1000, 3) * SPREAD + 5
    assert transform.needs_refresh
    torch.testing.assert_close(transform.eval().encode(x).z, x / (1 + 1e-5) ** 0.5)
    transform.refresh(x)
    torch.testing.assert_close(transform.mean, x.mean(0))
    torch.testing.assert_close(transform.var, x.var(0, correction=0))
    z, contribution = transform(x)
    whole, again = transform.train()(x)
    torch.testing.assert_close(z, whole)
    torch.testing.assert_close(contribution, again)
    transform.eval()
    torch.testing.assert_close(transform.encode(x[:1]).z, z[:1]), "a row does not depend on its neighbors"


def test_batch_norm_refresh_follows_the_weights_before_it(check):
    affine = Affine(2, trainable=True)
    chain = Chain(affine, BatchNorm(2)).double().eval()
    assert chain.needs_refresh
    x = check.normal(200, 2)
    chain.refresh(x)
    with torch.no_grad():
        affine.log_factor.add_(1.0)
    assert chain.encode(x).z.std() > 2
    chain.refresh(x)
    torch.testing.assert_close(
        chain.encode(x).z.std(0, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("batch", [(1,), (), (0,)])
def test_batch_norm_of_one_row_uses_the_buffers(batch, check):
    transform = BatchNorm(2)
    transform.refresh(check.normal(50, 2, dtype=torch.float32))
    x = torch.ones(*batch, 2)
    torch.testing.assert_close(transform.train().encode(x).z, transform.eval().encode(x).z)


def test_batch_norm_of_a_constant_column_agrees_in_both_modes():
    transform = BatchNorm(1)
    x = torch.full((10, 1), 0.1)
    train = transform.train().encode(x).contribution
    transform.refresh(x)
    torch.testing.assert_close(transform.eval().encode(x).contribution, train, atol=1e-5, rtol=1e-5)


def test_batch_norm_training_mode_with_a_far_row_is_finite():
    transform = BatchNorm(1)
    x = torch.tensor([[0.0], [1.0], [1e20]], requires_grad=True)
    step = transform.encode(x)
    (gradient,) = torch.autograd.grad(step.z.sum() + step.contribution.sum(), x)
    for tensor in (*step[:2], gradient):
        assert torch.isfinite(tensor).all()


def test_batch_norm_refusals():
    with pytest.raises(ConfigError):
        BatchNorm(2, eps=0.0)
    with pytest.raises(InputError):
        BatchNorm(2).refresh(torch.zeros(0, 2))


def test_variation_below_the_numbers_of_float32_gives_a_warning():
    """Such a column had become constant in silence, and samples had deviation 1."""
    x = torch.randn(100, 2, dtype=torch.float64) * torch.tensor([1.0, 1e-42], dtype=torch.float64)
    with pytest.warns(PushforwardWarning, match="1 of 2 coordinates vary by less than the smallest number of float32"):
        Standardize(2).double().initialize(x)
