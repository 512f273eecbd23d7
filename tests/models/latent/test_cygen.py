"""Cyclic conditionals against linear-Gaussian truth and derivatives written out."""

import math

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward import models, transforms
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Kind

S = 0.8


def linear(off: float = 0.0, **options) -> tuple[models.CyGen, Tensor, Tensor, float]:
    """p(x | z) = N(A z, S^2 I), z in R^2 normal, A^T A = 2 I, and q(z | x) = N(B x, v I); the exact posterior if ``off`` is 0."""
    model = models.CyGen(3, latent=2, scale=S, hidden=(), probes=None, **options).double().eval()
    source = torch.Generator().manual_seed(0)
    a = math.sqrt(2) * torch.linalg.qr(torch.randn(3, 2, dtype=torch.float64, generator=source))[0]
    v = 1 / (1 + 2 / S**2)
    b = v * a.mT / S**2 + off * torch.randn(2, 3, dtype=torch.float64, generator=source)
    codec = model.pair.codec
    with torch.no_grad():
        for layer in (codec.encoder.last, codec.decoder.last):
            layer.weight.zero_()
            layer.bias.zero_()
        codec.decoder.last.weight.copy_(a)
        codec.encoder.last.weight[:2] = b
        codec.encoder.last.bias[2:] = 7 * math.atanh(0.5 * math.log(v) / 7)  # the bounded log-scale
    return model, a, b, v


def marginal(a: Tensor) -> Tensor:
    return a @ a.mT + S**2 * torch.eye(3, dtype=torch.float64)


def data(count: int, a: Tensor, seed: int = 1) -> Tensor:
    noise = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return noise @ torch.linalg.cholesky(marginal(a)).mT


def test_the_exact_posterior_is_compatible():
    model, a, _, _ = linear()
    assert model.kind is Kind.ESTIMATE
    assert model.compatibility(data(5, a)).max() < 1e-10
    found = model.check_compatibility(data(5, a))
    assert found.passed
    assert model.kind is Kind.UPPER_BOUND
    # The mixed Hessian of log p alone is A / S^2, and its squared norm is tr(A^T A) / S^4 = 4 / S^4.
    assert found.decoder == pytest.approx(4 / S**4)
    assert found.encoder == pytest.approx(4 / S**4)
    with pytest.raises(InputError, match="one row"):
        model.check_compatibility(data(0, a))


def test_training_resets_the_result():
    model, a, _, _ = linear()
    assert model.check_compatibility(data(5, a)).passed
    assert model.eval().kind is Kind.UPPER_BOUND
    assert model.train().kind is Kind.ESTIMATE


@pytest.mark.parametrize("off", [0.01, 0.1, 1.0])
def test_another_posterior_is_not_compatible(off):
    """d^2 log p/dx dz^T = A / S^2 and d^2 log q/dx dz^T = B^T / v."""
    model, a, b, v = linear(off)
    expected = (a / S**2 - b.mT / v).square().sum()
    torch.testing.assert_close(model.compatibility(data(4, a)), expected.expand(4))
    assert not model.check_compatibility(data(4, a)).passed


def test_a_pair_that_ignores_each_other_does_not_pass():
    model, a, _, _ = linear()
    with torch.no_grad():
        model.pair.codec.encoder.last.weight.zero_()
        model.pair.codec.decoder.last.weight.zero_()
    found = model.check_compatibility(data(4, a))
    assert found.penalty == 0
    assert not found.passed


def density(model: models.CyGen, x: Tensor, z: Tensor) -> Tensor:
    """log p(x | z)/q(z | x) of one row as a function of x and z: by the inverse of the flow."""
    pair = model.pair
    mean, raw, h = pair.codec.encode(x).split((2, 2, pair.extra), -1)
    log_scale = 7 * torch.tanh(raw / 7)
    z0, change = z, 0.0
    if pair.flow is not None:
        z0, change = pair.flow.decode_with_contribution(z, h if pair.extra else None)
    log_q = torch.distributions.Normal(mean, log_scale.exp()).log_prob(z0).sum(-1) - change
    return torch.distributions.Normal(pair.codec.decode(z), pair.scale).log_prob(x).sum(-1) - log_q


FLOWS = {
    "none": lambda: None,
    "conditional": lambda: transforms.Chain(
        transforms.Coupling(2, transforms.AffineTransformer(), context=3, hidden=(8,)),
        transforms.Coupling(2, transforms.AffineTransformer(), context=3, hidden=(8,), flip=True),
    ),
    "affine": lambda: transforms.Affine(2, shift=0.3, scale=(2.0, -0.5)),
}


