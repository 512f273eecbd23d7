"""The log-densities of posteriordb's models: gradients against differences, and the reference draws lie where they should."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks.posterior_models import POSTERIORS, load_posterior, reference_draws
from pushforward.inference import Target

FOLDER = Path(os.environ.get("PUSHFORWARD_DATA", "missing"))
pytestmark = pytest.mark.skipif(not (FOLDER / "posteriordb").exists(), reason="needs posteriordb")


@pytest.mark.parametrize("name", POSTERIORS)
def test_gradients_agree_with_differences(name):
    model = load_posterior(name, FOLDER)
    target = Target(model.log_density, model.parameters.features, model.parameters)
    u = 0.3 * torch.randn(3, target.features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, gradient = target.value_and_gradient(u)
    step = 1e-5
    for index in range(target.features):
        shift = step * torch.nn.functional.one_hot(torch.tensor(index), target.features).double()
        with torch.no_grad():
            difference = (target(u + shift) - target(u - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, index], difference, rtol=2e-4, atol=2e-3)


DIRECT = {"eight_schools-eight_schools_noncentered", "gp_pois_regr-gp_pois_regr", "hmm_example-hmm_example"}
"""Models whose columns are not the parameters themselves."""


@pytest.mark.parametrize("name", sorted(set(POSTERIORS) - DIRECT - {"garch-garch11"}))
def test_reference_draws_have_the_density_of_a_posterior(name):
    """Log-densities of draws from a posterior in D dimensions vary by about sqrt(D / 2) nats, and are far above those elsewhere."""
    model, draws = load_posterior(name, FOLDER), reference_draws(name, FOLDER)[::20]
    values = model.log_density(model.parameters.unflatten(draws))
    assert torch.isfinite(values).all()
    width = model.parameters.features
    assert float(values.std()) < 2 * (width / 2) ** 0.5 + 0.5
    moved = model.log_density(model.parameters.unflatten(draws + 0.25 * draws.std(0)))
    assert float((values - moved).mean()) > 0
