"""The program of a model: what each transform and base is as a list of operations on one row's registers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.distributions import Distribution, Logistic, Normal
from pushforward.kernels.program import ACTIVATIONS, Program, extents
from pushforward.networks.activations import activation as make_activation
from pushforward.networks.made import MADE, MaskedBlock
from pushforward.networks.masked import MaskedLinear
from pushforward.networks.mlp import MLP, Block
from pushforward.transforms import (
    ActNorm,
    AdditiveTransformer,
    Affine,
    AffineTransformer,
    BatchNorm,
    Coupling,
    Householder,
    Jitter,
    LULinear,
    MaskedAutoregressive,
    Monotone,
    Permutation,
    Reverse,
    SplineTransformer,
    Standardize,
    Transform,
    Transformer,
)
from pushforward.transforms.image.reshape import Flatten
from pushforward.transforms.linear.factored import reflections_product

__all__ = ["NotLowerable", "write"]

_WIDEST = 4096


class NotLowerable(Exception):
    """A part that programs have no operation for."""


class Lowering:
    """Where the data are while the transforms of a chain are written one after the other."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.z = "x"
        self.width = program.features

    def move(self, index: list[int]) -> None:
        """z_i = x_{index_i}."""
        target = "z" if self.z != "z" else "y"
        self.program.gather(self.z, target, index)
        self.z, self.width = target, len(index)

    def matrix(self, weight: Tensor, bias: Tensor | None) -> None:
        """z = weight x + bias."""
        target = "z" if self.z != "z" else "y"
        self.program.linear(self.z, target, weight, bias)
        self.z = target


def write(
    chain: Sequence[Transform],
    base: Distribution,
    features: int,
    context: int,
    scaling: tuple[Tensor, Tensor] | None = None,
    *,
    follows: bool = False,
) -> Program:
    """The program of a chain over a base, in the type of its weights.

    Args:
        chain: transforms, data side first.
        base: what they lead to.
        features: width of the data.
        context: width of the context.
        scaling: mean and scale of the context, where it comes as the user gives it.
        follows: whether layers are to be read where they lie, as far as that goes, and not copied.

    Raises:
        NotLowerable: naming what cannot be written.
    """
    types = {
        t.dtype
        for module in (*chain, base)
        for t in (*module.parameters(), *module.buffers())
        if t.is_floating_point() and t.numel()
    }
    if len(types) != 1 or not types <= {torch.float32, torch.float64}:
        raise NotLowerable("weights of several floating types, or of half precision")
    if features > _WIDEST:
        raise NotLowerable(f"{features} features")
    program = Program(features, context, types.pop(), follows=follows)
    if scaling is not None and context:
        program.diagonal("context", 1 / scaling[1], scaling[0])
    writer = Lowering(program)
    for part in chain:
        if len(part.in_shape) != 1:
            raise NotLowerable(f"images ({type(part).__name__})")
        known(add, part)
        add(part, writer)
    known(end, base)
    end(base, writer)
    return program


def known(function: Any, part: object) -> None:
    """Refuse a subclass, which may do anything."""
    if type(part) not in function.registry:
        raise NotLowerable(type(part).__name__)


@functools.singledispatch
def add(part: Transform, writer: Lowering) -> None:
    """Append the operations of a transform."""
    raise NotLowerable(type(part).__name__)


@functools.singledispatch
def end(base: Distribution, writer: Lowering) -> None:
    """Append the log-density of the base."""
    raise NotLowerable(type(base).__name__)


def transform(law: Transformer, writer: Lowering, index: list[int], raw: str) -> None:
    """Append a law with its parameters in ``raw``, on some coordinates."""
    known(apply, law)
    apply(law, writer, index, raw)


@functools.singledispatch
def apply(law: Transformer, writer: Lowering, index: list[int], raw: str) -> None:
    """As :func:`transform`, for each law."""
    raise NotLowerable(type(law).__name__)


@apply.register
def _(law: AdditiveTransformer, writer: Lowering, index: list[int], raw: str) -> None:
    writer.program.shift(raw, writer.z, index)


