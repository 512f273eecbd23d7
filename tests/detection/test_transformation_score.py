"""The network that recognizes transformed images, and the sum of surprises."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.detection import auroc, transformation_training
from pushforward.detection.image_score import IMAGE_TRAINING, fit_image_score
from pushforward.detection.scores import DoSE, Neighbors, Score, SurpriseSum, TransformationScore
from pushforward.detection.scores.transformation import symmetry, symmetry_count
from pushforward.detection.transformation_training import SHIFTS, fit_transformations, information
from pushforward.errors import ConfigError, InputError
from pushforward.networks import ConvSummary


class First(Score):
    """The first value of a row."""

    def _score(self, x):
        return x.flatten(1)[:, 0].double()


def cups(n: int, seed: int, size: int = 8) -> torch.Tensor:
    """Bright bars of random width and brightness on a wide foot, with a handle on the right."""
    g = torch.Generator().manual_seed(seed)
    images = 10 * torch.rand(n, 1, size, size, generator=g)
    light = 120 + 100 * torch.rand(n, 1, 1, generator=g)
    images[:, 0, 2:, 3:5] += light
    images[:, 0, -1, 1:7] += light[:, 0]
    images[:, 0, 3, 5:7] += light[:, 0]
    return images.round().clamp(0, 255).to(torch.uint8)


def textures(n: int, seed: int, contrast: float = 30.0) -> torch.Tensor:
    """Independent pixels, which look the same in every orientation."""
    g = torch.Generator().manual_seed(seed)
    return (127 + contrast * torch.randn(n, 1, 8, 8, generator=g)).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def cup_score() -> TransformationScore:
    return fit_transformations(cups(300, 0), steps=50)


class TestSymmetries:
    def test_a_square_has_eight_and_a_rectangle_four(self):
        for shape, count in (((4, 4), 8), ((4, 8), 4)):
            x = torch.arange(math.prod(shape)).reshape(1, 1, *shape)
            made = [symmetry(x, k) for k in range(symmetry_count(*shape))]
            assert len(made) == count
            assert torch.equal(made[0], x)
            assert all(part.shape == x.shape for part in made)
            assert len({tuple(part.flatten().tolist()) for part in made}) == count
            for wanted in (x.flip(2), x.flip(3), x.flip(2, 3)):
                assert any(torch.equal(part, wanted) for part in made)

    def test_they_are_closed(self):
        """Two symmetries after each other are one of them, so a transformed image has the same views as the image."""
        x = torch.arange(16).reshape(1, 1, 4, 4)
        views = {tuple(symmetry(x, k).flatten().tolist()) for k in range(8)}
        for j in range(8):
            y = symmetry(x, j)
            assert {tuple(symmetry(y, k).flatten().tolist()) for k in range(8)} == views


class TestTransformationScore:
    def test_by_hand(self):
        """The mean of -log softmax over the views, with the network called on each view."""
        torch.manual_seed(0)
        network = ConvSummary((1, 4, 4), 10, (4,), (8,))
        x = torch.randint(256, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
        expected = torch.zeros(3, dtype=torch.float64)
        for k in range(8):
            view = (symmetry(x, k).float() / 127.5 - 1).flatten(1)
            with torch.no_grad():
                p = torch.softmax(network(view).double(), 1)
            expected -= p[:, k].log() / 8
        torch.testing.assert_close(TransformationScore(network)(x), expected, rtol=1e-5, atol=1e-6)

    def test_upside_down_and_mirrored_images_are_found(self, cup_score):
        new = cups(200, 1)
        normal = cup_score(new).numpy()
        for other in (new.flip(2), new.flip(3), new.rot90(1, (2, 3))):
            assert auroc(normal, cup_score(other).numpy()) > 0.98

    def test_it_does_not_depend_on_the_global_generator(self):
        torch.manual_seed(7)
        state = torch.random.get_rng_state()
        one, two, other = (fit_transformations(cups(30, 0), steps=3, seed=seed)(cups(9, 1)) for seed in (0, 0, 1))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(one, two)
        assert not torch.equal(one, other)

    def test_far_images_have_finite_scores(self, cup_score):
        g = torch.Generator().manual_seed(0)
        far = torch.cat((torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 255.0), torch.full((1, 1, 8, 8), 1e30),
                         torch.randint(256, (9, 1, 8, 8), generator=g)))  # fmt: skip
        assert torch.isfinite(cup_score(far)).all()
        assert cup_score(far)[1] == cup_score(far)[2]

    def test_a_budget_of_time_ends_the_training(self, monkeypatch):
        now = iter(range(1000))
        monkeypatch.setattr(transformation_training.time, "monotonic", lambda: float(next(now)))
        fit_transformations(cups(30, 0), steps=10**6, seconds=20.0)
        assert next(now) < 40

    def test_refusals(self):
        with pytest.raises(ConfigError, match="as many outputs; got a network with 7"):
            TransformationScore(ConvSummary((1, 8, 8), 7))
        with pytest.raises(ConfigError, match="needs a ConvSummary of images"):
            TransformationScore(ConvSummary((1, 8), 8))
        with pytest.raises(InputError, match=r"shape \(1, 8, 8\); got \(1, 4, 4\)"):
            TransformationScore(ConvSummary((1, 8, 8), 8))(torch.zeros(1, 1, 4, 4))


class TestInformation:
    def test_it_is_high_where_images_have_an_orientation(self, cup_score):
        assert information(cup_score, cups(300, 2)) > 0.8

    def test_it_is_low_where_the_network_knows_nothing(self):
        untrained = fit_transformations(textures(100, 0), steps=1)
        assert information(untrained, textures(500, 1)) < 0.2

    def test_a_network_that_errs_has_no_information(self, cup_score):
        """It never subtracts: a score that is lower on transformed images counts nothing."""

        class Inverse(torch.nn.Module):
            count = 8

            def __init__(self, score):
                super().__init__()
                self.inner = score

            def forward(self, x):
                return -self.inner(x)

        inverse: Any = Inverse(cup_score)
        assert information(inverse, cups(200, 2)) == 0.0


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.__name__.strip("_"))
@pytest.mark.parametrize("shape", [(5, 1, 4, 4), (1, 3, 4, 8), (10, 1, 28, 28)], ids=str)
def test_shifts_change_images_within_the_range(shift, shape):
    x = 2 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 1
    y = shift(x, torch.Generator().manual_seed(1))
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    assert torch.equal(y, shift(x, torch.Generator().manual_seed(1)))
    if len(x) > 1:
        assert not torch.equal(y, x)


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.__name__.strip("_"))
def test_shifts_do_not_depend_on_the_default_type(shift, double_by_default):
    x = 2 * torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float32) - 1
    found = shift(x, torch.Generator().manual_seed(1))
    torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, shift(x, torch.Generator().manual_seed(1)))


class TestSurpriseSum:
    def test_the_tail_of_an_exponential_distribution(self):
        """-log P(s >= v) of an exponential variable is v / mean, inside and far beyond the reference."""
        rows = 3 * torch.distributions.Exponential(1.0).icdf((torch.arange(20_000).double() + 0.5) / 20_000)[:, None]
        score = SurpriseSum(First()).fit(rows)
        at = torch.tensor([[0.3], [3.0], [6.0], [30.0], [300.0]], dtype=torch.float64)
        torch.testing.assert_close(score(at), at[:, 0] / 3, rtol=2e-2, atol=2e-2)
        assert score(torch.tensor([[-5.0]])).item() == 0.0

    def test_weights_multiply_the_terms(self):
        rows = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
        x = torch.tensor([[2.0, 2.0, 2.0, 2.0], [0.5, 0.1, 0.9, 0.5]])
        near = Neighbors().fit(rows[:100])
        one, two = (SurpriseSum(part).fit(rows[100:])(x) for part in (near, First()))
        both = SurpriseSum(near, First(), weights=(0.5, 2.0)).fit(rows[100:])
        torch.testing.assert_close(both(x), 0.5 * one + 2 * two)
        torch.testing.assert_close(both.terms(x), torch.stack((0.5 * one, 2 * two), 1))

    def test_fitted_scores_stay_as_they_are(self):
        rows = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
        near = Neighbors(1).fit(rows[:30])
        before = near(rows)
        SurpriseSum(near).fit(rows[30:])
        assert torch.equal(near(rows), before)

    def test_equal_scores_of_all_reference_rows(self):
        score = SurpriseSum(First()).fit(torch.ones(30, 2))
        values = score(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
        assert torch.isfinite(values).all()
        assert values[0] <= values[1] < values[2]

    def test_it_rises_with_the_score(self):
        rows = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).double()
        values = SurpriseSum(First()).fit(rows)(torch.linspace(-4, 4, 400).double()[:, None])
        assert (values.diff() >= 0).all()

    def test_refusals(self):
        with pytest.raises(ConfigError, match="at least one Score"):
            SurpriseSum()
        with pytest.raises(ConfigError, match="one weight for each of 1 scores; got 2"):
            SurpriseSum(First(), weights=(1.0, 2.0))
        with pytest.raises(ConfigError, match="weight above 0"):
            SurpriseSum(First(), weights=(0.0,))
        with pytest.raises(ConfigError, match="weights"):
            SurpriseSum(First(), weights=(-1.0,))


class TestGuardOfImages:
    def test_it_finds_images_upside_down(self):
        images = cups(500, 0)
        config = replace(IMAGE_TRAINING, max_steps=80, progress="silent")
        score = fit_image_score(images[:400], images[400:], config=config)
        normal, other = score(cups(200, 1)).numpy(), score(cups(200, 2).flip(2)).numpy()
        assert (other > np.quantile(normal, 0.99)).mean() > 0.95

    def test_a_network_that_can_tell_nothing_does_no_harm(self):
        """Textures of another contrast: as well detected as by the statistics of pixels alone."""
        images = textures(500, 0)
        config = replace(IMAGE_TRAINING, max_steps=60, progress="silent")
        score = fit_image_score(images[:300], images[300:], config=config)
        total = score.inner
        assert isinstance(total, SurpriseSum)
        pixels = total.scores[0]
        assert isinstance(pixels, DoSE)
        normal, other = textures(300, 1), textures(300, 2, contrast=34.0)
        alone = auroc(pixels(normal).numpy(), pixels(other).numpy())
        assert 0.7 < alone < 0.999
        assert auroc(score(normal).numpy(), score(other).numpy()) > alone - 0.03

    def test_it_is_fitted_where_the_default_type_is_float64(self, double_by_default):
        guard = pf.Guard(0.1, max_steps=2, random_state=0).fit(cups(100, 0))
        assert np.isfinite(guard.anomaly_score(cups(3, 1))).all()

    def test_colors_and_odd_sizes(self):
        x = torch.randint(256, (120, 3, 10, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        guard = pf.Guard(0.1, max_steps=2, random_state=0).fit(x.numpy())
        far = np.concatenate([np.zeros((1, 3, 10, 7)), np.full((1, 3, 10, 7), 255)]).astype(np.uint8)
        assert np.isfinite(guard.anomaly_score(far)).all()


@pytest.mark.slow
@pytest.mark.skipif("PUSHFORWARD_DATA" not in os.environ, reason="needs Fashion-MNIST")
def test_clothes_upside_down():
    """Held-out training images, so that no test set is looked at."""
    from benchmarks.common.datasets import load_images

    images = load_images("fashion-mnist", train=True)
    guard = pf.Guard(0.01, max_steps=800, random_state=0).fit(images[:10_000].numpy())
    new = images[-1000:].numpy()
    normal, other = guard.anomaly_score(new), guard.anomaly_score(new[:, :, ::-1].copy())
    assert auroc(normal, other) > 0.95
    assert (guard.predict(new[:, :, ::-1].copy()) == -1).mean() > 0.3
