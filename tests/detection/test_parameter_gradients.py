"""Per-sample gradients against backward(), and the scores made of them against closed forms."""

import math

import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.detection import sample_gradients as module
from pushforward.detection.sample_gradients import sample_gradients
from pushforward.detection.scores import FisherScore, LayerGradients, ParameterGradients, ScoreTypicality
from pushforward.detection.without_preprocessing import WithoutPreprocessing
from pushforward.errors import ConfigError, InputError


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def affine() -> models.Model:
    return models.Flow(transforms.Affine(2, trainable=True), distributions.Normal(2)).double()


MODELS = {
    "additive": lambda: models.NICE(2, hidden=(8,)),
    "spline": lambda: models.NSF(2, layers=2, bins=4, hidden=(8,)),
    "autoregressive": lambda: models.MAF(2, layers=2, hidden=(8,)),
    "latent": lambda: models.VAE(2, latent=1, hidden=(8,)),
    "residual": lambda: models.IResNet(2, blocks=1, hidden=(8,), log_det="exact"),
}


@pytest.mark.parametrize("name", MODELS)
def test_against_backward(name):
    torch.manual_seed(0)
    model, x = MODELS[name]().double().eval(), rows(3)
    inner = WithoutPreprocessing(model)
    (found,) = sample_gradients(inner, inner.preprocess(x)[0])
    for i in range(3):
        model.zero_grad()
        model.evaluate(x[i : i + 1]).value.sum().backward()
        for parameter, own in zip(inner.parameters(), found.values(), strict=True):
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(own[i], expected)


@pytest.mark.parametrize("name", ["additive", "spline", "autoregressive"])
def test_flows_go_through_vmap(name, monkeypatch):
    """The loop is for models that vmap cannot take, not for these."""
    monkeypatch.setattr(module, "_one_by_one", lambda *_: pytest.fail("row by row"))
    inner = WithoutPreprocessing(MODELS[name]().eval())
    assert sum(len(next(iter(chunk.values()))) for chunk in sample_gradients(inner, rows(70).float())) == 70


def test_groups_add_up():
    model = models.NICE(2, hidden=(8,)).double()
    single, grouped = ParameterGradients(model).values(rows(5)), ParameterGradients(model, groups=3).values(rows(5))
    assert grouped.shape == (5, 3)
    torch.testing.assert_close(grouped.exp().sum(1), single.exp().sum(1))
    with pytest.raises(ConfigError, match="groups"):
        ParameterGradients(model, groups=1000)
    with pytest.raises(ConfigError, match="no weights"):
        ParameterGradients(models.Flow(transforms.Affine(2), distributions.Normal(2)))


def test_fisher_score_of_an_affine_flow():
    """log p = sum_d s_d - (e^s_d x_d + b_d)^2 / 2 + c has the gradient (-x, 1 - x^2) at s = b = 0."""
    reference, x = rows(300), rows(4, seed=1)

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return torch.cat((-x, 1 - x**2), 1)

    expected = (gradient(x) ** 2 / ((gradient(reference) ** 2).mean(0) + 1e-8)).sum(1).sqrt()
    torch.testing.assert_close(FisherScore(affine()).fit(reference)(x), expected)


def test_layer_gradients_of_an_affine_flow():
    reference, x = rows(300), rows(4, seed=1)

    def features(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(((x**2).sum(1), ((1 - x**2) ** 2).sum(1)), 1).log()

    known = features(reference)
    law = torch.distributions.Normal(known.mean(0), known.std(0, correction=0))
    torch.testing.assert_close(LayerGradients(affine()).fit(reference)(x), -law.log_prob(features(x)).sum(1))


def test_weights_that_are_one_number():
    """z = (x - m) e^s with one s for both coordinates has d log p / ds = 2 - |z|^2 and d log p / dm = z at s = m = 0."""
    model, x = models.Flow(transforms.ConformalScale(2), distributions.Normal(2)).double(), rows(5)
    squares = torch.stack((x.square().sum(1), (2 - x.square().sum(1)).square()), 1)
    torch.testing.assert_close(ParameterGradients(model).values(x).exp(), squares)
    fisher = torch.cat((x, 2 - x.square().sum(1, keepdim=True)), 1).square()
    found = FisherScore(model).fit(rows(9, seed=1))
    torch.testing.assert_close(found(x), (fisher / (found.fisher + found.damping)).sum(1).sqrt())


def test_tensors_that_never_move_are_left_out():
    """A weight with no influence has a gradient of 0 in every row."""
    model = affine()
    model.base.unused = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    reference, x = rows(100), rows(4, seed=1)
    torch.testing.assert_close(LayerGradients(model).fit(reference)(x), LayerGradients(affine()).fit(reference)(x))


def test_frozen_weights_stay_frozen_and_count():
    model = affine().requires_grad_(False)
    expected = FisherScore(affine()).fit(rows(50))(rows(3, seed=1))
    with torch.inference_mode():
        assert torch.equal(FisherScore(model).fit(rows(50))(rows(3, seed=1)), expected)
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_impossible_rows_are_infinite():
    model = models.Glow((1, 2, 2), scales=1, layers=1, hidden=(4, 4), levels=4)
    x = torch.randint(4, (20, 1, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    far = torch.full((1, 1, 2, 2), 9.0)
    assert FisherScore(model).fit(x)(far).item() == math.inf
    assert LayerGradients(model).fit(x)(far).item() == math.inf


def test_fishers_combination_by_hand():
    reference, x = rows(60), rows(5, seed=1)
    first, second = reference[:30], reference[30:]

    def surprise(x: torch.Tensor) -> torch.Tensor:
        return (0.5 * x**2).sum(1) + math.log(2 * math.pi)

    fisher, entropy = FisherScore(affine()).fit(first), surprise(first).mean()
    expected = []
    for row in x.split(1):
        typical = ((surprise(second) - entropy).abs() >= (surprise(row) - entropy).abs()).sum().item()
        steep = (fisher(second) >= fisher(row)).sum().item()
        expected.append(-2 * (math.log((1 + typical) / 31) + math.log((1 + steep) / 31)))
    found = ScoreTypicality(affine()).fit(reference)(x)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("score", [FisherScore, LayerGradients, ScoreTypicality])
def test_an_impossible_reference_row_is_refused(score):
    reference = rows(50)
    reference[3, 0] = math.inf
    with pytest.raises(InputError, match="-log p is infinite in row 3 of the reference"):
        score(affine()).fit(reference)
