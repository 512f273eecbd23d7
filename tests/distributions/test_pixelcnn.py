"""PixelCNN as a base: total probability, samples, and caches that change nothing."""

import itertools
import math
import time

import pytest
import torch
from scipy import stats
from torch import Size

from pushforward.distributions import PixelCNN
from pushforward.errors import ConfigError, InputError
from pushforward.likelihood import Counting, Lebesgue
from pushforward.transforms import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    GaussianMixtureLikelihood,
    LogisticLikelihood,
)  # fmt: skip

LIKELIHOODS = [BernoulliLikelihood(), CategoricalLikelihood(4), LogisticLikelihood(4, 2)]
REAL_LIKELIHOODS = [GaussianLikelihood(), GaussianMixtureLikelihood(3)]
KINDS = ["gated", "plusplus"]


def rough(shape, likelihood, spread=0.4, network="gated", **more):
    torch.manual_seed(2)
    if network == "plusplus":
        small, spread = {"filters": 6, "layers": 1, "scales": 2}, spread / 4  # it is deeper
    else:
        small = {"filters": 6, "layers": 2, "first_kernel_size": 3}
    base = PixelCNN(shape, likelihood, network=network, **(small | more)).double()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return base


def every(base):
    values = itertools.product(range(base.likelihood.levels), repeat=math.prod(base.shape))
    return torch.tensor(list(values), dtype=torch.float64).reshape(-1, *base.shape)


def skip_independent_channels(network, likelihood, shape):
    if network == "plusplus" and shape[0] > 1 and not likelihood.joint:
        pytest.skip("refused: see test_impossible_arguments")


@pytest.mark.parametrize("network", KINDS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1), (3, 1, 1), (2, 2, 1), (1, 2, 2)], ids=str
)
def test_total_probability_is_one(likelihood, shape, network):
    skip_independent_channels(network, likelihood, shape)
    base = rough(shape, likelihood, network=network)
    log_prob = base.log_prob(every(base))
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_prob.std() > 0.05  # away from the uniform distribution
    assert base.measure == Counting(math.prod(shape))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 2, 3)], ids=str)
@pytest.mark.parametrize("network", KINDS)
def test_each_term_sees_only_earlier_values(likelihood, shape, network):
    """A changed value changes its own term and later ones, and none before it."""
    skip_independent_channels(network, likelihood, shape)
    base = rough(shape, likelihood, layers=3, network=network)
    x = base.sample(Size((1,)), generator=torch.Generator().manual_seed(0))
    terms = base.log_prob_terms(x).flatten()
    order = list(base.autoregressive_order)
    changed = set()
    for position, index in enumerate(order):
        y = x.clone().flatten()
        y[index] = (y[index] + 1) % base.likelihood.levels
        differs = (base.log_prob_terms(y.reshape(x.shape)).flatten() != terms)[order]
        assert not differs[:position].any()
        assert differs[position]
        changed |= set((differs.nonzero().flatten() - position).tolist())
    assert len(changed) > 1


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("network", KINDS)
def test_samples_follow_their_probabilities(likelihood, network):
    base = rough((1, 1, 2), likelihood, network=network)
    x = every(base)
    drawn = base.sample(Size((5000,)), generator=torch.Generator().manual_seed(1))
    observed = (drawn[:, None] == x).flatten(2).all(-1).sum(0).double()
    expected = 5000 * base.log_prob(x).exp().detach()
    assert observed.sum() == 5000
    big = expected > 10
    assert big.sum() > 2
    assert stats.chisquare(observed[big], expected[big] * observed[big].sum() / expected[big].sum()).pvalue > 1e-3


def naive(base, top, generator, context=None):
    """The whole network for each pixel and channel."""
    channels, height, width = base.shape
    likelihood, given = base.likelihood, top.shape[2]
    noise = torch.rand(
        len(top), height - given, width, likelihood.draws(channels), generator=generator, dtype=top.dtype
    )
    x = torch.cat((top, torch.zeros(len(top), channels, height - given, width, dtype=top.dtype)), 2)
    for row, column in itertools.product(range(given, height), range(width)):
        u = noise[:, row - given, column]
        if likelihood.joint:
            x[:, :, row, column] = likelihood.sample(
                base.conditioner(likelihood.network_input(x), context)[:, :, row, column], u
            )
            continue
        for c in range(channels):
            raw = base.conditioner(likelihood.network_input(x), context)[:, :, row, column].chunk(channels, 1)[c]
            x[:, c, row, column] = likelihood.sample(raw, u[:, c : c + 1])[:, 0]
    return x


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, *REAL_LIKELIHOODS], ids=str)
@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 4, 3), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("network", KINDS)
@torch.no_grad()
def test_the_cached_sampler_is_the_naive_one(likelihood, shape, context, given, network):
    skip_independent_channels(network, likelihood, shape)
    base = rough(shape, likelihood, context=context, layers=3, kernel_size=5, network=network)
    c = torch.randn(4, context, dtype=torch.float64) if context else None
    top = base.sample(Size((4,)), c, generator=torch.Generator().manual_seed(5))[:, :, :given]
    cached = base.complete(top, c, generator=torch.Generator().manual_seed(6))
    plain = naive(base, top, torch.Generator().manual_seed(6), c)
    torch.testing.assert_close(cached, plain, rtol=0, atol=0 if base.discrete else 1e-10)
    assert torch.equal(cached[:, :, :given], top)


