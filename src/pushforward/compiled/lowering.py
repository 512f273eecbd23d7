"""Lowering: a flow of vectors as a program, a list of operations that one compiled function runs row by row.

Each transform, transformer and base distribution that has such a form registers it here, in one function for its exact class.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.distributions import Distribution, Logistic, Normal
from pushforward.kernels.program import ACTIVATIONS, Program
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
from pushforward.transforms.elementwise.normalization import standardized_limit
from pushforward.transforms.image.reshape import Flatten
from pushforward.transforms.linear.factored import reflections_product

__all__ = ["NotLowerable", "lower"]

_MOST_FEATURES = 4096
"""Widest row of a program; models of wider rows score in torch."""


class NotLowerable(Exception):
    """A model has a part that no operation of a program computes; the message names the part."""


class Lowering:
    """A program under construction, and the register that holds the data at this point of the chain."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.z = "x"
        self.width = program.features

    def gather(self, index: list[int]) -> None:
        """z_i = x_{index_i}."""
        target = "z" if self.z != "z" else "y"
        self.program.gather(self.z, target, index)
        self.z, self.width = target, len(index)

    def linear(self, weight: Tensor, bias: Tensor | None) -> None:
        """z = weight x + bias."""
        target = "z" if self.z != "z" else "y"
        self.program.linear(self.z, target, weight, bias)
        self.z = target


def lower(
    chain: Sequence[Transform],
    base: Distribution,
    features: int,
    context: int,
    scaling: tuple[Tensor, Tensor] | None = None,
) -> Program:
    """The program of a chain and a base distribution, in the floating type of their weights.

    Args:
        chain: transforms, data side first.
        base: the distribution of the chain's noise.
        features: width of the data.
        context: width of the context; 0 for none.
        scaling: mean and scale by which the program standardizes the context first; None if the caller does so.

    Raises:
        NotLowerable: naming the part that has no operation.
    """
    types = {
        t.dtype
        for module in (*chain, base)
        for t in (*module.parameters(), *module.buffers())
        if t.is_floating_point() and t.numel()
    }
    if len(types) != 1 or not types <= {torch.float32, torch.float64}:
        raise NotLowerable("weights of several floating types, or of half precision")
    if features > _MOST_FEATURES:
        raise NotLowerable(f"{features} features")
    program = Program(features, context, types.pop())
    if scaling is not None and context:
        program.diagonal("context", 1 / scaling[1], scaling[0])
    lowering = Lowering(program)
    for part in chain:
        if len(part.in_shape) != 1:
            raise NotLowerable(f"images ({type(part).__name__})")
        require_exact_class(lower_transform, part)
        lower_transform(part, lowering)
    require_exact_class(lower_base, base)
    lower_base(base, lowering)
    return program


def require_exact_class(function: Any, part: object) -> None:
    """Refuse an object whose class is not registered itself: a subclass may compute something else.

    Raises:
        NotLowerable: naming the class.
    """
    if type(part) not in function.registry:
        raise NotLowerable(type(part).__name__)


@functools.singledispatch
def lower_transform(part: Transform, lowering: Lowering) -> None:
    """Append the operations of a transform."""
    raise NotLowerable(type(part).__name__)


@functools.singledispatch
def lower_base(base: Distribution, lowering: Lowering) -> None:
    """Append the log-density of a base distribution."""
    raise NotLowerable(type(base).__name__)


def lower_transformer(transformer: Transformer, lowering: Lowering, index: list[int], raw: str) -> None:
    """Append an elementwise transformer of the coordinates ``index``, with its parameters in the register ``raw``."""
    require_exact_class(append_transformer, transformer)
    append_transformer(transformer, lowering, index, raw)


@functools.singledispatch
def append_transformer(transformer: Transformer, lowering: Lowering, index: list[int], raw: str) -> None:
    """As :func:`lower_transformer`, for the exact class of a transformer."""
    raise NotLowerable(type(transformer).__name__)


@append_transformer.register
def _(transformer: AdditiveTransformer, lowering: Lowering, index: list[int], raw: str) -> None:
    lowering.program.shift(raw, lowering.z, index)


