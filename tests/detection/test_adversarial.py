import math

import pytest
import torch

import pushforward as pf
from pushforward.detection import BatchTwoSampleGate, MMDTest, fgsm, gate_aware_objective, log_likelihood_objective, pgd
from pushforward.detection.scores import Likelihood
from pushforward.detection.two_sample import mmd_squared
from pushforward.errors import ConfigError, InputError
from pushforward.models import ImageInFlow, InFlow


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def linear(x):
    return (x.flatten(1) * torch.linspace(-1, 1, x.shape[1:].numel())).sum(1)


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_a_linear_objective_is_solved(attack, dtype):
    """Every pixel goes to the end of its interval that its weight points to."""
    x = images(5, 1, 2, 3).to(dtype)
    y = attack(linear, x, 8)
    signs = torch.linspace(-1, 1, 6).sign().reshape(1, 2, 3).to(torch.int64)
    assert y.dtype is dtype
    assert torch.equal(y.to(torch.int64), (x.to(torch.int64) + 8 * signs).clamp(0, 255))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_real_images_keep_fractional_gray_levels(dtype):
    x = torch.tensor([[0.5, 0.0, 1.0]], dtype=dtype)
    for attack in (fgsm, pgd):
        y = attack(lambda t: t.sum(1), x, 51)  # a fifth of 255
        assert y.dtype is dtype
        assert torch.allclose(y, torch.tensor([[0.7, 0.2, 1.0]], dtype=dtype))
    assert torch.allclose(fgsm(lambda t: t.sum(1), x, 1, levels=5), x + torch.tensor([[0.25, 0.25, 0.0]], dtype=dtype))


def test_a_concave_objective_is_solved_by_pgd_and_overshot_by_fgsm():
    """The nearest gray to 100 within 20 levels."""
    x = torch.tensor([[60, 95, 100, 130]], dtype=torch.uint8)

    def near(t):
        return -(t - 100).abs().sum(1)

    assert pgd(near, x, 20, steps=150, step=0.6).tolist() == [[80, 100, 100, 110]]
    assert fgsm(near, x, 20).tolist() == [[80, 115, 100, 110]]


def test_the_best_point_is_kept_even_where_it_is_the_start():
    """A spike at 100, on a slope that leads away from it: steps of whole gray levels cannot find it again."""

    def spike(t):
        return (10 * torch.exp(-100 * (t - 100) ** 2) + 0.01 * t).sum(1)

    x = torch.tensor([[100], [97]], dtype=torch.uint8)
    assert pgd(spike, x, 4, random_start=False).tolist()[0] == [100]
    assert pgd(spike, x, 4, random_start=False, keep_best=False).tolist()[0] == [104]
    for seed in range(5):
        found = pgd(spike, x, 4, seed=seed).float()
        assert (spike(found) >= spike(x.float())).all()


def test_a_scalar_objective_chooses_for_the_batch():
    """Of both rows together the best is where the sum of absolute values is 20, though row 0 would go on."""
    x = torch.tensor([[10], [5]], dtype=torch.uint8)

    def joint(t):
        return -(t.sum() - 20).abs()

    found = pgd(joint, x, 10, steps=40)
    assert found.int().sum() == 20


def test_the_budget_is_kept_whatever_the_steps():
    x = images(20, 3, 4, 4)
    for options in ({"steps": 1}, {"steps": 3, "step": 100.0}, {"random_start": False}, {"seed": 5}):
        y = pgd(lambda t: linear(t).sin(), x, 3, **options)
        assert (y.int() - x.int()).abs().max() <= 3
    assert (pgd(linear, x, 2.7).int() - x.int()).abs().max() == 2  # rounding does not break out
    assert torch.equal(pgd(linear, x, 3, seed=1), pgd(linear, x, 3, seed=1))


@pytest.fixture
def flow() -> InFlow:
    torch.manual_seed(0)
    model = ImageInFlow(shape=(1, 4, 4), hidden=(8,)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_likelihoods_of_integers_have_a_gradient(flow):
    """The value is the evaluation itself; the gradient by finite differences that stay within a rounding."""
    objective = log_likelihood_objective(flow)
    x = images(2, 1, 4, 4).double()
    with torch.no_grad():
        assert torch.allclose(objective(x), flow.evaluate(x).value, atol=1e-10)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x).sum(), x)
    for place in ((0, 0, 0, 0), (1, 0, 2, 3)):
        step = torch.zeros_like(x)
        step[place] = 1e-4
        with torch.no_grad():
            slope = (objective(x + step) - objective(x - step)).sum() / 2e-4
        assert slope.item() == pytest.approx(gradient[place].item(), rel=1e-4, abs=1e-6)


