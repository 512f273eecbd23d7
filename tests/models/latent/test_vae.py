"""VAE against closed form: probabilistic PCA, total probability, free bits, priors, and real digits."""

import itertools
import math
import weakref

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import distributions, models
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Counting, Kind, Lebesgue
from pushforward.models import VAE
from pushforward.transforms import GaussianLikelihood, Variational

SPREAD = 0.6


def pca(weights, *, exact=True, **more):
    """Linear-Gaussian VAE x = W z + b + SPREAD e, with its exact posterior if W has orthogonal columns.

    Returns the model and the log-density of N(b, W W' + SPREAD^2) in closed form.
    """
    size, latent = weights.shape
    model = VAE(size, latent, hidden=(), standardize=False, **more).double()
    latents = model.chain.transforms[-1]
    shift = torch.linspace(-0.5, 0.5, size, dtype=torch.float64)
    precision = weights.t() @ weights + SPREAD**2 * torch.eye(latent, dtype=torch.float64)
    gain = torch.linalg.solve(precision, weights.t())
    posterior = 0.5 * (SPREAD**2 / precision.diagonal()).log()
    with torch.no_grad():
        decoder, encoder = latents.decoder.last, latents.encoder.last
        decoder.weight.zero_()
        decoder.weight[0::2] = weights  # raw outputs are (mean, log-scale) for each coordinate
        decoder.bias[0::2] = shift
        decoder.bias[1::2] = 5 * math.atanh(math.log(SPREAD) / 5)
        encoder.weight[: 2 * latent], encoder.bias[: 2 * latent] = 0.0, 0.0
        if exact:
            encoder.weight[:latent] = gain
            encoder.bias[:latent] = -gain @ shift
            encoder.bias[latent : 2 * latent] = 7 * torch.atanh(posterior / 7)
    marginal = torch.distributions.MultivariateNormal(
        shift, weights @ weights.t() + SPREAD**2 * torch.eye(size, dtype=torch.float64)
    )
    return model, marginal, precision, gain, shift


ORTHOGONAL = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.0, 0.0], [0.5, 1.0], [0.5, -1.0]], dtype=torch.float64)
OBLIQUE = torch.tensor([[1.0, 0.5], [0.2, 0.9], [-0.3, 0.4]], dtype=torch.float64)


def test_with_the_exact_posterior_every_draw_gives_the_exact_density():
    assert (ORTHOGONAL.t() @ ORTHOGONAL)[0, 1] == 0
    model, marginal, *_ = pca(ORTHOGONAL)
    x = 1.5 * torch.randn(20, 5, dtype=torch.float64)
    for samples in (1, 7):
        result = model.evaluate(x, samples=samples)
        torch.testing.assert_close(result.value, marginal.log_prob(x), rtol=1e-10, atol=1e-10)
    assert result.stderr.max() < 1e-10
    assert (result.kind, result.measure) == (Kind.LOWER_BOUND, Lebesgue(5))


def test_the_gap_of_the_bound_is_the_divergence_of_the_posteriors():
    """With q = N(0, 1) for every x: E value = log p(x) - KL(q || p(z | x)), in closed form."""
    model, marginal, precision, gain, shift = pca(OBLIQUE, exact=False)
    x = torch.randn(4, 3, dtype=torch.float64)
    q = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    true = torch.distributions.MultivariateNormal((x - shift) @ gain.t(), SPREAD**2 * precision.inverse())
    expected = marginal.log_prob(x) - torch.distributions.kl_divergence(q, true)
    draws = torch.stack([model.evaluate(x, seed=seed).value for seed in range(3000)]).detach()
    error = draws.std(0) / math.sqrt(3000)
    assert ((draws.mean(0) - expected).abs() < 4 * error).all()
    assert (expected < marginal.log_prob(x) - 0.1).all()


