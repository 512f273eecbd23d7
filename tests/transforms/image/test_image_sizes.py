"""Every transform of images on images with odd, even and unequal sides, down to one pixel in width: against dense autograd."""

from __future__ import annotations

import pytest
import torch

from pushforward import transforms
from pushforward.errors import ConfigError
from pushforward.transforms import (
    Chain,
    Flatten,
    ImageCoupling,
    InvertibleConv1x1,
    InvertibleConv2d,
    SplineTransformer,
    Transform,
)

SIDES = [(3, 3), (2, 4), (3, 2), (4, 1), (1, 3), (5, 5)]
REAL = {
    "ActNorm": transforms.ActNorm,
    "Affine, trainable": lambda shape: transforms.Affine(shape, trainable=True),
    "BatchNorm": lambda shape: transforms.BatchNorm(shape).eval(),
    "FactorOut": lambda shape: transforms.FactorOut(
        shape, Chain(InvertibleConv1x1((2, *shape[1:])), Flatten((2, *shape[1:])))
    ),
    "Flatten": transforms.Flatten,
    "ImageCoupling, channels": lambda shape: ImageCoupling(shape, hidden=(6,)),
    "ImageCoupling, channels, flip, spline": lambda shape: ImageCoupling(
        shape, SplineTransformer(4, 3.0), flip=True, hidden=(6, 6)
    ),
    "ImageCoupling, checkerboard": lambda shape: ImageCoupling(shape, mask="checkerboard", hidden=(6,), residual=True),
    "ImageCoupling, checkerboard, flip, spline": lambda shape: ImageCoupling(
        shape, SplineTransformer(4, 3.0), mask="checkerboard", flip=True, hidden=(6,)
    ),
    "InvertibleConv1x1": InvertibleConv1x1,
    "InvertibleConv1x1, free": lambda shape: InvertibleConv1x1(shape, form="free"),
    "InvertibleConv2d, causal": lambda shape: InvertibleConv2d(shape, "causal"),
    "InvertibleConv2d, depthwise": lambda shape: InvertibleConv2d(shape, "depthwise"),
    "InvertibleConv2d, emerging": lambda shape: InvertibleConv2d(shape, "emerging"),
    "InvertibleConv2d, periodic": lambda shape: InvertibleConv2d(shape, "periodic"),
    "Permutation": lambda shape: transforms.Permutation(shape, seed=1, dim=-3),
    "Reverse": lambda shape: transforms.Reverse(shape, dim=-3),
    "Standardize": transforms.Standardize,
}
HALVED = {
    "Squeeze": transforms.Squeeze,
    "Squeeze, checkerboard": lambda shape: transforms.Squeeze(shape, "checkerboard"),
    "Patches": lambda shape: transforms.Patches(shape, 2),
}


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("name", REAL)
def test_contribution_and_round_trip(name, sides, check):
    torch.manual_seed(0)
    shape = (3, *sides)
    transform: Transform = check.perturb(REAL[name](shape).double(), size=0.3)
    x = check.normal(2, *shape)
    check.contribution(transform, x, 1e-9)
    check.round_trip(transform, x, 1e-9)
    check.decode_contribution(transform, transform.encode(x).z.detach())


@pytest.mark.parametrize("alpha", [0.0, 0.05])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_logit_of_pixels(sides, alpha, check):
    transform = transforms.Logit((2, *sides), alpha).double()
    x = torch.rand(2, 2, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    check.contribution(transform, x, 1e-9)
    check.round_trip(transform, x, 1e-12)


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("name", HALVED)
def test_transforms_of_blocks_require_even_sides(name, sides, check):
    if any(side % 2 for side in sides):
        with pytest.raises(ConfigError, match=r"even|multiple|divi"):
            HALVED[name]((3, *sides))
        return
    transform = HALVED[name]((3, *sides)).double()
    x = check.normal(2, 3, *sides)
    check.contribution(transform, x, 1e-9)
    assert torch.equal(transform.decode(transform.encode(x).z), x)


@pytest.mark.parametrize("scale", [1.0, -0.7])
def test_the_check_itself_finds_a_wrong_contribution(scale, check):
    """A convolution with a contribution without the number of pixels fails it on every image of more than one."""
    transform = InvertibleConv1x1((2, 3, 2), form="free").double()
    with torch.no_grad():
        transform.matrix.mul_(2 * scale)

    class Forgetful(InvertibleConv1x1):
        def encode(self, x, context=None, *, noise=None):
            step = super().encode(x, context, noise=noise)
            return type(step)(step.z, step.contribution / 6)

    wrong = Forgetful((2, 3, 2), form="free").double()
    wrong.load_state_dict(transform.state_dict())
    x = check.normal(2, 2, 3, 2)
    check.contribution(transform, x, 1e-9)
    with pytest.raises(AssertionError):
        check.contribution(wrong, x, 1e-9)