@apply.register
def _(law: AffineTransformer, writer: Lowering, index: list[int], raw: str) -> None:
    writer.program.affine(raw, writer.z, index, law.max_log_scale)


@apply.register
def _(law: SplineTransformer, writer: Lowering, index: list[int], raw: str) -> None:
    writer.program.spline(raw, writer.z, index, law.settings)


@end.register
def _(base: Normal, writer: Lowering) -> None:
    if base.trainable:
        writer.program.diagonal(writer.z, (-base.log_scale).exp(), base.loc)
        writer.program.start -= float(base.log_scale.double().sum())
    writer.program.normal(writer.z, writer.width)


@end.register
def _(base: Logistic, writer: Lowering) -> None:
    writer.program.logistic(writer.z, writer.width)


@add.register
def _(part: Standardize, writer: Lowering) -> None:
    writer.program.diagonal(writer.z, 1 / part.scale, part.mean)
    writer.program.start -= float(part.scale.double().log().sum())


@add.register
def _(part: ActNorm, writer: Lowering) -> None:
    writer.program.diagonal(writer.z, part.log_scale.exp(), part.shift)
    writer.program.start += float(part.log_scale.double().sum())


@add.register
def _(part: BatchNorm, writer: Lowering) -> None:
    slope = part._slope()
    writer.program.diagonal(writer.z, slope.exp(), part.mean, part.beta)
    writer.program.start += float(slope.double().sum())


@add.register
def _(part: Affine, writer: Lowering) -> None:
    factor, log_factor = part._factor()
    writer.program.diagonal(writer.z, factor, None, part.offset)
    writer.program.start += float(log_factor.double().expand(part.in_shape).sum())


@add.register
def _(part: Flatten, writer: Lowering) -> None:
    """Of a vector: nothing."""


@add.register
def _(part: Jitter, writer: Lowering) -> None:
    """Without a generator: nothing."""


@add.register
def _(part: Permutation, writer: Lowering) -> None:
    writer.move(part.permutation.tolist())


@add.register
def _(part: Reverse, writer: Lowering) -> None:
    writer.move(list(range(writer.width))[::-1])


@add.register
def _(part: LULinear, writer: Lowering) -> None:
    lower, upper, diagonal = part._factors(part.packed.double())
    writer.matrix(lower @ upper, part.offset)
    writer.program.start += float(diagonal.log().sum())


@add.register
def _(part: Householder, writer: Lowering) -> None:
    units, mixed = reflections_product(part.vectors.double())
    writer.matrix(torch.eye(writer.width, dtype=torch.float64) - units.mT @ mixed, None)


@add.register
def _(part: Coupling, writer: Lowering) -> None:
    program, kept, transformed = writer.program, part.kept.tolist(), part.transformed.tolist()
    if part.network is None:
        assert part.free_transformed is not None
        program.constant("raw", part.free_transformed)
    else:
        program.gather(writer.z, "seen", kept)
        if part.context:
            program.gather("context", "seen", list(range(part.context)), at=len(kept))
        perceptron(part.network, program, "seen", "raw")
    transform(part.transformer, writer, transformed, "raw")
    if part.free_kept is not None:
        program.constant("raw", part.free_kept)
        transform(part.transformer, writer, kept, "raw")


@add.register
def _(part: Monotone, writer: Lowering) -> None:
    if part.network is None:
        assert part.free is not None
        writer.program.constant("raw", part.free)
    else:
        writer.program.copy("context", "seen", part.context)
        perceptron(part.network, writer.program, "seen", "raw")
    transform(part.transformer, writer, list(range(part.features)), "raw")


@add.register
def _(part: MaskedAutoregressive, writer: Lowering) -> None:
    made(part.network, writer.program, writer.z, "raw")
    transform(part.transformer, writer, list(range(part.features)), "raw")


def name_of(activation: nn.Module) -> str:
    """The name of an activation module in the program's list, if it is that activation and has its default options."""
    name = {"LeakyReLU": "leaky_relu"}.get(type(activation).__name__, type(activation).__name__.lower())
    if name not in ACTIVATIONS:
        raise NotLowerable(type(activation).__name__)
    known = make_activation(name)
    if type(activation) is not type(known) or repr(activation) != repr(known):
        raise NotLowerable(f"an activation of other kind or options, {activation!r}")
    return name


