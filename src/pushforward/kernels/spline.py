"""Monotone rational-quadratic splines as functions of tensors (Durkan et al. 2019, sec. 3.1): native or plain.

The native version computes the numbers of :mod:`~pushforward.kernels.spline_reference` in one pass over memory, and
saves only its inputs for the backward pass.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.kernels import tuning
from pushforward.kernels.gradients import gradients, needs_plain
from pushforward.kernels.native import library, usable
from pushforward.kernels.spline_reference import SplineSettings, plain_spline
from pushforward.kernels.structs import SplineLayout, address

__all__ = ["spline"]


def spline(x: Tensor, raw: Tensor, settings: SplineSettings, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """y = f(x) and log f'(x), or with ``inverse`` x = f^-1(y) and log f'(x); nats.

    Args:
        x: any shape.
        raw: ``(parameters, *x.shape)``; any values, 0 is the identity.
        settings: of the splines.
        inverse: whether to solve for x.

    Raises:
        InputError: for raw parameters of another shape, where the native version is in use; the plain one raises an error of PyTorch.

    Example:
        >>> import torch
        >>> from pushforward.kernels import SplineSettings, spline
        >>> settings = SplineSettings(bins=4, bound=3.0, smallest=0.01, steepest=100.0)
        >>> x = torch.tensor([0.5, 7.0])
        >>> y, log_slope = spline(x, torch.zeros(11, 2), settings)
        >>> torch.allclose(spline(y, torch.zeros(11, 2), settings, inverse=True)[0], x), log_slope[1].item()
        (True, 0.0)
    """
    if settings.native and usable(x, raw):
        if raw.shape != (settings.parameters, *x.shape):  # native code would read other memory
            raise InputError(
                f"the raw parameters of {settings.parameters} numbers for each element of x, {tuple(x.shape)}, must have the shape "
                f"{(settings.parameters, *x.shape)}; got {tuple(raw.shape)}."
            )
        if torch.is_grad_enabled() and (x.requires_grad or raw.requires_grad):
            return _Spline.apply(x, raw, settings, inverse)  # pyright: ignore[reportReturnType]
        return _forward(x, raw, settings, inverse)
    return plain_spline(x, raw, settings, inverse)


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, settings: SplineSettings, inverse: bool) -> tuple[Tensor, Tensor]:
        y, log_slope = _forward(x, raw, settings, inverse)
        ctx.settings, ctx.inverse = settings, inverse
        ctx.save_for_backward(x, raw, *([y] if inverse else []))
        return y, log_slope

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, raw, *solved = ctx.saved_tensors
        if needs_plain(grads):
            grad_x, grad_raw = gradients(
                lambda x, raw: plain_spline(x, raw, ctx.settings, ctx.inverse), (x, raw), grads
            )
            return grad_x, grad_raw, None, None
        grad_y, grad_log_slope = grads
        grad_x, grad_raw = _backward(solved[0] if solved else x, raw, grad_y, grad_log_slope, ctx.settings, ctx.inverse)
        return grad_x, grad_raw, None, None


def _layout(x: Tensor, raw: Tensor, grad: Tensor, settings: SplineSettings, inverse: bool) -> SplineLayout:
    """Sizes and strides. The inner dimension is the one along which parameters are contiguous."""
    (outer, inner), (value_outer, value_inner) = x.shape, x.stride()
    first, raw_outer, raw_inner = raw.stride()
    grad_first, grad_outer, grad_inner = grad.stride()
    if raw_outer < raw_inner and outer > 1:
        outer, inner, value_outer, value_inner = inner, outer, value_inner, value_outer
        raw_outer, raw_inner, grad_outer, grad_inner = raw_inner, raw_outer, grad_inner, grad_outer
    threads = max(1, min(torch.get_num_threads(), outer * inner // tuning.SPLINE_ELEMENTS_PER_THREAD))
    return SplineLayout(
        outer, inner, value_outer, value_inner, first, raw_outer, raw_inner, grad_first, grad_outer, grad_inner,
        settings.bins, settings.periodic, inverse, threads, settings.bound, settings.smallest, settings.steepest,
    )  # fmt: skip


def _matrix(x: Tensor) -> Tensor:
    """Values as a contiguous matrix."""
    return x.detach().reshape(x.shape[:-1].numel(), x.shape[-1] if x.dim() else 1).contiguous()


def _matrices(raw: Tensor) -> Tensor:
    """Each parameter as a matrix, without a copy where possible."""
    return raw.detach().reshape(raw.shape[0], raw.shape[1:-1].numel(), raw.shape[-1] if raw.dim() > 1 else 1)


def _call(name: str, layout: SplineLayout, *tensors: Tensor) -> None:
    functions = library("spline", tensors[0].dtype)
    assert functions is not None
    getattr(functions, name)(ctypes.byref(layout), *map(address, tensors))


def _forward(x: Tensor, raw: Tensor, settings: SplineSettings, inverse: bool) -> tuple[Tensor, Tensor]:
    flat, flat_raw = _matrix(x), _matrices(raw)
    y, log_slope = torch.empty_like(flat), torch.empty_like(flat)
    _call("forward", _layout(flat, flat_raw, flat_raw, settings, inverse), flat, flat_raw, y, log_slope)
    return y.view(x.shape), log_slope.view(x.shape)


def _backward(
    x: Tensor, raw: Tensor, grad_y: Tensor, grad_log_slope: Tensor, settings: SplineSettings, inverse: bool
) -> tuple[Tensor, Tensor]:
    flat, flat_raw = _matrix(x), _matrices(raw)
    grad_x, grad_raw = torch.empty_like(flat), torch.empty_like(flat_raw)
    layout = _layout(flat, flat_raw, grad_raw, settings, inverse)
    _call("backward", layout, flat, flat_raw, _matrix(grad_y), _matrix(grad_log_slope), grad_x, grad_raw)
    return grad_x.view(x.shape), grad_raw.reshape(raw.shape)