def nonlinear(flow: str, **options) -> tuple[models.CyGen, Tensor, Tensor]:
    torch.manual_seed(0)
    model = models.CyGen(3, latent=2, scale=0.5, hidden=(8,), flow=FLOWS[flow](), **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    source = torch.Generator().manual_seed(5)
    return model, *(torch.randn(4, size, dtype=torch.float64, generator=source) for size in (2, 3))


@pytest.mark.parametrize("flow", FLOWS)
def test_derivatives_at_a_fixed_z(flow):
    """Score and mixed Hessian along the draws, against autograd of the density written as a function of x and z."""
    model, e, x = nonlinear(flow)
    score = torch.func.vmap(model.pair.score)(e, x)
    for i in range(len(x)):
        z = model.pair.transport(e[i], x[i])[0].detach()
        torch.testing.assert_close(
            score[i], torch.autograd.functional.jacobian(lambda t, z=z: density(model, t, z), x[i])
        )
        hessian = torch.autograd.functional.hessian(lambda t, w: density(model, t, w), (x[i], z))[0][1]
        rows = [model.pair.mixed(e[i], x[i], probe) for probe in torch.eye(3, dtype=torch.float64)]
        torch.testing.assert_close(torch.stack(rows), hessian)


def test_sylvester_flows_need_no_inverse():
    """The flow does not read x, so the mixed Hessian is J^-T times that of the normal before it."""
    model, e, x = nonlinear("none")
    torch.manual_seed(1)
    flow = transforms.Chain(transforms.Sylvester(2, 2, seed=1), transforms.Sylvester(2, 1, seed=2)).double()
    row, noise, pair = x[0], e[0], model.pair
    plain = torch.stack([pair.mixed(noise, row, v, (0.0, 1.0)) for v in torch.eye(3, dtype=torch.float64)])
    before = pair.transport(noise, row)[0].detach()
    pair.flow = flow
    slope = torch.autograd.functional.jacobian(lambda t: flow.encode(t).z, before)
    bent = torch.stack([pair.mixed(noise, row, v, (0.0, 1.0)) for v in torch.eye(3, dtype=torch.float64)])
    torch.testing.assert_close(bent, plain @ torch.linalg.inv(slope))


def test_probes_are_unbiased_for_both_halves():
    model, _, x = nonlinear("conditional")
    x = x[:1].expand(3000, 3)
    e = torch.Generator().manual_seed(0)
    pair = model.pair
    many = pair.penalty(x, e, 1)  # of as many draws of z and probes
    exact = pair.penalty(x, torch.Generator().manual_seed(1), None)
    error = math.hypot(many.std().item(), exact.std().item()) / math.sqrt(3000)
    assert abs(many.mean() - exact.mean()) < 4 * error
    assert pair.penalty(x, torch.Generator().manual_seed(2), 20).std() < 0.5 * many.std()
    linear_model, a, _, _ = linear()
    assert linear_model.compatibility(data(20, a), probes=2).max() < 1e-10  # other probes for q would leave a rest


def test_the_data_fit_has_the_bias_of_theory():
    """One draw: E log p(x | z) - log p(x) is the mutual information, half log det(I + A^T A / S^2)."""
    bias = {}
    for draws in (1, 16, 256):
        model, a, _, _ = linear(samples=draws)
        x = data(4000, a)
        truth = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), marginal(a)).log_prob(x)
        gap = model.evaluate(x).value - truth
        bias[draws] = gap.mean().item(), gap.std().item() / math.sqrt(4000)
    expected = math.log(1 + 2 / S**2)
    assert abs(bias[1][0] - expected) < 4 * bias[1][1]
    assert bias[1][0] > bias[16][0] > bias[256][0] > 0


def test_the_loss_is_the_data_fit_and_the_weighted_penalty():
    model, _, x = nonlinear("none", samples=1, penalty_weight=0.0)
    fit = model.loss(x, generator=torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(0)
    z = model.pair.draw_z(x, source)
    torch.testing.assert_close(
        fit, -torch.distributions.Normal(model.pair.codec.decode(z), 0.5).log_prob(x).sum(-1).mean()
    )
    linear_model, a, b, v = linear(0.3, samples=1, penalty_weight=2.0)
    alone, *_ = linear(0.3, samples=1, penalty_weight=0.0)
    x = data(200_000, a)[:3]
    penalty = (a / S**2 - b.mT / v).square().sum()
    found = linear_model.loss(x, generator=torch.Generator().manual_seed(0))
    same_draw = torch.Generator().manual_seed(0)
    torch.randn(3, 2, dtype=torch.float64, generator=same_draw)  # the penalty draws its z first
    torch.testing.assert_close(found, alone.loss(x, generator=same_draw) + 2 * penalty)


def test_pretraining_is_a_vae():
    model, a, _, _ = linear(objective="elbo")
    x = data(50, a)
    truth = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), marginal(a)).log_prob(x)
    assert model.kind is Kind.LOWER_BOUND
    torch.testing.assert_close(model.evaluate(x).value, truth)  # tight with the exact posterior, at every draw
    model.set_objective("cyclic")
    assert model.kind is Kind.ESTIMATE
    assert (model.evaluate(x).terms["base"] == 0).all()