def test_every_kind_of_image_model_can_be_attacked():
    x = images(4, 1, 4, 4)
    for model in (
        pf.models.ImageRealNVP(shape=(1, 4, 4), layers=2, hidden=(4,), dequantize="variational"),
        pf.models.Glow((1, 4, 4), scales=1, layers=1, hidden=(4,)),
    ):
        model.initialize(images(50, 1, 4, 4, seed=1))
        objective = log_likelihood_objective(model.eval())
        with torch.no_grad():
            before = objective(x.float())
            after = objective(pgd(objective, x, 4).float())
        assert (after > before).all()


def test_likelihood_goes_up_and_down_within_the_budget(flow):
    objective = log_likelihood_objective(flow)
    x = images(6, 1, 4, 4, seed=2)
    with torch.no_grad():
        start = flow.evaluate(x).value
        up = flow.evaluate(pgd(objective, x, 16)).value
        down = flow.evaluate(pgd(lambda t: -objective(t), x, 16)).value
    assert (down < start).all()
    assert (start < up).all()


def test_a_vector_model_and_a_score():
    """Of a standard normal the best point of the box is the one nearest to 0 in each coordinate."""
    model = pf.models.Flow(pf.transforms.Affine(3), pf.distributions.Normal(3))
    x = torch.tensor([[0.5, 0.05, 1.0]])
    best = torch.tensor([[0.4, 0.0, 0.9]])
    assert torch.allclose(pgd(log_likelihood_objective(model), x, 25.5, steps=200, step=1.0), best, atol=2e-3)
    score = Likelihood(model)
    assert torch.allclose(pgd(lambda t: -score._score(t), x, 25.5, steps=200, step=1.0), best, atol=2e-3)


def test_an_attack_with_the_gate_in_its_objective_hides_better():
    draw = torch.Generator().manual_seed(0)
    reference = (128 + 20 * torch.randn(200, 4, generator=draw)).round().clamp(0, 255)
    batch = (150 + 20 * torch.randn(30, 4, generator=draw)).round().clamp(0, 255).to(torch.uint8)
    model = pf.models.Flow(pf.transforms.Affine(4, shift=-6.4, scale=0.05), pf.distributions.Normal(4))

    def features(x):
        return x.float() / 20

    gate = BatchTwoSampleGate(MMDTest(features(reference), bandwidth=1.5), features)
    likely = log_likelihood_objective(model)
    blind = pgd(likely, batch, 30)
    aware = pgd(
        gate_aware_objective(likely, features, features(reference), 1.5, weight=1000.0), batch, 30, steps=60, step=2.0
    )
    gap = {name: mmd_squared(features(x), features(reference), 1.5).item() for name, x in
           (("clean", batch), ("blind", blind), ("aware", aware))}  # fmt: skip
    assert gap["aware"] < 0.2 * min(gap["clean"], gap["blind"])
    assert not gate.accepts(batch)
    assert not gate.accepts(blind)  # all rows went to the mode: likely, and unlike the reference
    assert gate.accepts(aware)


def test_objectives_without_a_gradient_are_refused(flow):
    x = images(3, 1, 4, 4)
    with pytest.raises(InputError, match="log_likelihood_objective"):
        pgd(lambda t: flow.evaluate(t).value, x, 4)
    with pytest.raises(InputError, match="has no gradient with respect"):
        pgd(lambda t: t.detach().flatten(1).sum(1), x, 4)


def test_refusals():
    x = images(2, 3)
    for bad in (0, -1, math.nan, math.inf, "1", True):
        with pytest.raises(ConfigError, match="budget"):
            pgd(linear, x, bad)
        with pytest.raises(ConfigError, match="step must be"):
            pgd(linear, x, 1, step=bad)
        with pytest.raises(ConfigError, match="weight"):
            gate_aware_objective(linear, linear, x, 1.0, bad)
    for options in ({"steps": 0}, {"steps": -5, "step": 1.0}, {"steps": 2.5, "step": 1.0}, {"seed": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            pgd(linear, x, 1, **options)
    with pytest.raises(ConfigError, match="levels"):
        pgd(linear, x, 1, levels=0)
    for wrong in (torch.tensor([[1.5]]), torch.tensor([[math.nan]]), torch.tensor([[-0.1]])):
        with pytest.raises(InputError, match="between 0 and 1, real"):
            pgd(linear, wrong, 1)
    with pytest.raises(InputError, match="between 0 and 15, integers"):
        pgd(linear, torch.tensor([[16]]), 1, levels=16)
    for wrong in ([[1.0]], torch.tensor([1.0])):
        with pytest.raises(InputError, match="needs a tensor of real"):
            pgd(linear, wrong, 1)
    assert pgd(linear, x[:0], 1).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8])
def test_a_type_that_cannot_hold_the_gray_levels_is_refused(dtype):
    x = torch.zeros(2, 3, dtype=dtype)
    with pytest.raises(InputError, match="cannot hold 256 gray levels"):
        pgd(lambda y: y.sum(1), x, budget=4)
    with pytest.raises(InputError, match="cannot hold 256 gray levels"):
        fgsm(lambda y: y.sum(1), x, budget=4)
