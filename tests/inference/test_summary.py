"""Summaries of draws against closed forms and arviz-stats, and where an estimate cannot be trusted."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, InputError
from pushforward.inference import ImportanceWeights, Parameters, correlation, real, simplex, summarize

N = 20_000


def _draws(distribution, seed=0, n=N):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return distribution.sample((n,)).double()


def _normal(scale=1.0, seed=0, n=N):
    return _draws(torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), scale), seed, n)


def test_estimates_of_a_normal_distribution_are_those_of_numpy():
    x = 3 + 2 * _normal()
    found = summarize(x[:, None], probs=(0.1, 0.5))
    assert found.mean[0] == pytest.approx(x.mean().item(), rel=1e-12)
    assert found.std[0] == pytest.approx(x.std(correction=0).item(), rel=1e-12)
    assert found.error[0] == pytest.approx(found.std[0] / math.sqrt(N), rel=1e-12)
    for got, p in zip(found.quantiles[:, 0], (0.1, 0.5), strict=True):
        assert got == np.quantile(x.numpy(), p, method="inverted_cdf")
    assert found.unreliable == []
    assert found.count == found.ess == N


@pytest.mark.parametrize(("df", "of_mean", "of_std"), [(1.0, 1.0, 2.0), (2.0, 0.5, 1.0), (4.0, 0.25, 0.5)])
def test_k_hat_is_the_tail_index_of_student_t(df, of_mean, of_std):
    """P(|x| > u) falls as u^-df, so the tail of x has the shape 1 / df, and that of x^2 has 2 / df."""
    k = [summarize(_draws(torch.distributions.StudentT(df), seed, 100_000)[:, None]) for seed in range(3)]
    assert np.mean([s.k_hat_mean[0] for s in k]) == pytest.approx(of_mean, abs=0.15)
    assert np.mean([s.k_hat_std[0] for s in k]) == pytest.approx(of_std, abs=0.2)


@pytest.mark.parametrize("df", [1.0, 3.0, 30.0])
def test_k_hat_agrees_with_arviz(df):
    stats = pytest.importorskip("arviz_stats.base").array_stats
    x = _draws(torch.distributions.StudentT(df), 1, 5000).numpy()
    found = summarize(x[:, None])
    off = x - x.mean()
    for terms, k in ((off, found.k_hat_mean[0]), (off**2 - (off**2).mean(), found.k_hat_std[0])):
        assert k == pytest.approx(float(stats.pareto_khat(terms[None], tail="both")), abs=0.02)


def test_weighted_estimates_and_their_error():
    """Draws of N(0, 1.5^2) with weights of N(0, 1): the errors over 200 repetitions are as large as stated."""
    off, stated = [], []
    for seed in range(200):
        x = _normal(1.5, seed, 1000)
        ratios = -0.5 * x**2 + 0.5 * (x / 1.5) ** 2
        found = summarize(x[:, None], ImportanceWeights.of(ratios))
        off.append(found.mean[0])
        stated.append(found.error[0])
        assert found.std[0] == pytest.approx(1.0, abs=0.15)
        assert found.unreliable == []
    assert np.std(off) == pytest.approx(np.mean(stated), rel=0.2)


def test_narrow_draws_make_every_estimate_unreliable():
    """The weights of draws of N(0, s^2) for N(0, 1) have the tail index 1 - s^2; here 0.91."""
    x = _normal(0.3, 0, 100_000)
    weights = ImportanceWeights.of(-0.5 * x**2 + 0.5 * (x / 0.3) ** 2)
    assert weights.k_hat > 0.7
    found = summarize(x[:, None], weights)
    assert found.unreliable == ["mean of 0", "std of 0"]
    assert (found.k_hat_mean >= weights.k_hat).all()


def test_a_heavy_tail_shows_although_the_weights_are_nearly_equal():
    """The target is a Student-t distribution with 1.5 degrees of freedom, which has a mean and no variance."""
    narrow, wide = (torch.distributions.StudentT(1.5, 0.0, scale) for scale in (1.0, 1.2))
    x = _draws(wide)
    weights = ImportanceWeights.of(narrow.log_prob(x) - wide.log_prob(x))
    found = summarize(x[:, None], weights)
    assert weights.reliable
    assert found.unreliable[-1] == "std of 0"
    assert abs(found.quantiles[1, 0]) < 0.05


@pytest.fixture(scope="module")
def fit():
    return pf.inference.fit_to_target(
        None, lambda v: -0.5 * (v["a"] - 2).square() - 0.5 * v["b"].square().sum(-1),
        parameters=Parameters(a=real(), b=real((2,))), max_steps=20, seed=0, progress="silent",
    )  # fmt: skip


def test_a_fit_has_the_summary_of_its_weighted_draws(fit):
    found = fit.summary()
    assert found.names == ["a", "b[0]", "b[1]"]
    assert found.mean == pytest.approx(fit.mean().numpy())
    assert found.std == pytest.approx(fit.std().numpy())
    assert (found.count, found.ess) == (len(fit.draws), fit.ess)
    assert found.unreliable == []


@pytest.mark.parametrize(("df", "bad"), [(1.2, ["mean", "std"]), (2.2, ["std"])])
def test_a_fit_warns_where_an_estimate_with_heavy_tails_is_asked_for(fit, df, bad):
    draws = fit.draws.clone()
    draws[:, 1] = _draws(torch.distributions.StudentT(df), 1, len(draws))
    heavy = dataclasses.replace(fit, draws=draws)
    for what in ("mean", "std"):
        estimate = getattr(heavy, what)
        if what in bad:
            with pytest.warns(
                pf.errors.PushforwardWarning, match=rf"the {what} of b\[0\] cannot be trusted.* Use quantiles"
            ):
                estimate()
        else:
            estimate()  # without a warning, which would be an error here


def test_a_fit_that_is_not_reliable_has_said_so_before(fit):
    ratios = fit.weights.log_ratios.clone()
    ratios[0] += 20.0
    fit = dataclasses.replace(fit, weights=ImportanceWeights.of(ratios))
    assert not fit.weights.reliable
    fit.mean()  # without another warning


def test_names_are_those_of_the_values():
    space = Parameters(mu=real(), p=simplex(3), r=correlation(2), a=real((2, 2)))
    values = space.unflatten(space.transform().decode(_normal(n=500 * space.features).reshape(500, -1)))
    found = summarize(values)
    assert found.names == [
        "mu", "p[0]", "p[1]", "p[2]", "r[0,0]", "r[0,1]", "r[1,0]", "r[1,1]", "a[0,0]", "a[0,1]", "a[1,0]", "a[1,1]",
    ]  # fmt: skip
    assert found.mean[1:4].sum() == pytest.approx(1.0)
    constant = found.names.index("r[0,0]")
    assert (found.mean[constant], found.std[constant], found.k_hat_std[constant]) == (1.0, 0.0, -np.inf)


@pytest.mark.parametrize(("shift", "unit"), [(0.0, 1e-200), (0.0, 1e200), (1e9, 1.0), (-5.0, 1e-3)])
def test_units_and_origin_change_nothing_else(shift, unit):
    x = _normal(n=2000)
    plain, moved = summarize(x[:, None]), summarize((shift + unit * x)[:, None])
    assert moved.std[0] == pytest.approx(unit * plain.std[0], rel=1e-6)
    assert moved.error[0] == pytest.approx(unit * plain.error[0], rel=1e-6)
    assert moved.k_hat_std[0] == pytest.approx(plain.k_hat_std[0], abs=1e-4)


def test_draws_without_weight_may_be_infinite():
    x = torch.cat((_normal(n=100), torch.tensor([torch.inf, torch.nan], dtype=torch.float64)))
    ratios = torch.cat((torch.zeros(100), torch.tensor([-torch.inf, -torch.inf]))).double()
    assert summarize(x[:, None], ImportanceWeights.of(ratios)).mean[0] == pytest.approx(x[:100].mean().item())
    with pytest.raises(InputError, match="needs finite draws"):
        summarize(x[:, None])


@pytest.mark.parametrize(
    ("draws", "options", "error", "message"),
    [
        (torch.zeros(100), {}, InputError, r"shape \(n, D\)"),
        (torch.zeros(10, 1), {}, InputError, "at least 25 draws; got 10"),
        ({}, {}, InputError, "dictionary is empty"),
        ({"a": torch.zeros(30), "b": torch.zeros(40)}, {}, InputError, "different numbers of draws"),
        ({"a": ["x"] * 30}, {}, InputError, "must be an array or a tensor of real numbers"),
        (torch.zeros(30, 2), {"names": ["a"]}, ConfigError, "2 coordinates and 1 names"),
        (torch.zeros(30, 2), {"names": 5}, ConfigError, "list with a name for each coordinate; got 5"),
        (torch.zeros(30, 2), {"names": "ab"}, ConfigError, "list with a name for each coordinate; got 'ab'"),
        ({"a": torch.zeros(30)}, {"names": ["b"]}, ConfigError, "leave names= out"),
        (torch.zeros(30, 2), {"probs": (1.5,)}, ConfigError, "probs"),
        (torch.zeros(30, 2), {"probs": 0.5}, ConfigError, "probs must be a list of numbers from 0 to 1"),
        (torch.zeros(30, 2), {"weights": torch.ones(30)}, ConfigError, "weights must be importance weights"),
        (torch.zeros(30, 2, dtype=torch.complex64), {}, InputError, "real numbers; got Tensor"),
        (np.zeros((30, 2), complex), {}, InputError, "real numbers; got ndarray"),
        (torch.zeros(30, 2), {"weights": ImportanceWeights.of(torch.zeros(40))}, InputError, "30 draws and 40 weights"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(draws, options, error, message):
    with pytest.raises(error, match=message):
        summarize(draws, **options)


def test_tables_and_text():
    heavy = _draws(torch.distributions.Cauchy(0.0, 1.0))
    found = summarize({"light": _normal(), "heavy": heavy})
    assert found.to_table().column_names == [
        "name",
        "mean",
        "error",
        "std",
        "5%",
        "50%",
        "95%",
        "k_hat_mean",
        "k_hat_std",
    ]
    assert "k-hat above 0.70: mean of heavy, std of heavy cannot be trusted; use quantiles." in repr(found)
    assert "cannot be trusted" in found._repr_html_()
    page = summarize({"<b>heavy</b>": heavy})._repr_html_()
    assert "mean of &lt;b&gt;heavy&lt;/b&gt;" in page
    assert "<b>" not in page
    frame = pytest.importorskip("pandas") and found.to_frame()
    assert frame.loc["light", "std"] == found.std[0]
    wide = summarize(torch.zeros(30, 100))
    assert "... and 60 more coordinates" in repr(wide)


def test_a_latent_posterior_has_a_summary():
    vae = pf.models.VAE(3, latent=2, hidden=(8,))
    found = pf.inference.latent_posterior(vae, torch.zeros(3), 1000, seed=0)
    assert found.summary(probs=(0.5,)).quantiles.shape == (1, 2)


def test_few_draws_with_a_weight_have_a_summary():
    """50 of 1,000 draws inside a support are fewer than a tail has, and so are the draws with a weight of a flow far from its target."""
    x = torch.linspace(-1, 1, 1000, dtype=torch.float64)
    inside = torch.where(x.abs() < 0.05, 0.0, -math.inf)
    found = summarize(x[:, None], ImportanceWeights.of(inside))
    assert found.mean[0] == pytest.approx(0, abs=1e-12)
    assert found.std[0] == pytest.approx(0.1 / math.sqrt(12), rel=0.02)
    with np.errstate(all="raise", under="ignore"):
        weights = ImportanceWeights.of(-20.0 * torch.arange(1000).double())
        found = summarize(x[:, None], weights)
    assert found.quantiles[1, 0] == -1
    assert found.unreliable == ["mean of 0", "std of 0"]
