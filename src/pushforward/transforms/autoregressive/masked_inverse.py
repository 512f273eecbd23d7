"""The inverse of an autoregressive law: z_i = f(x_i; MADE(x_<i)) solved for x, by steps or by sweeps."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.kernels import AffineSettings, ShiftSettings, SplineSettings, SplineSteps, Stage, invert_made, usable
from pushforward.networks.incremental import IncrementalMADE
from pushforward.networks.made import MADE
from pushforward.numerics import full_precision, is_eager
from pushforward.transforms.splines.rational_quadratic import SplineTransformer
from pushforward.transforms.transformers.affine import AdditiveTransformer, AffineTransformer
from pushforward.transforms.transformers.base import Transformer

__all__ = ["solve_autoregressive"]


_SWEEP_BLOCK = 256
"""Most places that are swept together."""


_FEWEST_PLACES = 16
"""Fewer places than this are never swept: the sweeps would be as many as the steps."""


Solved = tuple[Tensor, Tensor]
"""x and log f' of some places, each ``(places, batch)``."""


def solve_autoregressive(network: MADE, law: Transformer, z: Tensor, context: Tensor | None = None) -> Solved:
    """x with f(x_i; MADE(x_<i, context)) = z_i, and log f'(x_i), both by place.

    By steps, place after place: D small steps, and all together the arithmetic of one pass. Where no gradient is wanted
    a compiled function takes all steps of a shift, an affine law or a spline at once; for other laws, or without a
    compiler, few rows of many places are solved by sweeps over blocks of places until nothing moves (Jacobi's iteration;
    Song et al. 2021, alg. 1), and by steps from where that does not settle.

    Args:
        network: gives f's parameters. Full precision, also under autocast.
        law: f.
        z: ``(D, batch)``, sorted by place in the network's order.
        context: ``(batch, network.context)``.
    """
    with full_precision(z):
        native = native_settings(law)
        if native is not None and not torch.is_grad_enabled() and usable(z, *network.parameters()):
            walk = IncrementalMADE(network, z.shape[1], context, block=network.features)
            stages = [Stage(s.weights[0], s.starts[0], s.known, s.adds, s.keeps, s.acts) for s in walk.stages]
            return invert_made(z.contiguous(), stages, native, network.activation, network.input_bound)
        if sweeping_pays(network, z):
            blocks = -(-network.features // _SWEEP_BLOCK)
            walk = IncrementalMADE(network, z.shape[1], context, block=-(-network.features // blocks))
            found = by_sweeps(walk, law, z)
        else:
            found = by_steps(IncrementalMADE(network, z.shape[1], context), law, z)
    xs, slopes = zip(*found, strict=True)
    return torch.cat(xs), torch.cat(slopes)


def native_settings(law: Transformer) -> ShiftSettings | AffineSettings | SplineSettings | None:
    """The law as the compiled function knows it, if it does."""
    if type(law) is AdditiveTransformer:
        return ShiftSettings()
    if type(law) is AffineTransformer:
        return AffineSettings(law.max_log_scale)
    return law.settings if type(law) is SplineTransformer else None


def by_steps(walk: IncrementalMADE, law: Transformer, z: Tensor) -> list[Solved]:
    """The places that are not known yet, one after the other."""
    found: list[Solved] = []
    if type(law) is SplineTransformer and SplineSteps.serves(z, walk.network.last.weight):
        steps = SplineSteps(law.settings, walk.block, walk.batch, z)
        for block in z[walk.done :].split(walk.block):
            steps.begin(block)
            for _ in block:
                walk.step(steps.raw)
                walk.feed(steps.step())
            found.append(steps.solved())
        return found
    for value in z[walk.done :].split(1):
        x, slope = law.inverse(value, walk.step())
        walk.feed(_seen(law, x))
        found.append((x, slope))
    return found


def by_sweeps(walk: IncrementalMADE, law: Transformer, z: Tensor) -> list[Solved]:
    """Block after block by fixed-point iteration; by steps from the first block where that does not settle."""
    found: list[Solved] = []
    while walk.done < len(z):
        walk.open(sweeps=True)
        block = _sweep(walk, law, z[walk.opened.start : walk.opened.stop])
        if block is None:
            walk.open()
            return found + by_steps(walk, law, z)
        found.append(block)
    return found


def _sweep(walk: IncrementalMADE, law: Transformer, z: Tensor) -> Solved | None:
    """The open block as the fixed point of x = f^-1(z; MADE(x)), or None if it takes too many sweeps.

    The k-th sweep makes the first k places exact, whatever the weights, and with mild ones nearly all. It ends when no
    value moves by more than a few roundings of z or of x: then x fits its own parameters as well as after steps.
    """
    x = z
    for _ in range(most_sweeps(len(z))):
        before = x
        x, slope = law.inverse(z, walk.sweep(_seen(law, before)))
        rounding = torch.maximum(x.abs(), z.abs() * torch.exp(-slope)) * (4 * torch.finfo(x.dtype).eps)
        if ((x == before) | ((x - before).abs() <= rounding)).all():
            walk.accept()
            return x, slope
    return None


def most_sweeps(places: int) -> int:
    """Sweeps after which a block counts as unsettled: trained layers take 5 to 25, and giving up late costs little."""
    return 16 + places // 4


def sweeping_pays(network: MADE, z: Tensor) -> bool:
    """Whether sweeps are likely to be faster than steps, and allowed at all.

    A step costs some 80 microseconds whatever the number of rows. A sweep of a block costs hardly more, but 10 to 20 of
    them each do the block's arithmetic. On a CPU (constants from one core) sweeps therefore pay for few rows: up to 200
    at D = 784 and 30 at D = 63 with layers 512 wide. On other devices a step is many kernel launches, and they always
    pay. Sweeps look at data to know when to stop, so they are no way to get gradients or a traced graph.
    """
    features = network.features
    if features < _FEWEST_PLACES or torch.is_grad_enabled() or not is_eager():
        return False
    if z.device.type != "cpu":
        return True
    weights = sum(parameter.numel() for parameter in network.parameters())
    work = weights * min(1.0, _SWEEP_BLOCK / features) + 250 * network.outputs * features
    return z.shape[1] * work <= 200_000 * features


def _seen(law: Transformer, x: Tensor) -> Tensor:
    """What the network sees of some places: ``(places, batch)`` to ``(places * copies, batch)``."""
    return torch.stack((x.cos(), x.sin()), 1).flatten(0, 1) if law.periodic else x
