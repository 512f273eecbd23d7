"""A flow as a list of small operations that one compiled function runs: for few rows, where dispatch costs most.

This file knows registers and operations, not maps: :mod:`pushforward.programs` writes the program of a model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushforward.kernels.native import library
from pushforward.kernels.spline import SplineLaw, _Layout

__all__ = ["ACTIVATIONS", "Program"]

ACTIVATIONS = ("relu", "tanh", "elu", "silu", "gelu", "softplus", "leaky_relu")
"""In the order of the C source."""
_OPS = {
    name: code
    for code, name in enumerate(
        ("gather", "diagonal", "linear", "rows", "activate", "add", "clamp", "constant", "shift", "affine", "spline", "normal",
         "logistic")
    )
}  # fmt: skip
_ALIGNED = 64
_EACH_THREAD = 200_000
"""Multiplications that are worth a thread."""


class _InPlace(NamedTuple):
    """Numbers that are not copied."""

    tensor: Tensor


class _Op(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("op", "input", "output", "count", "kind")),
        *((name, ctypes.c_void_p) for name in ("a", "b", "c", "index", "law")),
        ("p", ctypes.c_double),
    ]


class _Head(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("ops", "room", "features", "context")),
        ("op", ctypes.c_void_p),
        ("start", ctypes.c_double),
    ]


class Program:
    """Operations on named registers, each a vector; "x" and "context" hold a row and its context at the start.

    Every method appends one operation. Numbers are copied, so a program does not follow its model, but for the weights of
    :meth:`linear_in_place`, which are read where they lie.

    Args:
        features: width of a row.
        context: width of its context.
        dtype: float32 or float64.
        follows: whether its writer should prefer what is read in place.

    Example:
        >>> import torch
        >>> program = Program(2, 0, torch.float32)
        >>> program.diagonal("x", torch.tensor([2.0, 2.0]))
        >>> program.normal("x", 2)
        >>> program.ready() is None or program.run(torch.zeros(1, 2)).shape
        torch.Size([1])
    """

    def __init__(self, features: int, context: int, dtype: torch.dtype, *, follows: bool = False) -> None:
        self.follows = follows
        self.features, self.context, self.dtype = features, context, dtype
        self.start = 0.0
        """What every row's log-likelihood has in common."""
        self.work = 0
        """Multiplications of a row."""
        self.in_place: list[Tensor] = []
        """What is read where it lies."""
        self._lanes = _ALIGNED // torch.finfo(dtype).bits * 8
        self._widths: dict[str, int] = {"x": features, "context": context}
        self._ops: list[tuple[str, str, str, int, int, dict[str, Any], float, int]] = []
        self._built: tuple[_Head, Any, ctypes.CDLL] | None = None
        self._kept: list[Any] = []

    # -- operations -------------------------------------------------------------------------------------------------

    def gather(self, source: str, target: str, index: list[int], at: int = 0) -> None:
        """target_{at + i} = source_{index_i}; the two must differ."""
        self._append("gather", source, target, len(index), index=index, at=at)

    def copy(self, source: str, target: str, width: int) -> None:
        """target = source."""
        self.gather(source, target, list(range(width)))

    def diagonal(self, register: str, scale: Tensor, before: Tensor | None = None, after: Tensor | None = None) -> None:
        """register = (register - before) * scale + after."""
        zero = torch.zeros_like(scale)
        self._append("diagonal", register, register, scale.numel(), a=scale, b=zero if before is None else before,
                     c=zero if after is None else after)  # fmt: skip

    def linear(self, source: str, target: str, weight: Tensor, bias: Tensor | None) -> None:
        """target = weight source + bias; zeros at the ends of a block of rows cost nothing."""
        rows = weight.shape[0]
        packed, biases, blocks, done = [], [], [], 0
        weight = weight.detach()
        while done < rows:
            wide = next(w for w in (8, 4, 2, 1) if (rows - done) > (w // 2) * self._lanes or w == 1)
            part = torch.zeros(wide * self._lanes, weight.shape[1], dtype=self.dtype)
            taken = weight[done : done + wide * self._lanes]
            part[: len(taken)] = taken
            seen = (part != 0).any(0).nonzero().flatten()
            low, high = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
            packed.append(part[:, low:high].t().reshape(-1))
            edge = torch.zeros(wide * self._lanes, dtype=self.dtype)
            if bias is not None:
                edge[: len(taken)] = bias.detach()[done : done + wide * self._lanes]
            biases.append(edge)
            blocks += [wide, low, high]
            self.work += wide * self._lanes * (high - low)
            done += wide * self._lanes
        self._widths[source] = max(self._widths.get(source, 0), weight.shape[1])
        self._append("linear", source, target, rows, kind=len(blocks) // 3, a=torch.cat(packed), b=torch.cat(biases),
                     index=blocks)  # fmt: skip
        self._widths[target] = max(self._widths[target], done)

    def linear_in_place(
        self, source: str, target: str, weight: Tensor, bias: Tensor | None, seen: Sequence[int]
    ) -> None:
        """target = weight source + bias, with the numbers that weight and bias hold when it runs.

        Args:
            source: read.
            target: written.
            weight: contiguous, ``(rows, columns)``; it must stay where it is.
            bias: contiguous, ``(rows,)``, or None.
            seen: for each row the first column that counts, and the one after the last.
        """
        self.in_place += [t for t in (weight, bias) if t is not None]
        self.work += sum(seen[1::2]) - sum(seen[::2])
        arrays: dict[str, Any] = {"a": _InPlace(weight), "index": list(seen)}
        if bias is not None:
            arrays["b"] = _InPlace(bias)
        self._append("rows", source, target, weight.shape[0], kind=weight.shape[1], **arrays)

    def activate(self, register: str, width: int, name: str) -> None:
        """The activation of this name."""
        self._append("activate", register, register, width, kind=ACTIVATIONS.index(name))

    def add(self, source: str, target: str, width: int) -> None:
        """target += source."""
        self._append("add", source, target, width)

    def clamp(self, source: str, target: str, width: int, bound: float) -> None:
        """target = source within [-bound, bound]."""
        self._append("clamp", source, target, width, p=bound)

    def constant(self, target: str, values: Tensor) -> None:
        """target = values."""
        self._append("constant", target, target, values.numel(), a=values)

    def shift(self, raw: str, target: str, index: list[int]) -> None:
        """The additive law, parameters in ``raw``, on coordinates ``index`` of target."""
        self._append("shift", raw, target, len(index), index=index)

    def affine(self, raw: str, target: str, index: list[int], bound: float) -> None:
        """The affine law: shifts, then log-scales before their slow clamp."""
        self._append("affine", raw, target, len(index), index=index, p=bound)

    def spline(self, raw: str, target: str, index: list[int], law: SplineLaw) -> None:
        """The rational-quadratic spline."""
        n = len(index)
        layout = _Layout(1, n, n, 1, n, n, 1, n, n, 1, law.bins, law.periodic, False, 1, law.bound, law.smallest,
                         law.steepest)  # fmt: skip
        self.work += 40 * law.parameters * max(n, 8)
        self._append("spline", raw, target, n, index=index, law=layout)

    def normal(self, source: str, width: int) -> None:
        """Log-density of the standard normal."""
        self._append("normal", source, source, width)

    def logistic(self, source: str, width: int) -> None:
        """Log-density of the standard logistic."""
        self._append("logistic", source, source, width)

    def _append(
        self,
        name: str,
        source: str,
        target: str,
        count: int,
        *,
        kind: int = 0,
        p: float = 0.0,
        at: int = 0,
        **arrays: Any,
    ) -> None:
        self._widths[target] = max(self._widths.get(target, 0), at + count)
        self._ops.append((name, source, target, count, kind, arrays, p, at))

    # -- running ----------------------------------------------------------------------------------------------------

    def ready(self) -> ctypes.CDLL | None:
        """The compiled function's library, or None where plain operations are to be used."""
        return library("program.c", self.dtype)

    def run(self, x: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Log-likelihoods of rows, ``(n, features)`` to ``n``; None if a number is not finite.

        Args:
            x: contiguous, on the CPU, of the program's type.
            context: the same, ``(n, context)``.
        """
        if self._built is None:
            compiled = self.ready()
            assert compiled is not None
            self._built = (*self._build(), compiled)
        head, _, compiled = self._built
        out = torch.empty(x.shape[0], dtype=self.dtype)
        threads = max(1, min(torch.get_num_threads(), x.shape[0] * self.work // _EACH_THREAD, x.shape[0] // 4))
        failed = compiled.run(
            ctypes.byref(head), ctypes.c_int64(x.shape[0]), ctypes.c_int64(threads),
            ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(x.data_ptr() if context is None else context.data_ptr()),
            ctypes.c_void_p(out.data_ptr()),
        )  # fmt: skip
        if failed == 2:
            raise MemoryError("no memory for the registers of a flow.")
        return None if failed else out

    def __getstate__(self) -> dict[str, Any]:
        """Without the addresses, which are found again at the first run."""
        return {**self.__dict__, "_built": None, "_kept": []}

    def _build(self) -> tuple[_Head, Any]:
        places, room = {"x": 0, "context": self.features}, self.features + self.context
        # What an operation reads may be wider than what was written to it: linear layers write whole blocks.
        for name, width in self._widths.items():
            room = -(-room // self._lanes) * self._lanes
            if name not in places:
                places[name], room = room, room + width
        room = -(-room // self._lanes) * self._lanes
        ops = (_Op * len(self._ops))()
        for op, (name, source, target, count, kind, arrays, p, at) in zip(ops, self._ops, strict=True):
            op.op, op.input, op.output = _OPS[name], places[source], places[target] + at
            op.count, op.kind, op.p = count, kind, p
            for key, value in arrays.items():
                setattr(op, key, self._keep(value))
        address = ctypes.cast(ops, ctypes.c_void_p)
        return _Head(len(self._ops), room, self.features, self.context, address, self.start), ops

    def _keep(self, value: Any) -> int:
        """The address of some numbers: of a copy, at a multiple of 64 bytes, unless they are read in place."""
        if isinstance(value, _InPlace):
            return value.tensor.data_ptr()
        if isinstance(value, ctypes.Structure):
            self._kept.append(value)
            return ctypes.addressof(value)
        dtype = torch.int64 if isinstance(value, list) else self.dtype
        flat = torch.as_tensor(value, dtype=dtype).detach().cpu().reshape(-1)
        spare = _ALIGNED // flat.element_size()
        home = torch.empty(flat.numel() + spare, dtype=dtype)
        skip = (-home.data_ptr() % _ALIGNED) // flat.element_size()
        home[skip : skip + flat.numel()] = flat
        self._kept.append(home)
        return home.data_ptr() + skip * flat.element_size()
