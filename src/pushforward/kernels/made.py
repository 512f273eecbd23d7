"""The inverse of an autoregressive law by a compiled function: all places of a panel of rows while they are in the cache.

This file knows stages of products, not networks; :mod:`pushforward.transforms.autoregressive.masked_inverse` has the plain version, which is the
reference.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.kernels.native import library
from pushforward.kernels.program import ACTIVATIONS
from pushforward.kernels.spline import SplineSettings, _Layout

__all__ = ["AffineSettings", "ShiftSettings", "Stage", "invert_made"]

_EACH_THREAD = 1 << 19
"""Multiplications that are worth a thread."""
_LANES = 16


@dataclass(frozen=True)
class ShiftSettings:
    """y = x + t."""


@dataclass(frozen=True)
class AffineSettings:
    """y = x exp(s) + t with s = raw / (1 + abs(raw) / bound); t first."""

    bound: float


class Stage(NamedTuple):
    """A masked product and what follows it, rows and columns sorted by place (see :mod:`pushforward.networks.incremental`).

    Attributes:
        weight: ``(rows, columns)``; of the last stage ``(parameters, places, columns)``.
        start: constant terms, ``(rows, 1)`` or ``(rows, batch)``; of the last stage ``(parameters, places, ...)``.
        known: how many rows are known before each place; in the end all of them.
        adds: whether the residual stream is added.
        keeps: whether the result becomes the residual stream.
        acts: whether the activation follows.
    """

    weight: Tensor
    start: Tensor
    known: Sequence[int]
    adds: bool
    keeps: bool
    acts: bool


class _Stage(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("weight", "start")),
        *((name, ctypes.c_int64) for name in ("start_row", "start_column")),
        ("known", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("adds", "keeps", "acts")),
    ]


class _Solve(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("places", "batch", "stages", "parameters", "activation", "law", "threads")
        ),
        *((name, ctypes.c_void_p) for name in ("stage", "spline")),
        *((name, ctypes.c_double) for name in ("seen", "bound")),
    ]


def invert_made(
    z: Tensor,
    stages: Sequence[Stage],
    law: ShiftSettings | AffineSettings | SplineSettings,
    activation: str,
    bound: float | None,
) -> tuple[Tensor, Tensor]:
    """x with f(x_i; MADE(x_<i)) = z_i, and log f'(x_i), both ``(places, batch)``; the caller has asked ``usable("made.c", ...)``.

    Args:
        z: ``(places, batch)``, contiguous.
        stages: of the network, all tensors of z's type.
        law: f.
        activation: by name.
        bound: the network sees coordinates clamped to [-bound, bound]; None for no bound.
    """
    compiled = library("made.c", z.dtype)
    assert compiled is not None
    kept: list[object] = []
    rows = [_described(stage, kept) for stage in stages]
    places, batch = z.shape
    parameters = stages[-1].weight.shape[0]
    x, slope = torch.empty_like(z), torch.empty_like(z)
    if not z.numel():
        return x, slope
    work = batch * sum(stage.weight.numel() for stage in stages) // 2
    spline = law if isinstance(law, SplineSettings) else None
    if spline is not None:
        work += 40 * parameters * z.numel()
    threads = max(1, min(torch.get_num_threads(), -(-batch // _LANES), work // _EACH_THREAD))
    array = (_Stage * len(rows))(*rows)
    layout = None if spline is None else _spline(spline)
    solve = _Solve(
        places, batch, len(rows), parameters, ACTIVATIONS.index(activation),
        2 if layout is not None else int(isinstance(law, AffineSettings)), threads, ctypes.addressof(array),
        None if layout is None else ctypes.addressof(layout), math.inf if bound is None else bound,
        law.bound if isinstance(law, AffineSettings) else 0.0,
    )  # fmt: skip
    if compiled.run(ctypes.byref(solve), *(ctypes.c_void_p(t.data_ptr()) for t in (z, x, slope))):
        raise MemoryError("no memory for the values of an autoregressive network.")
    return x, slope


def _described(stage: Stage, kept: list[object]) -> _Stage:
    """A stage for the compiled function; what it points to is kept."""
    weight, start = stage.weight.contiguous(), stage.start.flatten(0, -2).contiguous()
    known = (ctypes.c_int64 * len(stage.known))(*stage.known)
    kept += [weight, start, known]
    each = start.shape[1] > 1
    return _Stage(
        start.shape[0], weight.shape[-1], weight.data_ptr(), start.data_ptr(), start.shape[1], int(each),
        ctypes.addressof(known), stage.adds, stage.keeps, stage.acts,
    )  # fmt: skip


def _spline(law: SplineSettings) -> _Layout:
    """The law's numbers; the compiled function fills in the places."""
    return _Layout(*(0,) * 10, law.bins, law.periodic, True, 1, law.bound, law.smallest, law.steepest)
