"""InvertibleConv2d: against dense matrices, its sweeps, its receptive field, and its conditioning."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.transforms import InvertibleConv2d

MODES = ["causal", "emerging", "depthwise", "periodic"]
SWEPT = MODES[:3]


def dense(transform: InvertibleConv2d) -> Tensor:
    """The transform's matrix, (D, D), from the images of the unit vectors."""
    size = torch.Size(transform.in_shape).numel()
    return transform.encode(torch.eye(size).double().reshape(size, *transform.in_shape)).z.flatten(1).T.detach()


def spatial(transform: InvertibleConv2d) -> Tensor:
    """I + N alone: the matrix with W divided out of every pixel."""
    height, width = transform.in_shape[1:]
    matrix = transform.center.matrix_and_log_det()[0].detach()
    return torch.linalg.solve(torch.kron(matrix, torch.eye(height * width).double()), dense(transform))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((3, 5, 6), 3), ((3, 6, 5), 3), ((2, 4, 3), 5), ((1, 1, 1), 3), ((2, 1, 4), 3), ((2, 3, 1), 3), ((3, 2, 2), 1)],
)
def test_contribution_and_inverse_against_dense_linear_algebra(mode, shape, kernel, check):
    transform = check.perturb(InvertibleConv2d(shape, mode, kernel).double())
    matrix = dense(transform)
    x = check.normal(3, *shape)
    step = transform.encode(x)
    torch.testing.assert_close(step.z.flatten(1), x.flatten(1) @ matrix.T, rtol=1e-11, atol=1e-11)
    expected = torch.linalg.slogdet(matrix)[1].expand(3)
    torch.testing.assert_close(step.contribution, expected, rtol=1e-9, atol=1e-9)
    solved = torch.linalg.solve(matrix, step.z.flatten(1).T).T.reshape(x.shape)
    torch.testing.assert_close(transform.decode(step.z), solved, rtol=1e-9, atol=1e-9)
    check.round_trip(transform, x, 1e-9)
    check.shapes(transform.float())


