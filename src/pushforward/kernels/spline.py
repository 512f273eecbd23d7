"""Monotone rational-quadratic splines as functions of tensors (Durkan et al. 2019, sec. 3.1): plain and native.

The plain version is the reference: differentiable any number of times, traceable, on any device. The native one
computes the same numbers in one pass over memory and keeps only its inputs for the backward pass.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushforward.kernels.native import library, usable
from pushforward.numerics import is_eager, soft_clamp

__all__ = ["SplineSettings", "spline"]


@dataclass(frozen=True)
class SplineSettings:
    """Shape of a family of splines on [-bound, bound].

    Args:
        bins: K.
        bound: half the width of the interval.
        smallest: width and height of a bin at least, as a share of the interval.
        steepest: bound on abs(log slope) at a knot, smooth.
        periodic: K free slopes, equal at both ends, and no outside; else K - 1, slopes 1 at the ends and the identity
            outside.
    """

    bins: int
    bound: float
    smallest: float
    steepest: float
    periodic: bool = False

    @property
    def parameters(self) -> int:
        """Raw parameters: widths, heights, slopes."""
        return 3 * self.bins if self.periodic else 3 * self.bins - 1


def spline(x: Tensor, raw: Tensor, law: SplineSettings, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """y = f(x) and log f'(x), or with ``inverse`` x = f^-1(y) and log f'(x); nats.

    Args:
        x: any shape.
        raw: ``(parameters, *x.shape)``; any values, 0 is the identity.
        law: of the splines.
        inverse: whether to solve for x.
    """
    if usable("spline.c", x, raw):
        if torch.is_grad_enabled() and (x.requires_grad or raw.requires_grad):
            return _Spline.apply(x, raw, law, inverse)  # pyright: ignore[reportReturnType]
        return _forward(x, raw, law, inverse)
    return _plain(x, raw, law, inverse)


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, law: SplineSettings, inverse: bool) -> tuple[Tensor, Tensor]:
        y, slope = _forward(x, raw, law, inverse)
        ctx.law, ctx.inverse = law, inverse
        ctx.save_for_backward(x, raw, *([y] if inverse else []))
        return y, slope

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, raw, *solved = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the backward pass is wanted
            wanted = [t for t in (x, raw) if t.requires_grad]
            outputs = _plain(x, raw, ctx.law, ctx.inverse)
            found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True))
            grad_x, grad_raw = (next(found) if t.requires_grad else None for t in (x, raw))
            return grad_x, grad_raw, None, None
        grad_y, grad_slope = grads
        grad_x, grad_raw = _backward(solved[0] if solved else x, raw, grad_y, grad_slope, ctx.law, ctx.inverse)
        return grad_x, grad_raw, None, None


class _Layout(ctypes.Structure):
    """The C source's ``Layout``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            "outer", "inner", "value_outer", "value_inner", "raw_first", "raw_outer", "raw_inner",
            "grad_first", "grad_outer", "grad_inner", "bins", "periodic", "inverse", "threads",
        )),
        *((name, ctypes.c_double) for name in ("bound", "smallest", "steepest")),
    ]  # fmt: skip


_EACH_THREAD = 2048
"""Elements that are worth a thread."""


