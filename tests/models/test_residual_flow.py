"""i-ResNet and residual flow: what their number is, how it is switched, and that both learn."""

from __future__ import annotations

import math

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, KindError
from pushforward.measure import Relation

SMALL = {"blocks": 3, "hidden": (16,)}


def two_moons(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator)
    upper = torch.rand(count, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack((x, y), -1) + 0.1 * torch.randn(count, 2, generator=generator)


@pytest.mark.parametrize(
    ("model", "relation"), [("IResNet", Relation.ESTIMATE), ("ResidualFlow", Relation.UNBIASED)], ids=str
)
def test_one_set_of_weights_has_three_evaluations(model, relation):
    flow = getattr(pf.models, model)(3, probes=400, **SMALL).double().eval()
    x = torch.randn(50, 3, dtype=torch.float64)
    flow.initialize(2 * x + 1)
    estimate = flow.evaluate(x)
    assert estimate.relation is flow.relation is relation
    assert estimate.stderr is not None
    with pytest.raises(KindError, match=relation.value):
        flow.log_prob(x)
    flow.set_log_det("exact")
    exact = flow.evaluate(x)
    assert exact.relation is flow.relation is Relation.EXACT
    assert exact.stderr is None
    assert torch.equal(flow.log_prob(x), exact.value)
    if relation is Relation.UNBIASED:  # the errors of all rows share their probes, so one row can speak for all
        assert ((estimate.value - exact.value).abs() < 5 * estimate.stderr).all()
    assert "an exact value" in repr(exact)
    flow.set_log_det("power")
    assert flow.relation is Relation.ESTIMATE


def test_the_way_is_part_of_the_file(tmp_path):
    flow = pf.models.ResidualFlow(2, **SMALL)
    flow.set_log_det("exact")
    pf.save(flow, tmp_path / "m.safetensors")
    again = pf.load(tmp_path / "m.safetensors")
    assert again.relation is Relation.EXACT
    x = torch.randn(4, 2)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))


def test_a_model_without_a_choice_says_so():
    with pytest.raises(ConfigError, match="more than one way"):
        pf.models.NICE(2).set_log_det("exact")
    with pytest.raises(ConfigError, match="log_det"):
        pf.models.IResNet(2, **SMALL).set_log_det("trace")


def test_more_samples_average_and_do_not_tighten():
    """The mean over draws of an unbiased estimate is unbiased; its log mean exp would be too high."""
    flow = pf.models.ResidualFlow(2, probes=1, **SMALL).double().eval()
    x = torch.randn(5, 2, dtype=torch.float64)
    many = flow.evaluate(x, samples=50, seed=3)
    single = flow.chain.encode(x).stderr
    assert single is None  # one probe knows nothing of its error
    assert many.stderr is not None
    parts = sum(many.terms.values())
    torch.testing.assert_close(many.value, parts)
    flow.set_log_det("exact")
    assert ((many.value - flow.log_prob(x)).abs() < 5 * many.stderr).all()


def test_a_model_over_dequantised_data_averages_bounds():
    maps = pf.maps
    chain = maps.Chain(maps.UniformDequantize(2, 4), maps.Logit(2), maps.InvertibleResidual(2, log_det="roulette"))
    flow = pf.models.Flow(chain, pf.bases.Normal(2)).double()
    assert flow.relation is Relation.LOWER
    x = torch.randint(4, (6, 2))
    many = flow.evaluate(x, samples=10)
    torch.testing.assert_close(many.value, sum(many.terms.values()))


@pytest.mark.parametrize("log_det", ["exact", "roulette"])
def test_it_learns(log_det):
    """Two moons, for some seconds: well above the best Gaussian's log-likelihood."""
    train, test = two_moons(2000, 0), two_moons(1000, 1)
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov()).log_prob(test).mean().item()
    flow = pf.models.ResidualFlow(2, blocks=4, hidden=(32, 32), log_det=log_det)
    pf.fit(flow, train, max_steps=120, batch_size=256, lr=1e-2, seed=0, progress="silent", validation=0.1)
    flow.set_log_det("exact")
    assert flow.log_prob(test).mean().item() > gaussian + 0.15
    x = flow.sample(500, seed=0)
    torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=1e-4, atol=1e-4)
