"""The score of images under noise: what it finds, its bounds under attack, and its file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pushforward.detection import auroc, noisy_images
from pushforward.detection.noisy_images import NoisyImages, small
from pushforward.detection.smoothing import NoisyFunction, Smoothing
from pushforward.errors import StorageError

SIGMA = 0.15


def digits() -> torch.Tensor:
    return torch.from_numpy((load_digits().images * 15.9).astype(np.uint8))[:, None]


def rows(images: torch.Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy() / 255


@pytest.fixture(scope="module")
def base() -> NoisyImages:
    return NoisyImages.fit(digits()[:1200], SIGMA, steps=300)


def test_the_noise_of_the_training_does_not_depend_on_the_default_type(monkeypatch):
    class Seen(Exception):
        pass

    def seen(images, *, noise, **options):
        raise Seen(noise(3, torch.Generator().manual_seed(0)))

    monkeypatch.setattr(noisy_images, "fit_transformations", seen)
    found = []
    try:
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            with pytest.raises(Seen) as caught:
                NoisyImages.fit(digits()[:200], SIGMA, steps=1)
            found.append(caught.value.args[0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(*found)


def test_it_sees_how_an_image_stands_under_noise(base):
    images, smoothing = digits()[1200:1400], Smoothing(SIGMA, 32, 0.9)
    turned = images.rot90(1, (2, 3))

    def network(values: np.ndarray) -> np.ndarray:
        return base.network.of_batch(base.pixels(torch.from_numpy(values).float())).numpy()

    for score in (base, NoisyFunction(network)):
        assert auroc(smoothing.score(score, rows(images)), smoothing.score(score, rows(turned))) > 0.95
    assert base.parts["weight"] > 1


def test_the_score_is_that_of_one_image_at_a_time(base):
    images = rows(digits()[1200:1205])
    together = base.score(images)
    assert together == pytest.approx([base.score(images[i : i + 1])[0] for i in range(5)], rel=1e-5)


def test_far_images_have_finite_scores_that_do_not_fall(base):
    image = rows(digits()[1200:1201])
    scores = base.score(np.concatenate([image * factor for factor in (1.0, 1e3, 1e6)]))
    assert np.isfinite(scores).all()
    assert np.all(np.diff(scores) > 0)


def test_an_attack_with_gradients_does_not_break_a_bound(base):
    """Expectation over noise, steps along the gradient of the mean score, and the deployed score decides."""
    smoothing, radius = Smoothing(SIGMA, 32, 0.9), 0.2
    start = rows(digits()[1200:1203].rot90(1, (2, 3)))
    bounds = smoothing.lower_bound(base, start, radius, draws=2000)
    generator = torch.Generator().manual_seed(0)
    for row, bound in zip(start, bounds, strict=True):
        x, lowest = torch.from_numpy(row), np.inf
        for _ in range(15):
            x.requires_grad_()
            noisy = (x + SIGMA * torch.randn(16, 64, generator=generator)).float()
            loss = base.network.of_batch(base.pixels(noisy)).mean()
            (gradient,) = torch.autograd.grad(loss, x)
            moved = x.detach() - 0.05 * gradient / gradient.norm() - torch.from_numpy(row)
            x = torch.from_numpy(row) + moved * min(1.0, radius / float(moved.norm()))
            lowest = min(lowest, smoothing.score(base, x.numpy()[None])[0])
        assert lowest >= bound
        assert lowest < smoothing.score(base, row[None])[0]  # the attack does what it can


def test_images_are_averaged_to_at_most_32_pixels_and_keep_constants():
    for side in (8, 28, 30, 32, 33, 70):
        found = small(torch.full((2, 3, side, side), 0.25))
        assert max(found.shape[-2:]) <= 32 + 3
        assert found.shape[-1] % 4 == 0
        torch.testing.assert_close(found, torch.full_like(found, 0.25))


def test_files(base):
    description, tensors = base.pack("s.")
    description = json.loads(json.dumps(description))
    again = NoisyImages.unpack(description, tensors, "s.")
    assert (again.score(rows(digits()[:5])) == base.score(rows(digits()[:5]))).all()
    changes = (
        lambda d, t: d.update(shape=[1, 8, 9]),
        lambda d, t: d.update(shape=[64]),
        lambda d, t: d.pop("network"),
        lambda d, t: d.update(network=3),
        lambda d, t: t.pop("s.weight"),
        lambda d, t: t.update({"s.excess": t["s.excess"] * torch.nan}),
        lambda d, t: t.update({"s.levels": t["s.levels"][:5]}),
    )
    for change in changes:
        d, t = json.loads(json.dumps(description)), dict(tensors)
        change(d, t)
        with pytest.raises(StorageError):
            NoisyImages.unpack(d, t, "s.")