@pytest.mark.parametrize("mode", SWEPT)
@pytest.mark.parametrize(
    ("height", "width", "kernel"), [(3, 4, 3), (4, 3, 3), (1, 4, 3), (4, 1, 3), (3, 4, 5), (2, 2, 1)]
)
def test_the_sweeps_are_sufficient_and_one_fewer_is_not(mode, height, width, kernel, check, monkeypatch):
    transform = check.perturb(InvertibleConv2d((2, height, width), mode, kernel).double())
    with torch.no_grad():  # positive taps, so that no two paths cancel
        transform.taps.abs_()
    expected = {"emerging": width + (min(kernel // 2, width - 1) + 1) * (height - 1)}.get(mode, height + width - 1)
    assert transform.sweeps == (1 if kernel == 1 else expected)
    if mode != "emerging":  # N is nilpotent of exactly that index
        n = spatial(transform) - torch.eye(2 * height * width)
        assert torch.linalg.matrix_power(n, transform.sweeps).abs().max() < 1e-12
        assert transform.sweeps == 1 or torch.linalg.matrix_power(n, transform.sweeps - 1).abs().max() > 1e-9
    x = check.normal(2, 2, height, width)
    z = transform.encode(x).z
    torch.testing.assert_close(transform.decode(z), x, rtol=1e-11, atol=1e-11)
    if (right := transform.sweeps) > 1:
        monkeypatch.setattr(InvertibleConv2d, "sweeps", right - 1)
        assert (transform.decode(z) - x).abs().max() > 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_receptive_field_of_one_layer(mode, check):
    """The pixels on which a pixel in the middle depends."""
    transform = check.perturb(InvertibleConv2d((2, 7, 7), mode, 3).double())
    matrix = dense(transform).reshape(2, 7, 7, 2, 7, 7)
    seen = {
        (i - 3, j - 3) for i, j in itertools.product(range(7), repeat=2) if matrix[:, 3, 3, :, i, j].abs().max() > 1e-12
    }
    corner = {(i, j) for i in (-2, -1, 0) for j in (-2, -1, 0)}
    square = set(itertools.product((-1, 0, 1), repeat=2))
    before = {d for d in square if d <= (0, 0)}
    after = {d for d in square if d >= (0, 0)}
    both = {(a[0] + b[0], a[1] + b[1]) for a in before for b in after}
    assert seen == {"causal": corner, "depthwise": corner, "periodic": square, "emerging": both}[mode]
    spread = spatial(transform).reshape(2, 7, 7, 2, 7, 7)
    crossed = (spread[0, :, :, 1].abs().max() > 1e-12).item()
    assert crossed == (mode != "depthwise")


def test_periodic_is_a_convolution_on_a_torus(check):
    transform = check.perturb(InvertibleConv2d((2, 4, 3), "periodic").double())
    x = check.normal(2, 2, 4, 3)
    for shift in ((1, 0), (0, 1), (3, 2)):
        moved = transform.encode(x.roll(shift, (-2, -1))).z
        torch.testing.assert_close(moved, transform.encode(x).z.roll(shift, (-2, -1)), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mode", MODES)
def test_starts_as_its_1x1_convolution(mode, check):
    transform = InvertibleConv2d((3, 4, 4), mode).double()
    x = check.normal(2, 3, 4, 4)
    torch.testing.assert_close(transform.encode(x).z, transform.center.encode(x).z, rtol=1e-12, atol=1e-12)
    transform.encode(x).z.square().sum().backward()
    assert torch.isfinite(transform.taps.grad).all()
    free = transform.allowed.expand_as(transform.taps)
    assert (transform.taps.grad[free] != 0).all()
    assert (transform.taps.grad[~free] == 0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [0.01, 0.3, 100.0])
def test_taps_are_bounded_and_the_diagnostic_is_a_bound(mode, size, check):
    """For any raw taps: norm of N below 0.9, and a condition number within what `condition` says."""
    transform = check.perturb(InvertibleConv2d((3, 5, 6), mode).double(), size=0.3)
    with torch.no_grad():
        transform.taps.mul_(size / 0.3)
    if mode != "emerging":
        n = spatial(transform) - torch.eye(90)
        assert torch.linalg.matrix_norm(n, 2) < 0.9
    values = torch.linalg.svdvals(dense(transform))
    assert values.max() / values.min() <= transform.condition() * (1 + 1e-9)
    x = check.normal(4, 3, 5, 6)
    error = (transform.decode(transform.encode(x).z) - x).abs().max()
    assert error < 1e-14 * transform.condition() * x.abs().max()


def test_the_inverse_is_accurate_in_float32_on_a_whole_image(check):
    """The size and taps at which unbounded ones lose all digits (12 channels, 32 x 32, taps of 0.2)."""
    for mode in MODES:
        transform = InvertibleConv2d((12, 32, 32), mode)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            transform.taps.copy_(0.2 * torch.randn(transform.taps.shape, generator=generator))
        x = check.normal(2, 12, 32, 32, dtype=torch.float32)
        assert (transform.decode(transform.encode(x).z) - x).abs().max() < 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_gradients_through_the_inverse_are_those_of_the_dense_solve(mode, check):
    transform = check.perturb(InvertibleConv2d((2, 3, 2), mode).double())
    z = check.normal(2, 2, 3, 2).requires_grad_()
    x = transform.decode(z)
    weight = check.normal(*x.shape, seed=5)
    found = torch.autograd.grad((x * weight).sum(), [z, transform.taps])
    y = x.detach().requires_grad_()
    # Implicit: encode(x) = z, so dx = J^-1 (dz - d encode).
    matrix = dense(transform)
    adjoint = torch.linalg.solve(matrix.T, weight.flatten(1).T).T.reshape(x.shape)
    torch.testing.assert_close(found[0], adjoint, rtol=1e-9, atol=1e-9)
    expected = torch.autograd.grad(-(transform.encode(y).z * adjoint).sum(), transform.taps)[0]
    torch.testing.assert_close(found[1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "circulant"}, "mode"),
        ({"mode": "emerging", "kernel_size": 2}, "odd"),
        ({"mode": "periodic", "kernel_size": 4}, "odd"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"max_norm": 1.0}, "max_norm"),
        ({"form": "qr"}, "form"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ConfigError, match=words):
        InvertibleConv2d((2, 4, 4), **options)
