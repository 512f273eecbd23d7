"""i-ResNet and residual flow: what their number is, how it is switched, and that both learn."""

from __future__ import annotations

import math

import pytest
import torch

import pushforward as pf
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Kind

SMALL = {"blocks": 3, "hidden": (16,)}


def two_moons(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=generator)
    upper = torch.rand(count, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack((x, y), -1) + 0.1 * torch.randn(count, 2, generator=generator)


@pytest.mark.parametrize(("model", "kind"), [("IResNet", Kind.ESTIMATE), ("ResidualFlow", Kind.UNBIASED)], ids=str)
def test_one_set_of_weights_has_three_evaluations(model, kind):
    flow = getattr(pf.models, model)(3, probes=400, **SMALL).double().eval()
    x = torch.randn(50, 3, dtype=torch.float64)
    flow.initialize(2 * x + 1)
    estimate = flow.evaluate(x)
    assert estimate.kind is flow.kind is kind
    assert estimate.stderr is not None
    with pytest.raises(KindError, match=kind.value):
        flow.log_prob(x)
    flow.set_log_det("exact")
    exact = flow.evaluate(x)
    assert exact.kind is flow.kind is Kind.EXACT
    assert exact.stderr is None
    assert torch.equal(flow.log_prob(x), exact.value)
    if kind is Kind.UNBIASED:  # the errors of all rows share their probes, so one row can speak for all
        assert ((estimate.value - exact.value).abs() < 5 * estimate.stderr).all()
    assert "an exact value" in repr(exact)
    flow.set_log_det("power")
    assert flow.kind is Kind.ESTIMATE


def test_the_method_is_stored_in_the_file(tmp_path):
    flow = pf.models.ResidualFlow(2, **SMALL)
    flow.set_log_det("exact")
    pf.save(flow, tmp_path / "m.safetensors")
    again = pf.load(tmp_path / "m.safetensors")
    assert again.kind is Kind.EXACT
    x = torch.randn(4, 2)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))


def test_a_model_without_methods_is_an_error():
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


def test_a_model_over_dequantized_data_averages_bounds():
    transforms = pf.transforms
    chain = transforms.Chain(
        transforms.UniformDequantize(2, 4), transforms.Logit(2), transforms.InvertibleResidual(2, log_det="roulette")
    )
    flow = pf.models.Flow(chain, pf.distributions.Normal(2)).double()
    assert flow.kind is Kind.LOWER_BOUND
    x = torch.randint(4, (6, 2))
    many = flow.evaluate(x, samples=10)
    torch.testing.assert_close(many.value, sum(many.terms.values()))


@pytest.mark.parametrize("log_det", ["exact", "roulette"])
def test_it_learns(log_det):
    """Two moons, for some seconds: well above the best Gaussian's log-likelihood."""
    train, test = two_moons(2000, 0), two_moons(1000, 1)
    gaussian = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov()).log_prob(test).mean().item()
    flow = pf.models.ResidualFlow(2, blocks=4, hidden=(32, 32), log_det=log_det)
    pf.fit(flow, train, max_steps=120, batch_size=256, learning_rate=1e-2, seed=0, progress="silent", validation=0.1)
    flow.set_log_det("exact")
    assert flow.log_prob(test).mean().item() > gaussian + 0.15
    x = flow.sample(500, seed=0)
    torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=1e-4, atol=1e-4)


IMAGE = {"shape": (1, 4, 4), "blocks": 2, "hidden": (6, 6), "levels": 16}


def pictures(count: int, shape=(1, 4, 4), levels: int = 16) -> torch.Tensor:
    return torch.randint(levels, (count, *shape), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("more", [{}, {"factor_out": True}, {"dense": (8,)}, {"scales": 3}], ids=str)
def test_an_image_flow_has_three_evaluations_that_agree(more):
    torch.manual_seed(0)
    flow = pf.models.ImageResidualFlow(**IMAGE, **more, probes=200).double().eval()
    flow.initialize(pictures(100))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = pictures(5)
    found = flow.evaluate(x)
    assert flow.kind is found.kind is Kind.LOWER_BOUND  # unbiased, but for the dequantization
    assert found.stderr is not None
    assert torch.equal(flow.decode(flow.encode(x)), x.double())
    flow.set_log_det("exact")
    exact = flow.evaluate(x)
    assert exact.stderr is None
    assert ((found.value - exact.value).abs() < 5 * found.stderr).all()
    assert found.stderr.max() < 1.0
    flow.set_log_det("power")
    assert flow.kind is Kind.ESTIMATE
    with pytest.raises(KindError):
        flow.evaluate(x).bits_per_dim()


def test_the_parts_of_an_image_flow():
    def parts(model) -> list[str]:
        names, waiting = [], list(model.chain)
        while waiting:
            part = waiting.pop(0)
            names.append(type(part).__name__)
            waiting = [*(part.inner if isinstance(part, pf.transforms.FactorOut) else []), *waiting]
        return names

    first, run = ["UniformDequantize", "Logit", "ActNorm"], ["ActNorm", "InvertibleResidual", "ActNorm"]
    one = {"shape": (1, 4, 4), "blocks": 1, "hidden": (4,)}
    assert parts(pf.models.ImageResidualFlow(**one, dense=(4,))) == [
        *first, *run, "Squeeze", *run, "Flatten", "InvertibleResidual"]  # fmt: skip
    assert parts(pf.models.ImageIResNet(**one)) == [
        *first, *run, "Squeeze", "ImageCoupling", "FactorOut", *run, "Flatten"]  # fmt: skip
    blocks = pf.models.ImageResidualFlow(**IMAGE).chain.estimators
    assert sorted(block.seed for block in blocks) == list(range(4))  # probes of their own
    for wrong in ({"scales": 4}, {"scales": 0}, {"kernel_size": 2}, {"blocks": 0}, {"shape": (16,)}):
        with pytest.raises(ConfigError):
            pf.models.ImageResidualFlow(**(one | wrong))


@pytest.mark.slow
def test_a_trained_flow_of_real_images_inverts_to_1e_4(real_images):
    """Fashion-MNIST at 14 x 14 and 16 levels, float32, 1,000 test images: largest error of a pixel in [0, 1]."""
    train, test, independent = real_images("fashion-mnist")
    torch.manual_seed(0)
    flow = pf.models.ImageResidualFlow(
        shape=(1, 14, 14), blocks=2, hidden=(32, 32), levels=16, terms=2, probes=1, alpha=1e-6
    )
    pf.fit(flow, train, validation=None, max_steps=200, batch_size=64, learning_rate=5e-3, progress="silent")
    first, *rest = flow.chain
    with torch.no_grad():
        y = first.encode(test.float()).z
        z = y
        for part in rest:
            z = part.encode(z).z
        for part in reversed(rest):
            z = part.decode(z)
        assert (z - y).abs().max() < 1e-4
        flow.set_log_det("exact")
        bits = torch.cat([flow.evaluate(part).bits_per_dim() for part in test[:200].split(50)]).mean().item()
    assert bits < independent