@append_transformer.register
def _(transformer: AffineTransformer, lowering: Lowering, index: list[int], raw: str) -> None:
    lowering.program.affine(raw, lowering.z, index, transformer.max_log_scale)


@append_transformer.register
def _(transformer: SplineTransformer, lowering: Lowering, index: list[int], raw: str) -> None:
    if not transformer.settings.native:
        raise NotLowerable(f"splines of {transformer.settings.bins} bins")
    lowering.program.spline(raw, lowering.z, index, transformer.settings)


@lower_base.register
def _(base: Normal, lowering: Lowering) -> None:
    if base.trainable:
        lowering.program.diagonal(lowering.z, (-base.log_scale).exp(), base.loc)
        lowering.program.start -= float(base.log_scale.double().sum())
    lowering.program.normal(lowering.z, lowering.width)


@lower_base.register
def _(base: Logistic, lowering: Lowering) -> None:
    lowering.program.logistic(lowering.z, lowering.width)


@lower_transform.register
def _(part: Standardize, lowering: Lowering) -> None:
    lowering.program.diagonal(lowering.z, 1 / part.scale, part.mean)
    lowering.program.clamp(lowering.z, lowering.z, lowering.width, standardized_limit(part.scale.dtype))
    lowering.program.start -= float(part.scale.double().log().sum())


@lower_transform.register
def _(part: ActNorm, lowering: Lowering) -> None:
    lowering.program.diagonal(lowering.z, part.log_scale.exp(), part.shift)
    lowering.program.start += float(part.log_scale.double().sum())


@lower_transform.register
def _(part: BatchNorm, lowering: Lowering) -> None:
    slope = part._slope()
    lowering.program.diagonal(lowering.z, slope.exp(), part.mean, part.beta)
    lowering.program.start += float(slope.double().sum())


@lower_transform.register
def _(part: Affine, lowering: Lowering) -> None:
    factor, log_factor = part._factor()
    lowering.program.diagonal(lowering.z, factor, None, part.offset)
    lowering.program.start += float(log_factor.double().expand(part.in_shape).sum())


@lower_transform.register
def _(part: Flatten, lowering: Lowering) -> None:
    """A vector stays as it is."""


@lower_transform.register
def _(part: Jitter, lowering: Lowering) -> None:
    """Scoring adds no jitter."""


@lower_transform.register
def _(part: Permutation, lowering: Lowering) -> None:
    lowering.gather(part.permutation.tolist())


@lower_transform.register
def _(part: Reverse, lowering: Lowering) -> None:
    lowering.gather(list(range(lowering.width))[::-1])


@lower_transform.register
def _(part: LULinear, lowering: Lowering) -> None:
    lower, upper, diagonal = part._factors(part.packed.double())
    lowering.linear(lower @ upper, part.offset)
    lowering.program.start += float(diagonal.log().sum())


@lower_transform.register
def _(part: Householder, lowering: Lowering) -> None:
    units, mixed = reflections_product(part.vectors.double())
    lowering.linear(torch.eye(lowering.width, dtype=torch.float64, device=units.device) - units.mT @ mixed, None)


@lower_transform.register
def _(part: Coupling, lowering: Lowering) -> None:
    program, kept, transformed = lowering.program, part.kept.tolist(), part.transformed.tolist()
    if part.network is None:
        assert part.free_transformed is not None
        program.constant("raw", part.free_transformed)
    elif part.angles:
        raise NotLowerable("Coupling with angles")
    else:
        program.gather(lowering.z, "seen", kept)
        if part.context:
            program.gather("context", "seen", list(range(part.context)), at=len(kept))
        lower_mlp(part.network, program, "seen", "raw")
    lower_transformer(part.transformer, lowering, transformed, "raw")
    if part.free_kept is not None:
        program.constant("raw", part.free_kept)
        lower_transformer(part.transformer, lowering, kept, "raw")


@lower_transform.register
def _(part: Monotone, lowering: Lowering) -> None:
    if part.network is None:
        assert part.free is not None
        lowering.program.constant("raw", part.free)
    else:
        lowering.program.copy("context", "seen", part.context)
        lower_mlp(part.network, lowering.program, "seen", "raw")
    lower_transformer(part.transformer, lowering, list(range(part.features)), "raw")


