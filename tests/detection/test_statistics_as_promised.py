"""What statistics promise: independent of the batch in any mode, unchanged by a fit that fails, right at ties and far away."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pushforward import models
from pushforward.detection.scores import DoSE, Likelihood, Neighbors, PrincipalDistances, Score, SurpriseSum, TwoSided
from pushforward.detection.selective.set_scores import row_uniform
from pushforward.detection.two_sample import mmd_squared
from pushforward.distributions import Uniform
from pushforward.errors import InputError
from pushforward.transforms import Affine


def rows(count, width=3, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "make", [lambda: models.RealNVP(3, batch_norm=True), lambda: models.MAF(3, hidden=(16,), dropout=0.5)]
)
@pytest.mark.parametrize("wrap", [Likelihood, lambda model: TwoSided(Likelihood(model))])
def test_a_model_in_training_mode_is_scored_as_in_evaluation_mode(make, wrap):
    torch.manual_seed(0)
    model = make()
    model.train()
    model.log_prob(rows(100))  # batch statistics
    model.eval()
    x, score = rows(20, seed=2), wrap(model).fit(rows(50, seed=1))
    right = score(x)
    modes = {module: module.training for module in model.modules()}
    model.train()
    again = wrap(model).fit(rows(50, seed=1))
    torch.testing.assert_close(again(x), right, rtol=0, atol=0)
    torch.testing.assert_close(again(x[:1]), right[:1], rtol=0, atol=0)
    if hasattr(again, "numbers"):
        torch.testing.assert_close(again.numbers(x), score.numbers(x), rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert not any(modes.values())


class Clipped(Score):
    """Half of normal rows have exactly the score 0, which is the largest."""

    def _score(self, x):
        return x[:, 0].clamp(max=0.0).double()


def test_ties_count_as_at_least_as_large():
    score = SurpriseSum(Clipped()).fit(rows(2000))
    share = (rows(2000)[:, 0] >= 0).double().mean()
    found = score(torch.tensor([[1.0, 0, 0], [0.0, 0, 0], [-9.0, 0, 0]]))
    assert found[0] == found[1]
    assert abs(found[0].neg().exp() - share) < 0.02  # quantiles are 2 % apart
    assert found[2] == 0


class First(Score):
    def _score(self, x):
        return x[:, 0].double()


def test_equal_reference_values():
    score = SurpriseSum(First()).fit(torch.full((100, 3), 2.0))
    below, at, above, farther = score(torch.tensor([[1.0], [2.0], [2.1], [2.2]]).expand(-1, 3)).tolist()
    assert below == at == 0  # every reference row has as much
    assert math.log(10) < above < farther


def test_a_fit_that_fails_leaves_the_fitted_score():
    flow = models.Flow(Affine(2), Uniform(2))
    good = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    bad = torch.cat((good[:50] ** 2, torch.full((1, 2), 5.0)))
    score = DoSE(Neighbors(), Likelihood(flow)).fit(good)
    before = score(good[:5] + 0.1)
    with pytest.raises(InputError, match="infinite in row 50"):
        score.fit(bad)
    torch.testing.assert_close(score(good[:5] + 0.1), before, rtol=0, atol=0)
    fresh = DoSE(Neighbors(), Likelihood(flow))
    with pytest.raises(InputError):
        fresh.fit(bad)
    with pytest.raises(InputError, match="must be fitted"):
        fresh(good)


def test_a_huge_finite_row_is_infinitely_far():
    score = PrincipalDistances((1, 2, 3), k=1).fit(rows(200, 4).double())
    far = torch.tensor([[1e200, 0, 0, 0], [0, -1e160, 0, 0]], dtype=torch.float64)
    assert torch.isposinf(score.values(far)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mmd_in_low_precision(dtype):
    x, y = (30 * rows(100, 64, seed).to(dtype) for seed in (0, 1))
    found, right = mmd_squared(x, y, 240.0), mmd_squared(x.double(), y.double(), 240.0)
    assert found.dtype == dtype
    assert found.item() == pytest.approx(right.item(), rel=torch.finfo(dtype).eps)


def test_mmd_of_clusters_that_are_far_apart():
    """In float32 the squares of the distance would hide that the second sample is shifted."""
    x, y = rows(200, 4), rows(200, 4, seed=1) + 1
    x[:60] += 1e5
    y[:60] += 1e5
    right = mmd_squared(x.double(), y.double(), 1.0)
    assert mmd_squared(x, y, 1.0).item() == pytest.approx(right.item(), rel=1e-6)
    assert right > 0.01


def test_impossible_classes_leave_the_others_their_randomness():
    logits = np.random.default_rng(0).normal(size=(1000, 5))
    for mask in (-np.inf, -1e9, float(np.finfo(np.float16).min), float(np.finfo(np.float32).min)):
        masked = logits.copy()
        masked[:, 4] = mask
        found = row_uniform(masked, 0)
        counts = np.histogram(found, 10, (0, 1))[0]
        assert counts.min() > 60  # a binomial of 1,000 and 0.1 has less with probability 3e-6
        np.testing.assert_allclose(
            np.abs((row_uniform(masked + 1e-7 * logits, 0) - found + 0.5) % 1 - 0.5), 0, atol=1e-3
        )


def test_the_u_of_ordinary_logits_has_not_changed():
    """Files hold thresholds that were calibrated with it."""
    logits = np.array([[0.3, -1.2, 2.0], [5.0, 5.0, -40.0]])
    rng = np.random.default_rng(3)
    direction = rng.normal(size=3)
    direction *= rng.uniform(50, 150) / np.linalg.norm(direction)
    z = logits - logits.mean(1, keepdims=True)
    norm = np.sqrt((z**2).sum(1))
    right = np.mod(rng.uniform() + (z / norm[:, None]) @ direction + rng.uniform(50, 150) * np.log(norm), 1.0)
    np.testing.assert_allclose(row_uniform(logits, 3), right, atol=1e-9)
