"""Two-step models against planes, curves and folds whose densities are known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

import pushforward as pf
from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind, Manifold


def identity(width: int) -> models.Flow:
    return models.Flow(transforms.Affine(width), distributions.Normal(width))


def plane(dims: int = 2, ambient: int = 4) -> tuple[models.TwoStep, torch.Tensor, torch.Tensor]:
    """A linear autoencoder whose encoder is the decoder's pseudo-inverse: x = A z + b."""
    torch.manual_seed(0)
    first = models.AutoEncoder(ambient, latent=dims, hidden=())
    model = models.TwoStep(first, identity(dims)).double()
    a = torch.randn(ambient, dims, dtype=torch.float64)
    b = torch.randn(ambient, dtype=torch.float64)
    encoder, decoder = first.chain.transforms[1].codec.encoder, first.chain.transforms[1].codec.decoder
    with torch.no_grad():
        decoder.last.weight.copy_(a)
        decoder.last.bias.copy_(b)
        encoder.last.weight.copy_(torch.linalg.pinv(a))
        encoder.last.bias.copy_(-torch.linalg.pinv(a) @ b)
    return model.eval(), a, b


@pytest.mark.parametrize(("dims", "ambient"), [(1, 4), (2, 4), (3, 3)])
def test_density_on_a_plane(dims, ambient):
    """x = A z + b with z normal: the density in coordinates of an orthonormal basis of the plane."""
    model, a, b = plane(dims, ambient)
    z = torch.randn(20, dims, dtype=torch.float64)
    x = z @ a.mT + b
    basis = torch.linalg.qr(a)[0]
    truth = MultivariateNormal(torch.zeros(dims, dtype=torch.float64), basis.mT @ a @ a.mT @ basis)
    found = model.evaluate(x)
    torch.testing.assert_close(found.value, truth.log_prob((x - b) @ basis))
    assert found.measure == Manifold(dims, ambient)
    assert found.residual is not None
    assert found.residual.max() < 1e-20
    torch.testing.assert_close(
        found.terms["0.Embed"] + found.terms["1.Whiten"] + sum(list(found.terms.values())[2:]), found.value
    )


def test_residual_is_the_squared_distance_to_the_plane():
    model, a, b = plane(2, 4)
    normal = torch.linalg.qr(torch.cat((a, torch.randn(4, 2, dtype=torch.float64)), 1))[0][:, 2]
    on = torch.randn(5, 2, dtype=torch.float64) @ a.mT + b
    distance = torch.arange(5, dtype=torch.float64)
    found, near = model.evaluate(on + distance[:, None] * normal), model.evaluate(on)
    assert found.residual is not None
    torch.testing.assert_close(found.residual, distance**2)
    torch.testing.assert_close(found.value, near.value)  # of the point that it decodes to


def test_whitening_and_scaling_do_not_change_the_density():
    """The log-determinants of both cancel what they do to the codes: the density is that of the data's own units."""
    model, a, b = plane(2, 4)
    x = torch.randn(50, 2, dtype=torch.float64) @ a.mT + b
    before = model.evaluate(x).value
    model.whiten.initialize(model.autoencoder.code(x) * 3 + 5)
    scale = model.whiten.scale.log().sum()
    codes = model.codes(x)
    found = model.evaluate(x)
    torch.testing.assert_close(found.terms["1.Whiten"], -scale.expand(50))
    expected = (
        before - Normal(0.0, 1.0).log_prob(model.autoencoder.code(x)).sum(-1) + Normal(0.0, 1.0).log_prob(codes).sum(-1)
    )
    torch.testing.assert_close(found.value, expected - scale)


def test_injectivity_must_be_tested_before_the_value_is_exact():
    model, a, b = plane()
    x = torch.randn(30, 2, dtype=torch.float64) @ a.mT + b
    assert model.kind is Kind.ESTIMATE
    found = model.check_injectivity(x)
    values = torch.linalg.svdvals(a)
    assert found.singular_ratio == pytest.approx((values[-1] / values[0]).item(), rel=1e-9)
    assert found.cycle_error < 1e-12
    assert found.passed
    assert model.kind is Kind.EXACT
    assert model.evaluate(x).kind is Kind.EXACT
    with pytest.raises(KindError, match="residual"):
        model.log_prob(x)
    assert not model.check_injectivity(x, min_singular_ratio=1.0).passed
    assert model.kind is Kind.ESTIMATE
    with pytest.raises(InputError, match="held-out"):
        model.check_injectivity(x[:0])


def test_many_rows_are_processed_in_parts():
    model, a, b = plane()
    x = torch.randn(3, 200, 2, dtype=torch.float64) @ a.mT + b
    found, parts = model.evaluate(x), [model.evaluate(part) for part in x]
    torch.testing.assert_close(found.value, torch.stack([part.value for part in parts]))
    assert found.residual is not None
    assert found.residual.shape == (3, 200)


