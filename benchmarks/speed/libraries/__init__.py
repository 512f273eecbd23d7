"""The libraries that are measured, each in its own file. Such a file contains:

- ``DISTRIBUTION``: the name on the package index;
- ``MODULE``: the name of the module;
- ``IMPORT``: the statement whose time is the import time; a model can be built after it;
- ``START``: the initial weights, and differences from the architecture of ``cases.py``;
- ``build(flow, device)``: the flow on a device (of ``devices.py``; by default the CPU), as a :class:`Built`; raises
  :class:`NotOffered` if the library has no such flow.

The library is not imported before ``build``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["EAGER", "NAMES", "VARIANTS", "Array", "Built", "NotOffered", "adapter", "missing", "version"]

NAMES = (
    "pushforward", "pushforward-compiled", "pushforward-plain", "pushforward-graph", "zuko", "nflows", "normflows", "freia",
    "torchflows", "flowjax", "floor",
)  # fmt: skip
VARIANTS = {
    "pushforward-compiled": ("pushforward", {"PUSHFORWARD_BENCH_COMPILED": "1"}),
    "pushforward-plain": ("pushforward", {"PUSHFORWARD_KERNELS": "plain"}),
    "pushforward-graph": ("pushforward", {"PUSHFORWARD_BENCH_GRAPH": "1"}),
}
"""A library with an environment variable: scoring by ``pf.compile_scorer``, without native kernels (which splines and
convolutions use), and each call as a CUDA graph."""
EAGER = ("zuko", "nflows", "normflows", "freia", "torchflows")
"""The peers that run in eager torch."""

Array = NDArray[Any]


class NotOffered(Exception):
    """A library has no such flow."""


class Built(Protocol):
    """A flow that a library has built on a device. Arrays are NumPy's, of the flow's dtype."""

    parameters: int
    """Number of trained parameters."""

    def train(self, steps: int) -> None:
        """Take training steps of 512 rows."""
        ...

    def work(self, work: str, batch: int) -> Callable[[], Any]:
        """A function that does the work once and returns a tensor; it need not wait for a device that torch can wait
        for."""
        ...

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Noise, and log abs det dz/dx."""
        ...

    def decode(self, z: Array) -> tuple[Array, Array]:
        """Data, and log abs det dz/dx there."""
        ...

    def autodiff_log_det(self, x: Array) -> Array:
        """log abs det dz/dx of the same weights by automatic differentiation in float64."""
        ...


def adapter(name: str) -> ModuleType:
    """The file of a library."""
    if name not in NAMES:
        raise SystemExit(f"{name!r} is not a library of this benchmark: use one of {', '.join(NAMES)}.")
    file = VARIANTS[name][0] if name in VARIANTS else name
    return importlib.import_module(f"benchmarks.speed.libraries.{file}")


def missing(name: str) -> str | None:
    """Why a library cannot be measured here, or None if it can."""
    found = adapter(name)
    if importlib.util.find_spec(found.MODULE) is None:
        return f"{name} is not installed (pip install {found.DISTRIBUTION}): skipped."
    return None


def version(name: str) -> str:
    """The installed version of a library."""
    try:
        return importlib.metadata.version(adapter(name).DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
