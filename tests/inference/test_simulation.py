"""Posteriors from simulations: against closed forms, with bounded priors, as files, and with bad input."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
import torch
from torch import distributions as td
from torch.utils.data import DataLoader, TensorDataset

import pushforward as pf
from pushforward import inference
from pushforward.errors import ConfigError, InputError, PushforwardWarning, StorageError
from pushforward.inference.data_scale import DataScale
from pushforward.inference.training_data import training_data
from pushforward.networks import MLP
from pushforward.numerics import logmeanexp

from .closed_form import NOISE, PRIOR, VARIANCE, simulations, simulator

QUIET = {"progress": "silent"}
UNIT = td.Uniform(torch.zeros(1), torch.ones(1))
X = torch.tensor([1.0, -0.5])


def assert_is_the_posterior(draws, tolerance):
    """Mean and standard deviation of N(x / (1 + s^2), s^2 / (1 + s^2))."""
    std = math.sqrt(VARIANCE)
    torch.testing.assert_close(draws.mean(0), X / (1 + NOISE**2), atol=tolerance * std, rtol=0)
    torch.testing.assert_close(draws.std(0), torch.full((2,), std), atol=0, rtol=tolerance)


@pytest.mark.parametrize("method", ["npe", "nle", "nre"])
def test_the_posterior_of_a_linear_simulator(method):
    post = inference.infer(PRIOR, *simulations(2000), method=method, max_steps=300, **QUIET)
    assert_is_the_posterior(post.sample(1000, x=X, seed=0), 0.25)
    grid = torch.cartesian_prod(torch.linspace(-2, 3, 40), torch.linspace(-3, 2, 40))
    with torch.no_grad():
        mass = post.log_prob(grid, x=X).exp().sum() * (5 / 39) ** 2
    assert float(mass) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("method", ["npe", "nle", "nre"])
def test_files_give_the_same_posterior(method, tmp_path):
    post = inference.infer(PRIOR, *simulations(200), method=method, max_steps=5, **QUIET)
    post.save(tmp_path / "post.safetensors")
    again = inference.load_posterior(tmp_path / "post.safetensors")
    assert type(again) is type(post)
    assert torch.equal(post.sample(20, x=X, seed=3), again.sample(20, x=X, seed=3))
    assert torch.equal(post.log_prob(torch.zeros(2, 2), x=X), again.log_prob(torch.zeros(2, 2), x=X))


def test_auto_chooses_by_held_out_simulations_and_is_saved_with_its_start(tmp_path):
    post = inference.infer(PRIOR, *simulations(400), max_steps=100, **QUIET)
    assert set(post.scores) == {"npe", "nle"}
    assert post.method == max(post.scores, key=post.scores.__getitem__)
    truth = td.Independent(td.Normal(torch.zeros(2), math.sqrt(VARIANCE)), 1)
    entropy = -float(truth.entropy())
    assert all(
        score < entropy + 0.3 for score in post.scores.values()
    )  # no posterior predicts better than the true one
    nle = inference.NLE(PRIOR).fit(*simulations(200), max_steps=5, **QUIET)
    nle.proposal = inference.NPE(PRIOR).fit(*simulations(200), max_steps=5, **QUIET)
    nle.save(tmp_path / "post.safetensors")
    again = inference.load_posterior(tmp_path / "post.safetensors")
    assert torch.equal(nle.sample(20, x=X, seed=3), again.sample(20, x=X, seed=3))


@pytest.mark.parametrize("method", ["npe", pytest.param("nle", marks=pytest.mark.slow)])
def test_nothing_leaks_out_of_a_bounded_prior(method):
    """The true parameter is at the edge; every draw is inside, at once, and the density has mass one inside."""
    prior = td.Uniform(-torch.ones(2), torch.ones(2))
    theta = prior.sample((1000,))
    post = inference.infer(prior, theta, theta + 0.2 * torch.randn(1000, 2), method=method, max_steps=200, **QUIET)
    edge = torch.tensor([1.3, -1.3])
    began = time.monotonic()
    draws = post.sample(1000, x=edge, seed=0)
    assert time.monotonic() - began < 60
    assert ((draws > -1) & (draws < 1)).all()
    assert draws[:, 0].mean() > 0.7
    assert draws[:, 1].mean() < -0.7
    assert torch.isneginf(post.log_prob(torch.tensor([[1.1, 0.0]]), x=edge)).all()


def test_half_bounded_and_mixed_priors():
    prior = [td.Gamma(2.0, 1.0), td.Uniform(torch.tensor([2.0]), torch.tensor([5.0])), td.Normal(torch.zeros(2), 1.0)]
    joint = inference.Prior(prior)
    theta = joint.sample(500, seed=0)
    assert joint.features == 4
    u = joint.transform().encode(theta)
    assert torch.isfinite(u.z).all()
    torch.testing.assert_close(joint.transform().decode(u.z), theta, atol=1e-4, rtol=1e-4)
    post = inference.NPE(prior).fit(theta, theta + 0.1 * torch.randn(500, 4), max_steps=20, **QUIET)
    draws = post.sample(500, x=theta[0], seed=0)
    assert joint.contains(draws).all()


def test_proportions_have_a_dirichlet_prior_and_stay_on_their_simplex():
    """Multinomial counts: the posterior of a Dirichlet prior is Dirichlet with the counts added."""
    concentration = torch.tensor([2.0, 1.0, 1.0])
    prior = inference.Prior([td.Dirichlet(concentration), td.Normal(0.0, 1.0)])
    assert prior.features == 3
    p = torch.tensor([[0.2, 0.3, 0.4]])
    expected = td.Dirichlet(concentration).log_prob(torch.tensor([0.2, 0.3, 0.5])) + td.Normal(0.0, 1.0).log_prob(
        torch.tensor(0.4)
    )
    torch.testing.assert_close(prior.log_prob(p)[0], expected)
    assert not prior.contains(torch.tensor([[0.6, 0.5, 0.0]]))[0]
    theta = prior.sample(1500, seed=0)
    full = torch.cat((theta[:, :2], 1 - theta[:, :2].sum(1, keepdim=True)), 1)
    x = torch.stack([torch.bincount(torch.multinomial(row, 20, replacement=True), minlength=3) for row in full])
    post = inference.NPE(prior).fit(theta, x.float(), max_steps=300, **QUIET)
    draws = post.sample(2000, x=torch.tensor([10.0, 6.0, 4.0]), seed=0)
    assert prior.contains(draws).all()
    truth = td.Dirichlet(concentration + torch.tensor([10.0, 6.0, 4.0]))
    torch.testing.assert_close(draws[:, :2].mean(0), truth.mean[:2], atol=0.04, rtol=0)
    torch.testing.assert_close(draws[:, :2].std(0), truth.stddev[:2], atol=0, rtol=0.3)


def test_the_log_density_of_the_joined_prior():
    parts = [td.Gamma(2.0, 1.0), td.Normal(torch.zeros(2), 1.0)]
    theta = torch.tensor([[0.5, 1.0, -1.0]])
    expected = parts[0].log_prob(theta[:, 0]) + parts[1].log_prob(theta[:, 1:]).sum(-1)
    torch.testing.assert_close(inference.Prior(parts).log_prob(theta), expected)


@pytest.mark.parametrize(
    "prior",
    [
        td.Uniform(-torch.ones(2), torch.ones(2)), td.Normal(torch.zeros(2), 1.0), td.LogNormal(torch.zeros(2), 1.0),
        td.Laplace(torch.zeros(2), 1.0), td.Cauchy(torch.zeros(2), 1.0), td.StudentT(5.0, torch.zeros(2)),
        td.Gamma(torch.ones(2), 1.0), td.Exponential(torch.ones(2)), td.Beta(torch.ones(2), 2 * torch.ones(2)),
        td.HalfNormal(torch.ones(2)), td.HalfCauchy(torch.ones(2)), td.MultivariateNormal(torch.zeros(2), torch.eye(2)),
        td.Dirichlet(torch.tensor([1.0, 2.0, 3.0])), td.Normal(torch.full((2,), 0.1).double(), 0.3),
        td.MultivariateNormal(torch.zeros(2).double(), torch.tensor([[0.1, 0.03], [0.03, 0.2]]).double()),
    ],
    ids=lambda prior: type(prior).__name__,
)  # fmt: skip
def test_priors_are_stored(prior):
    joint = inference.Prior(prior)
    again = inference.Prior.build(joint.describe())
    theta = joint.sample(20, seed=0)
    assert again.log_prob(theta.double()).dtype == joint.log_prob(theta.double()).dtype
    assert again.describe() == joint.describe()
    # To the last bits: the solver of a multivariate normal rounds by where its matrix lies in memory.
    torch.testing.assert_close(again.log_prob(theta.double()), joint.log_prob(theta.double()), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(again.log_prob(theta), joint.log_prob(theta), rtol=1e-6, atol=1e-6)
    z = joint.transform().encode(theta).z
    assert torch.isfinite(z).all()
    assert joint.contains(joint.transform().decode(z)).all()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (td.LKJCholesky(3), "of one vector"),
        (td.Poisson(torch.ones(3)), "is discrete"),
        (td.LogisticNormal(torch.zeros(2), torch.ones(2)), "must be a box"),
        (td.Uniform(torch.tensor([2459000.0]), torch.tensor([2459001.0])), "float32 cannot resolve"),
        (td.Normal(torch.tensor([1e9], dtype=torch.float64), 1.0), "float32 cannot resolve"),
        (
            td.Uniform(torch.zeros(2), torch.tensor([1.0, math.inf])),
            "parameter 1 of the prior has draws that are infinite",
        ),
        ("uniform", "must be a torch distribution"),
        (td.Normal(torch.zeros(2, 2), 1.0), "of one vector"),
        ([], "at least one"),
    ],
)
def test_priors_that_do_not_fit_are_refused(prior, message):
    with pytest.raises(ConfigError, match=message):
        inference.Prior(prior)


def test_embedding_networks_train_with_the_flow(tmp_path):
    """The data are 20 noisy copies of theta; an embedding reduces them to two numbers."""
    theta = PRIOR.sample((1000,))
    x = theta[:, None] + 0.5 * torch.randn(1000, 20, 2)
    post = inference.NPE(PRIOR, embedding=MLP(40, 4, hidden=(32,))).fit(theta, x, max_steps=300, **QUIET)
    draws = post.sample(1000, x=x[0], seed=0)
    assert (draws.mean(0) - theta[0]).abs().max() < 0.6
    post.save(tmp_path / "post.safetensors")
    again = inference.load_posterior(tmp_path / "post.safetensors")
    assert torch.equal(post.sample(20, x=x[0], seed=1), again.sample(20, x=x[0], seed=1))


def test_ensembles_are_mixtures():
    post = inference.NPE(PRIOR, members=3).fit(*simulations(200), max_steps=20, **QUIET)
    assert len(post.networks) == 3
    theta = torch.zeros(1, 2)
    parts = torch.stack([network.log_prob(theta, post.scale(X.double())[None]) for network in post.networks])
    torch.testing.assert_close(post.log_prob(theta, x=X), parts.logsumexp(0) - math.log(3))


@pytest.mark.parametrize("flow", ["maf", "cnf"])
def test_other_flows(flow):
    post = inference.NPE(PRIOR, flow=flow).fit(*simulations(300), max_steps=5, **QUIET)
    assert post.sample(20, x=X, seed=0).shape == (20, 2)


def test_a_data_loader_trains_npe():
    loaders = [DataLoader(TensorDataset(*simulations(640, seed)), batch_size=64) for seed in (0, 1)]
    post = inference.NPE(PRIOR).fit(loaders[0], validation=loaders[1], max_steps=300, **QUIET)
    assert_is_the_posterior(post.sample(2000, x=X, seed=0), 0.35)
    with pytest.raises(ConfigError, match="cannot be split"):
        inference.NPE(PRIOR).fit(loaders[0], max_steps=1, **QUIET)


def test_many_observations_at_once():
    post = inference.NPE(PRIOR).fit(*simulations(200), max_steps=5, **QUIET)
    draws = post.sample_batched(50, simulations(7)[1], seed=0)
    assert draws.shape == (7, 50, 2)
    assert repr(post) == "NPEPosterior(2 parameters, data (2,), 1 network)"
    assert post.log_prob(draws[:, 0], x=simulations(7)[1]).shape == (7,)


def test_sampling_changes_no_random_state_and_repeats_with_its_seed():
    post = inference.NPE(PRIOR).fit(*simulations(200), max_steps=5, **QUIET)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = post.sample(5, x=X, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, post.sample(5, x=X, seed=1))
    assert not torch.equal(first, post.sample(5, x=X, seed=2))
    assert torch.equal(first, post.sample(np.int64(5), x=X, seed=np.int64(1)))
    with pytest.raises(ConfigError, match="seed must be an integer"):
        post.sample(5, x=X, seed="1")


def test_heavy_tails_and_wide_ranges_are_scaled():
    from pushforward.inference.data_scale import DataScale

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5000, 3, generator=generator)
    x = torch.stack((z[:, 0], (3 * z[:, 1]).exp(), torch.tan(1.5 * torch.tanh(z[:, 2])) ** 3), 1)
    scaled = DataScale.of(x)(x)
    assert scaled.std(0).tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    assert scaled.abs().max() < 10


# Simulators


def crashes(theta):
    if (theta[:, 0] > 1.5).any():
        raise RuntimeError("the solver did not converge")
    return simulator(theta)


def test_a_simulator_that_crashes_loses_only_the_rows_at_fault():
    with pytest.warns(PushforwardWarning, match=r"gave no finite data \(\d+ errors; run \d+: RuntimeError: the solver"):
        runs = inference.simulate(crashes, PRIOR, 300, batch_size=50)
    bad = runs.theta[:, 0] > 1.5
    assert torch.equal(~runs.valid, bad)
    assert set(runs.failures) == set(bad.nonzero()[:, 0].tolist())
    with pytest.warns(PushforwardWarning, match="training leaves them out"):
        inference.NPE(PRIOR).fit(runs, max_steps=2, **QUIET)


@pytest.mark.parametrize("method", ["auto", "npe"])
def test_failed_runs_are_told_once_and_where_the_call_is(method):
    with pytest.warns(PushforwardWarning, match=r"gave no finite data .*; training leaves them out") as caught:
        inference.infer(PRIOR, simulator=crashes, simulations=100, method=method, members=1, max_steps=2, **QUIET)
    assert [warning.filename for warning in caught] == [__file__]


def test_failed_runs_of_all_rounds_are_told_once():
    with pytest.warns(PushforwardWarning, match=r"of 200 runs .*; the first: RuntimeError.* training leaves") as caught:
        inference.sequential(
            inference.NPE(PRIOR), crashes, torch.zeros(2), rounds=2, simulations=100, max_steps=2, **QUIET
        )
    assert [warning.filename for warning in caught] == [__file__]


def test_nan_is_recorded_and_kept():
    def sometimes(theta):
        return torch.where(theta > 2, math.nan, theta)

    with pytest.warns(PushforwardWarning, match="no finite data"):
        runs = inference.simulate(sometimes, PRIOR, 500)
    assert len(runs) == 500
    assert runs.failures == {}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda theta: "text", "every run of the simulator failed"),
        (lambda theta: ["a"] * len(theta), "every run of the simulator failed"),
        (lambda theta: theta[0], "every run of the simulator failed; the first: it returned the shape"),
        (lambda theta: torch.full_like(theta, math.nan), "no run of the simulator gave finite data"),
    ],
)
def test_simulators_that_return_no_data_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        inference.simulate(bad, PRIOR, 30)


def test_numpy_simulators_and_scalars():
    runs = inference.simulate(lambda theta: np.asarray(theta)[:, 0], PRIOR, 50)
    assert runs.x.shape == (50, 1)


def test_the_simulator_sees_a_seed_and_the_caller_keeps_the_random_state():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = inference.simulate(simulator, PRIOR, 50, seed=4).x
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, inference.simulate(simulator, PRIOR, 50, seed=4).x)


def test_the_simulators_noise_is_independent_of_the_parameters():
    """The prior and the simulator draw normal numbers of the same shape, so equal seeds would make them equal."""
    for seed in (0, 1):
        runs = inference.simulate(simulator, PRIOR, 2000, batch_size=2000, seed=seed)
        noise = (runs.x - runs.theta).flatten()
        assert abs(float(torch.corrcoef(torch.stack((noise, runs.theta.flatten())))[0, 1])) < 0.08
        assert float(noise.std()) == pytest.approx(NOISE, rel=0.05)


# Bad input


def test_wrong_shapes_and_values_have_a_sentence():
    theta, x = simulations(100)
    with pytest.raises(InputError, match="must have the shape"):
        inference.NPE(PRIOR).fit(theta[:, :1], x)
    with pytest.raises(InputError, match="100 parameters and 50 data"):
        inference.NPE(PRIOR).fit(theta, x[:50])
    with pytest.raises(InputError, match="at least 20"):
        inference.NPE(PRIOR).fit(theta[:10], x[:10])
    with pytest.raises(ConfigError, match="either simulations"):
        inference.NPE(PRIOR).fit()
    with pytest.raises(InputError, match="lie outside the prior"):
        inference.NPE(td.Uniform(-torch.ones(2), torch.ones(2))).fit(3 * theta, x)
    post = inference.NPE(PRIOR).fit(theta, x, max_steps=2, **QUIET)
    with pytest.raises(InputError, match="must have the shape of a simulation"):
        post.sample(5, x=torch.zeros(3))
    with pytest.raises(InputError, match=r"got \(4, 2\): sample_batched"):
        post.sample(5, x=torch.zeros(4, 2))
    with pytest.raises(InputError, match="NaN or infinity"):
        post.sample(5, x=torch.tensor([math.nan, 0.0]))
    with pytest.raises(InputError, match="theta must have the shape"):
        post.log_prob(torch.zeros(4, 3), x=X)


def test_files_that_are_no_posterior_are_refused(tmp_path):
    path = tmp_path / "post.safetensors"
    with pytest.raises(StorageError):
        inference.load_posterior(path)
    post = inference.NPE(PRIOR).fit(*simulations(100), max_steps=2, **QUIET)
    post.save(path, prior=False)
    with pytest.raises(InputError, match="has no prior"):
        inference.load_posterior(path)
    assert inference.load_posterior(path, prior=PRIOR).features == 2
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StorageError):
        inference.load_posterior(path)


def test_npe_takes_no_other_prior_than_that_of_its_file_and_nle_does(tmp_path):
    path, other = tmp_path / "post.safetensors", td.Normal(torch.ones(2), 1.0)
    inference.NPE(PRIOR).fit(*simulations(100), max_steps=2, **QUIET).save(path)
    with pytest.raises(InputError, match=r"stores the prior .* NPE cannot be given another one: leave out prior="):
        inference.load_posterior(path, prior=other)
    with pytest.raises(InputError, match="cannot be given another one"):
        inference.load_posterior(path, prior=td.Uniform(-torch.ones(2), torch.ones(2)))
    same = [td.Normal(0.0, 1.0), td.Normal(0.0, 1.0)]
    assert inference.load_posterior(path, prior=same).features == 2
    inference.NLE(PRIOR).fit(*simulations(100), max_steps=2, **QUIET).save(path)
    with torch.no_grad():
        assert inference.load_posterior(path, prior=other).prior.log_prob(torch.ones(1, 2)) > -2


def test_save_names_the_method_of_a_posterior_and_the_model_of_a_fit(tmp_path):
    post = inference.NPE(PRIOR).fit(*simulations(100), max_steps=2, **QUIET)
    with pytest.raises(ConfigError, match=r"got NPEPosterior.*call posterior\.save\(path\)"):
        pf.save(post, tmp_path / "post.safetensors")
    fit = inference.fit_to_target(2, lambda v: -0.5 * v.square().sum(-1), max_steps=2, **QUIET)
    with pytest.raises(ConfigError, match=r"got TargetFit: give its model, pf\.save\(fit\.model, path\)"):
        pf.save(fit, tmp_path / "fit.safetensors")


def test_a_prior_that_a_file_cannot_store_says_so(tmp_path):
    prior = td.Independent(td.Gumbel(torch.zeros(2), 1.0), 1)
    post = inference.NPE(prior).fit(
        inference.Prior(prior).sample(100, seed=0), torch.randn(100, 2), max_steps=2, **QUIET
    )
    with pytest.raises(ConfigError, match="cannot store a prior of the class Gumbel"):
        post.save(tmp_path / "post.safetensors")


class Silent(td.Distribution):
    """A distribution that does not say where its draws lie."""

    arg_constraints = {}

    def __init__(self):
        super().__init__(torch.Size(), torch.Size((2,)), validate_args=False)

    def sample(self, sample_shape=()):
        return torch.randn(*sample_shape, 2)

    def log_prob(self, value):
        return -0.5 * value.square().sum(-1) - math.log(2 * math.pi)


def test_a_prior_of_your_own_must_say_where_its_draws_lie():
    with pytest.raises(
        ConfigError, match="the prior Silent does not say where its draws lie: give it an attribute support"
    ):
        inference.Prior(Silent())
    Silent.support = td.constraints.real_vector
    assert inference.Prior(Silent()).features == 2


def test_priors_of_pyro_are_stored_as_those_of_torch():
    dist = pytest.importorskip("pyro.distributions")
    joint = inference.Prior([dist.Uniform(torch.zeros(2), 1.0), dist.Normal(torch.zeros(2), 2.0).to_event(1)])
    again = inference.Prior.build(joint.describe())
    theta = joint.sample(20, seed=0)
    assert torch.equal(again.log_prob(theta), joint.log_prob(theta))

    class Uniform(td.Uniform):
        """Another with the name of one that is stored."""

    with pytest.raises(ConfigError, match=r"the class .*test_simulation\.Uniform; it stores Uniform, .* of torch"):
        inference.Prior(Uniform(torch.zeros(2), 1.0)).describe()


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 12345.678])
def test_a_constant_column_does_not_move_an_observation_in_float32(value):
    constant = torch.full((1000, 1), value, dtype=torch.float64)
    scale = DataScale.of(constant)  # alone, because the rounding of a mean depends on how rows lie in memory
    assert float(scale(torch.tensor([[value]])).abs()) < 1e-3 * value
    sums = torch.rand(1000, 50, dtype=torch.float64)
    sums = (sums / sums.sum(1, keepdim=True)).sum(1, keepdim=True)  # 1, but for rounding
    assert float(DataScale.of(sums)(torch.tensor([[1.0000001]])).abs()) < 1e-3
    small = 1e6 + 1e-4 * torch.randn(1000, 1, dtype=torch.float64)  # not constant
    assert float(DataScale.of(small)(small).std()) == pytest.approx(1.0, abs=1e-3)


def test_ratios_and_draws_do_not_depend_on_the_default_dtype():
    theta, x = simulations(200)
    torch.set_default_dtype(torch.float64)
    try:
        for method in ("nle", "nre"):
            post = inference.infer(PRIOR, theta, x, method=method, max_steps=5, **QUIET)
            assert post.sample(5, X, seed=0).dtype is torch.float32
            assert post.sample_batched(5, X[None], seed=0).dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("method", ["npe", "nle", "nre"])
def test_one_observation_may_be_a_batch_of_one(method):
    post = inference.infer(PRIOR, *simulations(200), method=method, max_steps=5, **QUIET)
    for count in (1, 3):
        theta = torch.linspace(-1, 1, 2 * count).reshape(count, 2)
        torch.testing.assert_close(post.log_prob(theta, X[None]), post.log_prob(theta, X))


@pytest.mark.parametrize("method", ["npe", "nle"])
def test_an_observation_far_from_all_simulations_is_said(method):
    post = inference.infer(PRIOR, *simulations(200), method=method, max_steps=5, **QUIET)
    with pytest.warns(
        PushforwardWarning, match=r"has -1000 at position 1, .* standard deviations .*: no simulation is like it"
    ):
        post.sample(3, torch.tensor([0.0, -1000.0]), seed=0)
    with pytest.raises(
        InputError, match=r"has 1e\+300 at position 0, and float32 cannot hold its distance to the simulations"
    ):
        post.sample(3, np.array([1e300, 0.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        post.sample(3, torch.tensor([5.0, -5.0]), seed=0)


def test_the_posterior_of_an_observation_far_from_all_simulations_is_that_of_the_likelihood():
    """90 deviations away, draws ended 45 deviations short of the posterior, as one point, after 60 temperatures."""
    theta = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    x = theta + 0.5 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
    post = inference.NLE(td.Normal(torch.zeros(2), 1.0)).fit(theta, x, seed=0, max_steps=5, **QUIET)
    far = torch.full((2,), 100.0)
    found = post.temper(1000, post._observation(far), torch.Generator().manual_seed(0))
    assert found.complete
    assert len(found.temperatures) < 15  # after those that leave the draws of the prior
    draws = post.sample(1000, x=far, seed=0)
    torch.testing.assert_close(draws.mean(0), torch.full((2,), 80.0), atol=2.0, rtol=0.0)
    torch.testing.assert_close(draws.std(0), torch.full((2,), math.sqrt(0.2)), atol=0.0, rtol=0.15)
    steps = torch.arange(-60, 61) / 20
    grid = draws.mean(0) + torch.cartesian_prod(steps, steps)
    assert float(post.log_prob(grid, x=far).double().exp().sum()) / 400 == pytest.approx(1.0, abs=0.03)


def _with_likelihood(log_likelihood):
    """The posterior of a standard normal prior of two parameters and a likelihood in closed form."""
    post = inference.NLEPosterior(
        inference.Prior(td.Normal(torch.zeros(2), 1.0)), [torch.nn.Identity()], DataScale(1), (1,)
    )
    post._log_likelihood = post._rough_log_likelihood = lambda theta, x: log_likelihood(theta)
    return post


def test_all_modes_of_a_distant_posterior_have_draws():
    """The squares of both parameters are 400 with a deviation of 10: four modes at distances of 20, each of a quarter."""
    post = _with_likelihood(lambda theta: -0.5 * ((theta.square() - 400) / 10).square().sum(1))
    draws = post.sample(2000, x=torch.zeros(1), seed=0)
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        assert float((draws * torch.tensor(signs) > 0).all(1).double().mean()) == pytest.approx(0.25, abs=0.06)


def test_the_evidence_of_a_distant_ridge():
    """A circle of radius 30, of which normal distributions around its highest points are no approximation. log Z by quadrature."""
    post = _with_likelihood(lambda theta: -0.5 * ((theta.norm(dim=1) - 30) / 0.1).square())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may warn that this is uncertain
        evidence = post._evidence_of(torch.zeros(1))
    radius = torch.linspace(28, 31, 30_001, dtype=torch.float64)
    values = radius.log() - radius.square() / 2 - 0.5 * ((radius - 30) / 0.1).square()
    assert evidence == pytest.approx(float(torch.logsumexp(values, 0)) + math.log(1e-4), abs=0.5)


def test_a_sampler_that_does_not_come_to_the_posterior_warns(monkeypatch):
    """A distant circle has as many normal approximations as starting points, and no other path is tried here."""
    monkeypatch.setattr(inference.nle, "_HOPELESS", 1.0)
    post = _with_likelihood(lambda theta: -0.5 * ((theta.norm(dim=1) - 30) / 0.1).square())
    with pytest.warns(PushforwardWarning, match=r"do not trust its draws and its density"):
        post.sample(100, x=torch.zeros(1), seed=0)


def test_too_few_simulations_are_not_called_infinite():
    theta, x = simulations(25)
    with pytest.raises(InputError, match="there are 5 simulations; at least 20 are needed"):
        inference.NPE(PRIOR).fit(theta[:5], x[:5])
    x[:7] = math.nan
    with pytest.raises(InputError, match="only 18 of 25 simulations are finite; at least 20 are needed"):
        inference.NPE(PRIOR).fit(theta, x)


def test_scales_of_very_small_positive_data_keep_their_differences():
    x = 1e-33 * torch.tensor([1.0, 10.0, 1e3, 1e5] * 10, dtype=torch.float64)[:, None]
    scaled = DataScale.of(x)(x)
    assert len(scaled.unique()) == 4


def test_a_column_with_one_zero_among_many_rows_has_no_logarithm():
    """The zero is not among the 20,000 rows from which the scales are found, and its logarithm would be far from all others."""
    x = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(3).exp()
    assert bool(DataScale.of(x).logarithm)
    x[1] = 0.0
    scale = DataScale.of(x)
    assert not bool(scale.logarithm)
    assert float(scale(x)[1].abs()) < 5


def test_a_posterior_does_not_depend_on_the_units_of_the_parameters():
    """The same simulations with parameters in one unit and in units that differ by 1e12 have the same posterior."""
    theta, x = simulations(1000)
    unit = torch.tensor([1e-9, 1e3])
    draws = []
    for scale in (torch.tensor([1.0, 1e4]), unit):  # both are beyond the ratio at which units count
        prior = td.Independent(td.Normal(torch.zeros(2), scale), 1)
        post = inference.NPE(prior).fit(theta * scale, x, max_steps=100, seed=0, **QUIET)
        draws.append(post.sample(2000, x=X, seed=0) / scale)
    torch.testing.assert_close(draws[1], draws[0], atol=0.02, rtol=0.02)
    assert_is_the_posterior(draws[1], 0.35)


def test_ratios_do_not_depend_on_the_units_of_the_parameters(tmp_path):
    theta, x = simulations(300)
    one = inference.NRE(PRIOR).fit(theta, x, max_steps=30)
    large = inference.NRE(td.Normal(torch.zeros(2), 2.0**30)).fit(2.0**30 * theta, x, max_steps=30)
    with torch.no_grad():
        expected = one._log_likelihood(theta[:5], one._observation(X))
        torch.testing.assert_close(large._log_likelihood(2.0**30 * theta[:5], large._observation(X)), expected)
    large.save(tmp_path / "post.safetensors")
    again = inference.load_posterior(tmp_path / "post.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(again._log_likelihood(2.0**30 * theta[:5], again._observation(X)), expected)
    with pytest.raises(ConfigError, match="NRE holds out a fraction"):
        inference.NRE(PRIOR).fit(theta, x, validation=None)


@pytest.mark.parametrize(
    ("prior", "low", "high"),
    [
        (
            td.TransformedDistribution(td.Uniform(-5 * torch.ones(2), torch.ones(2)), [td.ExpTransform()]),
            [math.exp(-5)] * 2,
            [math.e] * 2,
        ),
        (
            td.TransformedDistribution(td.LogNormal(torch.zeros(2), 1.0), [td.AffineTransform(3.0, 2.0)]),
            [3.0] * 2,
            [math.inf] * 2,
        ),
        (td.TransformedDistribution(td.HalfNormal(torch.ones(1)), [td.AffineTransform(5.0, -1.0)]), [-math.inf], [5.0]),
        (
            td.TransformedDistribution(
                td.Beta(torch.ones(2), 2.0), [td.AffineTransform(torch.tensor([1.0, 0.0]), torch.tensor([-2.0, 3.0]))]
            ),
            [-1.0, 0.0],
            [1.0, 3.0],
        ),
        (td.TransformedDistribution(td.Normal(torch.zeros(2), 1.0), [td.SigmoidTransform()]), [0.0] * 2, [1.0] * 2),
        (td.VonMises(torch.zeros(1), 0.5), [-math.pi], [math.pi]),
        (
            td.MixtureSameFamily(td.Categorical(torch.ones(2)), td.Normal(torch.tensor([-3.0, 3.0]), 1.0)),
            [-math.inf],
            [math.inf],
        ),
        (
            td.MixtureSameFamily(td.Categorical(torch.ones(2)), td.Gamma(torch.tensor([1.0, 9.0]), 1.0)),
            [0.0],
            [math.inf],
        ),
    ],
)
def test_the_support_of_composed_priors(prior, low, high):
    """torch states the codomain of the last transform; draws of a flow on that would leave the prior."""
    found = inference.Prior(prior)
    torch.testing.assert_close(found.low, torch.tensor(low))
    torch.testing.assert_close(found.high, torch.tensor(high))
    theta = found.sample(500, seed=0)
    assert found.contains(theta).all()
    expected = prior.log_prob(theta[:, 0] if not prior.batch_shape and not prior.event_shape else theta)
    torch.testing.assert_close(found.log_prob(theta), expected.reshape(500, -1).sum(1))
    wide = found.transform().decode(6 * torch.randn(500, found.features))
    assert ((wide >= found.low) & (wide <= found.high)).all()
    assert bool(found.log_prob(torch.full((1, found.features), -100.0)).isneginf()) == (low[0] > -100)


def test_draws_on_the_edge_of_the_prior_are_moved_inside():
    """float32 rounds draws of such a Dirichlet distribution so that the last proportion is 0."""
    prior = inference.Prior(td.Dirichlet(torch.full((4,), 0.05)))
    assert prior.contains(prior.sample(2000, seed=0)).all()
    box = inference.Prior(td.Uniform(torch.tensor([0.0, 1000.0]), torch.tensor([1.0, 1001.0])))
    settled = box.settle(torch.tensor([[0.0, 1000.0], [1.0, 1001.0], [0.5, 1000.5], [1.1, 1000.0]]))
    assert box.contains(settled).tolist() == [True, True, True, False]
    assert settled[2].tolist() == [0.5, 1000.5]
    assert box.transform().encode(settled).z.abs().max() < 20


def test_data_keep_the_digits_of_float64():
    """Seconds since 1970 in float32 are multiples of 128."""
    prior = td.Uniform(torch.zeros(1), torch.ones(1))
    runs = inference.simulate(lambda theta: 1.7e9 + theta.double(), prior, 50)
    torch.testing.assert_close(runs.x - 1.7e9, runs.theta.double(), atol=1e-6, rtol=0)
    post = inference.NPE(prior).fit(runs, max_steps=1, **QUIET)
    assert float(post.scale.scale) == pytest.approx(float(runs.theta.std(correction=0)), rel=1e-4)


@pytest.mark.parametrize("bad", [{"x": [0.0, 0.0]}, "text", None, torch.zeros(2, dtype=torch.complex64)])
def test_what_is_not_real_numbers_is_refused(bad):
    post = inference.NPE(PRIOR).fit(*simulations(50), max_steps=1, **QUIET)
    with pytest.raises(InputError, match="an observation must be real numbers"):
        post.sample(3, x=bad)
    with pytest.raises(InputError, match=r"must be real numbers.*parameters of the shape \(n, 2\)"):
        inference.simulate(lambda theta: bad, PRIOR, 30)


def test_no_observations_and_no_draws():
    post = inference.NPE(PRIOR).fit(*simulations(50), max_steps=1, **QUIET)
    assert post.sample_batched(3, torch.zeros(0, 2)).shape == (0, 3, 2)
    with pytest.raises(ConfigError, match="count"):
        post.sample_batched(-1, torch.zeros(2, 2))


def test_parameters_of_a_simulation_may_be_arrays_and_lists():
    prior = td.Normal(torch.zeros(1), 1.0)
    for theta in ([0.0, 1.0, 2.0], np.array([[0.0], [1.0], [2.0]])):
        assert inference.simulate(lambda t: t, prior, 3, theta=theta).x.tolist() == [[0.0], [1.0], [2.0]]
    with pytest.raises(InputError, match="theta must have the shape"):
        inference.simulate(lambda t: t, prior, 3, theta=torch.zeros(2, 2, 2))


def test_embeddings_without_widths_or_with_others_are_refused():
    with pytest.raises(ConfigError, match="the attributes inputs and outputs"):
        inference.NPE(PRIOR, embedding=torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="the embedding reads 3 numbers"):
        inference.NPE(PRIOR, embedding=MLP(3, 2)).fit(*simulations(50), max_steps=1, **QUIET)


def test_all_proportions_of_a_dirichlet_prior_are_one_too_many():
    prior = td.Dirichlet(torch.ones(3))
    with pytest.raises(InputError, match="leave out the last of the proportions"):
        inference.NPE(prior).fit(prior.sample((50,)), torch.randn(50, 1))


def test_a_file_is_not_loaded_with_the_prior_of_another_posterior(tmp_path):
    """Draws that leave a smaller box would be moved to its edges."""
    path = tmp_path / "post.safetensors"
    theta = 6 * torch.rand(100, 2) - 3
    box = td.Uniform(-3 * torch.ones(2), 3 * torch.ones(2))
    inference.NPE(box).fit(theta, theta + torch.randn(100, 2), max_steps=2, **QUIET).save(path, prior=False)
    inference.load_posterior(path, prior=box)
    with pytest.raises(InputError, match="draws outside this prior"):
        inference.load_posterior(path, prior=td.Uniform(-torch.ones(2), torch.ones(2)))
    with pytest.raises(InputError, match="the posterior has 2 parameters and the prior 3"):
        inference.load_posterior(path, prior=td.Normal(torch.zeros(3), 1.0))


def test_what_training_cannot_use_has_a_sentence(tmp_path):
    theta, x = simulations(50)
    with pytest.raises(ConfigError, match="pass a simulator as simulator="):
        inference.infer(PRIOR, lambda theta: theta)
    with pytest.raises(InputError, match="at least one number"):
        inference.NPE(PRIOR).fit(theta, x[:, :0])
    with pytest.raises(ConfigError, match="a checkpoint stores one run"):
        inference.NPE(PRIOR, members=2).fit(theta, x, checkpoint=tmp_path / "run.ckpt")


@pytest.mark.parametrize("method", ["nle", "nre"])
def test_gradients_of_the_log_density_reach_the_parameters(method):
    post = inference.infer(PRIOR, *simulations(200), method=method, max_steps=20, **QUIET)
    theta = torch.tensor([[0.3, -0.4], [1.0, 0.2]], requires_grad=True)
    value = post.log_prob(theta, x=X)
    (gradient,) = torch.autograd.grad(value.sum(), theta)
    assert not post.log_prob(theta.detach(), x=X).requires_grad
    for column in range(2):
        step = torch.zeros(2)
        step[column] = 1e-2
        with torch.no_grad():
            slope = (post.log_prob(theta + step, x=X) - post.log_prob(theta - step, x=X)) / 2e-2
        torch.testing.assert_close(gradient[:, column], slope, atol=5e-2, rtol=2e-2)


def test_a_prior_without_expand_is_refused_with_a_sentence():
    class Wedge(td.Distribution):
        arg_constraints = {}
        support = td.constraints.unit_interval

    with pytest.raises(ConfigError, match=r"Wedge has the batch shape \(\).*define expand"):
        inference.Prior(Wedge(validate_args=False))


@pytest.mark.parametrize(("method", "message"), [("npe", "parameter 0 has only 9"), ("nle", "column 0 of the data")])
def test_a_lattice_is_said_once_in_words_for_posteriors(method, message):
    """The warning of ``pf.fit`` speaks of a chain, which a user of NPE does not build, and came for each network."""
    box = td.Uniform(torch.zeros(2), torch.ones(2))
    theta = torch.rand(500, 2)
    if method == "npe":
        theta[:, 0] = torch.randint(1, 10, (500,)) / 10
    x = theta + 0.1 * torch.randn(500, 2)
    x = x if method == "npe" else (10 * x).round() / 10
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        inference.infer(box, theta, x, method=method, members=2, max_steps=2, **QUIET)
    messages = [str(each.message) for each in given]
    assert len(messages) == 1
    assert messages[0].startswith(message)
    assert "Dequantize" not in messages[0]


def test_the_likelihood_and_the_evidence_are_in_the_units_of_the_data() -> None:
    """x = 5 + 100 theta + 30 noise, theta ~ N(0, 1): both are known."""
    torch.manual_seed(0)
    prior = torch.distributions.Normal(torch.zeros(1), 1.0)
    theta = prior.sample((3000,))
    x = 5 + 100 * theta + 30 * torch.randn(3000, 1)
    post = pf.inference.NLE(prior).fit(theta, x, max_steps=600, seed=0, progress="silent")
    at = torch.tensor([[-0.5], [0.0], [0.5]])
    truth = torch.distributions.Normal(5 + 100 * at[:, 0], 30.0).log_prob(torch.tensor(25.0))
    torch.testing.assert_close(post.log_likelihood(at, [25.0]), truth, atol=0.15, rtol=0)
    evidence = torch.distributions.Normal(5.0, math.hypot(100, 30)).log_prob(torch.tensor(25.0)).item()
    assert post.log_evidence(torch.tensor([25.0])) == pytest.approx(evidence, abs=0.1)
    joint = prior.log_prob(at)[:, 0] + post.log_likelihood(at, [25.0]) - post.log_evidence([25.0])
    torch.testing.assert_close(post.log_prob(at, [25.0]), joint, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="theta must have the shape"):
        post.log_likelihood(torch.zeros(3), [25.0])


@pytest.mark.parametrize("shape", ["plain", "logarithm", "tail"])
def test_the_slope_of_the_scaling_is_its_derivative(shape: str) -> None:
    from pushforward.inference.data_scale import DataScale

    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 1, generator=rng, dtype=torch.float64)
    rows = {"plain": 3 * rows + 7, "logarithm": (3 * rows).exp(), "tail": rows / rows.roll(1, 0)}[shape]
    scale = DataScale.of(rows)
    assert (bool(scale.logarithm), bool(scale.tail)) == (shape == "logarithm", shape == "tail")
    x = rows[:50].requires_grad_()
    scaled = (scale._shape(x) - scale.mean) / scale.scale
    (slope,) = torch.autograd.grad(scaled.sum(), x)
    torch.testing.assert_close(scale.log_slope(x.detach()), slope.log())


def test_the_score_of_a_posterior_that_no_draw_reaches_has_a_bound() -> None:
    """A simulator with hardly any noise: the likelihood is a spike between the draws of the proposal."""
    torch.manual_seed(0)
    prior = torch.distributions.Uniform(-torch.ones(2), torch.ones(2))
    theta = prior.sample((300,))
    x = theta + 1e-6 * torch.randn(300, 2)
    npe = pf.inference.NPE(prior).fit(theta, x, max_steps=100, progress="silent")
    nle = pf.inference.NLE(prior).fit(theta, x, max_steps=300, progress="silent")
    assert pf.inference.posterior_score(nle, npe, theta[:20], x[:20]) < 25  # 24.8 is the best possible


def _loader(theta, x, batch=50):
    return DataLoader(TensorDataset(theta, x), batch_size=batch)


def test_held_out_rows_beside_arrays_are_scaled_like_them():
    theta = UNIT.sample((600,))
    x = 1000 * (theta + 0.1 * torch.randn(600, 1)) + 7000
    own, others = (theta[:500], x[:500]), (theta[500:], x[500:])
    for validation in (others, _loader(*others)):
        post = inference.NPE(UNIT).fit(*own, validation=validation, max_steps=60, progress="silent")
        assert post.training[0].best_step > 0
    with pytest.raises(ConfigError, match="NLE holds out a fraction"):
        inference.NLE(UNIT).fit(*own, validation=others, max_steps=1, progress="silent")
    with pytest.raises(InputError, match=r"held-out simulations have the shape \(2,\)"):
        inference.NPE(UNIT).fit(*own, validation=(others[0], others[1].repeat(1, 2)), max_steps=1, progress="silent")


def test_rows_of_a_loader_are_checked_like_arrays():
    theta = UNIT.sample((200,))
    x = theta + 0.1 * torch.randn(200, 1)
    holes = theta.clone()
    holes[3] = math.nan
    good = _loader(theta, x)
    post = inference.NPE(UNIT).fit(_loader(holes, x), validation=good, max_steps=2, progress="silent")
    assert post.sample(3, x=[0.5]).isfinite().all()
    with pytest.raises(InputError, match="50 of 50 parameters in a batch of the DataLoader lie outside the prior"):
        inference.NPE(UNIT).fit(_loader(theta + 5, x), validation=good, max_steps=2, progress="silent")
    with pytest.raises(InputError, match="only 0 simulations of the DataLoader are finite"):
        inference.NPE(UNIT).fit(_loader(theta, x * math.nan), validation=good, max_steps=2, progress="silent")


def test_a_loader_with_a_generator_of_its_own_has_the_order_of_the_seed():
    """Whatever the state of that generator is, as after another training, or before a resumed one."""
    theta = UNIT.sample((200,))
    data = TensorDataset(theta, theta + 0.1 * torch.randn(200, 1))
    own = torch.Generator()
    loader = DataLoader(data, batch_size=20, shuffle=True, generator=own)
    densities = []
    for state in (0, 1):
        own.manual_seed(state)
        post = inference.NPE(UNIT, flow="maf").fit(loader, validation=_loader(theta, theta), max_steps=15, **QUIET)
        densities.append(post.log_prob(theta[:5], x=[0.5]))
    torch.testing.assert_close(*densities, rtol=0, atol=1e-4)


def test_the_scales_of_a_shuffled_loader_follow_from_the_seed():
    """They are those of the first 20,000 rows that it gives, and the caller's random state does not change."""
    theta = UNIT.sample((22_000,))
    loader = DataLoader(TensorDataset(theta, theta + 0.1 * torch.randn(22_000, 1)), batch_size=20_000, shuffle=True)
    scales = []
    for state in (0, 1):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        data = training_data(inference.Prior(UNIT), loader, None, None, 0, 0, _loader(theta[:50], theta[:50]))
        assert torch.equal(before, torch.get_rng_state())
        scales.append(data.scale.mean)
    assert torch.equal(*scales)


