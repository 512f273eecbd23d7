"""A flow as a list of small operations that one compiled function runs: for few rows, where dispatch costs most.

This file knows registers and operations, not transforms: :mod:`pushforward.compiled` writes the program of a model.
"""

from __future__ import annotations

import ctypes
import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushforward.kernels import tuning
from pushforward.kernels.native import library
from pushforward.kernels.spline_reference import SplineSettings
from pushforward.kernels.structs import (
    ACTIVATIONS,
    OPERATIONS,
    ProgramHead,
    ProgramOp,
    ProgramPack,
    SplineLayout,
)

__all__ = ["ACTIVATIONS", "MANY", "Program", "extents"]

_ALIGNED = 64
MANY = 1024
"""No program takes more rows than this in place of torch's operations."""
_FEW = 16
_CACHED = 4_000_000
"""Weights that are not read from memory each time: from there several rows of a matrix at a time come slower than one."""
_SMALL, _EACH_LAYER = 33_000, 1_000_000
"""Multiplications of a layer: for one row, so that packing its weights is worth it; for all rows, as long as torch's cost of
starting its operations exceeds what its products gain (a tenth of a millisecond)."""


class _InPlace(NamedTuple):
    """Numbers that are not copied."""

    tensor: Tensor


class _Built(NamedTuple):
    """A program with its addresses."""

    head: ProgramHead
    packs: Any
    ops: Any
    functions: SimpleNamespace


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
        self.layers = self.work = 0
        """Linear layers and laws, and multiplications of a row."""
        self.in_place: list[Tensor] = []
        """What is read where it lies."""
        self._lanes = _ALIGNED // torch.finfo(dtype).bits * 8
        self._widths: dict[str, int] = {"x": features, "context": context}
        self._ops: list[tuple[str, str, str, int, int, dict[str, Any], float, int]] = []
        self._built: dict[bool, _Built] = {}
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
        weight = weight.detach()
        blocks = self._blocks(extents(weight != 0).tolist())
        packed, biases, done = [], [], 0
        for wide, low, high in blocks:
            size = wide * self._lanes
            part, edge = torch.zeros(size, high - low, dtype=self.dtype), torch.zeros(size, dtype=self.dtype)
            taken = weight[done : done + size, low:high]
            part[: len(taken)] = taken
            if bias is not None:
                edge[: len(taken)] = bias.detach()[done : done + size]
            packed.append(part.t().reshape(-1))
            biases.append(edge)
            done += size
        self._append("linear", source, target, weight.shape[0], kind=len(blocks), a=torch.cat(packed),
                     b=torch.cat(biases), index=list(itertools.chain(*blocks)))  # fmt: skip
        self._count(source, target, weight, blocks)

    def linear_in_place(self, source: str, target: str, weight: Tensor, bias: Tensor | None, seen: Tensor) -> None:
        """target = weight source + bias, with the numbers that weight and bias hold when it runs.

        Args:
            source: read.
            target: written.
            weight: contiguous, ``(rows, columns)``; it must stay where it is.
            bias: contiguous, ``(rows,)``, or None.
            seen: for each row the first column that counts and the one after the last, ``(rows, 2)``.
        """
        self.in_place += [t for t in (weight, bias) if t is not None]
        blocks = self._blocks(seen.tolist())
        self._append("rows", source, target, weight.shape[0], kind=weight.shape[1], a=_InPlace(weight),
                     b=None if bias is None else _InPlace(bias), index=seen.flatten().tolist(), blocks=blocks)  # fmt: skip
        self._count(source, target, weight, blocks)

    def _blocks(self, seen: list[list[int]]) -> list[tuple[int, int, int]]:
        """Rows in blocks: width in vectors, and the range of columns that any of its rows sees."""
        blocks: list[tuple[int, int, int]] = []
        while seen:
            wide = next(w for w in (8, 4, 2, 1) if len(seen) > (w // 2) * self._lanes or w == 1)
            here, seen = seen[: wide * self._lanes], seen[wide * self._lanes :]
            here = [(low, high) for low, high in here if low < high] or [(0, 0)]
            blocks.append((wide, min(low for low, _ in here), max(high for _, high in here)))
        return blocks

    def _count(self, source: str, target: str, weight: Tensor, blocks: list[tuple[int, int, int]]) -> None:
        self._widths[source] = max(self._widths.get(source, 0), weight.shape[1])
        self._widths[target] = max(self._widths[target], sum(wide for wide, _, _ in blocks) * self._lanes)
        self.layers += 1
        self.work += sum(wide * self._lanes * (high - low) for wide, low, high in blocks)

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
        self.layers += 1
        self._append("shift", raw, target, len(index), index=index)

    def affine(self, raw: str, target: str, index: list[int], bound: float) -> None:
        """The affine law: shifts, then log-scales before their slow clamp."""
        self.layers += 1
        self._append("affine", raw, target, len(index), index=index, p=bound)

    def spline(self, raw: str, target: str, index: list[int], settings: SplineSettings) -> None:
        """The rational-quadratic spline."""
        n = len(index)
        layout = SplineLayout(1, n, n, 1, n, n, 1, n, n, 1, settings.bins, settings.periodic, False, 1, settings.bound, settings.smallest,
                              settings.steepest)  # fmt: skip
        self.layers += 1
        self.work += 40 * settings.parameters * n
        self._append("spline", raw, target, n, index=index, spline=layout)

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

    def ready(self) -> SimpleNamespace | None:
        """The compiled function's library, or None where plain operations are to be used."""
        return library("program", self.dtype)

    @property
    def most(self) -> int:
        """Up to how many rows this is faster than torch's operations on any machine, if weights are read in place.

        More rows than some are worth a copy of the weights in the order of products, which costs as much as ten of them, and
        torch's own cost of a layer.
        """
        small = self.work <= _SMALL * self.layers
        return max(_FEW, min(_EACH_LAYER * self.layers // self.work, MANY)) if small and self.work else _FEW

    def run(self, x: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Log-likelihoods of rows, ``(n, features)`` to ``n``; None if a number is not finite.

        Args:
            x: contiguous, on the CPU, of the program's type.
            context: the same, ``(n, context)``.
        """
        packed = bool(self.in_place) and x.shape[0] > _FEW
        built = self._built.get(packed)
        if built is None:
            built = self._built[packed] = self._build(packed)
        head, packs, _, functions = built
        if packed:
            functions.pack(packs, ctypes.c_int64(len(packs)))
        out = torch.empty(x.shape[0], dtype=self.dtype)
        threads = max(
            1, min(torch.get_num_threads(), x.shape[0] * self.work // tuning.PROGRAM_WORK_PER_THREAD, x.shape[0] // 4)
        )
        failed = functions.run(
            ctypes.byref(head), ctypes.c_int64(x.shape[0]), ctypes.c_int64(threads),
            ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(x.data_ptr() if context is None else context.data_ptr()),
            ctypes.c_void_p(out.data_ptr()),
        )  # fmt: skip
        if failed == 2:
            raise MemoryError("no memory for the registers of a flow.")
        return None if failed else out

    def __getstate__(self) -> dict[str, Any]:
        """Without the addresses, which are found again at the first run."""
        return {**self.__dict__, "_built": {}, "_kept": []}

    def _build(self, packed: bool) -> _Built:
        functions = self.ready()
        assert functions is not None
        places, room = {"x": 0, "context": self.features}, self.features + self.context
        # What an operation reads may be wider than what was written to it: linear layers write whole blocks.
        for name, width in self._widths.items():
            room = -(-room // self._lanes) * self._lanes
            if name not in places:
                places[name], room = room, room + width
        room = -(-room // self._lanes) * self._lanes
        cached = sum(t.numel() for t in self.in_place) <= _CACHED
        ops, packs = (ProgramOp * len(self._ops))(), []
        for op, (name, source, target, count, kind, arrays, p, at) in zip(ops, self._ops, strict=True):
            op.op, op.input, op.output = OPERATIONS.index(name), places[source], places[target] + at
            op.count, op.kind, op.p = count, kind, float(cached) if name == "rows" else p
            blocks = arrays.get("blocks")
            for key in arrays.keys() - {"blocks"}:
                setattr(op, key, self._keep(arrays[key]))
            if packed and blocks is not None:
                size = sum(wide * (high - low) for wide, low, high in blocks) * self._lanes
                index = self._keep(list(itertools.chain(*blocks)))
                where = [self._keep(torch.zeros(n)) for n in (size, sum(b[0] for b in blocks) * self._lanes)]
                packs.append(ProgramPack(op.a, op.b, count, kind, len(blocks), op.index, index, *where))
                op.op, op.kind, op.index = OPERATIONS.index("linear"), len(blocks), index
                op.a, op.b = where
        head = ProgramHead(len(ops), room, self.features, self.context, ctypes.cast(ops, ctypes.c_void_p), self.start)
        return _Built(head, (ProgramPack * len(packs))(*packs), ops, functions)

    def _keep(self, value: Any) -> int:
        """The address of some numbers: of a copy, at a multiple of 64 bytes, unless they are read in place."""
        if value is None:
            return 0
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


def extents(true: Tensor) -> Tensor:
    """For each row of a matrix its first true column and the one after the last, ``(rows, 2)``; 0 and 0 if there is none."""
    whole = true.to(torch.uint8)
    any_ = true.any(1)
    return torch.stack((whole.argmax(1) * any_, (true.shape[1] - whole.flip(1).argmax(1)) * any_), 1)
