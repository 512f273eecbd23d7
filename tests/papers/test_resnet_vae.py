"""The residual VAE: log-determinants and order of its IAF, its bound against integrals over its latent variables, and its loss."""

import math
from functools import partial

import pytest
import torch
from torch import nn

import pushforward as pf
from papers.autoencoders.resnet_vae import ConvolutionalIAF, ResNetVAE
from pushforward.errors import ConfigError
from pushforward.likelihood import Kind
from pushforward.numerics import RowNoise

POSTERIORS = ("diagonal", "iaf")
LENGTH, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"


def perturbed(module, scale: float = 0.3, seed: int = 0):
    """The module in float64, with weights that are far from their initial values."""
    noise = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
    return module


def model_of(posterior: str, seed: int = 0, **sizes) -> ResNetVAE:
    torch.manual_seed(seed)
    sizes = {"shape": (1, 4, 4), "width": 4, "latent": 2, "blocks": (2, 1), "levels": 4} | sizes
    return perturbed(ResNetVAE(posterior=posterior, **sizes), seed=seed).eval()


def images(count: int, shape=(1, 4, 4), levels: int = 4) -> torch.Tensor:
    return torch.randint(levels, (count, *shape), generator=torch.Generator().manual_seed(1))


def jacobian_of(flow: ConvolutionalIAF, z: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """dz'/dz of one image in the order of the coordinates (pixels in raster order, then channels), and the log-slopes in this order."""

    def ordered(x: torch.Tensor) -> torch.Tensor:
        return x.permute(1, 2, 0).flatten()

    def shaped(flat: torch.Tensor) -> torch.Tensor:
        return flat.reshape(*z.shape[1:], z.shape[0]).permute(2, 0, 1)

    found = torch.autograd.functional.jacobian(
        lambda flat: ordered(flow(shaped(flat)[None], h[None])[0][0]), ordered(z)
    )
    assert isinstance(found, torch.Tensor)
    return found, ordered(flow(z[None], h[None])[1][0])


@pytest.mark.parametrize("steps", [1, 3])
def test_the_log_slopes_of_an_iaf_add_up_to_the_log_determinant_of_its_jacobian(steps):
    torch.manual_seed(0)
    flow = perturbed(ConvolutionalIAF(2, 6, steps))
    z, h = torch.randn(2, 3, 3, dtype=torch.float64), torch.randn(6, 3, 3, dtype=torch.float64)
    jacobian, slopes = jacobian_of(flow, z, h)
    torch.testing.assert_close(slopes.sum(), torch.linalg.slogdet(jacobian)[1], atol=1e-10, rtol=0)
    assert slopes.sum().abs() > 0.1


def test_a_step_of_an_iaf_depends_on_earlier_coordinates_alone_and_two_steps_on_all_neighbors():
    torch.manual_seed(0)
    z, h = torch.randn(3, 3, 4, dtype=torch.float64), torch.randn(6, 3, 4, dtype=torch.float64)
    jacobian, slopes = jacobian_of(perturbed(ConvolutionalIAF(3, 6, 1)), z, h)
    assert jacobian.triu(1).abs().max() == 0
    torch.testing.assert_close(jacobian.diagonal().log(), slopes)
    # A coordinate of a pixel inside reads all channels above, to the left, and before its own.
    pixel = 1 * 4 + 1
    row = jacobian[3 * pixel + 2].reshape(12, 3)
    assert (row[[0, 1, 2, pixel - 1]] != 0).all()
    assert (row[pixel] != 0).all()
    assert (row[pixel + 1 :] == 0).all()
    both, _ = jacobian_of(perturbed(ConvolutionalIAF(3, 6, 2)), z, h)
    assert (both != 0).any(0).all()
    assert both.triu(1).abs().max() > 0
    assert both.tril(-1).abs().max() > 0


def test_every_coordinate_of_an_iaf_depends_on_the_context():
    torch.manual_seed(0)
    flow = perturbed(ConvolutionalIAF(2, 6, 1))
    z, h = torch.randn(1, 2, 3, 3, dtype=torch.float64), torch.randn(1, 6, 3, 3, dtype=torch.float64)
    for before, after in zip(flow(z, h), flow(z, h + 0.5), strict=True):
        assert (before != after).all()


@pytest.mark.parametrize("steps", [1, 2])
@torch.no_grad()
def test_reversed_orders_leave_every_coordinate_and_its_context_in_place(steps):
    """Networks that do not read z: each coordinate is a function of itself and of h within the kernel around it."""
    torch.manual_seed(0)
    flow = perturbed(ConvolutionalIAF(2, 6, steps))
    for first in flow.first:
        assert isinstance(first, nn.Conv2d)
        first.weight.zero_()
    z, h = torch.randn(1, 2, 5, 5, dtype=torch.float64), torch.randn(1, 6, 5, 5, dtype=torch.float64)
    near = torch.zeros(5, 5, dtype=torch.bool)
    near[:3, :3] = True  # around pixel (1, 1)
    before, moved = flow(z, h), h.clone()
    moved[:, :, 1, 1] += 1
    for old, new in zip(before, flow(z, moved), strict=True):
        changed = (old != new).any(1)[0]
        assert changed[1, 1]
        assert not changed[~near].any()
        assert changed.sum() == (5 if steps == 1 else 9)
    moved = z.clone()
    moved[0, 0, 1, 1] += 1
    assert (flow(moved, h)[0] != before[0]).nonzero().tolist() == [[0, 0, 1, 1]]
    assert torch.equal(flow(moved, h)[1], before[1])
    slope = (flow(moved, h)[0] - before[0])[0, 0, 1, 1]
    torch.testing.assert_close(slope.log(), before[1][0, 0, 1, 1])


def integrated(model: ResNetVAE, x: torch.Tensor, reach: float = 9.0, count: int = 121) -> torch.Tensor:
    """log p(x) of a model with two latent coordinates: the integral over their noise, which is standard normal."""
    line = torch.linspace(-reach, reach, count, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_p = model.latents.likelihood.log_prob(x.double().movedim(1, -1)[:, None], model.latents.raw(grid)).sum(
        (2, 3, 4)
    )
    return torch.logsumexp(log_p + model.base.log_prob(grid) + 2 * math.log(line[1] - line[0]), 1)


def log_weights(model: ResNetVAE, x: torch.Tensor, draws: int) -> torch.Tensor:
    """log p(x, z) - log q(z | x) of draws of the posterior, ``(n, draws)``."""
    step = model.latents.encode(
        x.double()[:, None].expand(-1, draws, *x.shape[1:]), noise=torch.Generator().manual_seed(2)
    )
    return step.contribution + model.base.log_prob(step.z)


@pytest.mark.parametrize(
    ("posterior", "latent", "blocks"), [("iaf", 2, (1,)), ("diagonal", 1, (2,))], ids=["two channels", "two layers"]
)
@torch.no_grad()
def test_importance_weights_average_to_the_integral_and_the_bound_is_below_it(posterior, latent, blocks):
    # The importance weights of some other seeds have such tails that their mean has no useful error.
    model = model_of(posterior, seed=2, shape=(1, 2, 2), latent=latent, blocks=blocks)
    every = torch.cartesian_prod(*[torch.arange(4)] * 4).reshape(256, 1, 2, 2)
    probabilities = integrated(model, every).exp()
    torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0, dtype=torch.float64))
    drawn = model.sample(5000, seed=0).reshape(-1, 4).to(torch.int64) @ torch.tensor([64, 16, 4, 1])
    counts, expected = torch.bincount(drawn, minlength=256), 5000 * probabilities
    frequent = expected > 5
    statistic = ((counts - expected).square() / expected)[frequent].sum()
    assert frequent.sum() > 20
    assert statistic < frequent.sum() + 5 * (2 * frequent.sum()).sqrt()  # chi-squared
    x, draws = every[::32], 10_000
    exact, weights = integrated(model, x), log_weights(model, x, draws)
    ratio = (weights - exact[:, None]).exp()
    error = ratio.std(1) / draws**0.5
    assert error.median() < 0.03  # so the next line finds a wrong factor
    assert ((ratio.mean(1) - 1).abs() < 4.5 * error).all()
    bound = weights.mean(1)
    assert (bound < exact).all()
    assert (exact - bound).mean() > 0.05
    for k in (1, 10):  # more importance samples tighten the bound on average
        tighter = torch.logsumexp(weights.reshape(len(x), -1, 10 * k), 2).mean(1) - math.log(10 * k)
        assert (bound < tighter).all()
        assert (tighter < exact + 4.5 * error).all()
        bound = tighter