def test_short_trainings_of_ratios_count():
    prior = td.Normal(torch.zeros(1), 1.0)
    theta = prior.sample((4000,))
    post = inference.NRE(prior).fit(theta, theta + 0.3 * torch.randn(4000, 1), max_steps=20, evaluate_every=50)
    assert post.training[0].best_step == 20
    small = inference.NRE(prior).fit(theta[:20], theta[:20], max_steps=2, validation=0.99)
    assert small.training[0].steps == 2


@pytest.mark.parametrize("option", [{"callback": print}, {"log": "x"}, {"optimizer": "sgd"}, {"checkpoint": "x"}])
def test_options_that_ratios_do_not_have_are_refused(option):
    prior = td.Normal(torch.zeros(1), 1.0)
    theta = prior.sample((50,))
    with pytest.raises(ConfigError, match=f"NRE has no option {next(iter(option))}"):
        inference.NRE(prior).fit(theta, theta, max_steps=1, **option)


def test_a_file_with_a_proposal_takes_another_prior(tmp_path):
    theta = UNIT.sample((200,))
    x = theta + 0.1 * torch.randn(200, 1)
    options = {"max_steps": 10, "progress": "silent"}
    post = inference.NLE(UNIT).fit(theta, x, **options)
    post.proposal = inference.NPE(UNIT).fit(theta, x, **options)
    post.save(tmp_path / "post.safetensors")
    assert inference.load_posterior(tmp_path / "post.safetensors").proposal is not None
    narrow = td.Uniform(torch.full((1,), 0.25), torch.full((1,), 0.75))
    loaded = inference.load_posterior(tmp_path / "post.safetensors", prior=narrow)
    drawn = loaded.sample(50, x=[0.5], seed=0)
    assert ((drawn >= 0.25) & (drawn <= 0.75)).all()