def covariance_error(x: Tensor, expected: Tensor) -> float:
    """Largest error of a covariance in standard errors of independent normal rows."""
    error = ((expected.diagonal()[:, None] * expected.diagonal() + expected**2) / len(x)).sqrt()
    return ((torch.cov(x.mT) - expected) / error).abs().max().item()


def test_gibbs_chains_reach_the_distribution_from_noise():
    model, a, _, _ = linear(gibbs_steps=60)
    far = torch.full((5000, 3), 30.0, dtype=torch.float64)
    for x in (model.gibbs(5000, 60, seed=1), model.gibbs(5000, 60, seed=2, start=far), model.sample(5000, seed=3)):
        assert (x.mean(0) / (marginal(a).diagonal() / 5000).sqrt()).abs().max() < 4.5
        assert covariance_error(x, marginal(a)) < 4.5


@pytest.mark.parametrize("off", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
def test_langevin_chains_reach_the_distribution_of_their_step(off):
    """The chain is linear, x' = M x + n e + sqrt(2 step) noise, so its covariance after any number of steps is known."""
    model, a, b, v = linear(off)
    step, covariance = 0.05, torch.eye(3, dtype=torch.float64)
    # At z = B x + sqrt(v) e: (A z - x) / S^2 - B^T e / sqrt(v).
    m = torch.eye(3, dtype=torch.float64) - step * (torch.eye(3, dtype=torch.float64) - a @ b) / S**2
    n = step * (math.sqrt(v) * a / S**2 - b.mT / math.sqrt(v))
    for _ in range(250):
        covariance = m @ covariance @ m.mT + n @ n.mT + 2 * step * torch.eye(3, dtype=torch.float64)
    x = model.langevin(4000, 250, step, seed=1)
    assert covariance_error(x, covariance) < 4.5
    if not off:
        torch.testing.assert_close(covariance, marginal(a), rtol=0.1, atol=0.05)  # a small step has little bias


def test_training_lowers_the_penalty_and_keeps_the_fit():
    torch.manual_seed(0)
    x = torch.randn(512, 2) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]])
    model = models.CyGen(2, latent=2, scale=0.5, penalty_weight=0.5, samples=4, hidden=(16,), objective="elbo")
    pf.fit(model, x, validation=None, max_steps=120, learning_rate=1e-2, progress="silent")
    model.set_objective("cyclic")
    before = model.check_compatibility(x[:100])
    pf.fit(model, x, validation=None, max_steps=120, learning_rate=1e-2, progress="silent")
    after = model.check_compatibility(x[:100])
    assert after.penalty < 0.5 * before.penalty
    assert after.decoder > 0.2 * before.decoder  # it did not end by ignoring z


def test_through_a_file_with_its_objective(tmp_path):
    model, _, x = nonlinear("conditional", objective="elbo")
    pf.save(model, tmp_path / "m")
    again = pf.load(tmp_path / "m")
    assert again.kind is Kind.LOWER_BOUND
    assert torch.equal(again.evaluate(x).value, model.evaluate(x).value)


def test_errors_of_invalid_arguments():
    for wrong in (
        {"scale": 0.0},
        {"penalty_weight": -1.0},
        {"samples": 0},
        {"probes": 0},
        {"objective": "gan"},
        {"latent": 0},
    ):
        with pytest.raises(ConfigError):
            models.CyGen(3, **wrong)
    with pytest.raises(ConfigError, match="flow"):
        models.CyGen(3, latent=2, flow=transforms.Affine(3))
    with pytest.raises(ConfigError, match="all reals as its domain"):
        models.CyGen(3, latent=2, flow=transforms.Logit(2))
    with pytest.raises(KindError, match="bijection"):
        models.CyGen(3, latent=2, flow=transforms.UniformDequantize(2, 4))
    model, a, _, _ = linear()
    with pytest.raises(ConfigError, match="step"):
        model.langevin(3, 5, 0.0)
    for start in (data(2, a), torch.zeros(3)):
        with pytest.raises(ConfigError, match="one row for each"):
            model.gibbs(3, 5, start=start)
    with pytest.raises(ConfigError, match="seed must be an integer"):
        model.gibbs(3, 5, seed="a")
    for wrong in (torch.zeros(0, 3), torch.zeros(3)):
        with pytest.raises(InputError, match="one row"):
            models.CyGen(3).compatibility(wrong)
    with pytest.raises(ConfigError, match="probes"):
        models.CyGen(3).compatibility(torch.zeros(2, 3), probes=0)
    with pytest.raises(ConfigError, match="steps"):
        model.gibbs(3, 0)
