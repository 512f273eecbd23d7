"""The inverse of `MaskedAutoregressive`: z_i = f(x_i; MADE(x_<i)) solved for x, coordinate by coordinate or by fixed-point sweeps."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.kernels import (
    AffineSettings,
    ShiftSettings,
    SplineSettings,
    SplineSteps,
    Stage,
    invert_made,
    tuning,
    usable,
)
from pushforward.networks.incremental import IncrementalMADE
from pushforward.networks.made import MADE
from pushforward.numerics import full_precision, is_eager
from pushforward.transforms.splines.rational_quadratic import SplineTransformer
from pushforward.transforms.transformers.affine import AdditiveTransformer, AffineTransformer
from pushforward.transforms.transformers.base import Transformer

__all__ = ["solve_autoregressive"]

Solved = tuple[Tensor, Tensor]
"""x and log f' of some coordinates, each ``(coordinates, batch)``."""


def solve_autoregressive(network: MADE, transformer: Transformer, z: Tensor, context: Tensor | None = None) -> Solved:
    """x with f(x_i; MADE(x_<i, context)) = z_i, and log f'(x_i), both ``(D, batch)``.

    The default is D small steps, coordinate by coordinate, which together have the arithmetic of one network pass. If no
    gradient is needed, a compiled function takes all steps of an additive, affine or spline transformer at once. For other
    transformers, or without the compiled function, few rows of many coordinates are solved by sweeps over blocks of
    coordinates until nothing changes (Jacobi's iteration; Song et al. 2021, alg. 1); if a block does not converge, the rest
    is solved by steps.

    Args:
        network: the network that gives f's parameters. It runs in full precision, under autocast too.
        transformer: the transformer f.
        z: ``(D, batch)``, in the autoregressive order of the network.
        context: ``(batch, network.context)``.
    """
    with full_precision(z):
        native = native_settings(transformer)
        if native is not None and not torch.is_grad_enabled() and usable(z, *network.parameters()):
            incremental = IncrementalMADE(network, z.shape[1], context, block=network.features)
            stages = [Stage(s.weights[0], s.starts[0], s.known, s.adds, s.keeps, s.acts) for s in incremental.stages]
            return invert_made(z.contiguous(), stages, native, network.activation, network.input_bound)
        if sweeping_pays(network, z):
            blocks = -(-network.features // tuning.SWEEP_BLOCK)
            incremental = IncrementalMADE(network, z.shape[1], context, block=-(-network.features // blocks))
            solved = by_sweeps(incremental, transformer, z)
        else:
            solved = by_steps(IncrementalMADE(network, z.shape[1], context), transformer, z)
    xs, slopes = zip(*solved, strict=True)
    return torch.cat(xs), torch.cat(slopes)


def native_settings(transformer: Transformer) -> ShiftSettings | AffineSettings | SplineSettings | None:
    """The transformer in the form that the compiled function takes, or None if it does not support it."""
    if type(transformer) is AdditiveTransformer:
        return ShiftSettings()
    if type(transformer) is AffineTransformer:
        return AffineSettings(transformer.max_log_scale)
    if type(transformer) is SplineTransformer and transformer.settings.native:
        return transformer.settings
    return None


def by_steps(incremental: IncrementalMADE, transformer: Transformer, z: Tensor) -> list[Solved]:
    """Solve the coordinates that are not known yet, one after the other."""
    solved: list[Solved] = []
    if (
        type(transformer) is SplineTransformer
        and transformer.settings.by_product
        and SplineSteps.serves(z, incremental.network.last.weight)
    ):
        steps = SplineSteps(transformer.settings, incremental.block, incremental.batch, z)
        for block in z[incremental.done :].split(incremental.block):
            steps.begin(block)
            for _ in block:
                incremental.step(steps.raw)
                incremental.feed(steps.step())
            solved.append(steps.solved())
        return solved
    for value in z[incremental.done :].split(1):
        x, slope = transformer.inverse(value, incremental.step())
        incremental.feed(_network_input(transformer, x))
        solved.append((x, slope))
    return solved


def by_sweeps(incremental: IncrementalMADE, transformer: Transformer, z: Tensor) -> list[Solved]:
    """Solve block after block by fixed-point iteration, and by steps from the first block that does not converge."""
    solved: list[Solved] = []
    while incremental.done < len(z):
        incremental.open(sweeps=True)
        block = _sweep(incremental, transformer, z[incremental.opened.start : incremental.opened.stop])
        if block is None:
            incremental.open()
            return solved + by_steps(incremental, transformer, z)
        solved.append(block)
    return solved


def _sweep(incremental: IncrementalMADE, transformer: Transformer, z: Tensor) -> Solved | None:
    """The open block as the fixed point of x = f^-1(z; MADE(x)), or None if it takes too many sweeps.

    After k sweeps the first k coordinates are exact for any weights, and with most trained weights nearly all are. It stops
    when no value changes by more than a few rounding units of z or of x: then x is as accurate as after steps.
    """
    x = z
    for _ in range(max_sweeps(len(z))):
        before = x
        x, slope = transformer.inverse(z, incremental.sweep(_network_input(transformer, before)))
        rounding = torch.maximum(x.abs(), z.abs() * torch.exp(-slope)) * (4 * torch.finfo(x.dtype).eps)
        if ((x == before) | ((x - before).abs() <= rounding)).all():
            incremental.accept()
            return x, slope
    return None


def max_sweeps(coordinates: int) -> int:
    """Number of sweeps after which a block counts as not converged. Trained layers take 5 to 25, and a late end costs little."""
    return 16 + coordinates // 4


def sweeping_pays(network: MADE, z: Tensor) -> bool:
    """Whether sweeps are possible, and probably faster than steps.

    A step takes about 80 microseconds for any number of rows. A sweep of a block takes hardly longer, but each of its 10 to
    20 rounds has the block's full arithmetic. On a CPU (constants measured on one core) sweeps are therefore faster for few
    rows: up to 200 at D = 784 and 30 at D = 63 with layers of width 512. On other devices a step is many kernel launches,
    and sweeps are always faster. They read values to decide when to stop, so they cannot be traced or differentiated.
    """
    features = network.features
    if features < tuning.SWEEP_FROM_COORDINATES or torch.is_grad_enabled() or not is_eager():
        return False
    if z.device.type != "cpu":
        return True
    weights = sum(parameter.numel() for parameter in network.parameters())
    work = weights * min(1.0, tuning.SWEEP_BLOCK / features) + tuning.SWEEP_WORK_PER_OUTPUT * network.outputs * features
    return z.shape[1] * work <= tuning.SWEEP_WORK_PER_STEP * features


def _network_input(transformer: Transformer, x: Tensor) -> Tensor:
    """The network's input for some coordinates: ``(coordinates, batch)`` to ``(coordinates * copies, batch)``."""
    return torch.stack((x.cos(), x.sin()), 1).flatten(0, 1) if transformer.periodic else x