def test_importance_samples_close_the_gap_from_below():
    model, marginal, *_ = pca(OBLIQUE, exact=False)
    x = torch.randn(6, 3, dtype=torch.float64)
    with torch.no_grad():
        bounds = [model.evaluate(x, samples=k).value.mean().item() for k in (1, 10, 100, 5000)]
    truth = marginal.log_prob(x).mean().item()
    assert bounds[1] > bounds[0]
    assert bounds[3] == pytest.approx(truth, abs=0.03)
    assert bounds[0] < truth - 0.3
    assert max(bounds) < truth + 0.03


@pytest.mark.parametrize("posterior", ["normal", "iaf", "nsf"])
def test_the_density_of_every_posterior_is_right(posterior):
    """E_q [ p(x, z) / q(z | x) ] = p(x): a slip in log q, of sign or size, moves this mean."""
    torch.manual_seed(3)
    model, marginal, *_ = pca(OBLIQUE, exact=False, posterior=posterior, posterior_hidden=(8,), posterior_context=3)
    latents = model.chain.transforms[-1]
    with torch.no_grad():
        for parameter in latents.flow.parameters() if latents.flow is not None else ():
            parameter.add_(0.3 * torch.randn_like(parameter))
        latents.encoder.last.weight.add_(0.1 * torch.randn_like(latents.encoder.last.weight))
        latents.encoder.last.bias[2:4] += 0.7  # wider than the posterior, so that the weights have a variance
    x = 0.5 * torch.randn(1, 3, dtype=torch.float64)
    with torch.no_grad():
        wide = x.expand(20_000, -1)
        drawn = latents.draw(wide, torch.Generator().manual_seed(0))
        ratio = (drawn.log_p + model.base.log_prob(drawn.z) - drawn.log_q - marginal.log_prob(x)).exp()
    error = ratio.std().item() / math.sqrt(20_000)
    assert error < 0.05
    assert ratio.mean().item() == pytest.approx(1.0, abs=4 * error)
    if posterior != "normal":  # and by change of variables: log q(z) = log N(z_0) + log det
        e = (drawn.z - drawn.mean).abs().max()
        assert e > 0.1
        h = latents.encoder(wide[:5])[:, 4:]
        step = latents.flow.encode(drawn.z[:5], h)
        base = torch.distributions.Normal(drawn.mean[:5], drawn.log_scale[:5].exp()).log_prob(step.z).sum(-1)
        torch.testing.assert_close(drawn.log_q[:5], base + step.contribution, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("decoder", ["logistic", "categorical", "bernoulli"])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_discrete_decoder_has_total_probability_one(decoder, channels):
    """Over all images: the mean weight of each is its probability."""
    levels = 2 if decoder == "bernoulli" else 3
    torch.manual_seed(1)
    model = VAE((1, 2, 2), 2, decoder=decoder, levels=levels, hidden=(6,), channels=channels).double()
    values = itertools.product(range(levels), repeat=4)
    x = torch.tensor(list(values), dtype=torch.float64).reshape(-1, 1, 2, 2)
    with torch.no_grad():
        value = model.evaluate(x, samples=400, seed=1).value
        single = torch.stack([model.evaluate(x, seed=s).value for s in range(100)])
    assert model.measure == Counting(4)
    error = (single.exp().var(0).sum() / 400).sqrt().item()
    assert error < 0.02
    assert value.exp().sum().item() == pytest.approx(1.0, abs=4 * error)
    assert single.mean(0).exp().sum() < 1 + 4 * error


def test_evaluation_keeps_no_draws():
    """Memory does not grow with the number of samples: at each draw at most two others are alive."""
    model = VAE(3, 2, hidden=(4,))
    alive: list[weakref.ref] = []
    most = 0
    inner = model._terms

    def watched(*args):
        nonlocal most
        out = inner(*args)
        alive.append(weakref.ref(out[0]["base"]))
        most = max(most, sum(ref() is not None for ref in alive))
        return out

    model._terms = watched
    result = model.evaluate(torch.randn(5, 3), samples=50)
    assert not result.value.requires_grad  # a graph would keep every draw
    assert len(alive) == 50
    assert most <= 3
    assert result.value.shape == (5,)


def test_free_bits_stop_the_gradient_of_the_divergence():
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    free = VAE(3, 2, hidden=(8,), free_bits=100.0)
    plain = VAE(3, 2, hidden=(8,))
    plain.load_state_dict(free.state_dict())
    loss = free.loss(x, generator=torch.Generator().manual_seed(1))
    latents = free.chain.transforms[-1]
    drawn = latents.draw(x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss, 200.0 - drawn.log_p.mean())  # 2 coordinates of at least 100 nats
    # Far below their value, free bits do nothing but take the closed-form divergence for the drawn one.
    small = VAE(3, 2, hidden=(8,), free_bits=1e-9)
    small.load_state_dict(free.state_dict())
    losses = [small.loss(x, generator=torch.Generator().manual_seed(s)).item() for s in range(300)]
    drawn_losses = [plain.loss(x, generator=torch.Generator().manual_seed(s)).item() for s in range(300)]
    error = math.sqrt((np.var(losses) + np.var(drawn_losses)) / 300)
    assert abs(np.mean(losses) - np.mean(drawn_losses)) < 4 * error
    # Evaluation knows nothing of them.
    assert torch.equal(free.evaluate(x).value, plain.evaluate(x).value)


@pytest.mark.parametrize("posterior", ["normal", "iaf", "nsf"])
def test_terms_of_the_posterior_add_up_and_free_bits_bound_each_coordinate(posterior):
    """Against the log-density that the flow's inverse gives to the drawn z, and with one coordinate that is hardly used."""
    torch.manual_seed(0)
    x = torch.randn(40, 3, dtype=torch.float64)
    model = VAE(
        3,
        2,
        posterior=posterior,
        posterior_layers=3,
        hidden=(8,),
        posterior_hidden=(8,),
        free_bits=0.5,
        standardize=False,
    )
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        [latents] = model.chain
        latents.encoder.last.weight[1] *= 0.01  # the second mean says next to nothing
    drawn = latents.draw(x, torch.Generator().manual_seed(1))
    z = drawn.z
    if latents.flow is not None:
        h = latents.infer(x)[:, 4:]
        z, contribution = latents.flow.encode(drawn.z, h)[:2]
    q = torch.distributions.Normal(drawn.mean, drawn.log_scale.exp()).log_prob(z)
    total = q.sum(1) + (0.0 if latents.flow is None else contribution)
    torch.testing.assert_close(drawn.log_q, total, rtol=1e-9, atol=1e-9)
    if posterior == "nsf":  # couplings have no terms: free bits of z as a whole
        assert drawn.log_q_terms is None
        kl = (drawn.log_q - model.base.log_prob(drawn.z)).mean().clamp(min=1.0)
    else:
        torch.testing.assert_close(drawn.log_q_terms.sum(1), drawn.log_q)
        each = (drawn.log_q_terms - torch.distributions.Normal(0.0, 1.0).log_prob(drawn.z)).mean(0)
        if posterior == "normal":
            each = (0.5 * (drawn.mean.square() + (2 * drawn.log_scale).exp() - 1) - drawn.log_scale).mean(0)
        model.free_bits = each.mean().item()  # one coordinate is below it, one above
        assert each.std() > 0.01
        kl = each.clamp(min=model.free_bits).sum()
    loss = model.loss(x, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss, kl - drawn.log_p.mean())


def test_free_bits_of_other_priors_take_the_drawn_divergence():
    x = torch.randn(50, 3)
    model = VAE(3, 2, hidden=(8,), free_bits=3.0, prior=distributions.GaussianMixture(2, components=3))
    loss = model.loss(x, generator=torch.Generator().manual_seed(1))
    drawn = model.chain.transforms[-1].draw(x, torch.Generator().manual_seed(1))
    kl = (drawn.log_q - model.base.log_prob(drawn.z)).mean()
    torch.testing.assert_close(loss, kl.clamp(min=6.0) - drawn.log_p.mean())


def test_any_base_or_model_can_be_a_prior():
    for prior in (
        distributions.StudentT(2),
        distributions.GaussianMixture(2, 3),
        models.NSF(2, layers=1, hidden=(8, 8)),
    ):
        model = VAE(3, 2, hidden=(8,), prior=prior).double()
        x = torch.randn(4, 3, dtype=torch.float64)
        result = model.evaluate(x)
        z = model.encode(x)
        torch.testing.assert_close(result.terms["base"], prior.double().log_prob(z))
        assert model.sample(5, seed=0).shape == (5, 3)
    assert isinstance(VAE(3, 2).prior, distributions.Normal)


def test_a_model_as_a_prior_of_a_conditional_model():
    torch.manual_seed(0)
    model = VAE(3, 2, context=1, hidden=(8,), prior=models.NSF(2, layers=1, hidden=(8, 8)))
    c = torch.randn(4, 1)
    assert model.sample(5, c, seed=0).shape == (5, 4, 3)
    found = model.evaluate(torch.randn(4, 3), c)
    assert found.kind is Kind.LOWER_BOUND
    assert found.value.isfinite().all()


def test_codes_and_data_of_another_shape_are_refused():
    model = VAE(3, 2, hidden=(8,))
    for call in (lambda: model.code([[1.0, 2.0, 3.0]]), lambda: model.decode_mean(torch.zeros(2, 4))):  # pyright: ignore
        with pytest.raises(InputError, match=r"reads"):
            call()


def test_grays_are_refused_by_a_bernoulli_decoder():
    model = VAE((1, 2, 2), 2, decoder="bernoulli", hidden=(4,))
    for run in (model.evaluate, model.loss):
        with pytest.raises(InputError, match="binarize=True"):
            run(torch.full((3, 1, 2, 2), 0.3))
    with pytest.raises(InputError, match="got 200"):
        model.loss(torch.full((3, 1, 2, 2), 200))
    with pytest.raises(InputError, match="got 200"):
        pf.fit(model, torch.full((30, 1, 2, 2), 200), max_steps=2, progress="silent")
    assert (model.evaluate(torch.full((3, 1, 2, 2), 200)).value == -math.inf).all()
    assert torch.isfinite(model.evaluate(torch.ones(3, 1, 2, 2)).value).all()


def test_dynamic_binarization_is_an_estimate_of_one_binary_image():
    torch.manual_seed(0)
    model = VAE((1, 2, 2), 2, decoder="bernoulli", binarize=True, levels=256, hidden=(4,)).double()
    plain = VAE((1, 2, 2), 2, decoder="bernoulli", hidden=(4,)).double()
    plain.load_state_dict(
        {k.replace("transforms.1", "transforms.0"): v for k, v in model.state_dict().items() if "transforms.0" not in k}
    )
    x = torch.randint(0, 256, (6, 1, 2, 2)).double()
    assert model.kind is Kind.ESTIMATE
    with pytest.raises(KindError, match="bits_per_dim is not defined for an estimate"):
        model.evaluate(x).bits_per_dim()
    binary = model.chain.transforms[0].encode(x).z
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(model.evaluate(x, samples=20).value, plain.evaluate(binary, samples=20).value)
    # Each pixel is 1 as often as it is bright.
    gray = torch.full((4000, 1), 64.0)
    ones = pf.transforms.DynamicBinarize(1).encode(gray, noise=torch.Generator().manual_seed(0)).z.mean().item()
    assert ones == pytest.approx(64 / 255, abs=4 * math.sqrt(0.25 * 0.75 / 4000))


def test_reconstructions_and_samples_of_a_trained_model():
    """Two kinds of images: reconstructions match, and samples are of one kind or the other."""
    torch.manual_seed(0)
    kinds = 7 * torch.randint(0, 2, (2, 4, 4))
    x = kinds[torch.randint(0, 2, (300,))][:, None]
    model = VAE((1, 4, 4), 2, levels=8, decoder="categorical", hidden=(32,))
    pf.fit(model, x, max_steps=300, batch_size=100, learning_rate=1e-2, progress="silent")
    assert (model.decode(model.encode(x)) == x).double().mean() > 0.95
    drawn = model.sample(200, seed=0)
    known = (drawn[:, None] == kinds[None, :, None]).flatten(2).all(-1).any(1)
    assert known.double().mean() > 0.7
    truth = math.log(2)
    assert -model.evaluate(x, samples=50).value.mean().item() < truth + 0.6


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VAE(3, decoder="poisson"), "decoder"),
        (lambda: VAE(3, posterior="vamp"), "posterior"),
        (lambda: VAE(3, 2, prior=distributions.Normal(3)), "prior"),
        (lambda: VAE(3, 2, prior="normal"), "prior"),
        (lambda: VAE(3, 2, prior=distributions.ConditionalNormal(2, 1)), "prior"),
        (lambda: VAE(3, free_bits=-1.0), "free_bits"),
        (lambda: VAE(3, 0), "latent"),
        (lambda: VAE(3, channels=(4,)), "convolutions"),
        (lambda: VAE((1, 4, 4), binarize=True), "bernoulli"),
        (lambda: VAE((4, 4)), "width"),
        (lambda: Variational(3, 2, "gaussian"), "likelihood"),
        (lambda: Variational(3, 2, GaussianLikelihood(), pf.transforms.Affine(3)), "flow"),
        (lambda: Variational(3, 2, GaussianLikelihood(), pf.transforms.Sigmoid(2)), "onto all reals"),
    ],
)
def test_impossible_arguments(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


def test_a_posterior_on_an_interval():
    """Normal draws as uniform codes in (0, 1) are the exact posterior of a decoder that ignores them: the bound is log N(x; 0, 1)."""
    model = pf.models.Flow(
        Variational(1, 1, GaussianLikelihood(), pf.transforms.Probit(1), hidden=(8,)), distributions.Uniform(1)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    x = torch.linspace(-2, 2, 5)[:, None]
    torch.testing.assert_close(model.evaluate(x).value, -0.5 * x[:, 0].square() - 0.5 * math.log(2 * math.pi))


def test_a_posterior_is_a_bijection_of_a_normal():
    with pytest.raises(KindError, match="bijection"):
        Variational(3, 2, flow=pf.transforms.UniformDequantize(2))


@pytest.mark.parametrize("channels", [(), (8,)], ids=["vectors", "convolutions"])
def test_the_context_chooses(channels):
    """Dark or light images by class: samples are of the class, and the class that explains an image better is its own."""
    torch.manual_seed(0)
    classes = torch.arange(200) % 2
    c = torch.nn.functional.one_hot(classes, 2).float()
    x = 5 * classes[:, None, None, None] + torch.randint(0, 3, (200, 1, 3, 3))
    model = VAE((1, 3, 3), 2, 2, levels=8, hidden=(16,), channels=channels)
    pf.fit(model, x, context=c, max_steps=150, batch_size=100, learning_rate=1e-2, progress="silent")
    drawn = model.sample(100, torch.eye(2), seed=0)
    assert drawn.shape == (100, 2, 1, 3, 3)
    assert (drawn[:, 0] < 4).double().mean() > 0.95
    assert (drawn[:, 1] > 3).double().mean() > 0.95
    right = model.evaluate(x, c, samples=5).value > model.evaluate(x, 1 - c, samples=5).value
    assert right.double().mean() > 0.95
    assert model.code(x, c).shape == (200, 2)
    dark, light = model.decode_mean(torch.zeros(2, 2), torch.eye(2))
    assert dark.max() < light.min()
    with pytest.raises(InputError, match="context"):
        model.evaluate(x)
    with pytest.raises(InputError, match="context"):
        model.code(x)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "posterior"), [("mnist", "iaf"), ("fashion-mnist", "normal")])
def test_it_beats_a_constant_latent_on_real_images(real_images, name, posterior):
    """A constant latent leaves one distribution for each pixel: the best one is its histogram."""
    train, test, independent = real_images(name)
    torch.manual_seed(0)
    model = VAE((1, 14, 14), 16, decoder="categorical", levels=16, posterior=posterior, hidden=(200,))
    pf.fit(model, train, validation=None, max_steps=1000, batch_size=100, learning_rate=2e-3, progress="silent")
    with torch.no_grad():
        bits = model.evaluate(test, samples=20).bits_per_dim().mean().item()
    assert bits < 0.9 * independent