def test_an_observation_below_logarithms_is_said():
    theta = UNIT.sample((200,))
    post = inference.NPE(UNIT).fit(theta, torch.exp(8 * theta + torch.randn(200, 1)), max_steps=2, progress="silent")
    with pytest.warns(PushforwardWarning, match="-50 at position 0, where all simulations are positive"):
        post.sample(2, x=[-50.0])


def test_a_prior_checks_the_number_of_parameters():
    with pytest.raises(InputError, match=r"theta must have the shape \(\*batch, 2\)"):
        inference.Prior(td.Uniform(torch.zeros(2), torch.ones(2))).log_prob(torch.zeros(4, 1))


@pytest.mark.parametrize("method", [inference.NLE, inference.NRE])
def test_a_seed_may_be_any_integer(method):
    assert method(PRIOR).fit(*simulations(100), max_steps=1, seed=2**64, progress="silent").networks


def test_few_held_out_rows_are_enough():
    theta = UNIT.sample((60,))
    x = theta + 0.1 * torch.randn(60, 1)
    held_out = theta[50:], x[50:]
    post = inference.NPE(UNIT).fit(theta[:50], x[:50], validation=held_out, max_steps=2, progress="silent")
    assert post.training[0].best_validation is not None


def test_a_value_that_many_simulations_share_is_warned_of_once_in_the_words_of_posteriors():
    """A third of the data are 5: NLE would fit a spike."""
    prior = td.Uniform(torch.zeros(1), torch.ones(1))
    theta = inference.Prior(prior).sample(300, seed=0)
    x = torch.where(torch.arange(300)[:, None] % 3 == 0, 5.0, torch.randn(300, 1))
    with pytest.warns(PushforwardWarning) as caught:
        inference.NLE(prior, members=2).fit(theta, x, max_steps=2, **QUIET)
    [message] = [str(warning.message) for warning in caught]
    assert message.startswith("column 0 of the data has one value in 100 of 300 simulations")
    assert "use NPE" in message


