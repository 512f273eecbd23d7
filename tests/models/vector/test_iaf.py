"""IAF: one pass both for a sample and its density, the mirror image of MAF, and the paper's update."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.models import IAF, MAF
from pushforward.networks.incremental import IncrementalMADE

from ..tools import jolted


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("gated", [True, False])
def test_density_of_a_sample_is_that_of_log_prob(features, gated):
    model = jolted(IAF(features, context=2, layers=3, hidden=(16,), gated=gated))
    c = torch.randn(4, 2, dtype=torch.float64)
    x, log_q = model.sample_and_log_prob(50, c, seed=0)
    torch.testing.assert_close(log_q, model.log_prob(x, c), rtol=1e-8, atol=1e-8)


def test_a_sample_and_its_density_take_one_pass_of_each_network(monkeypatch):
    model = jolted(IAF(5, layers=3, hidden=(16,)))
    calls = []
    for part in model.chain:
        if hasattr(part, "transform"):
            run = part.transform.network.forward
            monkeypatch.setattr(part.transform.network, "forward", lambda *a, run=run: calls.append(1) or run(*a))
    x, _ = model.sample_and_log_prob(10, seed=0)
    assert len(calls) == 3
    calls.clear()
    step = IncrementalMADE.step
    monkeypatch.setattr(IncrementalMADE, "step", lambda walk: calls.append(1) or step(walk))
    model.log_prob(x)
    assert len(calls) == 3 * 5  # one coordinate after the other, and no whole pass


def test_update_is_that_of_the_paper():
    """z' = g z + (1 - g) m, and log q falls by the sum of log g (eq. 10-14)."""
    model = jolted(IAF(3, layers=1, hidden=(16,), standardize=False))
    noise = torch.randn(6, 3, dtype=torch.float64)
    step = next(part.transform for part in model.chain if hasattr(part, "transform"))
    m, raw = step.network(noise)
    gate = torch.sigmoid(4 * torch.tanh(raw / 4) + 2.0)
    z = gate * noise + (1 - gate) * m
    scaling = next(iter(model.chain))
    x = (z - scaling.offset) / scaling.log_factor.exp()
    torch.testing.assert_close(model.decode(noise), x)
    expected = model.base.log_prob(noise) - gate.log().sum(-1) + scaling.log_factor.sum()
    torch.testing.assert_close(model.log_prob(x), expected)


def test_gradients_of_a_sample_reach_weights_and_context():
    model = jolted(IAF(3, context=2, layers=2, hidden=(16,)))
    c = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
    x, log_q = model.sample_and_log_prob((), c, seed=0)
    (x.square().sum() + log_q.sum()).backward()
    assert c.grad is not None
    assert (c.grad != 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert not model.sample((), c, seed=0).requires_grad


def test_variational_inference_finds_a_gaussian():
    """Minimizing E[log q - log p] over IAF samples reaches 0 for a target within reach."""
    torch.manual_seed(0)
    model = IAF(2, layers=2, hidden=(16,), standardize=False)
    target = torch.distributions.MultivariateNormal(torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.8]]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(400):
        optimizer.zero_grad()
        x, log_q = model.sample_and_log_prob(256, generator=generator)
        (log_q - target.log_prob(x)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        x, log_q = model.sample_and_log_prob(20_000, seed=3)
        divergence = (log_q - target.log_prob(x)).mean().item()
    assert -0.01 < divergence < 0.02
    assert x.mean(0).tolist() == pytest.approx([1.0, -1.0], abs=0.1)


def test_directions():
    assert IAF(5, hidden=(8,)).fast == "sample"
    assert MAF(5, hidden=(8,)).fast == "log_prob"
    assert IAF(1, hidden=(8,)).fast == MAF(1, hidden=(8,)).fast == "both"
    assert "fast='sample' (log_prob 5, sample 1 steps a layer)" in repr(IAF(5, hidden=(8,)))


@pytest.mark.parametrize("options", [{"layers": 0}, {"features": 0}, {"hidden": (0,)}])
def test_impossible_arguments(options):
    with pytest.raises(ConfigError):
        IAF(**{"features": 3, **options})
