"""Parameters over orders of magnitude, in very small units, and close to what float32 resolves."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from scipy.stats import kstest
from torch import distributions as td

from pushforward import inference
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.inference.tempering import temper

QUIET = {"progress": "silent"}


def log_uniform(low, high):
    ends = torch.tensor([[low], [high]], dtype=torch.float64).log().float()
    return td.TransformedDistribution(td.Uniform(ends[0], ends[1]), td.ExpTransform())


def test_draws_of_a_log_uniform_prior_fill_the_lowest_decade():
    """Within eps times the width of the lower bound all numbers had become one."""
    prior = inference.Prior(log_uniform(1e-6, 100.0))
    draws = prior.sample(20_000, seed=0)
    assert len(draws.unique()) > 19_000
    position = (draws[:, 0].double().log() - math.log(1e-6)) / math.log(1e8)
    assert kstest(position.numpy(), "uniform").pvalue > 0.01
    low = torch.tensor([[1.5e-6], [3e-6], [1e-5], [50.0]])
    assert torch.equal(prior.settle(low), low)
    torch.testing.assert_close(prior.transform().decode(prior.transform().encode(low).z), low, atol=0, rtol=1e-3)
    assert not bool(prior.contains(prior.settle(torch.tensor([[0.999e-6]]))))


def test_small_draws_of_a_prior_that_crowds_at_zero_stay_apart():
    """A fifth of the draws of Beta(1/10, 1) had become one number, eps."""
    prior = inference.Prior(td.Beta(torch.tensor([0.1]), torch.tensor([1.0])))
    draws = prior.sample(20_000, seed=0)
    assert kstest(draws[:, 0].double().numpy() ** 0.1, "uniform").pvalue > 0.01
    assert torch.equal(prior.settle(draws), draws)
    torch.testing.assert_close(prior.transform().decode(prior.transform().encode(draws).z), draws, atol=0, rtol=1e-5)
    assert prior.contains(prior.settle(torch.tensor([[0.0], [-1e-7]]))).all()  # rounding
    assert not prior.contains(prior.settle(torch.tensor([[-1e-5]]))).any()


def test_draws_of_a_mirrored_log_uniform_prior():
    base = log_uniform(1e-6, 100.0)
    prior = inference.Prior(td.TransformedDistribution(base, td.AffineTransform(0.0, -1.0)))
    draws = prior.sample(20_000, seed=0)
    assert len(draws.unique()) > 19_000
    assert prior.contains(draws).all()


@pytest.mark.parametrize(
    ("low", "high"), [(1e-6, 100.0), (0.0, 1000.0), (1000.0, 1001.0), (-1.4209, -1.2697), (-5e9, -1664.3), (1.0, 1e3)]
)
def test_points_on_the_bounds_are_moved_to_finite_places_on_the_reals(low, high):
    prior = inference.Prior(td.Uniform(torch.tensor([low]), torch.tensor([high])))
    settled = prior.settle(torch.tensor([[low], [high]]))
    assert prior.contains(settled).all()
    assert prior.transform().encode(settled).z.abs().max() < 40


def test_parameters_that_crowd_at_a_bound_are_read_as_logits():
    skewed = inference.Prior([log_uniform(1e-3, 10.0), td.Uniform(torch.zeros(1), 1.0), td.Gamma(2.0, 1.0)])
    assert skewed.skewed.tolist() == [True, False, False]
    theta = torch.tensor([[0.1, 0.25, 2.0]])
    expected = [math.log((0.1 - 1e-3) / (10 - 0.1)), 0.25, math.log(2.0)]
    torch.testing.assert_close(skewed.inputs(theta), torch.tensor([expected]))
    mirrored = inference.Prior(td.TransformedDistribution(log_uniform(1e-3, 10.0), td.AffineTransform(0.0, -1.0)))
    torch.testing.assert_close(mirrored.inputs(torch.tensor([[-0.1]])), torch.tensor([[-expected[0]]]))
    assert torch.isfinite(skewed.inputs(torch.stack((skewed.low, skewed.high)).clamp(max=1e3))).all()


@pytest.mark.parametrize("method", ["nle", "nre"])
def test_likelihoods_with_a_log_uniform_prior(method):
    """x = log theta + 0.1 noise: the posterior of log theta is N(x, 0.1^2) away from the bounds."""
    prior = log_uniform(1e-3, 10.0)
    theta = inference.Prior(prior).sample(1000, seed=0)
    x = theta.log() + 0.1 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    post = inference.infer(prior, theta, x, method=method, members=1, max_steps=300, seed=0, **QUIET)
    truth = math.log(1e-3) + 1.5
    error = post.sample(1000, x=torch.tensor([truth]), seed=0).log() - truth
    assert abs(float(error.mean())) < 0.15
    assert 0.05 < float(error.std()) < 0.2


def test_files_say_which_parameters_are_logits_and_older_files_have_none(tmp_path, monkeypatch):
    prior = log_uniform(1e-3, 10.0)
    theta = inference.Prior(prior).sample(100, seed=0)
    post = inference.NLE(prior).fit(theta, theta.log(), max_steps=2, **QUIET)
    path = tmp_path / "post.safetensors"
    post.save(path, prior=False)
    again = inference.load_posterior(path, prior=prior)
    with torch.no_grad():
        expected = post._log_likelihood(theta[:5], torch.zeros(1))
        assert torch.equal(again._log_likelihood(theta[:5], torch.zeros(1)), expected)
    options = {name: value for name, value in post._options().items() if name not in ("skewed", "low", "high")}
    monkeypatch.setattr(post, "_options", lambda: options)
    post.save(path, prior=False)
    older = inference.load_posterior(path, prior=prior)
    assert older.inputs.skewed.tolist() == [False]
    post.inputs = dataclasses.replace(post.inputs, skewed=torch.tensor([False]))
    with torch.no_grad():
        raw = post._log_likelihood(theta[:5], torch.zeros(1))
        assert torch.equal(older._log_likelihood(theta[:5], torch.zeros(1)), raw)


@pytest.mark.parametrize(
    "prior",
    [
        td.Uniform(torch.zeros(1, dtype=torch.float64), torch.full((1,), 1e-44, dtype=torch.float64)),
        td.LogNormal(torch.tensor([math.log(1e-40)]), 1.0),
    ],
)
def test_priors_below_the_numbers_of_float32_are_refused(prior):
    with pytest.raises(ConfigError, match="choose another unit"):
        inference.Prior(prior)


@pytest.mark.parametrize("method", ["nle", "nre"])
@pytest.mark.parametrize("unit", [1e-9, 1e-18])
def test_draws_of_parameters_in_small_units_are_no_copies(method, unit):
    """A floor of 1e-6 of the step, in the units of the parameter, had stopped every transition."""
    z = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    x = z + 0.5 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(1))
    post = inference.infer(
        td.Normal(torch.zeros(1), unit), unit * z, x, method=method, members=1, max_steps=100, **QUIET
    )
    draws = post.sample(1000, x=torch.tensor([1.0]), seed=0) / unit
    assert len(draws.unique()) > 990
    assert float(draws.mean()) == pytest.approx(0.8, abs=0.2)
    assert float(draws.std()) == pytest.approx(math.sqrt(0.2), rel=0.2)


def test_tempering_does_not_depend_on_units():
    """The evidence of N(x | 0, 1) times exp(-(x - 1)^2 / (2 0.1^2)), in three units."""
    evidence = td.Normal(0.0, math.sqrt(1.01)).log_prob(torch.tensor(1.0)) + math.log(0.1 * math.sqrt(2 * math.pi))
    for unit in (2.0**-50, 1.0, 2.0**50):
        start = td.Normal(torch.zeros(2, dtype=torch.float64), unit)
        points = unit * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def log_start(v, start=start):
            return start.log_prob(v).sum(-1)

        def log_target(v, unit=unit, log_start=log_start):
            return log_start(v) - 0.5 * ((v / unit - 1) / 0.1).square().sum(-1)

        found = temper(log_start, log_target, points, torch.Generator().manual_seed(1))
        assert found.log_evidence == pytest.approx(2 * float(evidence), abs=0.2)
        assert len(found.points.unique(dim=0)) > 1990
        std = (found.points / unit).std(0)
        torch.testing.assert_close(std, torch.full_like(std, 0.1 / math.sqrt(1.01)), atol=0, rtol=0.1)


def test_tempering_says_whether_it_came_to_the_target():
    points = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def run(at, **options):
        target = td.Normal(torch.tensor([float(at)], dtype=torch.float64), 0.4)
        start = td.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
        log_start, log_target = (lambda v: start.log_prob(v).sum(-1)), (lambda v: target.log_prob(v).sum(-1))
        return temper(log_start, log_target, points, torch.Generator().manual_seed(1), **options)

    assert run(1.0).complete
    assert run(1.0, stop_outside=True).complete
    assert not run(300.0, most=20).complete
    early = run(30.0, stop_outside=True)
    assert not early.complete
    assert early.temperatures[-1] < 1
    assert float(early.points.min()) > float(points.max())


def test_a_posterior_without_density_at_all_draws_of_the_prior_says_so():
    points = torch.zeros(50, 1)
    with pytest.raises(InputError, match=r"0 at all 50 draws of the prior .* check its units"):
        temper(lambda v: v[:, 0], lambda v: torch.full((len(v),), -math.inf), points, torch.Generator())


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_a_prior_without_density_at_its_own_draws_is_refused(scale):
    """The square of such a scale is 0 or infinite in float32, and the error blamed the parameters."""
    with pytest.raises(ConfigError, match="choose another unit"):
        inference.NPE(td.Normal(torch.zeros(1), scale))


@pytest.mark.parametrize("method", ["nle", "nre"])
@pytest.mark.parametrize(
    ("trained", "other"),
    [
        (td.Uniform(torch.full((1,), 0.1), torch.full((1,), 6.0)), td.LogNormal(torch.zeros(1), 0.5)),
        (td.LogNormal(torch.zeros(1), 1.0), td.Uniform(torch.full((1,), 0.1), torch.full((1,), 6.0))),
        (log_uniform(1e-3, 10.0), log_uniform(0.1, 2.0)),
    ],
)
def test_a_likelihood_does_not_depend_on_the_prior_of_the_file_that_is_replaced(
    method, trained, other, tmp_path, recwarn
):
    theta = inference.Prior(trained).sample(200, seed=0)
    maker = inference.NLE(trained) if method == "nle" else inference.NRE(trained)
    post = maker.fit(theta, theta.log(), max_steps=20, **QUIET)
    path = tmp_path / "post.safetensors"
    post.save(path, prior=False)
    again = inference.load_posterior(path, prior=other)
    points, x = torch.tensor([[0.3], [1.0], [1.9]]), torch.zeros(1)
    with torch.no_grad():
        assert torch.equal(again._log_likelihood(points, x), post._log_likelihood(points, x))
    assert isinstance(again.prior.parts[0], td.Distribution)
    assert again.sample(50, [0.0], seed=0).shape == (50, 1)


def test_a_prior_wider_than_that_of_the_training_is_warned_of(tmp_path):
    """Half of the draws of U(0, 2) lie above the 1 up to which simulations were seen; a narrower prior is no reason to warn."""
    prior = td.Uniform(torch.zeros(1), torch.ones(1))
    theta = inference.Prior(prior).sample(200, seed=0)
    path = tmp_path / "post.safetensors"
    inference.NLE(prior).fit(theta, theta, max_steps=2, **QUIET).save(path)
    with pytest.warns(
        PushforwardWarning,
        match=r"5\d % of the draws of this prior lie outside the bounds of the prior of the training",
    ):
        inference.load_posterior(path, prior=td.Uniform(torch.zeros(1), 2 * torch.ones(1)))
    inference.load_posterior(path, prior=td.Uniform(torch.full((1,), 0.2), torch.full((1,), 0.8)))


def test_files_of_before_take_the_bounds_from_their_prior(tmp_path, monkeypatch):
    prior = td.LogNormal(torch.zeros(1), 1.0)
    theta = inference.Prior(prior).sample(200, seed=0)
    post = inference.NLE(prior).fit(theta, theta.log(), max_steps=5, **QUIET)
    options = {name: value for name, value in post._options().items() if name not in ("low", "high")}
    monkeypatch.setattr(post, "_options", lambda: options)
    path = tmp_path / "post.safetensors"
    post.save(path)
    older = inference.load_posterior(path, prior=td.Uniform(torch.full((1,), 0.1), torch.ones(1)))
    with torch.no_grad():
        assert torch.equal(
            older._log_likelihood(theta[:5], torch.zeros(1)), post._log_likelihood(theta[:5], torch.zeros(1))
        )
