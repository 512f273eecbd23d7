"""Constructors without memory: the shapes and types of tensors on the meta device, of what constructors compute.

torch has these functions too, but the first call of most of them on the meta device imports its compiler and SymPy, which takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["ShapesOnly"]

_CHANGE_VALUES = frozenset(
    {"add_", "copy_", "div_", "fill_", "mul_", "normal_", "sub_", "uniform_", "zero_", "__setitem__"}
)
_COMPARE = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"})
_ARITHMETIC = frozenset(
    {"add", "sub", "mul", "floor_divide", "remainder", "maximum", "minimum", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__",
     "__rmul__", "__floordiv__", "__mod__", "rsub", "__and__", "__or__"}
)  # fmt: skip
_DIVIDE = frozenset({"div", "true_divide", "__truediv__", "__div__", "__rdiv__", "__rtruediv__"})
_FLOATING = frozenset({"exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sigmoid", "tanh", "sin", "cos", "atanh"})
_SAME = frozenset(
    {"abs", "neg", "clone", "__neg__", "clamp", "contiguous", "sign", "__invert__", "bitwise_not", "tril", "triu"}
)


class ShapesOnly(TorchFunctionMode):
    """While this is active, constructors make tensors on the meta device, which have a shape and a type and no values.

    Functions that only change values do nothing. What is not known here is left to torch.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _CHANGE_VALUES and args and isinstance(args[0], Tensor):
            return args[0]
        made = _FACTORIES.get(func)
        if made is not None and kwargs.get("device") is None and "out" not in kwargs:
            return _factory(made, args, kwargs)
        found = _computed(name, args, kwargs)
        return func(*args, **kwargs) if found is None else found


def _factory(made: Callable[..., tuple[tuple[int, ...], bool]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    options = {key: kwargs[key] for key in ("dtype", "requires_grad") if key in kwargs}
    rest = {key: value for key, value in kwargs.items() if key not in ("dtype", "requires_grad", "device")}
    shape, integer = made(*args, **rest)
    if options.get("dtype") is None:
        options["dtype"] = torch.int64 if integer else torch.get_default_dtype()
    return torch.empty(shape, device="meta", **options)


def _arange(start: float, end: float | None = None, step: float = 1) -> tuple[tuple[int, ...], bool]:
    low, high = (0, start) if end is None else (start, end)
    return (max(0, math.ceil((high - low) / step)),), all(isinstance(value, int) for value in (low, high, step))


def _eye(n: int, m: int | None = None) -> tuple[tuple[int, ...], bool]:
    return (n, n if m is None else m), False


def _linspace(start: float, end: float, steps: int) -> tuple[tuple[int, ...], bool]:
    return (steps,), False


_FACTORIES: dict[Any, Callable[..., tuple[tuple[int, ...], bool]]] = {
    torch.arange: _arange, torch.eye: _eye, torch.linspace: _linspace,
}  # fmt: skip


def _computed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The result of an elementwise function of tensors on the meta device and numbers; None for another function."""
    if name == "cat" and len(args) == 1 and not kwargs:
        parts = args[0]
        if all(part.device.type == "meta" and part.dtype == parts[0].dtype for part in parts):
            return torch.empty(
                (sum(len(part) for part in parts), *parts[0].shape[1:]), dtype=parts[0].dtype, device="meta"
            )
    tensors = [value for value in args if isinstance(value, Tensor)]
    if not tensors or any(tensor.device.type != "meta" for tensor in tensors):
        return None
    one = tensors[0]
    if name == "repeat" and len(args) > 1 and not kwargs and all(isinstance(count, int) for count in args[1:]):
        counts = args[1:]
        sizes = (1,) * (len(counts) - one.dim()) + tuple(one.shape)
        return torch.empty([a * b for a, b in zip(counts, sizes, strict=True)], dtype=one.dtype, device="meta")
    if len(args) == 1 or name in ("clamp", "tril", "triu"):
        if name in _SAME:
            return torch.empty(one.shape, dtype=one.dtype, device="meta")
        if name in _FLOATING and not kwargs:
            dtype = one.dtype if one.dtype.is_floating_point else torch.get_default_dtype()
            return torch.empty(one.shape, dtype=dtype, device="meta")
        return None
    if len(args) != 2 or kwargs or not all(isinstance(value, (Tensor, bool, int, float)) for value in args):
        return None
    if name in _COMPARE:
        dtype = torch.bool
    elif name in _ARITHMETIC or name in _DIVIDE:
        dtype = torch.result_type(*args)
        if name in _DIVIDE and not dtype.is_floating_point and not dtype.is_complex:
            dtype = torch.get_default_dtype()
    else:
        return None
    shape = np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors))
    return torch.empty(shape, dtype=dtype, device="meta")
