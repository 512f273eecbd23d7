"""A flow as a list of small operations that one native function executes.

It is for few rows, where calling operations takes most of the time.
This module handles registers and operations, not transforms. :mod:`pushforward.compiled` writes the program of a model.
"""

from __future__ import annotations

import ctypes
import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.kernels import tuning
from pushforward.kernels.native import library
from pushforward.kernels.spline_reference import SplineSettings
from pushforward.kernels.structs import ACTIVATIONS, OPERATIONS, ProgramHead, ProgramOp, SplineLayout, address

__all__ = ["ACTIVATIONS", "Program"]

_LINE = 64
"""Bytes of a line: registers and weights start at multiples of it, and blocks of outputs are multiples of it wide."""


class _Built(NamedTuple):
    """A program with its addresses."""

    head: ProgramHead
    ops: Any
    functions: SimpleNamespace


class Program:
    """Operations on named registers, each a vector. The registers "x" and "context" start with a row and its context.

    Every method up to :meth:`logistic` appends one operation. Numbers are copied, so a program does not follow later
    changes of its model. A coordinate that a register does not have is a ``ConfigError``.

    Args:
        features: width of a row.
        context: width of its context.
        dtype: float32 or float64.

    Example:
        >>> import torch
        >>> program = Program(2, 0, torch.float32)
        >>> program.diagonal("x", torch.tensor([2.0, 2.0]))
        >>> program.normal("x", 2)
        >>> program.ready() is None or program.run(torch.zeros(1, 2)).shape
        torch.Size([1])
    """

    def __init__(self, features: int, context: int, dtype: torch.dtype) -> None:
        self.features, self.context, self.dtype = features, context, dtype
        self.start = 0.0
        """The part of the log-likelihood that all rows share."""
        self.work = 0
        """Multiplications for a row."""
        self._line = _LINE // torch.finfo(dtype).bits * 8
        self._widths: dict[str, int] = {"x": features, "context": context}
        self._ops: list[tuple[str, str, str, int, int, dict[str, Any], float, int]] = []
        self._built: _Built | None = None
        self._kept: list[Any] = []

    # -- operations -------------------------------------------------------------------------------------------------

    def gather(self, source: str, target: str, index: list[int], at: int = 0) -> None:
        """target_{at + i} = source_{index_i}; source and target must differ."""
        self._require_places(source, index)
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
        """target = weight source + bias; columns that are 0 at the start or end of a block of rows take no time."""
        weight = weight.detach()
        blocks = self._blocks(_extents(weight != 0).tolist())
        packed, biases, done = [], [], 0
        for lines, low, high in blocks:
            size = lines * self._line
            part = torch.zeros(size, high - low, dtype=self.dtype, device="cpu")
            edge = torch.zeros(size, dtype=self.dtype, device="cpu")
            taken = weight[done : done + size, low:high]
            part[: len(taken)] = taken
            if bias is not None:
                edge[: len(taken)] = bias.detach()[done : done + size]
            packed.append(part.t().reshape(-1))
            biases.append(edge)
            done += size
        self._append("linear", source, target, weight.shape[0], kind=len(blocks), a=torch.cat(packed),
                     b=torch.cat(biases), index=list(itertools.chain(*blocks)))  # fmt: skip
        # A product writes whole blocks, which may be wider than the layer.
        self._widths[source] = max(self._widths.get(source, 0), weight.shape[1])
        self._widths[target] = max(self._widths[target], sum(lines for lines, _, _ in blocks) * self._line)
        self.work += sum(lines * self._line * (high - low) for lines, low, high in blocks)

    def _blocks(self, extents: list[list[int]]) -> list[tuple[int, int, int]]:
        """Rows in blocks: the width in lines, and the range of columns that any row of the block depends on."""
        blocks: list[tuple[int, int, int]] = []
        while extents:
            lines = next(n for n in (8, 4, 2, 1) if len(extents) > (n // 2) * self._line or n == 1)
            here, extents = extents[: lines * self._line], extents[lines * self._line :]
            here = [(low, high) for low, high in here if low < high] or [(0, 0)]
            blocks.append((lines, min(low for low, _ in here), max(high for _, high in here)))
        return blocks

    def activate(self, register: str, width: int, name: str) -> None:
        """The activation of this name."""
        self._append("activate", register, register, width, kind=ACTIVATIONS.index(name))

    def add(self, source: str, target: str, width: int) -> None:
        """target += source."""
        self._append("add", source, target, width)

    def clamp(self, source: str, target: str, width: int, bound: float) -> None:
        """target = source clamped to [-bound, bound]."""
        self._append("clamp", source, target, width, p=bound)

    def constant(self, target: str, values: Tensor) -> None:
        """target = values."""
        self._append("constant", target, target, values.numel(), a=values)

    def shift(self, raw: str, target: str, index: list[int]) -> None:
        """The shift with parameters ``raw``, applied to the coordinates ``index`` of target."""
        self._require_places(target, index)
        self._append("shift", raw, target, len(index), index=index)

    def affine(self, raw: str, target: str, index: list[int], bound: float) -> None:
        """The affine transform; ``raw`` has shifts, then log-scales before their soft clamp to [-bound, bound]."""
        self._require_places(target, index)
        self._append("affine", raw, target, len(index), index=index, p=bound)

    def spline(self, raw: str, target: str, index: list[int], settings: SplineSettings) -> None:
        """The rational-quadratic spline."""
        self._require_places(target, index)
        n = len(index)
        layout = SplineLayout(
            1, n, n, 1, n, n, 1, n, n, 1,
            settings.bins, settings.periodic, False, 1, settings.bound, settings.smallest, settings.steepest,
        )  # fmt: skip
        self.work += 40 * settings.parameters * n
        self._append("spline", raw, target, n, index=index, spline=layout)

    def normal(self, source: str, width: int) -> None:
        """Adds the log-density of the standard normal."""
        self._append("normal", source, source, width)

    def logistic(self, source: str, width: int) -> None:
        """Adds the log-density of the standard logistic."""
        self._append("logistic", source, source, width)

    def _require_places(self, register: str, index: list[int]) -> None:
        """Refuse places outside of a register, as in a file that was changed: native code would read or write other memory there."""
        width = self._widths[register]
        wrong = [place for place in index if not 0 <= place < width]
        if wrong:
            raise ConfigError(
                f"the model reads or writes coordinate {wrong[0]}, which its rows do not have: its file was changed or damaged. Fit and save "
                "the model again."
            )

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

    def ready(self) -> SimpleNamespace | None:
        """The native functions, or None where plain operations are to be used."""
        return library("program", self.dtype)

    def run(self, x: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Log-likelihoods of rows, ``(n, features)`` to ``n``, or None if a number is not finite.

        Args:
            x: contiguous, on the CPU, of the program's type.
            context: the same, ``(n, context)``.

        Raises:
            InputError: for rows or a context of another shape or type, or that are not contiguous.
            MemoryError: if there is no memory for the registers.
        """
        self._require_rows("x", x, len(x), self.features)
        if self.context:
            self._require_rows("context", context, len(x), self.context)
        built = self._built
        if built is None:
            built = self._built = self._build()
        out = torch.empty(x.shape[0], dtype=self.dtype, device="cpu")
        threads = max(
            1, min(torch.get_num_threads(), x.shape[0] * self.work // tuning.PROGRAM_WORK_PER_THREAD, x.shape[0] // 4)
        )
        failed = built.functions.run(
            ctypes.byref(built.head), ctypes.c_int64(x.shape[0]), ctypes.c_int64(threads),
            address(x), address(x if context is None else context), address(out),
        )  # fmt: skip
        if failed == 2:
            raise MemoryError("there is not enough memory for the registers of a program.")
        return None if failed else out

    def _require_rows(self, name: str, given: Tensor | None, rows: int, width: int) -> None:
        """Refuse what native code would read as other numbers."""
        if given is None or given.shape != (rows, width) or given.dtype != self.dtype or not given.is_contiguous():
            found = "None" if given is None else f"{tuple(given.shape)} of {given.dtype}"
            raise InputError(
                f"{name} of this program must be a contiguous tensor of shape (n, {width}) of {self.dtype}, with one row for each row of x; got {found}."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without addresses, which are computed again at the first run."""
        return {**self.__dict__, "_built": None, "_kept": []}

    def _build(self) -> _Built:
        functions = self.ready()
        assert functions is not None
        offsets, size = {"x": 0, "context": self.features}, self.features + self.context
        # An operation may read more than was written to a register, since linear layers write whole blocks.
        for name, width in self._widths.items():
            size = -(-size // self._line) * self._line
            if name not in offsets:
                offsets[name], size = size, size + width
        size = -(-size // self._line) * self._line
        ops = (ProgramOp * len(self._ops))()
        for op, (name, source, target, count, kind, arrays, p, at) in zip(ops, self._ops, strict=True):
            op.op, op.input, op.output = OPERATIONS.index(name), offsets[source], offsets[target] + at
            op.count, op.kind, op.p = count, kind, p
            for key, value in arrays.items():
                setattr(op, key, self._keep(value))
        head = ProgramHead(len(ops), size, self.features, self.context, ctypes.cast(ops, ctypes.c_void_p), self.start)
        return _Built(head, ops, functions)

    def _keep(self, value: Any) -> int:
        """The address of a struct, or of a copy of some numbers that starts at a multiple of 64 bytes."""
        if isinstance(value, ctypes.Structure):
            self._kept.append(value)
            return ctypes.addressof(value)
        dtype = torch.int64 if isinstance(value, list) else self.dtype
        flat = torch.as_tensor(value, dtype=dtype, device="cpu").detach().reshape(-1)
        spare = _LINE // flat.element_size()
        copy = torch.empty(flat.numel() + spare, dtype=dtype, device="cpu")
        skip = (-copy.data_ptr() % _LINE) // flat.element_size()
        copy[skip : skip + flat.numel()] = flat
        self._kept.append(copy)
        return copy.data_ptr() + skip * flat.element_size()


def _extents(true: Tensor) -> Tensor:
    """For each row of a matrix the first true column and the one after the last, ``(rows, 2)``; 0, 0 if there is none."""
    whole = true.to(torch.uint8)
    any_ = true.any(1)
    return torch.stack((whole.argmax(1) * any_, (true.shape[1] - whole.flip(1).argmax(1)) * any_), 1)