def test_a_bound_of_the_density_stays_a_bound():
    torch.manual_seed(0)
    first = models.AutoEncoder(3, latent=2, hidden=())
    model = models.TwoStep(first, models.VAE(2, latent=1, hidden=(8,), decoder="gaussian"))
    model.embed.injective.fill_(True)
    assert model.kind is Kind.LOWER_BOUND


class Fold(nn.Module):
    """(abs z - 1, 0): z and -z decode to one point."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat((z.abs() - 1, 0 * z), -1)


class Flat(nn.Module):
    """A decoder of two codes that reads the first alone, or the second as a copy of it."""

    def __init__(self, copy: bool) -> None:
        super().__init__()
        self.copy = copy

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        seen = z.sum(-1, keepdim=True) if self.copy else z[..., :1]
        return torch.cat((seen, seen.sin(), seen.cos()), -1)


def test_a_decoder_that_folds_does_not_pass():
    torch.manual_seed(0)
    model = models.TwoStep(models.AutoEncoder(2, latent=1, hidden=()), identity(1)).double().eval()
    codec = model.autoencoder.chain.transforms[1].codec
    codec.decoder = Fold()
    with torch.no_grad():
        codec.encoder.last.weight.copy_(torch.tensor([[1.0, 0.0]]))  # right on one side of the fold
        codec.encoder.last.bias.fill_(1.0)
    for refine in (0, 5, 50):  # no number of steps finds both codes of one point
        found = model.check_injectivity(
            torch.tensor([[0.5, 0.0], [2.0, 0.0]], dtype=torch.float64), refinement_steps=refine
        )
        assert found.singular_ratio == 1.0  # no local sign of it: one column
        assert found.cycle_error > 1
        assert not found.passed


class Bend(nn.Module):
    """(z_1, z_2, sin z_1 + z_2^2 / 4): a surface over the plane."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        a, b = z.unbind(-1)
        return torch.stack((a, b, a.sin() + b.square() / 4), -1)


def bent(miss: float = 0.0) -> models.TwoStep:
    """A model on that surface, whose encoder reads (1 - miss) times the codes."""
    torch.manual_seed(0)
    model = models.TwoStep(models.AutoEncoder(3, latent=2, hidden=()), identity(2)).double().eval()
    codec = model.autoencoder.chain.transforms[1].codec
    codec.decoder = Bend()
    with torch.no_grad():
        codec.encoder.last.weight.copy_((1 - miss) * torch.eye(2, 3, dtype=torch.float64))
        codec.encoder.last.bias.zero_()
    return model


