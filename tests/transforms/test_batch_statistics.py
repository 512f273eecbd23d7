"""Batch normalization inside other parts: its statistics are those of the training rows, or it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.errors import KindError
from pushforward.likelihood import Kind
from pushforward.transforms import BatchNorm, Chain, Monotone


def norm_with_context(width: int, context: int) -> Chain:
    return Chain(BatchNorm(width), Monotone(width, context=context, hidden=(4,)))


def side_by_side() -> models.Model:
    blocks = transforms.Blocks(BatchNorm(1), BatchNorm(1))
    return models.Flow(Chain(blocks, transforms.Coupling(2, hidden=(8,))), distributions.Normal(2))


def prior() -> models.Model:
    return models.VAE(2, latent=2, hidden=(8,), prior=models.RealNVP(2, batch_norm=True, hidden=(8,)))


def base() -> models.Model:
    members = [models.RealNVP(2, batch_norm=True, hidden=(8,)) for _ in range(2)]
    return models.Flow(transforms.Standardize(2), models.Ensemble(*members))


def product() -> models.Model:
    flow = models.Ensemble(models.RealNVP(2, batch_norm=True, hidden=(8,)))
    return models.Flow(transforms.Affine(3), distributions.Product(distributions.Normal(1), flow))


@pytest.mark.parametrize("make", [side_by_side, prior, base, product], ids=lambda make: make.__name__)
def test_the_statistics_are_those_of_the_training_rows(make: Callable[[], models.Model]) -> None:
    torch.manual_seed(0)
    model = make()
    rows = 50 + 3 * torch.randn(600, *model.shape)
    assert model.needs_refresh
    pf.fit(model, rows, validation=None, max_steps=30, learning_rate=1e-2)
    norms = [part for part in model.modules() if isinstance(part, BatchNorm)]
    assert norms
    assert all((part.mean != 0).any() for part in norms)
    trained = model.train()(rows).mean().item()  # with the statistics of these rows
    assert model.eval()(rows).mean().item() == pytest.approx(trained, abs=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: transforms.Slice(3, keep=1, decoder=norm_with_context(2, 1)),
        lambda: transforms.Augment(2, extra=1, encoder=norm_with_context(1, 2)),
        lambda: transforms.Max(3, decoder=norm_with_context(2, 4)),
    ],
    ids=["slice", "augment", "max"],
)
def test_parts_that_get_no_rows_refuse_it(make: Callable[[], object]) -> None:
    with pytest.raises(KindError, match=r"cannot contain batch normalization.*use ActNorm instead"):
        make()


def test_blocks_initialize_their_parts() -> None:
    rows = 50 + 3 * torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    model = models.Flow(
        transforms.Blocks(transforms.Standardize(1), transforms.Standardize(1)), distributions.Normal(2)
    )
    model.initialize(rows)
    torch.testing.assert_close(model.encode(rows).mean(0), torch.zeros(2), atol=1e-4, rtol=0)


def test_an_inverse_has_one_density_in_training_and_evaluation() -> None:
    norm = BatchNorm(2)
    norm.refresh(torch.tensor([[1.0, 5.0], [3.0, 9.0]]))
    model = models.Flow(transforms.Inverse(norm), distributions.Normal(2))
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.train()(rows), model.eval()(rows))


@pytest.mark.parametrize("kind", ["layer", "network"])
def test_an_inverse_in_training_has_one_set_of_statistics_in_both_directions(kind: str) -> None:
    torch.manual_seed(0)
    rows = 3 + 2 * torch.randn(20, 2, 2, 2)
    if kind == "layer":
        inner: transforms.Transform = BatchNorm((2, 2, 2))
        inner.refresh(rows)
    else:
        inner = transforms.ImageCoupling((2, 2, 2), hidden=(4, 4), residual=True, normalize=True)
        for parameter in inner.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    inverse = transforms.Inverse(inner).train()
    step = inverse.encode(rows)
    torch.testing.assert_close(inverse.decode(step.z), rows, rtol=1e-4, atol=1e-4)
    back, contribution = inverse.decode_with_contribution(step.z)
    torch.testing.assert_close(back, rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(contribution, step.contribution)
    assert all(part.training for part in inner.modules())
    torch.testing.assert_close(inverse.eval().encode(rows).contribution, step.contribution)


def test_the_flow_of_an_autoencoder_is_inverted_in_training_too() -> None:
    torch.manual_seed(0)
    flow = Chain(BatchNorm(1), transforms.Affine(1, scale=2.0))
    transform = transforms.Autoencode(3, 1, flow, hidden=(4,)).train()
    rows = 3 + 2 * torch.randn(20, 3)
    torch.testing.assert_close(transform.decode(transform.encode(rows).z), rows, rtol=1e-4, atol=1e-4)


def test_blocks_and_inverses_have_the_kind_of_what_they_contain():
    residual = transforms.InvertibleResidual(2, hidden=(8,))
    model = models.Flow(transforms.Blocks(residual, transforms.Affine(1)), distributions.Normal(3))
    inverse = transforms.Inverse(residual)
    assert model.kind is inverse.kind is Kind.EXACT
    model.set_log_det("roulette")
    found = model.evaluate(torch.randn(4, 3))
    assert model.kind is found.kind is inverse.kind is Kind.UNBIASED
    assert found.stderr is not None
    assert not model.chain.bijective
    assert model.chain.invertible