def idle(dropout: nn.Module) -> None:
    """Refuse what does something in evaluation mode."""
    if type(dropout) is not nn.Dropout:
        raise NotLowerable(type(dropout).__name__)


def dense(layer: nn.Module, program: Program, source: str, target: str) -> None:
    """The layer's operation, on its own weights or, masked where they are, on a copy."""
    if type(layer) not in (nn.Linear, MaskedLinear):
        raise NotLowerable(type(layer).__name__)
    assert isinstance(layer, nn.Linear)
    weight, mask = layer.weight, layer.mask if isinstance(layer, MaskedLinear) else None
    if any(t is not None and t.shape != (layer.out_features, layer.in_features) for t in (weight, mask)):
        raise NotLowerable("a layer whose matrix has not its shape")
    if layer.bias is not None and layer.bias.shape != (layer.out_features,):
        raise NotLowerable("a layer whose bias has not its shape")
    if program.follows and weight.is_contiguous():
        mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
        seen = extents(mask)
        if torch.equal(seen[:, 1] - seen[:, 0], mask.sum(1)):  # no gaps
            program.linear_in_place(source, target, weight, layer.bias, seen)
            return
    program.linear(source, target, weight if mask is None else weight * mask, layer.bias)


def residual(program: Program, block: Block | MaskedBlock, register: str) -> None:
    """register += second(act(first(act(register))))."""
    idle(block.dropout)
    width, name = block.first.out_features, name_of(block.act)
    program.copy(register, "s", width)
    program.activate("s", width, name)
    dense(block.first, program, "s", "t")
    program.activate("t", width, name)
    dense(block.second, program, "t", "s")
    program.add("s", register, width)


def perceptron(network: MLP, program: Program, source: str, target: str) -> None:
    """The network's operations; ``source`` is overwritten."""
    if type(network) is not MLP:
        raise NotLowerable(type(network).__name__)
    if network.input_bound is not None:
        program.clamp(source, source, network.inputs, network.input_bound)
    here, width = source, network.inputs
    for layer in network.body:
        if type(layer) is Block:
            residual(program, layer, here)
        elif isinstance(layer, nn.Linear):
            there = "h" if here != "h" else "g"
            dense(layer, program, here, there)
            here, width = there, layer.out_features
        elif type(layer) is not nn.Dropout:
            program.activate(here, width, name_of(layer))
    dense(network.last, program, here, target)


def made(network: MADE, program: Program, source: str, target: str) -> None:
    """The masked network's operations."""
    if type(network) is not MADE:
        raise NotLowerable(type(network).__name__)
    idle(network.drop)
    if network.copies != 1:
        raise NotLowerable("angles")
    if network.alone:
        with torch.no_grad():
            program.constant(target, network(network.last.weight.new_zeros(1)).flatten())
        return
    bound, first = network.input_bound, network.context_first if network.context else None
    here, width = source, network.features
    if bound is not None:
        program.clamp(source, "seen", width, bound)
        here = "seen"
    if network.context:
        at = "context"
        if bound is not None:
            program.clamp("context", "c", network.context, bound)
            at = "c"
        dense(network.context_in, program, at, "d")
        program.activate("d", network.context_in.out_features, name_of(network.act))
    for index, layer in enumerate(network.layers):
        if type(layer) is MaskedBlock:
            residual(program, layer, here)
            continue
        if not isinstance(layer, nn.Linear):
            raise NotLowerable(type(layer).__name__)
        there = "h" if here != "h" else "g"
        dense(layer, program, here, there)
        here, width = there, layer.out_features
        if index == 0 and first is not None:
            dense(first, program, "d", "e")
            program.add("e", here, width)
        if not network.residual:
            program.activate(here, width, name_of(network.act))
    dense(network.last, program, here, target)
    if network.context:
        dense(network.context_last, program, "d", "e")
        program.add("e", target, network.last.out_features)