def test_mass_on_a_surface_is_one():
    """exp(value) dA, where dA = sqrt(1 + cos^2 z_1 + z_2^2 / 4) dz is the surface's own area, by the midpoint rule."""
    line = torch.linspace(-8, 8, 401, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    area = (1 + z[:, 0].cos().square() + z[:, 1].square() / 4).sqrt()
    found = bent().evaluate(Bend()(z))
    assert found.residual is not None
    assert found.residual.max() == 0
    assert (found.value.exp() * area).sum().item() * 0.04**2 == pytest.approx(1.0, abs=1e-8)


def test_an_approximate_encoder_does_not_fail_an_injective_decoder():
    """The test is of the decoder: Gauss-Newton steps find the code where the encoder misses it."""
    model = bent(miss=0.4)
    x = Bend()(2 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    alone, found = model.check_injectivity(x, refinement_steps=0), model.check_injectivity(x)
    assert alone.encoder_error == alone.cycle_error == found.encoder_error > 0.5
    assert not alone.passed
    assert found.cycle_error < 1e-6
    assert found.passed
    assert model.kind is Kind.EXACT
    with pytest.raises(ConfigError, match="refine"):
        model.check_injectivity(x, refinement_steps=-1)


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_decoder_without_full_rank_is_flagged(copy, dtype):
    model = models.TwoStep(models.AutoEncoder(3, latent=2, hidden=()), identity(2)).to(dtype).eval()
    model.autoencoder.chain.transforms[1].codec.decoder = Flat(copy)
    x = torch.randn(6, 3, dtype=dtype)
    found = model.evaluate(x)
    assert (found.terms["0.Embed"] == -math.inf).all()
    assert (found.value == -math.inf).all()
    assert found.residual is not None
    assert torch.isfinite(found.residual).all()
    checked = model.check_injectivity(x)
    assert checked.singular_ratio < 1e-6
    assert not checked.passed


def test_through_a_file_with_its_flag_and_prior(tmp_path):
    torch.manual_seed(0)
    prior = distributions.GaussianMixture(2, 3)
    model = models.TwoStep(
        models.VAE((1, 4, 4), latent=2, levels=8, hidden=(8,), prior=prior), distributions.GaussianMixture(2, 2)
    )
    x = torch.randint(0, 8, (40, 1, 4, 4)).float()
    model.initialize(x)
    with torch.no_grad():
        prior.loc.add_(1.0)
    model.embed.injective.fill_(True)
    pf.save(model.eval(), tmp_path / "m")
    again = pf.load(tmp_path / "m")
    assert isinstance(again, models.TwoStep)
    assert torch.equal(again.evaluate(x).value, model.evaluate(x).value)
    assert again.kind is Kind.EXACT
    assert torch.equal(again.autoencoder.base.loc, prior.loc)
    assert torch.equal(again.density.sample(3, seed=0), model.density.sample(3, seed=0))
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len({id(p) for p in model.parameters()})  # nothing is held twice


def test_a_vae_gives_the_means_of_both_distributions():
    torch.manual_seed(0)
    vae = models.VAE(3, latent=2, hidden=(8,), decoder="gaussian").eval()
    x = torch.randn(30, 3) * 5 + 2
    vae.initialize(x)
    many = torch.stack([vae.encode(x, seed=k) for k in range(400)])
    close = 5 * many.std(0) / 20
    assert ((many.mean(0) - vae.code(x)).abs() <= close).all()
    z = vae.code(x)
    torch.testing.assert_close(vae.decode_mean(z), vae.decode(z))  # the median of a normal is its mean
    model = models.TwoStep(vae, identity(2))
    torch.testing.assert_close(model.decode(z), vae.decode_mean(z))  # no observation noise
    torch.testing.assert_close(model.sample(noise=z), vae.decode_mean(z))


def test_codes_of_integers_are_real():
    x = torch.randint(0, 8, (5, 1, 4, 4), dtype=torch.uint8)
    for first in (
        models.AutoEncoder((1, 4, 4), 2, levels=8, hidden=(8,)),
        models.VAE((1, 4, 4), 2, levels=8, hidden=(8,)),
    ):
        assert torch.equal(first.code(x), first.code(x.float()))
        assert first.code(x).dtype == torch.float32


def test_errors_of_invalid_arguments():
    first = models.AutoEncoder(2, latent=2, hidden=())
    with pytest.raises(ConfigError, match="AutoEncoder or a VAE"):
        models.TwoStep(models.NICE(2))  # pyright: ignore
    with pytest.raises(ConfigError, match="does not fit"):
        models.TwoStep(models.AutoEncoder(2, latent=3, hidden=()))
    with pytest.raises(ConfigError, match="2 coordinates"):
        models.TwoStep(first, models.NICE(3))
    with pytest.raises(ConfigError, match="context"):
        models.TwoStep(first, models.NICE(2, context=1))
    with pytest.raises(KindError, match="reals"):
        models.TwoStep(first, models.Flow(transforms.UniformDequantize(2, 4), distributions.Uniform(2)))
    with pytest.raises(KindError, match="random codes"):
        models.TwoStep(models.VAE((1, 2, 2), 2, decoder="bernoulli", binarize=True))


@pytest.mark.parametrize(
    "second",
    [
        distributions.KernelDensity(2, 50),
        distributions.PixelCNN(
            (1, 1, 2), transforms.GaussianMixtureLikelihood(2), filters=4, layers=1, first_kernel_size=3
        ),
        models.VAE(2, 1, hidden=(8,)),
        models.MAF(2, layers=2, hidden=(8,)),
    ],
    ids=lambda second: type(second).__name__,
)
def test_the_second_step_is_any_density(second, tmp_path):
    torch.manual_seed(0)
    t = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    x = torch.cat((t, t.sin()), 1)
    model = models.TwoStep(models.AutoEncoder(4, 2, hidden=(16,)), second)
    done = pf.training.fit_two_step(model, x, max_steps=20, progress="silent")
    assert done.density.stopped == (
        "nothing to train" if isinstance(second, distributions.KernelDensity) else "max_steps"
    )
    codes, noise = model.codes(x), {"seed": 0}
    found = model.evaluate(x)
    assert found.measure == Manifold(2, 4)
    direct = model.density.evaluate(codes).value  # the same density, of the codes alone
    parts = found.value - found.terms["0.Embed"] - found.terms["1.Whiten"]
    torch.testing.assert_close(direct, parts, rtol=1e-4, atol=1e-4)
    assert model.sample(3, **noise).shape == (3, 4)
    pf.save(model, tmp_path / "m.safetensors")
    assert torch.equal(pf.load(tmp_path / "m.safetensors").evaluate(x).value, found.value)
