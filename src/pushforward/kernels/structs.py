"""The structs and enumerations that Python and the C sources share.

The order and the types of the fields must agree with the C side.
"""

from __future__ import annotations

import ctypes

from torch import Tensor

__all__ = [
    "ACTIVATIONS",
    "OPERATIONS",
    "ConvStack",
    "LocalGaussians",
    "MadeProblem",
    "MadeStage",
    "NearestRows",
    "ProgramHead",
    "ProgramOp",
    "SplineLayout",
    "address",
]

ACTIVATIONS = ("relu", "tanh", "elu", "silu", "gelu", "softplus", "leaky_relu")
"""In the order of the enumeration in ``activation.h``."""
OPERATIONS = (
    "gather", "diagonal", "linear", "activate", "add", "clamp", "constant", "shift", "affine", "spline", "normal",
    "logistic",
)  # fmt: skip
"""In the order of the enumeration in ``program.c``."""


def _integers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in names]


def _doubles(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_double) for name in names]


def _pointers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


class SplineLayout(ctypes.Structure):
    """``SplineLayout`` of ``spline.h``: the shape of a family of splines, and the strides of the arrays."""

    _fields_ = [
        *_integers("outer", "inner", "value_outer", "value_inner"),
        *_integers("raw_first", "raw_outer", "raw_inner", "grad_first", "grad_outer", "grad_inner"),
        *_integers("bins", "periodic", "inverse", "threads"),
        *_doubles("bound", "smallest", "steepest"),
    ]


class ConvStack(ctypes.Structure):
    """``ConvStack`` of ``conv.c``: sizes of a stack of convolutions, and the strides of its input."""

    _fields_ = [
        *_integers("images", "height", "width", "kernel", "inputs", "hidden", "outputs", "threads"),
        *_integers("image", "channel", "row", "column"),
        *_pointers("widths"),
        *_doubles("bound"),
    ]


class MadeStage(ctypes.Structure):
    """``MadeStage`` of ``made.c``: one masked product and what follows it."""

    _fields_ = [
        *_integers("rows", "columns"),
        *_pointers("weight", "start"),
        *_integers("start_row", "start_column"),
        *_pointers("known"),
        *_integers("adds", "keeps", "acts"),
    ]


class MadeProblem(ctypes.Structure):
    """``MadeProblem`` of ``made.c``: an autoregressive transform to invert."""

    _fields_ = [
        *_integers("places", "batch", "stages", "parameters", "activation", "function", "threads"),
        *_pointers("stage", "spline"),
        *_doubles("input_bound", "scale_bound"),
    ]


class NearestRows(ctypes.Structure):
    """``Nearest`` of ``neighbors.c``: rows, and the reference rows among which their neighbors are."""

    _fields_ = [
        *_integers("rows", "reference", "padded", "columns", "k", "dropped", "threads"),
        *_pointers("row", "transposed", "squares", "drop", "key"),
    ]


class LocalGaussians(ctypes.Structure):
    """``Local`` of ``neighbors.c``: rows and their neighbors."""

    _fields_ = [
        *_integers("rows", "columns", "k", "threads"),
        *_pointers("row", "reference", "index"),
        *_doubles("ridge", "least"),
        *_pointers("square", "log_det"),
    ]


class ProgramOp(ctypes.Structure):
    """``Op`` of ``program.c``: one operation."""

    _fields_ = [
        *_integers("op", "input", "output", "count", "kind"),
        *_pointers("a", "b", "c", "index", "spline"),
        *_doubles("p"),
    ]


class ProgramHead(ctypes.Structure):
    """``Program`` of ``program.c``: all operations, and the size of the memory of a row."""

    _fields_ = [*_integers("ops", "size", "features", "context"), *_pointers("op"), *_doubles("start")]


def address(tensor: Tensor) -> ctypes.c_void_p:
    """Where the numbers of a tensor start."""
    return ctypes.c_void_p(tensor.data_ptr())