def test_the_likelihood_of_counts_is_the_mean_density_of_the_cell():
    """Of 0 and 1, whose flow has soft edges: the density in the middle is off by more than a tenth of a nat."""
    prior = td.Uniform(torch.full((1,), 0.05), torch.full((1,), 0.95))
    theta = inference.Prior(prior).sample(500, seed=0)
    post = inference.NLE(prior).fit(
        theta, torch.bernoulli(theta, generator=torch.Generator().manual_seed(0)), max_steps=60, **QUIET
    )
    points = torch.tensor([[0.2], [0.5], [0.8]])
    with torch.no_grad():
        for value in (0.0, 1.0):
            cell = value + (torch.arange(1000, dtype=torch.float64)[:, None] + 0.5) / 1000
            scaled, slope = post.scale(cell).float(), post.scale.log_slope(cell).flatten()
            density = [
                post.networks[0](scaled, post.inputs(point.expand(1000, 1))).double() + slope for point in points
            ]
            expected = torch.stack([logmeanexp(each, 0) for each in density]).float()
            found = post.log_likelihood(points, [value])
            torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
            middle = post._rough_log_likelihood(points, post._observation([value])) + post._log_slope(
                post._observation([value])
            )
            assert float((middle - expected).abs().max()) > 0.1
        chances = sum(post.log_likelihood(points, [value]).exp() for value in (0.0, 1.0))
        many = post.log_likelihood(points[:1].expand(3000, 1), [1.0])  # 48,000 rows, in parts
    assert bool((chances < 1.01).all())
    torch.testing.assert_close(many, many[:1].expand(3000))