@pytest.mark.parametrize("blocks", [(1, 1), (2, 1)])
@torch.no_grad()
def test_the_bound_is_the_likelihood_where_the_posterior_is_the_prior_and_z_is_not_used(blocks):
    """The true posterior is then the prior, so each draw of the bound is log p(x)."""
    model, x = model_of("diagonal", blocks=blocks), images(5)
    for layer in model.latents._blocks():
        latent = model.latent
        up, down = dict(layer.up_first.named_parameters()), dict(layer.down_first.named_parameters())
        for name in ("bias", LENGTH):
            up[name][: 2 * latent] = 0
        for name in ("bias", LENGTH, DIRECTION):
            down[name][2 * latent : 4 * latent] = down[name][: 2 * latent]
    divergences = model.latents.draw(x.double(), torch.Generator().manual_seed(0)).divergences
    assert all(each.abs().max() < 1e-12 for each in divergences)
    for layer in model.latents._blocks():
        dict(layer.down_last.named_parameters())[DIRECTION][:, : model.latent] = 0
    raw = model.latents.raw(torch.zeros(5, *model.base.shape, dtype=torch.float64))
    exact = model.latents.likelihood.log_prob(x.double().movedim(1, -1), raw).sum((1, 2, 3))
    for seed in range(3):
        torch.testing.assert_close(model.evaluate(x, samples=1 + seed, seed=seed).value, exact)


