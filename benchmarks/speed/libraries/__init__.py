"""The libraries that are measured, each in a file of its own, and what such a file holds.

- ``DISTRIBUTION``: its name on the package index;
- ``MODULE``: the module that is there when it is installed;
- ``IMPORT``: the statement after which a first model can be built (what the import time is of);
- ``START``: how its flows start, and in what they differ from the architecture of ``cases.py``;
- ``build(flow, device)``: the flow on a device (of ``devices.py``; the CPU if none is given), as a :class:`Built`; raises
  :class:`NotOffered` where the library has none.

Nothing of the library is imported before ``build``.
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
    "pushforward", "pushforward-frozen", "pushforward-plain", "pushforward-graph", "zuko", "nflows", "normflows", "freia",
    "torchflows", "flowjax", "floor",
)  # fmt: skip
VARIANTS = {
    "pushforward-frozen": ("pushforward", {"PUSHFORWARD_BENCH_FROZEN": "1"}),
    "pushforward-plain": ("pushforward", {"PUSHFORWARD_KERNELS": "plain"}),
    "pushforward-graph": ("pushforward", {"PUSHFORWARD_BENCH_GRAPH": "1"}),
}
"""A library once more, with a setting in the environment: here scoring by ``pf.compile_scorer``, without compiled kernels (which
matter to splines and to convolutions), and each call as a CUDA graph."""
EAGER = ("zuko", "nflows", "normflows", "freia", "torchflows")
"""The peers that run in eager torch."""

Array = NDArray[Any]


class NotOffered(Exception):
    """A library has no such flow."""


class Built(Protocol):
    """A flow that a library has built on a device. Arrays are NumPy's, of the flow's dtype."""

    parameters: int
    """How many numbers are trained."""

    def train(self, steps: int) -> None:
        """Take training steps of 512 rows."""
        ...

    def work(self, work: str, batch: int) -> Callable[[], Any]:
        """A function that does the work once and returns what has a ``shape``; it need not wait for a device that torch
        can wait for."""
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
        raise SystemExit(f"{name!r} is no library of this benchmark; these are: {', '.join(NAMES)}.")
    file = VARIANTS[name][0] if name in VARIANTS else name
    return importlib.import_module(f"benchmarks.speed.libraries.{file}")


def missing(name: str) -> str | None:
    """Why a library cannot be measured here, or None if it can."""
    found = adapter(name)
    if importlib.util.find_spec(found.MODULE) is None:
        return f"{name} is not installed (pip install {found.DISTRIBUTION}): skipped."
    return None


def version(name: str) -> str:
    """Its installed version."""
    try:
        return importlib.metadata.version(adapter(name).DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
