"""Flows of this library inside sbi, Pyro and arviz."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import distributions as td

import pushforward as pf
from pushforward import inference
from pushforward.errors import PushforwardWarning


def test_a_flow_trains_and_samples_inside_sbi():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sbi and its dependencies
        sbi = pytest.importorskip("sbi.inference")
        prior = td.MultivariateNormal(torch.zeros(2), torch.eye(2))
        theta = prior.sample((500,))
        x = theta + 0.5 * torch.randn(500, 2)
        trainer = sbi.NPE(prior, density_estimator=inference.sbi_estimator("maf"), show_progress_bars=False)
        trainer.append_simulations(theta, x).train(max_num_epochs=15, learning_rate=2e-3)
        posterior = trainer.build_posterior()
        draws = posterior.sample((1000,), x=torch.tensor([[1.0, -0.5]]), show_progress_bars=False)
        assert posterior.log_prob(draws[:3], x=torch.tensor([[1.0, -0.5]])).shape == (3,)
    torch.testing.assert_close(draws.mean(0), torch.tensor([0.8, -0.4]), atol=0.25, rtol=0)


def test_a_fitted_flow_is_a_pyro_guide():
    """ELBO of Pyro with the flow as the guide: log Z = log N(y; 0, 5) minus a small gap."""
    pyro = pytest.importorskip("pyro")
    dist = pytest.importorskip("pyro.distributions")
    torch_distribution = pytest.importorskip("pyro.distributions.torch_distribution")
    y = torch.tensor(1.5)

    def model():
        mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 2.0).to_event(1))
        pyro.sample("y", dist.Normal(mu[..., 0], 1.0), obs=y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PushforwardWarning)
        fit = inference.fit_to_target(None, inference.PyroTarget(model), max_steps=50, progress="silent")

    class Guide(pf.models.torch_distribution.ModelDistribution, torch_distribution.TorchDistributionMixin):
        """The flow as a distribution of Pyro."""

    def guide():
        pyro.sample("mu", Guide(fit.model, validate_args=False))

    elbo = -pyro.infer.Trace_ELBO(num_particles=100).loss(model, guide)
    truth = float(td.Normal(0.0, math.sqrt(5.0)).log_prob(y))
    assert elbo == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize("kind", [inference.NPE, inference.NLE, inference.NRE])
def test_fitting_without_grad_mode_outside(kind):
    prior = td.Normal(torch.zeros(1), 1.0)
    theta = torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        posterior = kind(prior).fit(theta, theta + 1.0, max_steps=2, progress="silent")
        assert not torch.is_grad_enabled()
    assert torch.isfinite(posterior.log_prob(theta[:2], torch.zeros(1))).all()