@lower_transform.register
def _(part: MaskedAutoregressive, lowering: Lowering) -> None:
    lower_made(part.network, lowering.program, lowering.z, "raw")
    lower_transformer(part.transformer, lowering, list(range(part.features)), "raw")


def activation_name(activation: nn.Module) -> str:
    """The name of an activation module in :data:`ACTIVATIONS`.

    Raises:
        NotLowerable: if it is another activation, or has options other than its defaults.
    """
    name = {"LeakyReLU": "leaky_relu"}.get(type(activation).__name__, type(activation).__name__.lower())
    if name not in ACTIVATIONS:
        raise NotLowerable(type(activation).__name__)
    expected = make_activation(name)
    if type(activation) is not type(expected) or repr(activation) != repr(expected):
        raise NotLowerable(f"the activation {activation!r}")
    return name


def require_dropout(dropout: nn.Module) -> None:
    """Refuse a module other than dropout, which does nothing in evaluation mode."""
    if type(dropout) is not nn.Dropout:
        raise NotLowerable(type(dropout).__name__)


def lower_linear(layer: nn.Module, program: Program, source: str, target: str) -> None:
    """Append a linear layer, with its mask multiplied in."""
    if type(layer) not in (nn.Linear, MaskedLinear):
        raise NotLowerable(type(layer).__name__)
    assert isinstance(layer, nn.Linear)
    weight, mask = layer.weight, layer.mask if isinstance(layer, MaskedLinear) else None
    if any(t is not None and t.shape != (layer.out_features, layer.in_features) for t in (weight, mask)):
        raise NotLowerable(f"a layer whose weight has the shape {tuple(weight.shape)}")
    if layer.bias is not None and layer.bias.shape != (layer.out_features,):
        raise NotLowerable(f"a layer whose bias has the shape {tuple(layer.bias.shape)}")
    program.linear(source, target, weight if mask is None else weight * mask, layer.bias)


def lower_block(block: Block | MaskedBlock, program: Program, register: str) -> None:
    """register += second(act(first(act(register)))), a residual block."""
    require_dropout(block.dropout)
    width, name = block.first.out_features, activation_name(block.act)
    program.copy(register, "s", width)
    program.activate("s", width, name)
    lower_linear(block.first, program, "s", "t")
    program.activate("t", width, name)
    lower_linear(block.second, program, "t", "s")
    program.add("s", register, width)


def lower_mlp(network: MLP, program: Program, source: str, target: str) -> None:
    """Append a multi-layer perceptron; ``source`` is overwritten."""
    if type(network) is not MLP:
        raise NotLowerable(type(network).__name__)
    if network.input_bound is not None:
        program.clamp(source, source, network.inputs, network.input_bound)
    here, width = source, network.inputs
    for layer in network.body:
        if type(layer) is Block:
            lower_block(layer, program, here)
        elif isinstance(layer, nn.Linear):
            there = "h" if here != "h" else "g"
            lower_linear(layer, program, here, there)
            here, width = there, layer.out_features
        elif type(layer) is not nn.Dropout:
            program.activate(here, width, activation_name(layer))
    lower_linear(network.last, program, here, target)


def lower_made(network: MADE, program: Program, source: str, target: str) -> None:
    """Append a masked autoregressive network."""
    if type(network) is not MADE:
        raise NotLowerable(type(network).__name__)
    require_dropout(network.drop)
    if network.copies != 1:
        raise NotLowerable("angles as the input of a masked network")
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
        lower_linear(network.context_in, program, at, "d")
        program.activate("d", network.context_in.out_features, activation_name(network.act))
    for index, layer in enumerate(network.layers):
        if type(layer) is MaskedBlock:
            lower_block(layer, program, here)
            continue
        if not isinstance(layer, nn.Linear):
            raise NotLowerable(type(layer).__name__)
        there = "h" if here != "h" else "g"
        lower_linear(layer, program, here, there)
        here, width = there, layer.out_features
        if index == 0 and first is not None:
            lower_linear(first, program, "d", "e")
            program.add("e", here, width)
        if not network.residual:
            program.activate(here, width, activation_name(network.act))
    lower_linear(network.last, program, here, target)
    if network.context:
        lower_linear(network.context_last, program, "d", "e")
        program.add("e", target, network.last.out_features)
