"""Checks of posteriors: they pass for a posterior in closed form, and fail where it was made wrong on purpose."""

from __future__ import annotations

import math
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch import distributions as td

from pushforward import inference
from pushforward.errors import ConfigError, InputError, PushforwardWarning
from pushforward.inference import SimulationPosterior
from pushforward.inference.data_scale import DataScale

from .closed_form import Exact, simulations, simulator


def calibration(posterior, count=300, seed=0):
    return inference.calibrate(posterior, *simulations(count, seed), draws=100)


def test_the_right_posterior_passes():
    found = calibration(Exact())
    assert min(found.p_values.values()) > 0.01
    np.testing.assert_allclose(found.coverage([0.5, 0.9]), [0.5, 0.9], atol=0.1)
    np.testing.assert_allclose(found.tarp_coverage([0.5, 0.9]), [0.5, 0.9], atol=0.1)
    for coverage in (found.coverage, found.tarp_coverage):
        assert coverage(0.5) == coverage([0.5])
        with pytest.raises(InputError, match=r"levels must be real numbers .*; got str\."):
            coverage("a")


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        (Exact(width=0.5), ("SBC", "coverage")),
        (Exact(width=2.0), ("SBC", "coverage")),
        (Exact(shift=1.0), ("SBC", "coverage", "TARP")),
        (Exact(correlation=0.95), ("coverage",)),  # all marginals are right
    ],
    ids=["narrow", "wide", "shifted", "correlated"],
)
def test_wrong_posteriors_fail(wrong, names):
    found = calibration(wrong)
    for name in names:
        assert found.p_values[name] < 1e-3, (name, found)
    if wrong.correlation:
        assert found.p_values["SBC"] > 0.01


def test_p_values_are_uniform_for_the_right_posterior():
    values = [calibration(Exact(), 60, seed).p_values for seed in range(60)]
    for name in ("coverage", "TARP"):
        assert kstest([value[name] for value in values], "uniform").pvalue > 1e-3


class Bound(Exact):
    """The posterior of data that say nothing, which is the prior; most of its draws lie at a bound, where float32 makes them equal."""

    method: ClassVar[str] = "a bound in tests"

    def __init__(self, prior):
        SimulationPosterior.__init__(self, inference.Prior(prior), [torch.nn.Identity()], DataScale(1), (1,))

    def _sample(self, count, x, generator):
        return self.prior.sample(count, seed=int(torch.randint(2**31, (), generator=generator)))

    def _log_prob(self, theta, x):
        return self.prior.log_prob(theta)


@pytest.mark.parametrize(
    "prior",
    [td.Beta(torch.tensor([0.05]), torch.tensor([0.05])), td.Gamma(torch.tensor([0.02]), torch.tensor([1.0]))],
    ids=["beta", "gamma"],
)
def test_the_right_posterior_passes_where_draws_at_a_bound_are_equal(prior):
    torch.manual_seed(0)
    theta = prior.sample((200,))  # some of them on the bound itself
    found = inference.calibrate(Bound(prior), theta, torch.randn(200, 1), draws=100, seed=7)
    assert min(found.p_values.values()) > 0.01


def test_too_wide_posteriors_cover_too_much():
    assert calibration(Exact(width=2.0)).coverage([0.5])[0] > 0.8
    assert calibration(Exact(width=0.5)).coverage([0.5])[0] < 0.3


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
def test_conformal_regions_cover_whatever_the_posterior(width):
    """Over 20 redraws the coverage follows Beta(k, n + 1 - k) up to the binomial error of 2,000 test pairs."""
    count, level, coverages = 199, 0.9, []
    for seed in range(20):
        region = inference.ConformalRegion(Exact(width=width), *simulations(count, 100 + seed), level=level)
        coverages.append(float(region.covered(*simulations(2000, 500 + seed)).double().mean()))
    k = math.ceil(level * (count + 1))
    law = beta(k, count + 1 - k)
    assert kstest(coverages, law.cdf).pvalue > 1e-3
    assert np.mean(coverages) > 0.9 - 3 * law.std() / math.sqrt(20)


