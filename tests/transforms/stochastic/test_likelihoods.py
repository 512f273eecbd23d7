"""Distributions of one pixel: total probability, samples, exact bins, gradients, and far outputs."""

import itertools
import math

import mpmath
import pytest
import torch
from scipy import stats

from pushforward.errors import ConfigError
from pushforward.likelihood import Counting, Lebesgue
from pushforward.transforms import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    GaussianMixtureLikelihood,
    LogisticLikelihood,
)  # fmt: skip

DISCRETE = [BernoulliLikelihood(), CategoricalLikelihood(3), LogisticLikelihood(3, 1), LogisticLikelihood(4, 3)]
LIKELIHOODS = [*DISCRETE, GaussianLikelihood(), GaussianMixtureLikelihood(3)]


def raw_of(likelihood, channels, rows=1, scale=1.0, seed=0):
    noise = torch.randn(
        rows, likelihood.outputs(channels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return scale * noise


def every(likelihood, channels):
    return torch.tensor(list(itertools.product(range(likelihood.levels), repeat=channels)), dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
def test_probabilities_sum_to_one_and_so_does_each_term(likelihood, scale, channels):
    x, raw = every(likelihood, channels), raw_of(likelihood, channels, scale=scale)
    terms = likelihood.log_prob(x, raw.expand(len(x), -1))
    assert terms.shape == x.shape
    assert terms.sum(-1).exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    first = terms[:, 0].reshape(likelihood.levels, -1)[:, 0]  # log p(x_1): the same for any later channels
    assert torch.allclose(terms[:, 0].reshape(likelihood.levels, -1), first[:, None])
    assert first.exp().sum().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
@pytest.mark.parametrize("pixel", [math.nan, math.inf, -math.inf, 0.5, -1.0, 9.0, 1e30])
def test_what_is_no_level_has_probability_zero(likelihood, pixel):
    x = torch.tensor([[1.0, pixel]], dtype=torch.float64)
    raw = raw_of(likelihood, 2).requires_grad_()
    terms = likelihood.log_prob(x, raw)
    assert terms[0, 1].item() == -math.inf
    if not math.isnan(pixel):
        assert torch.autograd.grad(terms[0, 0], raw)[0].isfinite().all()


@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
def test_samples_follow_the_probabilities(likelihood):
    x, raw = every(likelihood, 2), raw_of(likelihood, 2, scale=0.7)
    u = torch.rand(20_000, likelihood.draws(2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = likelihood.sample(raw.expand(len(u), -1), u)
    observed = (drawn[:, None] == x).all(-1).sum(0).double()
    expected = len(u) * likelihood.log_prob(x, raw.expand(len(x), -1)).sum(-1).exp()
    assert observed.sum() == len(u)
    keep = expected > 5
    other = max(float(expected[~keep].sum()), 1e-9)
    seen, hoped = [*observed[keep].tolist(), observed[~keep].sum().item()], [*expected[keep].tolist(), other]
    if other < 5:
        seen, hoped = seen[:-1], hoped[:-1]
    total = sum(seen)
    assert stats.chisquare(seen, [h * total / sum(hoped) for h in hoped]).pvalue > 1e-3


def test_gaussian_is_a_normal():
    likelihood, raw = GaussianLikelihood(), torch.tensor([[0.3, -0.5, 1.0, 0.7]], dtype=torch.float64)
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    scale = [math.exp(5 * math.tanh(s / 5)) for s in (-0.5, 0.7)]
    expected = stats.norm.logpdf([1.0, -2.0], [0.3, 1.0], scale)
    assert likelihood.log_prob(x, raw)[0].tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    u = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = likelihood.sample(raw.expand(5000, -1), u)
    for column, (mean, spread) in zip(drawn.T, ((0.3, scale[0]), (1.0, scale[1])), strict=True):
        assert stats.kstest(column.numpy(), stats.norm(mean, spread).cdf).pvalue > 1e-3


def test_gaussian_mixture_against_scipy_and_its_samples_follow_it():
    likelihood, raw = GaussianMixtureLikelihood(3), raw_of(GaussianMixtureLikelihood(3), 2, seed=4)
    spread = [0.5 * stats.norm.ppf((k + 0.5) / 3) for k in range(3)]
    width = 0.5 * math.log(1 - sum(q * q for q in spread) / 3)
    x = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    u = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn, terms = likelihood.sample(raw.expand(20_000, -1), u), likelihood.log_prob(x, raw)[0]
    for c, part in enumerate(raw[0].reshape(2, 3, 3)):
        weights, means = torch.softmax(part[0], 0).tolist(), (part[1] + torch.tensor(spread)).tolist()
        scales = [math.exp(5 * math.tanh(s / 5) + width) for s in part[2].tolist()]
        mixture = list(zip(weights, (stats.norm(m, s) for m, s in zip(means, scales, strict=True)), strict=True))
        assert terms[c].item() == pytest.approx(math.log(sum(w * n.pdf(x[0, c].item()) for w, n in mixture)), abs=1e-12)
        assert (
            stats.kstest(drawn[:, c].numpy(), lambda t, mixture=mixture: sum(w * n.cdf(t) for w, n in mixture)).pvalue
            > 1e-3
        )
    assert likelihood.mean(raw, 2)[0].tolist() == pytest.approx(drawn.mean(0).tolist(), abs=0.05)


def test_a_gaussian_mixture_starts_at_mean_0_and_variance_1():
    likelihood = GaussianMixtureLikelihood(10)
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    density = likelihood.log_prob(x, torch.zeros(1, likelihood.outputs(1), dtype=torch.float64)).exp()
    mass, mean, square = ((x**k * density).sum().item() * (24 / 20_000) for k in range(3))
    assert (mass, mean, square) == pytest.approx((1.0, 0.0, 1.0), abs=1e-6)


@pytest.mark.parametrize("log_scale", [-40.0, -7.0, -2.0, 0.0, 3.0, 40.0])
@pytest.mark.parametrize("mean", [-3.0, -0.4, 1.0, 4.0])
def test_a_logistic_bin_is_exact_in_log_space(log_scale, mean):
    """Against extended precision, where the probability underflows too."""
    likelihood = LogisticLikelihood(256, 1)
    raw = torch.tensor([[0.0, mean, log_scale]], dtype=torch.float64)
    scale = math.exp(7 * math.tanh(log_scale / 7))

    def below(edge):
        return 1 / (1 + mpmath.exp((mpmath.mpf(mean) - edge) / mpmath.mpf(scale)))

    for level in (0, 1, 128, 254, 255):
        with mpmath.workdps(60 + int((2 + abs(mean)) / scale / 2)):
            low = 0 if level == 0 else below(mpmath.mpf(2 * level - 1) / 255 - 1)
            high = 1 if level == 255 else below(mpmath.mpf(2 * level + 1) / 255 - 1)
            expected = float(mpmath.log(high - low))
        got = likelihood.log_prob(torch.tensor([[float(level)]], dtype=torch.float64), raw).item()
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_channels_of_a_mixture_depend_on_each_other_as_in_the_paper():
    """m_G = mu_G + c0 x_R, m_B = mu_B + c1 x_R + c2 x_G, c = tanh(raw), inside each component."""
    likelihood = LogisticLikelihood(8, 2)
    raw, x = raw_of(likelihood, 3, seed=3), torch.tensor([[2.0, 5.0, 7.0]], dtype=torch.float64)
    logits, mean, log_scale, slope = (part.squeeze(0) for part in raw.split((2, 6, 6, 6), -1))
    seen = 2 * x[0] / 7 - 1
    total = 0.0
    for k, weight in enumerate(torch.softmax(logits, 0).tolist()):
        product = weight
        for c in range(3):
            m = mean[2 * c + k] + (2 * k + 1) / 2 - 1
            s = math.exp(7 * math.tanh(log_scale[2 * c + k] / 7)) / 2
            for before, pair in {0: (), 1: ((0, 0),), 2: ((0, 1), (1, 2))}[c]:
                m = m + math.tanh(slope[2 * pair + k]) * seen[before]
            channel = stats.logistic(m.item(), s)
            high = 1.0 if c == 2 else channel.cdf(seen[c].item() + 1 / 7)  # 7 is the last level
            product *= high - channel.cdf(seen[c].item() - 1 / 7)
        total += product
    assert likelihood.log_prob(x, raw).sum().item() == pytest.approx(math.log(total), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("likelihood", [CategoricalLikelihood(256), LogisticLikelihood(256, 3), *LIKELIHOODS], ids=str)
def test_any_raw_output_has_finite_values_and_gradients(likelihood, dtype):
    top = 255.0 if getattr(likelihood, "levels", 3) == 256 else 1.0
    for size in (0.0, 1.0, 1e3, 1e6):
        raw = raw_of(likelihood, 3, 20, size).to(dtype).requires_grad_()
        for level in (0.0, 1.0, top):
            terms = likelihood.log_prob(torch.full((20, 3), level, dtype=dtype), raw)
            assert terms.dtype is dtype
            assert torch.isfinite(terms).all()
            (gradient,) = torch.autograd.grad(terms.sum(), raw)
            assert torch.isfinite(gradient).all()
        u = torch.rand(20, likelihood.draws(3), dtype=dtype)
        u[0], u[1] = 0.0, 1 - torch.finfo(dtype).eps / 2
        x = likelihood.sample(raw.detach(), u)
        assert x.dtype is dtype
        assert torch.isfinite(x).all()
        assert likelihood.support.contains(x).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_gradients_are_right(likelihood):
    raw = raw_of(likelihood, 2, 4).requires_grad_()
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: likelihood.log_prob(x, r), (raw,))


@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
@pytest.mark.parametrize("value", [-1.0, 0.5, 99.0, math.inf, 1e20])
def test_values_that_are_not_levels_are_impossible(likelihood, value):
    terms = likelihood.log_prob(torch.tensor([[value, 1.0]], dtype=torch.float64), raw_of(likelihood, 2))
    assert terms[0, 0] == -math.inf
    if not likelihood.joint:
        assert torch.isfinite(terms[0, 1])
    assert likelihood.network_input(torch.tensor([value])).abs().item() <= 1


def test_measures():
    assert CategoricalLikelihood(4).measure(6) == Counting(6)
    assert GaussianLikelihood().measure(6) == Lebesgue(6)


@pytest.mark.parametrize(
    "make",
    [lambda: CategoricalLikelihood(1), lambda: CategoricalLikelihood(2.0), lambda: LogisticLikelihood(1),
     lambda: LogisticLikelihood(4, 0), lambda: LogisticLikelihood(4, 2, 0.0), lambda: GaussianLikelihood(-1.0),
     lambda: GaussianLikelihood(math.nan)],
)  # fmt: skip
def test_impossible_arguments(make):
    with pytest.raises(ConfigError, match="got"):
        make()


@pytest.mark.parametrize("likelihood", [BernoulliLikelihood(), CategoricalLikelihood(6), GaussianLikelihood()], ids=str)
def test_mean_is_that_of_many_draws(likelihood):
    """Over the midpoints of a fine grid of u: to 1e-3 of the spread."""
    raw = torch.randn(2, likelihood.outputs(3), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = ((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)[:, None, None].expand(-1, 2, 3)
    drawn = likelihood.sample(raw.expand(20_000, *raw.shape), u)
    torch.testing.assert_close(likelihood.mean(raw, 3), drawn.mean(0), rtol=0, atol=2e-3)


@pytest.mark.parametrize("mean", [-40.0, -1.02, -0.3, 0.0, 0.9, 1.5, 40.0])
@pytest.mark.parametrize("log_scale", [-6.0, -4.0, -2.0, 0.0, 1.0])
def test_mean_of_a_logistic_is_that_of_its_levels(mean, log_scale):
    """Sum of k p(k) to half a level, the rounding, and to 1e-3 where a scale is wider than a level; it increases with the center."""
    likelihood = LogisticLikelihood(256, 1)
    raw = torch.tensor([[0.0, mean, log_scale]], dtype=torch.float64, requires_grad=True)
    levels = torch.arange(256, dtype=torch.float64)[:, None]
    expected = (levels[:, 0] * likelihood.log_prob(levels, raw.detach().expand(256, 3))[:, 0].exp()).sum().item()
    found = likelihood.mean(raw, 1)
    width = 127.5 * math.exp(likelihood.max_log_scale * math.tanh(log_scale / likelihood.max_log_scale))
    assert abs(found.item() - expected) < (1e-3 if width > 2 and abs(mean) < 1 else 0.5)
    assert 0 <= found.item() <= 255
    found.backward()
    assert raw.grad is not None
    slope = raw.grad[0, 1].item() / 127.5  # P(0 < value < 255)
    inside = stats.logistic.cdf(1, mean, width / 127.5) - stats.logistic.cdf(-1, mean, width / 127.5)
    assert slope == pytest.approx(inside, rel=1e-6, abs=1e-12)


def test_mean_of_logistics_in_the_middle_of_the_levels():
    """Where neither the borders nor the rounding show, with three channels that shift each other."""
    likelihood = LogisticLikelihood(100_001, 2, max_log_scale=7.0)
    raw = 0.2 * torch.randn(1, likelihood.outputs(3), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    raw[:, 2 + 6 : 2 + 12] = -4.0  # narrow
    raw[:, :2] = torch.tensor([30.0, -30.0])  # one component, so that products of channels have no covariance
    draws = torch.rand(40_000, 1, likelihood.draws(3), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = likelihood.sample(raw.expand(40_000, *raw.shape[1:]).unsqueeze(1), draws)
    error = 5 * drawn.std(0) / 200
    assert ((likelihood.mean(raw, 3) - drawn.mean(0)).abs() <= error).all()