@pytest.mark.parametrize(("network", "layers"), [("gated", 3), ("plusplus", 1)])
@torch.no_grad()
def test_the_cached_sampler_is_many_times_faster(network, layers):
    """64 images of 28 x 28: naive sampling is 784 passes, of which one is timed (a pass costs the same at every pixel)."""
    torch.manual_seed(0)
    base = PixelCNN((1, 28, 28), CategoricalLikelihood(256), network=network, filters=16, layers=layers)
    start = time.process_time()
    x = base.sample(Size((64,)), generator=torch.Generator().manual_seed(0))
    cached = time.process_time() - start
    start = time.process_time()
    base.conditioner(base.likelihood.network_input(x))
    naive_time = 784 * (time.process_time() - start)
    assert naive_time > 10 * cached


def test_given_rows_determine_the_distribution_of_the_rest():
    """Completions follow p(rest | top): against the joint probabilities of all images of two rows."""
    base = rough((1, 2, 1), CategoricalLikelihood(4), spread=0.8)
    x = every(base)
    joint = base.log_prob(x).exp().reshape(4, 4).detach()
    for first in range(4):
        top = torch.full((2000, 1, 1, 1), float(first), dtype=torch.float64)
        drawn = base.complete(top, generator=torch.Generator().manual_seed(first))[:, 0, 1, 0]
        observed = torch.bincount(drawn.long(), minlength=4).double()
        expected = 2000 * joint[first] / joint[first].sum()
        assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert (joint / joint.sum(1, keepdim=True)).std(0).max() > 0.02  # the first row does matter


@pytest.mark.parametrize("likelihood", REAL_LIKELIHOODS, ids=str)
def test_a_continuous_likelihood_gives_a_density_whose_terms_see_only_earlier_values(likelihood):
    base = rough((2, 2, 3), likelihood, layers=3)
    assert base.measure == Lebesgue(12)
    x = base.sample(Size((1,)), generator=torch.Generator().manual_seed(0)).requires_grad_()
    order = list(base.autoregressive_order)
    terms = base.log_prob_terms(x).flatten()[order]
    reach = torch.stack([torch.autograd.grad(t, x, retain_graph=True)[0].flatten()[order] for t in terms])
    assert (reach.triu(1) == 0).all()
    assert (reach.diagonal() != 0).all()
    assert (reach.tril(-1) != 0).sum() > 30
    with pytest.raises(InputError, match="finite numbers"):
        base.complete(torch.full((2, 2, 1, 3), math.inf))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_values_than_pixels_are_impossible_and_gradients_are_finite(dtype):
    base = rough((1, 2, 2), CategoricalLikelihood(4)).to(dtype)
    x = torch.ones(6, 1, 2, 2, dtype=dtype)
    for row, value in enumerate((-1.0, 4.0, 0.5, math.inf, 1e20)):
        x[row, 0, 1, 1] = value
    got = base.log_prob(x)
    assert (got[:5] == -math.inf).all()
    assert torch.isfinite(got[5])
    got[5].backward()
    assert all(torch.isfinite(p.grad).all() for p in base.parameters())


def test_wrong_rows_are_refused():
    base = rough((1, 3, 2), CategoricalLikelihood(4))
    for wrong in (torch.zeros(2, 1, 4, 2), torch.zeros(2, 2, 1, 2), torch.zeros(2, 1, 1, 3), torch.zeros(3)):
        with pytest.raises(InputError, match="shape"):
            base.complete(wrong)
    for value in (0.5, 4.0, -1.0):
        with pytest.raises(InputError, match="integers"):
            base.complete(torch.full((2, 1, 1, 2), value))


@pytest.mark.parametrize(
    "make",
    [lambda: PixelCNN(4), lambda: PixelCNN((4, 4)),
     lambda: PixelCNN((1, 4, 4), "categorical"), lambda: PixelCNN((3, 4, 4), filters=4),
     lambda: PixelCNN((1, 0, 4)), lambda: PixelCNN((1, 4, 4), layers=0), lambda: PixelCNN((1, 4, 4), kernel_size=2),
     lambda: PixelCNN((1, 4, 4), network="pixelrnn"), lambda: PixelCNN((2, 4, 4), network="plusplus"),
     lambda: PixelCNN((1, 4, 4), dropout=0.5), lambda: PixelCNN((1, 4, 4), network="plusplus", scales=0)],
)  # fmt: skip
def test_impossible_arguments(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("network", KINDS)
def test_images_of_other_types_and_contexts_of_other_batches(network):
    base = rough((1, 2, 2), CategoricalLikelihood(4), network=network, context=2).float()
    z, context = torch.randint(0, 4, (3, 1, 2, 2)), torch.zeros(3, 2)
    expected = base.log_prob(z.float(), context)
    assert torch.equal(base.log_prob(z, context), expected)
    found = base.log_prob(z.double(), context.double())
    assert found.dtype is torch.float64
    torch.testing.assert_close(found.float(), expected)
    drawn = [
        base.sample(Size((3,)), c, generator=torch.Generator().manual_seed(0)) for c in (context, context.double())
    ]
    assert torch.equal(*drawn)
    for call in (lambda: base.log_prob(z[:2], context), lambda: base.sample(Size((1,)), context)):
        with pytest.raises(InputError, match=r"a context of shape \(3, 2\) does not broadcast to the batch"):
            call()
