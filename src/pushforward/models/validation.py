"""What a model asks of what it is given: sizes, data, and transforms that keep float64 coordinates; and the type of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Size, Tensor, nn

from pushforward.errors import ConfigError, InputError, KindError
from pushforward.numerics import is_eager, may_check_values
from pushforward.transforms.base import Shape, Transform

__all__ = [
    "check_data",
    "check_form",
    "check_numbers",
    "check_sizes",
    "check_wide",
    "floating_type",
    "splits",
    "widest",
]


def check_wide(chain: Transform, owner: str) -> None:
    """Refuse float64 coordinates where a transform does not bring them back to their last digits.

    Raises:
        KindError: naming the first such transform. A transform whose own weights are float64 is none.
    """
    for part in chain.modules():
        if not isinstance(part, Transform) or _undoes(part):
            continue
        types = {tensor.dtype for tensor in (*part.parameters(), *part.buffers()) if tensor.is_floating_point()}
        if types != {torch.float64}:
            raise KindError(
                f"{owner} has no round trip of float64 coordinates through weights of another type: {type(part).__name__} drops "
                "some of what it reads, or runs its network at other places on the way back. Where it has an inverse, "
                "model.double() makes it one to the last digits."
            )


def _undoes(part: Transform) -> bool:
    return part.supports_float64 and not part.many_to_one and math.prod(part.out_shape) >= math.prod(part.in_shape)


def check_sizes(sample_shape: int | tuple[int, ...]) -> Size:
    """How many samples are asked for.

    Raises:
        ConfigError: if it is not made of integers from 0 on.
    """
    sizes = tuple(sample_shape) if isinstance(sample_shape, (tuple, list)) else (sample_shape,)
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in sizes):
        raise ConfigError(f"sample_shape must be a number of samples, or a tuple of them; got {sample_shape!r}.")
    return Size(sizes)


def check_data(x: Tensor, shape: Shape, owner: str) -> None:
    """Refuse data that a model cannot read, with the place that is wrong.

    Raises:
        InputError: for a non-tensor, a wrong event shape, complex numbers or NaN.
    """
    check_form(x, shape, owner)
    if may_check_values(x):
        check_numbers(x, owner)


def check_form(x: Tensor, shape: Shape, owner: str) -> None:
    """Refuse what has not the form of data.

    Raises:
        InputError: for a non-tensor, a wrong event shape or complex numbers.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{owner} reads torch tensors; got {type(x).__name__}: torch.as_tensor(x) makes one.")
    if x.is_complex():
        raise InputError(f"{owner} reads real numbers; got {x.dtype}.")
    if tuple(x.shape[x.dim() - len(shape) :]) != shape or x.dim() < len(shape):
        raise InputError(f"{owner} reads data of shape (*batch, {', '.join(map(str, shape))}); got {tuple(x.shape)}.")


def check_numbers(x: Tensor, owner: str) -> None:
    """Refuse NaN.

    Raises:
        InputError: naming the place.
    """
    if x.is_floating_point() and torch.isnan(x).any():
        place = torch.isnan(x).nonzero()[0].tolist()
        raise InputError(
            f"{owner} met NaN at index {tuple(place)} (row {place[0]}): fill or drop missing values, or use pf.Guard, "
            "which models them."
        )


def floating_type(modules: Iterable[nn.Module]) -> torch.dtype:
    """Type of the first floating tensor in the modules, parameters before buffers; torch's default type if there is none."""
    for module in modules:
        for kind in ("_parameters", "_buffers"):
            found = _first_floating(module, kind)
            if found is not None:
                return found
    return torch.get_default_dtype()


def _first_floating(module: nn.Module, kind: str) -> torch.dtype | None:
    """Type of the first floating tensor in a module; by hand, as every call asks and the generators of nn.Module are slow."""
    for tensor in getattr(module, kind).values():
        if tensor is not None and tensor.is_floating_point():
            return tensor.dtype
    for child in module._modules.values():
        if child is not None and (found := _first_floating(child, kind)) is not None:
            return found
    return None


def splits(x: Tensor, context: Tensor | None, shape: Shape, fewest: int) -> bool:
    """Whether these are many finite rows on a CPU that can be scored in parts, as no gradient is wanted.

    What is not in order is looked at as a whole, so that errors name its rows.
    """
    if torch.is_grad_enabled() or not is_eager() or not isinstance(x, Tensor):
        return False
    if x.device.type != "cpu" or x.shape[1:] != shape or x.is_complex() or len(x) < fewest:
        return False
    if context is not None and not (isinstance(context, Tensor) and context.dim() == 2 and len(context) == len(x)):
        return False
    return bool(x.sum().isfinite())


def widest(module: nn.Module) -> int:
    """Most outputs of a layer."""
    return max((weight.shape[0] for weight in module.parameters() if weight.dim() > 1), default=0)
