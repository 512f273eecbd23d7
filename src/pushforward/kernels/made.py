"""The inverse of an autoregressive transform by the native kernel.

All places of a panel of rows are solved while its values are in the cache.

This module handles stages of matrix products, not networks. The plain version, which is the reference, is
:mod:`pushforward.transforms.autoregressive.masked_inverse`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pushforward.kernels import tuning
from pushforward.kernels.native import library
from pushforward.kernels.spline_reference import SplineSettings
from pushforward.kernels.structs import ACTIVATIONS, MadeProblem, MadeStage, SplineLayout, address

__all__ = ["AffineSettings", "ShiftSettings", "Stage", "invert_made"]

_ROWS_PER_THREAD = 16
"""Rows below which another thread would get less than a vector."""


@dataclass(frozen=True)
class ShiftSettings:
    """y = x + t.

    Example:
        >>> from pushforward.kernels import ShiftSettings
        >>> ShiftSettings()
        ShiftSettings()
    """


@dataclass(frozen=True)
class AffineSettings:
    """y = x exp(s) + t with s = raw / (1 + abs(raw) / bound); t is the first parameter.

    Example:
        >>> from pushforward.kernels import AffineSettings
        >>> AffineSettings(bound=3.0).bound
        3.0
    """

    bound: float


class Stage(NamedTuple):
    """A masked product and what follows it, rows and columns sorted by place.

    See :mod:`pushforward.networks.incremental`.

    Attributes:
        weight: ``(rows, columns)``; of the last stage ``(parameters, places, columns)``.
        start: constant terms, ``(rows, 1)`` or ``(rows, batch)``; of the last stage ``(parameters, places, ...)``.
        known: the number of rows that are known before each place, and at the end the number of all rows.
        adds: whether the residual stream is added.
        keeps: whether the result becomes the residual stream.
        acts: whether the activation follows.

    Example:
        >>> import torch
        >>> from pushforward.kernels import Stage
        >>> Stage(torch.zeros(2, 2), torch.zeros(2, 1), (0, 1, 2), False, False, True).acts
        True
    """

    weight: Tensor
    start: Tensor
    known: Sequence[int]
    adds: bool
    keeps: bool
    acts: bool


def invert_made(
    z: Tensor,
    stages: Sequence[Stage],
    settings: ShiftSettings | AffineSettings | SplineSettings,
    activation: str,
    bound: float | None,
) -> tuple[Tensor, Tensor]:
    """x with f(x_i; MADE(x_<i)) = z_i, and log f'(x_i), both ``(places, batch)``.

    The caller has checked ``usable(...)``.

    Args:
        z: ``(places, batch)``, contiguous.
        stages: of the network, all tensors of z's type.
        settings: f.
        activation: by name.
        bound: the inputs of the network are clamped to [-bound, bound]; None for no bound.

    Raises:
        MemoryError: if there is no memory for the values of the network.

    Example:
        >>> import torch, pushforward as pf
        >>> layer = pf.transforms.MaskedAutoregressive(4, hidden=(8,))  # its decode calls invert_made where native kernels are in use
        >>> x = torch.zeros(1, 4)
        >>> with torch.no_grad():
        ...     print(torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-5))
        True
    """
    functions = library("made", z.dtype)
    assert functions is not None
    kept: list[object] = []
    rows = [_described(stage, kept) for stage in stages]
    places, batch = z.shape
    parameters = stages[-1].weight.shape[0]
    x, log_slope = torch.empty_like(z), torch.empty_like(z)
    if not z.numel():
        return x, log_slope
    work = batch * sum(stage.weight.numel() for stage in stages) // 2
    spline = settings if isinstance(settings, SplineSettings) else None
    if spline is not None:
        work += 40 * parameters * z.numel()
    threads = max(1, min(torch.get_num_threads(), -(-batch // _ROWS_PER_THREAD), work // tuning.MADE_WORK_PER_THREAD))
    array = (MadeStage * len(rows))(*rows)
    layout = None if spline is None else _layout(spline)
    problem = MadeProblem(
        places, batch, len(rows), parameters, ACTIVATIONS.index(activation),
        2 if layout is not None else int(isinstance(settings, AffineSettings)), threads, ctypes.addressof(array),
        None if layout is None else ctypes.addressof(layout), math.inf if bound is None else bound,
        settings.bound if isinstance(settings, AffineSettings) else 0.0,
    )  # fmt: skip
    if functions.invert(ctypes.byref(problem), address(z), address(x), address(log_slope)):
        raise MemoryError("there is not enough memory for the values of an autoregressive network.")
    return x, log_slope


def _described(stage: Stage, kept: list[object]) -> MadeStage:
    """A stage as the kernel reads it. What it points to is appended to ``kept``."""
    weight, start = stage.weight.contiguous(), stage.start.flatten(0, -2).contiguous()
    known = (ctypes.c_int64 * len(stage.known))(*stage.known)
    kept += [weight, start, known]
    each = start.shape[1] > 1
    return MadeStage(
        start.shape[0], weight.shape[-1], weight.data_ptr(), start.data_ptr(), start.shape[1], int(each),
        ctypes.addressof(known), stage.adds, stage.keeps, stage.acts,
    )  # fmt: skip


def _layout(settings: SplineSettings) -> SplineLayout:
    """The shape of the splines; the kernel fills in the strides."""
    return SplineLayout(
        *(0,) * 10, settings.bins, settings.periodic, True, 1, settings.bound, settings.smallest, settings.steepest
    )