def test_regions_cover_parameters_that_float32_rounds_to_a_bound():
    """A fifth of the draws of Beta(1/20, 1/20) is 1 in float32, where the density of the prior is infinite."""
    theta = np.random.default_rng(0).beta(0.05, 0.05, (2000, 1)).astype(np.float32)
    assert (theta == 1).mean() > 0.2
    x, post = np.zeros_like(theta), Bound(td.Beta(torch.tensor([0.05]), torch.tensor([0.05])))
    region = inference.ConformalRegion(post, theta[:1000], x[:1000], level=0.9)
    assert region.covered(theta[1000:], x[1000:]).double().mean() > 0.86
    assert region.contains(torch.ones(1, 1), x=torch.zeros(1)).tolist() == [True]


def test_a_region_says_which_parameters_it_contains():
    region = inference.ConformalRegion(Exact(), *simulations(199), level=0.9)
    x = torch.zeros(2)
    assert region.contains(torch.zeros(1, 2), x).tolist() == [True]
    assert region.contains(torch.full((1, 2), 5.0), x).tolist() == [False]


def test_a_region_needs_enough_simulations():
    with pytest.raises(InputError, match="at least 99"):
        inference.ConformalRegion(Exact(), *simulations(50), level=0.99)
    with pytest.raises(ConfigError, match="level"):
        inference.ConformalRegion(Exact(), *simulations(50), level=1.0)


def test_the_p_value_of_an_observation_is_uniform_for_simulations_and_small_for_others():
    x = simulations(1000)[1]
    guard = inference.SimulationGuard(x)
    fresh = guard.p_value(simulations(500, 9)[1])
    assert kstest(fresh, "uniform").pvalue > 1e-3
    shifted = guard.p_value(simulations(100, 10)[1] + 6.0)
    assert np.median(shifted) < 0.01
    assert isinstance(guard.p_value(torch.zeros(2)), float)


def test_the_guard_refuses_few_simulations_and_other_shapes():
    with pytest.raises(InputError, match="at least 100"):
        inference.SimulationGuard(torch.randn(50, 2))
    with pytest.raises(InputError, match="at least one number"):
        inference.SimulationGuard(torch.randn(200, 0))
    with pytest.raises(InputError, match="must have the shape"):
        inference.SimulationGuard(torch.randn(200, 2)).p_value(torch.zeros(3))
    with pytest.raises(InputError, match="got a single number"):
        inference.SimulationGuard(3.0)
    with pytest.raises(InputError, match="NaN or infinity"):
        inference.SimulationGuard(torch.randn(200, 2)).p_value(torch.tensor([math.nan, 0.0]))


@pytest.mark.parametrize("values", [np.array([0.5, np.nan]), np.zeros(0), np.zeros((3, 2))])
def test_values_without_a_test_of_uniformity_are_refused(values):
    with pytest.raises(InputError, match="values must be at least one number"):
        inference.uniformity_p_value(values)


def test_predictive_p_values_tell_a_misfit():
    made, good = inference.posterior_predictive(Exact(), simulator, torch.tensor([0.3, -0.2]))
    assert made.shape == (500, 2)
    assert good > 0.05
    _, bad = inference.posterior_predictive(Exact(shift=8.0), simulator, torch.tensor([0.3, -0.2]))
    assert bad < 0.01


@pytest.mark.slow
def test_the_local_test_finds_a_wrong_posterior():
    data = simulations(1000)
    x = torch.tensor([0.5, 0.5])
    _, wrong = inference.local_c2st(Exact(shift=1.5), *data, x)
    _, right = inference.local_c2st(Exact(), *data, x)
    assert wrong < 0.06
    assert right > 0.05


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_the_local_test_takes_any_seed(seed):
    _, p_value = inference.local_c2st(Exact(), *simulations(20), torch.zeros(2), seed=seed, permutations=1)
    assert p_value in (0.5, 1.0)


