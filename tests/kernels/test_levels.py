"""All levels of the instruction set agree with the plain versions, and with each other, up to rounding."""

from __future__ import annotations

import itertools

import pytest
import torch

import pushforward as pf
from pushforward.kernels import SplineSettings, conv_stack, description, native, spline, use_kernels

pytestmark = pytest.mark.skipif(not description()["installed"], reason="the native kernels are not installed")

FOUND = native._load()
LEVELS = [] if isinstance(FOUND, str) else list(FOUND.supported)


def splines(dtype, inverse):
    draw = torch.Generator().manual_seed(0)
    spec = SplineSettings(8, 4.0, 1e-2, 4.6)
    x = (3 * torch.randn(50, 7, dtype=torch.float64, generator=draw)).to(dtype).requires_grad_()
    raw = torch.randn(spec.parameters, 50, 7, dtype=torch.float64, generator=draw).to(dtype).requires_grad_()
    y, log_slope = spline(x, raw, spec, inverse=inverse)
    return [y.detach(), log_slope.detach(), *torch.autograd.grad((y * log_slope.sin()).sum(), (x, raw))]


def convolutions(dtype):
    draw = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 9, 11), (33, 3, 3, 3), (20, 33, 1, 1), (5, 20, 3, 3), (33,), (20,), (5,)]
    parts = [torch.randn(shape, dtype=torch.float64, generator=draw) for shape in shapes]
    x, *parameters = ((part / max(1, part[0].numel()) ** 0.5).to(dtype).requires_grad_() for part in parts)
    out = conv_stack(x, parameters[:3], parameters[3:], 0.5)
    return [out.detach(), *torch.autograd.grad(out.sin().sum(), [x, *parameters])]


def flow(kind, dtype):
    torch.manual_seed(0)
    model = kind(9).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@torch.no_grad()
def samples(dtype, kind):
    """Samples by the inverse of autoregressive networks."""
    model = flow(kind, dtype)
    z = torch.randn(37, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [model.chain.decode(z)]


@torch.no_grad()
def programs(dtype, kind):
    score = pf.compile_scorer(flow(kind, dtype))
    x = torch.randn(21, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [score(x), score(x[:1])]


CASES = {
    "spline": lambda dtype: splines(dtype, False),
    "inverse spline": lambda dtype: splines(dtype, True),
    "convolutions": convolutions,
    "affine samples": lambda dtype: samples(dtype, pf.models.MAF),
    "spline samples": lambda dtype: samples(dtype, lambda width: pf.models.NSF(width, layer="autoregressive")),
    "affine program": lambda dtype: programs(dtype, pf.models.MAF),
    "spline program": lambda dtype: programs(dtype, pf.models.NSF),
}


@pytest.mark.filterwarnings("ignore:.*is frozen in plain torch operations")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_levels_agree_with_plain_operations_and_with_each_other(case):
    found = {}
    for mode in ("plain", *LEVELS):
        with use_kernels(mode):
            found[mode] = case(torch.float64), case(torch.float32)
    for level, other in itertools.combinations(found, 2):
        for k, tolerance in ((0, 1e-11), (1, 5e-5)):
            for ours, theirs in zip(found[level][k], found[other][k], strict=True):
                scale = theirs.abs().max()
                assert scale > 1e-3, (level, other)
                assert (ours - theirs).abs().max() <= tolerance * scale, (level, other)


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_different_code(level):
    """Else the test above would compare one level with itself."""
    with use_kernels(level):
        ours = native.library("spline", torch.float32)
    with use_kernels(LEVELS[0]):
        best = native.library("spline", torch.float32)
    assert (ours is best) == (level == LEVELS[0])
