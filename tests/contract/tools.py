"""Helpers of the contract tests: built and randomized modules, data, Jacobians, and grids."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from .cases import Case

ROWS = 6
TYPES = [torch.float32, torch.float64]


def one_of_each_class(cases: Sequence[Case]) -> list[Any]:
    """The cases for a test that takes long: the first case of each class runs always, the others are marked slow."""
    seen: set[str] = set()
    chosen = []
    for case in cases:
        chosen.append(pytest.param(case, marks=pytest.mark.slow) if case.name in seen else case)
        seen.add(case.name)
    return chosen


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def jolt(module: nn.Module, strength: float = 1.0, seed: int = 1) -> None:
    """Move all parameters away from their start, moderately: nothing becomes stiff."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=source)
            size = 0.5 / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else 0.3  # by inputs of a weight
            parameter.add_((strength * size * noise).to(parameter.dtype))


def shape_of(module: Any) -> tuple[int, ...]:
    """Event shape of the data of a transform, base or model."""
    return tuple(getattr(module, "in_shape", None) or module.shape)


def width_of_context(module: Any) -> int:
    return getattr(module, "context_features", None) or getattr(module, "context", 0)


def data_of(case: Case, module: Any, count: int = ROWS, seed: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return case.data((count, *shape_of(module)), generator(seed)).to(dtype)


def context_of(module: Any, count: int = ROWS, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """Contexts of unit spread, or of units of their own for models, which standardize them."""
    width = width_of_context(module)
    if not width:
        return None
    context = torch.randn(count, width, dtype=torch.float64, generator=generator(seed))
    return (5 * context + 20 if hasattr(module, "context_mean") else context).to(dtype)


def build(case: Case, dtype: torch.dtype = torch.float64, *, jolted: float = 1.0) -> Any:
    """The case's module in evaluation mode: data-dependent state set, and parameters away from their start.

    Args:
        case: what to build.
        dtype: of weights and data.
        jolted: how far the parameters are moved; 0 leaves them at their start.
    """
    torch.manual_seed(0)
    module = case.make()
    if not isinstance(module, nn.Module):
        return module
    module.to(dtype)
    has_state = hasattr(module, "initialize")
    if has_state:
        x, context = data_of(case, module, 200, 4, dtype), context_of(module, 200, 5, dtype)
        module.initialize(x, context)
    jolt(module, jolted)
    if has_state and hasattr(module, "refresh"):
        module.refresh(x, context)  # pyright: ignore[reportPossiblyUnboundVariable]
    return module.eval()


@functools.cache
def built(case: Case, dtype: torch.dtype = torch.float64, jolted: float = 1.0) -> Any:
    """As :func:`build`, made once; for tests that change nothing."""
    return build(case, dtype, jolted=jolted)


def dense_jacobian(function: Callable[[Tensor], Tensor], x: Tensor, dims: int) -> Tensor:
    """dz/dx of each row by autograd, ``(rows, size of z, size of x)``; the rows must not depend on each other."""
    x = x.detach().clone().requires_grad_()
    z = function(x).flatten(1)
    columns = []
    for j in range(z.shape[1]):
        (gradient,) = torch.autograd.grad(z[:, j].sum(), x, retain_graph=True, allow_unused=True)
        columns.append(torch.zeros_like(x).flatten(1) if gradient is None else gradient.flatten(1))
    assert x.dim() == dims + 1
    return torch.stack(columns, 1)


def attainable(jacobian: Tensor, x: Tensor, z: Tensor, dtype: torch.dtype, factor: float = 20.0) -> Tensor:
    """Largest error of a round trip x -> z -> x that rounding explains, for each row.

    z carries a relative error of eps, which the inverse's slopes magnify; infinite where the transform saturates.
    """
    eps = torch.finfo(dtype).eps
    smallest = torch.linalg.svdvals(torch.nan_to_num(jacobian)).amin(-1)
    gain = torch.where(smallest > 0, 1 / smallest, math.inf)
    return factor * eps * (gain * (1 + z.flatten(1).abs().amax(-1)) + 1 + x.flatten(1).abs().amax(-1))


def attainable_by_parts(parts: list[Any], x: Tensor, context: Tensor | None, dtype: torch.dtype) -> Tensor:
    """As :func:`attainable` for a chain: every part rounds its z, and the way back to x magnifies each rounding."""
    total = torch.zeros(x.shape[0], dtype=x.dtype)
    for count in range(1, len(parts) + 1):

        def through(t: Tensor, count: int = count) -> Tensor:
            for part in parts[:count]:
                t = part.encode(t, context).z
            return t

        jacobian = dense_jacobian(through, x, x.dim() - 1)
        total = total + attainable(jacobian, x, through(x), dtype, factor=8.0)
    return total.detach()


def line(center: float, spread: float, count: int, reach: float = 6.0) -> tuple[Tensor, Tensor]:
    """Points and weights of the midpoint rule in t for x = center + spread sinh t: dense in the middle, very wide."""
    step = 2 * reach / count
    t = -reach + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    return center + spread * torch.sinh(t), step * spread * torch.cosh(t)


def box_line(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Points and weights of the midpoint rule on an interval."""
    step = (high - low) / count
    points = low + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    return points, torch.full_like(points, step)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    """Equal but for rounding, relative to the larger of 1 and the value; infinities must agree."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
