"""Checks that every family's own test calls; expected values come from autograd and linear algebra."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pushforward.transforms import Transform


def perturb(transform: Transform, seed: int = 0, size: float = 0.5) -> Transform:
    """Move every parameter off its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return transform


def normal(*shape: int, seed: int = 0, spread: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def round_trip(transform: Transform, x: Tensor, tolerance: float) -> None:
    """decode(encode(x)) is x, to a tolerance relative to the largest entry of each row."""
    back = transform.decode(transform.encode(x).z)
    scale = x.abs().reshape(len(x), -1).amax(1).clamp(min=1.0)
    error = (back - x).abs().reshape(len(x), -1).amax(1) / scale
    assert error.max() <= tolerance, f"round trip is off by {error.max():.3g}"


def contribution(transform: Transform, x: Tensor, tolerance: float = 1e-9) -> None:
    """The contribution is log abs det of the dense Jacobian, row by row."""
    found = transform.encode(x).contribution
    for row, value in zip(x, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda one: transform.encode(one).z, row)
        expected = torch.linalg.slogdet(jacobian.reshape(row.numel(), row.numel())).logabsdet
        assert value.item() == pytest.approx(expected.item(), abs=tolerance, rel=tolerance)


def decode_contribution(transform: Transform, z: Tensor, tolerance: float = 1e-9) -> None:
    """decode_with_contribution gives what decode and encode give."""
    x, found = transform.decode_with_contribution(z)
    torch.testing.assert_close(x, transform.decode(z))
    torch.testing.assert_close(found, transform.encode(x).contribution, atol=tolerance, rtol=tolerance)


def shapes(transform: Transform) -> None:
    """Leading dimensions are batch, also none and empty ones."""
    for batch in ((), (3,), (2, 3), (0,)):
        x = 0.3 * torch.ones(*batch, *transform.in_shape)
        step = transform.encode(x)
        assert step.z.shape == (*batch, *transform.out_shape)
        assert step.contribution.shape == batch
        back, again = transform.decode_with_contribution(step.z)
        assert back.shape == x.shape
        assert again.shape == batch


def extremes(transform: Transform) -> None:
    """At 0, at 1e6, 1e20 and 1e30, float32 values and all gradients are finite; neighbors keep theirs."""
    transform = copy.deepcopy(transform).float()
    values = torch.tensor([0.0, 1.0, -1e6, 1e6, -1e20, 1e20, 1e30])
    x = values.reshape(-1, *(1 for _ in transform.in_shape)).expand(-1, *transform.in_shape).clone().requires_grad_()
    step = transform.encode(x)
    assert torch.isfinite(step.z).all()
    assert torch.isfinite(step.contribution).all()
    leaves = [x, *transform.parameters()]
    for gradient in torch.autograd.grad((step.z / 1e30).sum() + step.contribution.sum(), leaves, allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()
    z = step.z.detach().requires_grad_()
    back = transform.decode(z)
    assert torch.isfinite(back).all()
    for gradient in torch.autograd.grad((back / 1e30).sum(), [z, *transform.parameters()], allow_unused=True):
        assert gradient is None or torch.isfinite(gradient).all()


def compiles(transform: Transform, x: Tensor) -> None:
    """Both directions trace without a graph break, and give the same numbers."""
    torch.compiler.reset()
    encode = torch.compile(lambda x: transform.encode(x)[:2], fullgraph=True, backend="eager")
    decode = torch.compile(lambda z: transform.decode(z), fullgraph=True, backend="eager")
    z, total = transform.encode(x)[:2]
    torch.testing.assert_close(encode(x), (z, total))
    z = z.detach()
    torch.testing.assert_close(decode(z), transform.decode(z))


def decode_gradients(transform: Transform, z: Tensor) -> None:
    """Gradients of decode, to z and to every parameter, against finite differences in float64."""
    transform = copy.deepcopy(transform).double()
    names, values = zip(*transform.named_parameters(), strict=True)

    def decode(z: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(
            Backwards(transform), {f"transform.{n}": p for n, p in zip(names, parameters, strict=True)}, z
        )

    inputs = (z.double().requires_grad_(), *(v.detach().clone().requires_grad_() for v in values))
    assert torch.autograd.gradcheck(decode, inputs, atol=1e-6, rtol=1e-5)


class Backwards(torch.nn.Module):
    """decode as forward, for functional_call."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, z: Tensor) -> Tensor:
        return self.transform.decode(z)


@pytest.fixture(scope="session")
def check() -> SimpleNamespace:
    return SimpleNamespace(
        compiles=compiles, contribution=contribution, decode_contribution=decode_contribution,
        decode_gradients=decode_gradients, extremes=extremes, normal=normal, perturb=perturb, round_trip=round_trip,
        shapes=shapes,
    )  # fmt: skip