def test_a_prior_reads_integers_and_lists():
    normal, box = inference.Prior(PRIOR), inference.Prior(td.Uniform(torch.full((2,), 0.5), torch.full((2,), 2.5)))
    for rows in (torch.tensor([[1, 2], [0, 3]]), [[1, 2], [0, 3]], np.array([[1, 2], [0, 3]])):
        torch.testing.assert_close(
            normal.log_prob(rows), PRIOR.log_prob(torch.tensor([[1.0, 2.0], [0.0, 3.0]])).sum(-1).double()
        )
        assert box.contains(rows).tolist() == [True, False]
        assert box.clamp(rows)[0].tolist() == [1.0, 2.0]
        assert box.settle(rows).tolist() == [[1.0, 2.0], [0.0, 3.0]]
    grad = torch.zeros(1, 2, requires_grad=True)
    assert normal.log_prob(grad).requires_grad


@pytest.mark.parametrize("count", [-1, 2.5])
def test_a_prior_has_no_negative_number_of_draws(count):
    with pytest.raises(ConfigError, match="count must be an integer of at least 0"):
        inference.Prior(PRIOR).sample(count, seed=0)


@pytest.mark.parametrize("prior", [3, td.Poisson(torch.ones(2))])
def test_a_wrong_prior_is_no_damaged_file(tmp_path, prior):
    path = tmp_path / "post.safetensors"
    inference.NPE(PRIOR).fit(*simulations(100), max_steps=2, **QUIET).save(path)
    with pytest.raises(ConfigError, match="the prior"):
        inference.load_posterior(path, prior=prior)
    with pytest.raises(
        StorageError, match=r"the posterior of NPE, which NLEPosterior does not load: call load_posterior\(path\)"
    ):
        inference.NLEPosterior.load(path)
    assert inference.SimulationPosterior.load(path).method == inference.NPEPosterior.load(path).method == "npe"


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ("x", "flow must be 'nsf', 'maf' or 'cnf'; got 'x'"),
        (None, "or a function of .*got None"),
        (lambda features, context: 3, "flow must return a model of 2 coordinates with a context of width 3; it returned 3"),
        (lambda features, context: pf.models.MAF(features), "a MAF .* with a context of width 0"),
        (lambda features, context: pf.models.MAF(features + 1, context), r"of the shape \(3,\)"),
    ],
)  # fmt: skip
def test_flows_that_are_no_conditional_flow_are_refused(flow, message):
    with pytest.raises(ConfigError, match=message):
        inference.conditional_flow(flow, 2, 3)
    if callable(flow):  # before training
        theta, x = simulations(100)
        with pytest.raises(ConfigError, match=message):
            inference.NPE(PRIOR, flow=flow).fit(theta, torch.cat((x, x[:, :1]), 1), **QUIET)


