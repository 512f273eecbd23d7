"""Models in `pyro.sample`: traces, plates, stochastic variational inference."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from pushforward import distributions, models, transforms
from pushforward.models.torch_distribution import ModelDistribution

pyro = pytest.importorskip("pyro")
dist = pytest.importorskip("pyro.distributions")


def affine(context: int = 0) -> models.Flow:
    """x = 1 + 2 z, so x is normal with mean 1 and standard deviation 2."""
    chain = transforms.Affine(2, shift=-0.5, scale=0.5)
    if context:
        return models.Flow(
            transforms.Chain(chain, transforms.MaskedAutoregressive(2, context=context, hidden=(4,))),
            distributions.Normal(2),
        )
    return models.Flow(chain, distributions.Normal(2))


def normal(x: torch.Tensor) -> np.ndarray:
    return stats.norm(1.0, 2.0).logpdf(x.detach().numpy()).sum(-1)


def test_a_trace_scores_samples_and_observations():
    model = affine()

    def program(seen: torch.Tensor):
        with pyro.plate("rows", 5):
            pyro.sample("x", model.distribution())
            pyro.sample("y", model.distribution(), obs=seen)

    pyro.set_rng_seed(0)
    seen = torch.arange(10.0).reshape(5, 2)
    trace = pyro.poutine.trace(program).get_trace(seen)
    trace.compute_log_prob()
    x = trace.nodes["x"]["value"]
    assert x.shape == (5, 2)
    assert len(torch.unique(x)) == 10
    np.testing.assert_allclose(trace.nodes["x"]["log_prob"].detach(), normal(x), rtol=1e-5)
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].detach(), normal(seen), rtol=1e-5)
    pyro.set_rng_seed(0)
    assert torch.equal(pyro.poutine.trace(program).get_trace(seen).nodes["x"]["value"], x)


def test_shapes_masks_and_events():
    given = affine(context=3).distribution(torch.randn(4, 3))
    assert isinstance(given, ModelDistribution)
    assert given.to_event(1).shape() == (4, 2)
    assert (given.to_event(1).batch_shape, given.to_event(1).event_shape) == ((), (4, 2))
    assert given.expand_by((6,)).sample().shape == (6, 4, 2)
    mask = torch.tensor([True, False, True, False])
    masked = given.mask(mask).log_prob(torch.zeros(4, 2))
    torch.testing.assert_close(masked, torch.where(mask, given.log_prob(torch.zeros(4, 2)), 0.0))
    assert not affine().distribution().has_enumerate_support


def test_copies_and_pickles_keep_the_batch_shape():
    wide = affine().distribution().expand((3,))
    for again in (copy.copy(wide), copy.deepcopy(wide), pickle.loads(pickle.dumps(wide))):
        assert type(again) is type(wide)
        assert again.batch_shape == (3,)
        torch.testing.assert_close(again.log_prob(torch.zeros(2)), wide.log_prob(torch.zeros(2)))


def test_values_outside_the_support_are_refused_where_pyro_validates():
    unit = models.Flow(transforms.Logit(2), distributions.Normal(2))
    with pyro.validation_enabled(True), pytest.raises(ValueError, match=r"outside \(0, 1\)"):
        pyro.poutine.trace(
            lambda: pyro.sample("x", unit.distribution(), obs=torch.tensor([0.5, 1.5]))
        ).get_trace().log_prob_sum()


def test_svi_trains_a_flow_as_the_guide():
    """mu ~ N(0, 4), y = 1.5 ~ N(mu, 1): the posterior is N(1.2, 0.8), and the ELBO of the truth is log N(y; 0, 5)."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    torch.manual_seed(0)
    y = torch.tensor(1.5)
    flow = models.Flow(transforms.Affine(1, trainable=True), distributions.Normal(1))

    def program():
        mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 2.0).to_event(1))
        pyro.sample("y", dist.Normal(mu[..., 0], 1.0), obs=y)

    def guide():
        pyro.module("flow", flow)
        pyro.sample("mu", flow.distribution())

    elbo = pyro.infer.Trace_ELBO(num_particles=8, vectorize_particles=True)
    svi = pyro.infer.SVI(program, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    for _ in range(300):
        svi.step()
    x = flow.sample((4000,), seed=0)
    assert float(x.mean()) == pytest.approx(1.2, abs=0.1)
    assert float(x.std()) == pytest.approx(math.sqrt(0.8), abs=0.1)
    truth = stats.norm(0.0, math.sqrt(5.0)).logpdf(1.5)
    assert -svi.evaluate_loss() == pytest.approx(truth, abs=0.05)
    pyro.clear_param_store()