def test_check_passes_and_draws_a_picture(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", PushforwardWarning)
        report = inference.check(Exact(), simulator, x=torch.zeros(2), simulations=100, draws=50)
    assert report.passed
    assert set(report.p_values) == {"SBC", "coverage", "TARP", "observation", "predictive"}
    report.plot(tmp_path / "check.png")
    assert (tmp_path / "check.png").stat().st_size > 10_000


def test_check_warns_about_a_wrong_posterior_and_a_strange_observation():
    with pytest.warns(PushforwardWarning) as caught:
        report = inference.check(Exact(width=0.3), simulator, x=torch.full((2,), 9.0), simulations=100, draws=50)
    assert not report.passed
    messages = " ".join(str(warning.message) for warning in caught)
    assert "coverage: p =" in messages
    assert "observation: p =" in messages


def test_any_score_makes_the_p_value():
    from pushforward.detection.scores import Neighbors

    guard = inference.SimulationGuard(simulations(600)[1], score=Neighbors(k=5))
    assert kstest(guard.p_value(simulations(300, 9)[1]), "uniform").pvalue > 1e-3
    assert guard.p_value(torch.full((2,), 8.0)) < 0.01


def test_progress_in_plain_lines(monkeypatch, capsys):
    seconds = iter(range(0, 100_000, 7))  # each step takes at least 14 of these
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    inference.calibrate(Exact(), *simulations(20, 0), draws=10, progress="plain")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 10
    assert lines[0].startswith("step ")
    assert "/20" in lines[0]
    assert lines[0].endswith("left")
    with pytest.raises(ConfigError, match="progress"):
        inference.calibrate(Exact(), *simulations(20, 0), progress="loud")


def test_runs_that_fail_do_not_count_in_the_predictive_check():
    """A third of the simulations has NaN; the others are right."""

    def sometimes(theta):
        x = simulator(theta)
        x[torch.rand(len(x)) < 1 / 3] = math.nan
        return x

    with pytest.warns(PushforwardWarning, match="gave no finite data"):
        made, p_value = inference.posterior_predictive(Exact(), sometimes, torch.zeros(2), draws=300)
    assert made.shape == (300, 2)
    assert p_value > 0.05


def sometimes(theta):
    """A simulator of which a tenth of the runs give NaN."""
    x = simulator(theta)
    x[torch.rand(len(x)) < 0.1] = math.nan
    return x


def test_one_warning_a_call_says_what_the_checks_do_with_failed_runs():
    with pytest.warns(PushforwardWarning) as caught:
        inference.check(Exact(), sometimes, x=torch.zeros(2), simulations=40, draws=20)
    about_runs = [warning for warning in caught if "finite data" in str(warning.message)]
    assert len(about_runs) == 1
    assert "The checks use the other runs" in str(about_runs[0].message)
    assert about_runs[0].filename == __file__
    with pytest.warns(PushforwardWarning, match="do not count in the p-value") as caught:
        inference.posterior_predictive(Exact(), sometimes, torch.zeros(2), draws=200)
    assert [warning.filename for warning in caught] == [__file__]


def test_pairs_with_nan_are_left_out_with_a_warning_that_names_the_first():
    theta, x = simulations(150)
    x[37, 1], theta[60, 0] = math.nan, math.inf
    for use in (
        lambda: inference.calibrate(Exact(), theta, x, draws=20).ranks.shape[0],
        lambda: inference.ConformalRegion(Exact(), theta, x).count,
    ):
        with pytest.warns(
            PushforwardWarning, match="2 of 150 simulations contain NaN .* left out; the first is row 37"
        ) as caught:
            assert use() == 148
        assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(PushforwardWarning, match="the first is row 37"):
        statistic, _ = inference.local_c2st(Exact(), theta, x, torch.zeros(2), permutations=1)
    assert statistic >= 0


def test_observations_with_nan_are_named_where_each_has_a_result():
    theta, x = simulations(50)
    region = inference.ConformalRegion(Exact(), theta, x)
    x[37, 1] = math.nan
    x[40] = math.inf
    for use in (
        lambda: region.covered(theta, x), lambda: Exact().log_prob(theta, x), lambda: Exact().sample_batched(3, x),
    ):  # fmt: skip
        with pytest.raises(
            InputError, match=r"2 of 50 observations contain NaN .*; the first is row 37: drop such rows"
        ):
            use()


def test_the_number_of_pairs_must_agree():
    theta, x = simulations(50)
    with pytest.raises(InputError, match="give one row of x for each row of theta"):
        inference.ConformalRegion(Exact(), theta, x[:40])


def test_swapped_arguments_are_named():
    theta, x = simulations(50)
    for use in (
        lambda: inference.check(simulator, Exact(), x=torch.zeros(2)),
        lambda: inference.posterior_predictive(simulator, Exact(), torch.zeros(2)),
        lambda: inference.calibrate(simulator, theta, x),
        lambda: inference.ConformalRegion(simulator, theta, x),
        lambda: inference.local_c2st(simulator, theta, x, torch.zeros(2)),
    ):
        with pytest.raises(ConfigError, match=r"posterior must be a posterior from simulations, .*; got function"):
            use()
    for use in (inference.check, inference.posterior_predictive):
        with pytest.raises(ConfigError, match=r"simulator must be a function of parameters .*; got Tensor"):
            use(Exact(), theta, x=torch.zeros(2))


def test_arrays_are_taken_too():
    theta, x = (part.numpy() for part in simulations(200))
    assert inference.calibrate(Exact(), theta, x, draws=20).ranks.shape == (200, 2)
    assert inference.ConformalRegion(Exact(), theta, x).covered(theta, x).double().mean() >= 0.9
    assert inference.SimulationGuard(x).p_value([0.0, 0.0]) > 0.1


def test_a_wrong_observation_is_refused_before_anything_is_drawn():
    with pytest.raises(InputError, match="must have the shape of a simulation"):
        inference.check(Exact(), lambda theta: pytest.fail("the simulator ran"), x=torch.zeros(3))


def test_one_parameter_may_be_a_list_of_numbers():
    theta, x = simulations(100)
    post = inference.NPE(torch.distributions.Normal(0.0, 1.0)).fit(theta[:, 0], x[:, 0], max_steps=2, progress="silent")
    assert inference.calibrate(post, theta[:, 0], x[:, 0], draws=20).ranks.shape == (100, 1)
    assert inference.ConformalRegion(post, theta[:, 0], x[:, 0]).covered(theta[:5, 0], x[:5, 0]).shape == (5,)
    with pytest.raises(InputError, match="theta must have the shape"):
        inference.calibrate(post, theta, x)


def test_a_strange_observation_fails_both_of_its_checks_also_when_runs_fail():
    """The smallest possible p-value must be below the limit, or the check could not fail."""

    def sometimes(theta):
        x = simulator(theta)
        x[torch.rand(len(x)) < 0.1] = math.nan
        return x

    strange = torch.tensor([20.0, -20.0])
    for model in (simulator, sometimes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PushforwardWarning)
            found = inference.check(Exact(), model, x=strange, simulations=20, draws=20)
        limit = 0.01 / len(found.p_values)
        assert found.p_values["observation"] < limit
        assert found.p_values["predictive"] < limit


def test_single_numbers_are_observations_of_one_coordinate():
    """As in ``NPE.fit`` and ``calibrate``; they ended in an IndexError."""
    torch.manual_seed(0)
    x = torch.randn(300)
    guard = inference.SimulationGuard(x)
    assert guard.p_value(0.0) == guard.p_value(torch.tensor([0.0])) > 0.1
    assert guard.p_value(torch.tensor(9.0)) < 0.05
    np.testing.assert_array_equal(guard.p_value(x[:5]), guard.p_value(x[:5, None]))
    theta = torch.randn(200)
    data = theta + 0.5 * torch.randn(200)
    post = inference.NPE(torch.distributions.Normal(0.0, 1.0)).fit(theta, data, max_steps=20, progress="silent")
    found = inference.local_c2st(post, theta, data, torch.tensor([0.0]), permutations=2)
    assert found == inference.local_c2st(post, theta[:, None], data[:, None], torch.tensor([0.0]), permutations=2)