def test_an_embedding_of_a_conditional_flow_says_its_widths():
    with pytest.raises(ConfigError, match="attributes inputs and outputs"):
        inference.conditional_flow("maf", 2, 3, embedding=torch.nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        (torch.zeros(3, 5), r"theta must have the shape \(n, 2\), with at least one row; got \(3, 5\)"),
        (torch.zeros(0, 2), "at least one row"),
        (torch.full((3, 2), math.nan), "theta contains NaN or infinity"),
    ],
)
def test_parameters_that_cannot_be_simulated_are_refused(theta, message):
    with pytest.raises(InputError, match=message):
        inference.simulate(simulator, PRIOR, 10, theta=theta)


def test_scores_need_posteriors_and_pairs():
    theta, x = simulations(100)
    npe, nle = (method(PRIOR).fit(theta, x, max_steps=2, **QUIET) for method in (inference.NPE, inference.NLE))
    for posterior in (npe, nle):
        for rows, data, message in (
            (theta[:0], x[:0], "at least one finite pair"),
            (theta[:5], x[:3], "one row of x for each row of theta"),
            (theta[0], x[0], r"theta must have the shape \(n, 2\)"),
            (theta[:20], x[0], "one row of x for each row of theta"),
            (theta[:2], torch.cat((x, x), 1)[:2], r"x of the shape \(n, 2\)"),
        ):
            with pytest.raises(InputError, match=message):
                inference.posterior_score(posterior, npe, rows, data)
        holes = theta[:20].clone()
        holes[3] = math.nan
        with pytest.warns(PushforwardWarning, match="1 of 20 simulations contain NaN"):
            assert inference.posterior_score(posterior, npe, holes, x[:20]) > -1000
    with pytest.raises(ConfigError, match="posterior must be a posterior from simulations"):
        inference.posterior_score(3, npe, theta, x)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="proposal must be a posterior of NPE"):
        inference.posterior_score(nle, nle, theta, x)  # type: ignore[arg-type]


def test_a_loader_gives_the_data_too():
    theta, x = simulations(100)
    loader = _loader(theta, x)
    for beside in ({"x": x}, {"simulator": simulator}):
        with pytest.raises(ConfigError, match="leave x and simulator out"):
            inference.NPE(PRIOR).fit(loader, validation=loader, max_steps=1, **beside, **QUIET)
    for method in ("auto", "npe", "nle"):
        with pytest.raises(ConfigError, match=r"train NPE by itself, NPE\(prior\)\.fit\(loader, validation="):
            inference.infer(PRIOR, loader, method=method, max_steps=1, **QUIET)


def test_data_beside_a_source_of_data_are_refused():
    theta, x = simulations(100)
    for where, source in (
        ({"simulator": simulator, "simulations": 50}, "the simulator makes its own data"),
        ({"theta": inference.Simulations(theta, x)}, "Simulations have their own data"),
    ):
        with pytest.raises(ConfigError, match=f"{source}: leave x out"):
            inference.NPE(PRIOR).fit(x=x, max_steps=1, **where, **QUIET)
