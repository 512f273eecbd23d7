"""Autoencoders within flows: exactness, the kind of the linear form, and the VAE whose networks they share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from pushforward import distributions, transforms
from pushforward.errors import ConfigError, KindError, PushforwardWarning
from pushforward.likelihood import Counting, Extended, Kind, Lebesgue
from pushforward.models import AEF, NICE, VAE, Flow
from pushforward.training import fit
from pushforward.transforms.coupling.autoencode import core_of

S = (8,)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturb(model: torch.nn.Module, size: float = 0.3) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(size * normal(*parameter.shape, seed=number).to(parameter.dtype))


# The partition form.


def test_it_is_the_formula():
    """Sec. 2.1 of the sheet, written out with the networks called by hand."""
    model = AEF(5, latent=2, core=(4, 1), hidden=S, standardize=False).double()
    perturb(model)
    (inner,) = model.chain
    x = normal(20, 5)
    core, shell = x[:, [4, 1]], x[:, [0, 2, 3]]
    seen = x.clone()
    seen[:, [4, 1]] = 0
    mean, raw = inner.encoder(seen).split(2, -1)
    log_scale = 7 * torch.tanh(raw / 7)
    code = mean + log_scale.exp() * core
    center, raw = inner.decoder(code).unflatten(-1, (5, 2)).unbind(-1)
    log_spread = 5 * torch.tanh(raw / 5)
    delta = ((shell - center[:, [0, 2, 3]]) / log_spread[:, [0, 2, 3]].exp()).detach()
    density = torch.from_numpy(scipy.stats.norm.logpdf(code.detach().numpy()).sum(1))
    density += torch.from_numpy(scipy.stats.norm.logpdf(delta.numpy()).sum(1))
    expected = density + log_scale.sum(1) - log_spread[:, [0, 2, 3]].sum(1)
    torch.testing.assert_close(model.log_prob(x), expected)
    torch.testing.assert_close(model.encode(x), torch.cat((code, delta), 1))


def test_the_core_does_not_reach_the_encoder():
    for inner in (
        transforms.Autoencode((2, 4, 4), 4, channels=(4,)),
        transforms.Autoencode((2, 4, 4), 4, hidden=S),
        transforms.Autoencode(5, 2, hidden=S),
    ):
        inner.double()
        perturb(inner)
        x = normal(3, *inner.in_shape)
        moved = x.flatten(1).clone()
        moved[:, inner.core_indices] += 1.0
        z, other = inner.encode(x).z, inner.encode(moved.reshape(x.shape)).z
        slope = other[:, : inner.latent] - z[:, : inner.latent]
        moved[:, inner.core_indices] += 1.0
        again = inner.encode(moved.reshape(x.shape)).z[:, : inner.latent] - other[:, : inner.latent]
        torch.testing.assert_close(slope, again)  # affine in the core, with the same scale
        shell = x.flatten(1).clone()
        shell[:, inner.shell_indices] += 1.0
        assert (inner.encode(shell.reshape(x.shape)).z[:, : inner.latent] != z[:, : inner.latent]).all()


def test_cores_of_images():
    assert core_of((1, 4, 4), 4, "center") == [5, 6, 9, 10]
    assert core_of((1, 3, 3), 1, "center") == [4]
    assert core_of((1, 4, 4), 4, "corner") == [0, 1, 4, 5]
    assert core_of((2, 2, 2), 4, "corner") == [0, 1, 4, 5]  # all channels of the pixels 0 and 1
    assert core_of((5,), 2, "center") == [0, 1]
    assert core_of((5,), 2, (4, 0)) == [4, 0]


def test_images_are_a_bound_on_counting_and_are_inverted():
    model = AEF((1, 6, 6), 4, levels=16, channels=(4,), prior=NICE(4, layers=2, hidden=S, standardize=False))
    x = torch.randint(0, 16, (5, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    model.initialize(x)
    result = model.evaluate(x)
    assert (result.kind, result.measure) == (Kind.LOWER_BOUND, Counting(36))
    assert result.bits_per_dim().shape == (5,)
    assert torch.equal(model.decode(model.encode(x)), x.float())
    assert model.reconstruct(x).shape == x.shape
    assert model.decode_mean(torch.zeros(2, 4)).shape == (2, 1, 6, 6)


def test_reconstruction_is_the_decoder_s_mean_in_the_shell():
    model = AEF(5, latent=2, hidden=S, standardize=False).double()
    perturb(model)
    (inner,) = model.chain
    x = normal(4, 5)
    center, _ = inner.decoder_parameters(model.encode(x)[:, :2])
    torch.testing.assert_close(model.reconstruct(x)[:, 2:], center[:, 2:])


@pytest.mark.parametrize("networks", [{"channels": (4, 8)}, {"hidden": (16,)}], ids=str)
def test_its_networks_are_those_of_a_vae(networks):
    """Same weights, same reconstruction of the pixels of the shell."""
    shape, latent = (2, 6, 6), 4
    likelihood = transforms.GaussianLikelihood()
    vae = transforms.Variational(shape, latent, likelihood, **networks)
    inner = transforms.Autoencode(shape, latent, **networks)
    inner.encoder.load_state_dict(vae.encoder.state_dict())
    inner.decoder.load_state_dict(vae.decoder.state_dict())
    code = torch.randn(3, latent)
    center, log_spread = inner.decoder_parameters(code)
    torch.testing.assert_close(center.reshape(3, *shape), vae.decode(code))
    pixels = torch.randn(3, *shape)
    density = likelihood.log_prob(pixels.movedim(-3, -1), vae.raw(code)).movedim(-1, -3).flatten(1)
    e = (pixels.flatten(1) - center) / log_spread.exp()
    expected = -0.5 * e * e - log_spread - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(density, expected)


@pytest.mark.parametrize("core", [(0,), (3,)])
def test_constant_columns(core):
    """In the shell, and as the core."""
    torch.manual_seed(0)
    x = torch.cat((torch.randn(200, 3), torch.full((200, 1), 7.0)), 1)
    model = AEF(4, latent=1, core=core, hidden=S)
    with pytest.warns(PushforwardWarning, match="column 3 is 7 in 180 of 180 rows"):
        fit(model, x, max_steps=20, progress="silent")
    with torch.no_grad():
        assert torch.isfinite(model.log_prob(x)).all()
        assert torch.isfinite(model.log_prob(x + torch.tensor([0.0, 0.0, 0.0, 1.0]))).all()
        assert torch.isfinite(model.reconstruct(x)).all()
        torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=1e-4, atol=1e-4)


# The linear form.


def linear_gaussian(r: float) -> tuple[AEF, Tensor, Tensor]:
    """An AEF of one coordinate and one code whose joint density of (x, u) is a normal: u ~ N(0, 1), x = r u + s e with s^2 =
    1 - r^2, so that p(x) is N(0, 1) and p(u | x) is N(r x, s^2). The extension is u = x / 2."""
    model = AEF(1, latent=1, form="linear", hidden=(1,), standardize=False).double()
    (inner,) = model.chain
    s = math.sqrt(1 - r * r)
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.zero_()
        inner.extension.weight.fill_(0.5)
        # A hidden ReLU shifted far to the left is linear on what it sees: the code clamped to [-10, 10].
        inner.decoder.body[0].weight.fill_(1.0)
        inner.decoder.body[0].bias.fill_(20.0)
        inner.decoder.last.weight.copy_(torch.tensor([[r], [0.0]], dtype=torch.float64))
        inner.decoder.last.bias.copy_(torch.tensor([-20.0 * r, 5 * math.atanh(math.log(s) / 5)], dtype=torch.float64))
    x = torch.tensor([[-1.5], [0.05], [2.0]], dtype=torch.float64)
    return model, x, torch.from_numpy(scipy.stats.norm.logpdf(x[:, 0].numpy()))


def test_the_linear_objective_is_the_density_of_the_pair_and_not_a_likelihood():
    """log p(x, u = W x) = log p(x) + log p(u | x): above or below the truth, as the second density is."""
    above, below = 0, 0
    for r in (0.1, 0.5, 0.999):
        model, x, truth = linear_gaussian(r)
        result = model.evaluate(x)
        assert (result.kind, result.measure) == (Kind.EXACT, Extended(2, 1))
        given = scipy.stats.norm.logpdf(0.5 * x[:, 0].numpy(), r * x[:, 0].numpy(), math.sqrt(1 - r * r))
        np.testing.assert_allclose(result.value.detach().numpy(), truth.numpy() + given, rtol=1e-9)
        above += int((result.value > truth).sum())
        below += int((result.value < truth).sum())
    assert above > 0
    assert below > 0


def test_the_extended_number_is_refused_where_a_likelihood_is_asked_for():
    model, x, _ = linear_gaussian(0.5)
    with pytest.raises(KindError, match="Extended"):
        model.log_prob(x)
    with pytest.raises(KindError, match="bits_per_dim"):
        model.evaluate(x).bits_per_dim()
    with pytest.raises(KindError, match="different units"):
        _ = model.evaluate(x) - AEF(2, latent=1).evaluate(torch.zeros(3, 2))
    images = AEF((1, 3, 3), 2, form="linear", levels=4, hidden=S)
    assert images.measure == Extended(11, 9)
    assert images.kind is Kind.LOWER_BOUND  # dequantized
    assert images.reduced(0.1).measure == Counting(9)


def test_the_reduction_is_a_bound_that_rises_to_the_truth():
    model, x, truth = linear_gaussian(0.5)
    reduced = model.reduced(1.0)
    assert isinstance(reduced, Flow)
    assert (reduced.kind, reduced.measure) == (Kind.LOWER_BOUND, Lebesgue(1))
    with torch.no_grad():
        step = reduced.chain.encode(x.expand(4000, 3, 1), noise=torch.Generator().manual_seed(0))
        draws = step.contribution + reduced.base.log_prob(step.z)
        tight = reduced.evaluate(x, samples=300).value
    # One draw: E log p(x, u) - log q(u) = truth - KL(N(x / 2, 1) || N(r x, 1 - r^2)); here both means are x / 2.
    gap = 0.5 * (1 / 0.75 - 1 + math.log(0.75))
    error = draws.std(0) / math.sqrt(4000)
    assert ((draws.mean(0) - (truth - gap)).abs() < 4 * error).all()
    assert ((draws.logsumexp(0) - math.log(4000) - truth).abs() < 0.05).all()
    assert ((tight - truth).abs() < 0.2).all()


def test_log_k_is_subtracted():
    """The reference code leaves it out, which lifts the estimate by log 128 = 4.85 nats."""
    model, x, truth = linear_gaussian(0.5)
    estimate, count = model.importance_estimate(x, 1.0, samples=128)
    assert ((estimate.value - truth).abs() < 0.4).all()
    assert (estimate.kind, estimate.measure) == (Kind.LOWER_BOUND, Lebesgue(1))
    assert ((count > 30) & (count <= 128)).all()
    assert estimate.stderr is not None


def test_a_wrong_scale_lowers_the_effective_number_of_samples():
    model, x, truth = linear_gaussian(
        0.999
    )  # p(u | x) has a standard deviation of 0.045, and its mean is far from x / 2
    estimate, count = model.importance_estimate(x[[0, 2]], 0.01, samples=64)
    assert (estimate.value < truth[[0, 2]] - 10).all()
    assert (count < 32).all()
    estimate, count = model.importance_estimate(torch.full_like(x[:1], math.inf), 0.01, samples=4)
    assert (estimate.value.item(), count.item()) == (-math.inf, 4.0)


def test_sampling_does_not_need_u():
    model, _, _ = linear_gaussian(0.6)
    drawn = model.sample(4000, seed=0)
    assert scipy.stats.kstest(drawn[:, 0].numpy(), "norm").pvalue > 1e-3


def test_the_reduced_model_has_the_same_weights():
    model = AEF(3, latent=2, form="linear", hidden=S)
    shared = {id(parameter) for parameter in model.reduced(0.1).parameters()}
    assert shared == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("form", ["partition", "linear"])
def test_training_finds_a_noisy_line(form):
    """x = (t, 2 t, -t) + 0.1 e: the true entropy is that of a normal, and the gap to it closes."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.tensor([[1.0, 2.0, -1.0]])
    x = torch.randn(2000, 1, generator=generator) @ direction + 0.1 * torch.randn(2000, 3, generator=generator)
    covariance = direction.T @ direction + 0.01 * torch.eye(3)
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance).item()
    torch.manual_seed(0)
    model = AEF(3, latent=1, form=form, hidden=(32,), activation="tanh")
    model.initialize(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(x[torch.randint(2000, (256,), generator=generator)]).backward()
        optimizer.step()
    with torch.no_grad():
        if form == "partition":
            assert -model.log_prob(x).mean().item() - entropy < 0.15
            assert (model.reconstruct(x) - x)[:, 1:].std() < 0.2
        else:
            scales = {
                scale: model.importance_estimate(x[:200], scale)[0].value.mean().item() for scale in (0.1, 0.3, 1.0)
            }
            assert max(scales.values()) < -entropy + 0.3
            assert max(scales.values()) > -entropy - 0.5


# Product, and what does not fit.


def test_a_product_is_a_sum_of_log_densities():
    base = distributions.Product(
        distributions.Normal(2), distributions.StudentT(1), distributions.ConditionalNormal(1, context=3, hidden=S)
    )
    z, context = torch.randn(5, 4), torch.randn(5, 3)
    expected = base.parts[0].log_prob(z[:, :2]) + base.parts[1].log_prob(z[:, 2:3])
    torch.testing.assert_close(base.log_prob(z, context), expected + base.parts[2].log_prob(z[:, 3:], context))
    assert base.context == 3
    assert base.sample(torch.Size((7,)), context[:1].expand(7, 3)).shape == (7, 4)
    mixed = distributions.Product(distributions.Uniform(1), distributions.HalfNormal(1))
    assert (mixed.support.low, mixed.support.high) == (0.0, math.inf)
    assert (
        distributions.Product(distributions.Uniform(1), distributions.Uniform(2)).support
        == distributions.Uniform(1).support
    )


def test_arguments_that_do_not_fit_are_refused():
    for make, match in (
        (lambda: AEF(3, 3), "shell"),
        (lambda: AEF(3, 2, form="external"), "form"),
        (lambda: AEF((3, 4, 4), 4, hidden=S), "multiple"),
        (lambda: AEF(5, 2, core="middle"), "core"),
        (lambda: AEF(5, 2, core=(0, 0)), "core"),
        (lambda: AEF(5, 2, core=(0,)), "core"),
        (lambda: AEF(5, 2, channels=(4,)), "convolutions"),
        (lambda: AEF(5, 2, posterior="maf"), "posterior"),
        (lambda: AEF((1, 4, 4), 2, form="linear", dequantize="variational"), "uniform"),
        (lambda: transforms.Autoencode(5, 2, transforms.Affine(3)), "2 coordinates"),
        (lambda: transforms.Autoencode(5, 2, transforms.Monotone(2, context=1)), "not read a context"),
        (lambda: transforms.Autoencode(5, 2, transforms.Sigmoid(2)), "bijection of all reals"),
        (lambda: transforms.LinearAutoencode(5, 2, transforms.Logit(2)), "bijection of all reals"),
        (lambda: transforms.LinearAutoencode(5, 2, scale=-1.0), "scale"),
        (lambda: AEF(5, 2, form="linear").reduced(0.0), "positive"),
        (lambda: distributions.Product(), "at least one"),
        (lambda: distributions.Product(distributions.Normal((1, 2, 2))), "vectors"),
        (
            lambda: distributions.Product(distributions.ConditionalNormal(1, 2), distributions.ConditionalNormal(1, 3)),
            "different widths",
        ),
    ):
        with pytest.raises(ConfigError, match=match):
            make()
    with pytest.raises(KindError, match="not a bijection"):
        transforms.Autoencode(5, 2, transforms.Abs(2))
    with pytest.raises(KindError, match="already"):
        AEF(5, 2).reduced(0.1)
    with pytest.raises(KindError, match="Manifold"):
        distributions.Product(distributions.UniformSphere(3))


def test_a_vae_reads_the_same_images():
    x = torch.randint(0, 256, (2, 1, 8, 8))
    assert VAE((1, 8, 8), 2, channels=(4,)).evaluate(x).measure == AEF((1, 8, 8), 2, channels=(4,)).evaluate(x).measure