def _layout(x: Tensor, raw: Tensor, grad: Tensor, law: SplineSettings, inverse: bool) -> _Layout:
    """Sizes and strides, the inner dimension being the one along which the parameters lie together."""
    (outer, inner), (value_outer, value_inner) = x.shape, x.stride()
    first, raw_outer, raw_inner = raw.stride()
    grad_first, grad_outer, grad_inner = grad.stride()
    if raw_outer < raw_inner and outer > 1:
        outer, inner, value_outer, value_inner = inner, outer, value_inner, value_outer
        raw_outer, raw_inner, grad_outer, grad_inner = raw_inner, raw_outer, grad_inner, grad_outer
    threads = max(1, min(torch.get_num_threads(), outer * inner // _EACH_THREAD))
    return _Layout(
        outer, inner, value_outer, value_inner, first, raw_outer, raw_inner, grad_first, grad_outer, grad_inner,
        law.bins, law.periodic, inverse, threads, law.bound, law.smallest, law.steepest,
    )  # fmt: skip


def _matrix(x: Tensor) -> Tensor:
    """Values as a contiguous matrix."""
    return x.detach().reshape(x.shape[:-1].numel(), x.shape[-1] if x.dim() else 1).contiguous()


def _matrices(raw: Tensor) -> Tensor:
    """Parameters as one matrix each, where they lie if they can stay there."""
    return raw.detach().reshape(raw.shape[0], raw.shape[1:-1].numel(), raw.shape[-1] if raw.dim() > 1 else 1)


def _call(name: str, layout: _Layout, *tensors: Tensor) -> None:
    compiled = library("spline.c", tensors[0].dtype)
    assert compiled is not None
    getattr(compiled, name)(ctypes.byref(layout), *(ctypes.c_void_p(t.data_ptr()) for t in tensors))


def _forward(x: Tensor, raw: Tensor, law: SplineSettings, inverse: bool) -> tuple[Tensor, Tensor]:
    flat, flat_raw = _matrix(x), _matrices(raw)
    y, slope = torch.empty_like(flat), torch.empty_like(flat)
    _call("forward", _layout(flat, flat_raw, flat_raw, law, inverse), flat, flat_raw, y, slope)
    return y.view(x.shape), slope.view(x.shape)


def _backward(
    x: Tensor, raw: Tensor, grad_y: Tensor, grad_slope: Tensor, law: SplineSettings, inverse: bool
) -> tuple[Tensor, Tensor]:
    flat, flat_raw = _matrix(x), _matrices(raw)
    grad_x, grad_raw = torch.empty_like(flat), torch.empty_like(flat_raw)
    layout = _layout(flat, flat_raw, grad_raw, law, inverse)
    _call("backward", layout, flat, flat_raw, _matrix(grad_y), _matrix(grad_slope), grad_x, grad_raw)
    return grad_x.view(x.shape), grad_raw.reshape(raw.shape)


class _Bin(NamedTuple):
    """The piece that holds each point: left knot, width, bottom knot, height, slopes at both knots."""

    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    start: Tensor
    end: Tensor


def _plain(x: Tensor, raw: Tensor, law: SplineSettings, inverse: bool) -> tuple[Tensor, Tensor]:
    """The reference."""
    safe = x.clamp(-law.bound, law.bound)
    piece = _find(safe, _knots(raw[: 2 * law.bins], law), raw[2 * law.bins :], law, side=int(inverse))
    y, log_slope = (_solve if inverse else _value)(safe, piece)
    if law.periodic:
        return y, log_slope
    inside = x.abs() < law.bound
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


def _knots(raw: Tensor, law: SplineSettings) -> Tensor:
    """K raw widths and K heights, ``(2 K, *shape)``, to K + 1 increasing knots each, ``(2, K + 1, *shape)``.

    The end knots are exact: a running sum would miss them.
    """
    share = torch.softmax(raw.unflatten(0, (2, law.bins)), 1)
    kind = share.device.type
    if kind == "cpu" and not torch.is_autocast_enabled(kind):  # elsewhere a product may be of fewer digits
        # Not kept where a tracer, or a mode with tensors of its own kind, looks on.
        make = _kept_running if is_eager() and type(share) is Tensor else _running
        start, sums = make(law, share.dtype)
        knots = torch.baddbmm(start, sums, share.flatten(2) if share.dim() > 2 else share.unsqueeze(2))
        return knots.reshape(2, law.bins + 1, *share.shape[2:])
    sizes = law.smallest + (1 - law.smallest * law.bins) * share[:, :-1]
    inner = (2 * law.bound) * torch.cumsum(sizes, 1) - law.bound
    end = torch.full_like(share[:, :1], law.bound)
    return torch.cat((-end, inner, end), 1)


def _running(law: SplineSettings, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Knots as a linear function of shares: ``(1, K + 1, 1)`` and ``(2, K + 1, K)``. One product is faster than a running sum."""
    index = torch.arange(law.bins + 1, dtype=dtype)
    start = (2 * law.bound * law.smallest) * index - law.bound
    start[-1] = law.bound
    sums = (index[:, None] > index[:-1]).to(dtype) * (2 * law.bound * (1 - law.smallest * law.bins))
    sums[-1] = 0
    return start.reshape(1, -1, 1), sums.expand(2, -1, -1)


@functools.lru_cache(maxsize=64)
def _kept_running(law: SplineSettings, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        return _running(law, dtype)


def _find(at: Tensor, knots: Tensor, slopes: Tensor, law: SplineSettings, side: int) -> _Bin:
    """The piece that holds ``at``, by counting the inner knots of a side that are not above it.

    Args:
        at: ``shape``.
        knots: ``(2, K + 1, *shape)``.
        slopes: raw, ``(K - 1, *shape)``, or K of them where periodic.
        law: of the spline.
        side: 0 for x, 1 for y.
    """
    start = (at >= knots[side, 1:-1]).sum(0, dtype=torch.uint8 if law.bins <= 256 else torch.int64).long()
    ends = torch.stack((start, start + 1))
    (left, bottom), (right, top) = knots.gather(1, ends.expand(2, *ends.shape)).unbind(1)
    edge = torch.zeros_like(slopes[:1]) if not law.periodic else slopes[:1]  # a raw slope of 0 is a slope of 1
    bent = torch.cat((slopes, edge) if law.periodic else (edge, slopes, edge)).gather(0, ends)
    first, last = soft_clamp(bent, law.steepest).exp()
    return _Bin(left, right - left, bottom, top - bottom, first, last)


def _value(x: Tensor, piece: _Bin) -> tuple[Tensor, Tensor]:
    """y and log dy/dx inside a piece (eq. 4-5)."""
    q = ((x - piece.left) / piece.width).clamp(0, 1)
    s, t = piece.height / piece.width, 1 - q
    qt = q * t
    # By how much the slopes at the ends exceed 2 s together.
    under = torch.addcmul(s, torch.sub(piece.start + piece.end, s, alpha=2), qt)
    rise = torch.addcmul(s * q * q, piece.start, qt) / under
    return torch.addcmul(piece.bottom, piece.height, rise), _log_slope(q, t, qt, s, piece.start, piece.end, under)


def _solve(y: Tensor, piece: _Bin) -> tuple[Tensor, Tensor]:
    """x and log dy/dx inside a piece."""
    u, ratio = (y - piece.bottom) / piece.height, piece.width / piece.height
    q = _fraction(u, ratio, piece.start, piece.end)
    return torch.addcmul(piece.left, q, piece.width), _slope_at(q, piece.height / piece.width, piece.start, piece.end)


def _fraction(u: Tensor, ratio: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """How far along its piece x lies, where y lies at the fraction u of its height (eq. 6-8).

    With g = (start (1 - u) - end u) ratio / 2 it is u / (u + g + sqrt(g^2 + u (1 - u))). As u lies in [0, 1], nothing under
    the root is negative. With g negative the sum would cancel: it is u (1 - u) by the difference.

    Args:
        u: in [0, 1].
        ratio: width by height.
        start: slope at the left knot.
        end: slope at the right knot.
    """
    product = torch.addcmul(u, u, u, value=-1)
    twice = torch.addcmul(start, start + end, u, value=-1) * ratio
    root = torch.sqrt(torch.addcmul(product, twice, twice, value=0.25))
    # 1 where negative. By products, as a choice with signs at random is slow; not by abs, which has no derivative at 0.
    falls = torch.signbit(twice).to(twice.dtype)
    total = torch.add(root, torch.addcmul(twice, twice, falls, value=-2), alpha=0.5)
    return u / (u + torch.lerp(total, product / total, falls))


def _slope_at(q: Tensor, s: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """log dy/dx at the fraction q of a piece of mean slope s."""
    t = 1 - q
    qt = q * t
    return _log_slope(q, t, qt, s, start, end, torch.addcmul(s, torch.sub(start + end, s, alpha=2), qt))


def _log_slope(q: Tensor, t: Tensor, qt: Tensor, s: Tensor, start: Tensor, end: Tensor, under: Tensor) -> Tensor:
    """log dy/dx at the fraction q of a piece, t = 1 - q (eq. 5)."""
    over = torch.addcmul(torch.addcmul(end * q * q, start * t, t), s, qt, value=2)
    ratio = s / under
    return torch.log(over * ratio * ratio)