@pytest.mark.parametrize("posterior", POSTERIORS)
@torch.no_grad()
def test_the_noise_of_a_draw_decodes_to_the_same_distribution_of_the_image(posterior):
    model, x = model_of(posterior, blocks=(2, 2), shape=(3, 8, 8)), images(4, (3, 8, 8))
    drawn = model.latents.draw(x.double(), torch.Generator().manual_seed(0))
    log_p = model.latents.likelihood.log_prob(x.double().movedim(1, -1), model.latents.raw(drawn.u)).sum((1, 2, 3))
    torch.testing.assert_close(log_p, drawn.log_p)
    total = sum(each.sum((1, 2, 3)) for each in drawn.divergences)
    torch.testing.assert_close(drawn.log_q + drawn.log_scale - model.base.log_prob(drawn.u), total)
    assert drawn.u.shape[1] == 2 * 2 * (16 + 4)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_loss_is_minus_the_bound_where_no_channel_is_free(posterior):
    model, x = model_of(posterior, blocks=(1, 1), free_bits=0.0), images(6)
    noise = partial(torch.Generator().manual_seed, 3)
    step = model.latents.encode(x.double(), noise=noise())
    bound = (step.contribution + model.base.log_prob(step.z)).mean()
    drawn = model.latents.draw(x.double(), noise())
    kl = torch.cat([each.sum((2, 3)).mean(0) for each in drawn.divergences])
    assert kl.min() < 0.5 * kl.max()
    torch.testing.assert_close(-model.loss(x, generator=noise()) - kl.clamp(max=0).sum(), bound)
    middle = kl.sort().values[2].item()
    model.free_bits = middle
    expected = torch.where(kl > middle, kl, middle).sum() - drawn.log_p.mean()
    torch.testing.assert_close(model.loss(x, generator=noise()), expected)
    model.free_bits = 1e6  # no KL above it, so the posterior's entropy has no gradient left
    torch.testing.assert_close(model.loss(x, generator=noise()), 1e6 * len(kl) - drawn.log_p.mean())


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_every_part_is_trained(posterior):
    model = model_of(posterior, blocks=(2, 2), shape=(3, 8, 8), free_bits=0.0, steps=2)
    model.loss(images(8, (3, 8, 8)), generator=torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("posterior", POSTERIORS)
@torch.no_grad()
def test_a_file_keeps_the_model_and_a_row_keeps_its_bound(posterior, tmp_path):
    model, x = model_of(posterior), images(6)
    pf.save(model, tmp_path / "m.safetensors")
    again = pf.load(tmp_path / "m.safetensors")
    found = model.evaluate(x, samples=3)
    assert found.kind is Kind.LOWER_BOUND
    assert torch.equal(again.evaluate(x, samples=3).value, found.value)
    torch.testing.assert_close(model.evaluate(x[2:3], samples=3).value, found.value[2:3])
    torch.testing.assert_close(model.evaluate(x[:, None], samples=3).value[:, 0], found.value)
    singles = [model.latents.encode(x.double(), noise=RowNoise(0, draw)) for draw in range(3)]
    bounds = torch.stack([step.contribution + model.base.log_prob(step.z) for step in singles])
    torch.testing.assert_close(sum(found.terms.values()), bounds.mean(0))  # the mean of the bounds of the draws
    torch.testing.assert_close(found.value, torch.logsumexp(bounds, 0) - math.log(3))
    assert (found.value > bounds.mean(0)).all()


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="2 halvings"):
        ResNetVAE((3, 6, 6), blocks=(1, 1))
    with pytest.raises(ConfigError, match="diagonal"):
        ResNetVAE(posterior="normal")
    with pytest.raises(ConfigError, match="multiple of the 8 colors"):
        ResNetVAE(width=12, latent=8)
    with pytest.raises(ConfigError, match="free_bits"):
        ResNetVAE(free_bits=-1.0)
