"""ImageCoupling: masks, dependence, transformers, contexts, on images with odd and even sides."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.transforms import AdditiveTransformer, CircularSplineTransformer, ImageCoupling, SplineTransformer

SHAPES = [(1, 3, 3), (2, 2, 4), (3, 1, 2), (1, 1, 1), (1, 1, 5)]


def dependence(transform: ImageCoupling, x: torch.Tensor) -> torch.Tensor:
    """dz/dx, (D, D)."""
    size = x.numel()
    return torch.autograd.functional.jacobian(lambda t: transform.encode(t).z, x).reshape(size, size)


@pytest.mark.parametrize("transformer", [None, AdditiveTransformer(), SplineTransformer(4, 2.0)], ids=str)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_contribution_and_round_trip_on_the_checkerboard(shape, flip, transformer, check):
    transform = check.perturb(
        ImageCoupling(shape, transformer, mask="checkerboard", flip=flip, hidden=(4,)).double(), size=0.3
    )
    x = check.normal(2, *shape)
    check.round_trip(transform, x, 1e-9)
    check.contribution(transform, x)
    check.shapes(transform.float())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("shape", "keep"), [((2, 3, 3), None), ((3, 2, 2), None), ((3, 2, 1), 2), ((5, 1, 1), 1)])
def test_contribution_and_round_trip_on_channels(shape, keep, flip, check):
    transform = check.perturb(ImageCoupling(shape, keep=keep, flip=flip, hidden=(4, 4)).double(), size=0.3)
    x = check.normal(2, *shape)
    check.round_trip(transform, x, 1e-12)
    check.contribution(transform, x)


@pytest.mark.parametrize("flip", [False, True])
def test_the_checkerboard_transforms_one_color_given_the_other(flip, check):
    transform = check.perturb(ImageCoupling((2, 3, 4), mask="checkerboard", flip=flip, hidden=(8,)).double())
    x = check.normal(2, 3, 4)
    moved = (torch.arange(3)[:, None] + torch.arange(4)) % 2 == (0 if flip else 1)
    moved = moved.expand(2, 3, 4).flatten()
    assert torch.equal(moved.nonzero()[:, 0], transform.transformed)
    z = transform.encode(x).z.flatten()
    assert torch.equal(z[~moved], x.flatten()[~moved])
    seen = dependence(transform, x) != 0
    off = seen & ~torch.eye(24, dtype=torch.bool)
    assert not off[:, moved].any()  # nothing depends on the other transformed pixels
    assert off[moved].any(1).all()


@pytest.mark.parametrize("flip", [False, True])
def test_channels_that_are_kept_condition_and_do_not_change(flip, check):
    transform = check.perturb(ImageCoupling((3, 2, 2), keep=2, flip=flip, hidden=(8,)).double())
    moved = torch.zeros(3, 2, 2, dtype=torch.bool)
    moved[0 if flip else 2] = True
    moved = moved.flatten()
    assert torch.equal(moved.nonzero()[:, 0], transform.transformed)
    off = (dependence(transform, check.normal(3, 2, 2)) != 0) & ~torch.eye(12, dtype=torch.bool)
    assert torch.equal(off.any(0), ~moved)
    assert torch.equal(off.any(1), moved)


def test_kept_channels_of_a_checkerboard_never_change(check):
    for flip in (False, True):
        transform = check.perturb(
            ImageCoupling((3, 2, 2), mask="checkerboard", keep=2, flip=flip, hidden=(8,)).double()
        )
        x = check.normal(3, 2, 2)
        assert torch.equal(transform.encode(x).z[:2], x[:2])
        seen = dependence(transform, x)
        assert (seen[transform.transformed][:, :8] != 0).all()


def test_two_colors_reach_every_pixel_and_it_starts_as_the_identity(check):
    transforms = [
        ImageCoupling((1, 4, 4), mask="checkerboard", flip=flip, hidden=(8,)).double() for flip in (False, True)
    ]
    x = check.normal(3, 1, 4, 4)
    for transform in transforms:
        assert torch.equal(transform.encode(x).z, x)
        assert (transform.encode(x).contribution == 0).all()
    assert sorted(torch.cat([transform.transformed for transform in transforms]).tolist()) == list(range(16))


def test_angles_are_read_as_cosine_and_sine(check):
    transformer = CircularSplineTransformer(4)
    for mask in ("channels", "checkerboard"):
        transform = check.perturb(ImageCoupling((2, 2, 2), transformer, mask=mask, hidden=(4,)).double())
        x = check.normal(3, 2, 2, 2).clamp(-3, 3)
        check.contribution(transform, x)
        y = x.flatten(1).clone()
        still = next(k for k in range(8) if k not in transform.transformed.tolist())
        y[:, still] = torch.pi
        z = transform.encode(y.reshape(x.shape)).z
        y[:, still] = -torch.pi
        other = transform.encode(y.reshape(x.shape)).z
        torch.testing.assert_close(
            z.flatten(1)[:, transform.transformed], other.flatten(1)[:, transform.transformed], rtol=0, atol=1e-9
        )


def test_extreme_pixels_that_are_not_transformed_leave_gradients_finite(check):
    transform = check.perturb(ImageCoupling((1, 2, 2), mask="checkerboard", hidden=(4,)))
    x = torch.tensor([[[[3e38, 0.5], [0.5, -3e38]]]], requires_grad=True)
    step = transform.encode(x)
    (step.z.flatten()[1] + step.contribution.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in transform.parameters())
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((1, 2, 2), {}, "leave channels"),
        ((2, 2, 2), {"keep": 2}, "leave channels"),
        ((2, 2, 2), {"keep": 0}, "condition"),
        ((2, 2, 2), {"mask": "checkerboard", "keep": 2}, "leave channels"),
        ((2, 2, 2), {"mask": "rows"}, "mask"),
        ((2, 2, 2), {"kernel_size": 2}, "odd"),
        ((2, 2, 2), {"keep": -1}, "keep"),
        ((4,), {}, "images"),
    ],
)
def test_errors(shape, options, words):
    with pytest.raises(ConfigError, match=words):
        ImageCoupling(shape, **options)
