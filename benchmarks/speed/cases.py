"""The cases: a table of flows, works and batches. A new case is a line of the table, and a new flow a few lines more.

All flows have plain conditioners with two hidden layers of ReLU (tanh if a library has only tanh):

- ``maf``: affine autoregressive layers, the order reversed from layer to layer;
- ``rnvp``: affine couplings with alternating halves;
- ``nsfc``: the same couplings with rational-quadratic splines on [-4, 4];
- ``nsfar``: autoregressive layers with the same splines;
- ``glow``: square images of one channel in two scales, each a squeeze and steps of actnorm, 1 x 1 convolution and affine
  coupling on half of the channels, whose network is 3 x 3, 1 x 1 and 3 x 3 convolutions; half of the channels is factored out between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CASES", "ENSEMBLES", "FLOWS", "MEMORY", "WORKS", "Case", "Flow", "batches", "named", "selected"]

HIDDEN_LAYERS = 2
SCALES = 2
"""Scales of flows of images, with an equal number of layers each."""
BOUND = 4.0
WORKS = ("log_prob", "sample", "train_step")
"""They run in this order, because training changes the weights for the others."""


@dataclass(frozen=True)
class Flow:
    """One architecture.

    Attributes:
        kind: "maf", "rnvp", "nsfc", "nsfar" or "glow".
        features: D.
        width: width of both hidden layers of every conditioner.
        layers: number of autoregressive layers or couplings, in all scales together.
        bins: bins of the splines.
        dtype: "float32" or "float64".
        members: number of flows in an ensemble that are trained together.
    """

    kind: str
    features: int
    width: int
    layers: int
    bins: int = 8
    dtype: str = "float32"
    members: int = 1

    @property
    def spline(self) -> bool:
        return self.kind.startswith("nsf")

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of a row: (D,), or (1, side, side) of images."""
        side = math.isqrt(self.features)
        return (1, side, side) if self.kind == "glow" else (self.features,)

    @property
    def autoregressive(self) -> bool:
        return self.kind in ("maf", "nsfar")

    @property
    def hidden(self) -> tuple[int, ...]:
        return (self.width,) * HIDDEN_LAYERS

    @property
    def parameters_each(self) -> int:
        """Outputs of a conditioner for each coordinate: scale and shift, or widths, heights and inner slopes."""
        return 3 * self.bins - 1 if self.spline else 2

    @property
    def name(self) -> str:
        tail = "-f64" if self.dtype == "float64" else ""
        size = f"{self.event[1]}x{self.event[2]}-c" if self.kind == "glow" else f"d{self.features}-h"
        return f"{self.kind}-{size}{self.width}{tail}" + (f"-x{self.members}" if self.members > 1 else "")


@dataclass(frozen=True)
class Case:
    """One call: a flow, the work, and the number of rows."""

    flow: Flow
    work: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.flow.name}/{self.work}@{self.batch}"

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Case:
        return cls(Flow(**plain["flow"]), plain["work"], plain["batch"])


MAF1, NSFAR1 = Flow("maf", 1, 128, 5), Flow("nsfar", 1, 128, 5)
MAF6, MAF21 = Flow("maf", 6, 128, 5), Flow("maf", 21, 128, 5)
MAF63, MAF784 = Flow("maf", 63, 512, 5), Flow("maf", 784, 512, 5)
RNVP6, RNVP21 = Flow("rnvp", 6, 128, 8), Flow("rnvp", 21, 128, 8)
RNVP63, RNVP784 = Flow("rnvp", 63, 512, 8), Flow("rnvp", 784, 512, 8)
NSFC6, NSFC63 = Flow("nsfc", 6, 128, 8), Flow("nsfc", 63, 128, 8)
NSFAR6, NSFAR63 = Flow("nsfar", 6, 128, 5), Flow("nsfar", 63, 128, 5)
GLOW = Flow("glow", 28 * 28, 64, 8)

SMALL, ALL = (1, 64, 512, 8192), (1, 64, 512, 8192, 65_536)
#       flow      log_prob          sample             train_step
TABLE: tuple[tuple[Flow, Sequence[int], Sequence[int], Sequence[int]], ...] = (
    (MAF1,        (1, 512),         (512,),            (512,)),
    (NSFAR1,      (1, 512),         (512,),            (512,)),
    (MAF6,        ALL,              SMALL,             (64, 512, 8192)),
    (MAF21,       (512, 8192),      (512, 8192),       (512, 8192)),
    (MAF63,       ALL,              (1, 512),          (64, 512, 8192)),
    (MAF784,      (1, 64, 512),     (16,),             (64, 512)),
    (RNVP6,       ALL,              ALL,               (64, 512, 8192)),
    (RNVP21,      (512, 8192),      (512, 8192),       (512, 8192)),
    (RNVP63,      ALL,              SMALL,             (64, 512, 8192)),
    (RNVP784,     (1, 64, 512),     (1, 64, 512),      (64, 512)),
    (NSFC6,       ALL,              ALL,               (64, 512, 8192)),
    (NSFC63,      ALL,              SMALL,             (64, 512, 8192)),
    (NSFAR6,      ALL,              SMALL,             (64, 512, 8192)),
    (NSFAR63,     ALL,              (1, 512),          (64, 512, 8192)),
    (GLOW,            (64,),            (64,),             (64,)),
    (replace(MAF63, dtype="float64"),  (512,), (512,), (512,)),
    (replace(NSFC63, dtype="float64"), (512,), (512,), (512,)),
    (replace(NSFAR6, dtype="float64"), (512,), (512,), (512,)),
)  # fmt: skip
CASES = tuple(
    Case(flow, work, batch)
    for flow, *columns in TABLE
    for work, column in zip(WORKS, columns, strict=True)
    for batch in column
)
ENSEMBLES = tuple(
    Case(Flow(kind, 20, 64, layers, members=5), "train_step", 512)
    for kind, layers in (("maf", 5), ("rnvp", 8), ("nsfc", 8), ("nsfar", 5))
)
"""Five flows trained together, each compared with one of them alone."""
FLOWS = tuple(flow for flow, *_ in TABLE)
MEMORY = tuple(
    Case(flow, "train_step", batch)
    for flow, batch in ((MAF63, 8192), (MAF784, 512), (RNVP63, 8192), (NSFC6, 8192), (NSFC63, 8192), (NSFAR6, 8192),
                        (NSFAR63, 8192))
) + (Case(NSFC63, "log_prob", 8192), Case(NSFAR63, "log_prob", 8192), Case(NSFAR63, "sample", 512))  # fmt: skip


def selected(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """The cases whose name, or whose flow's name, matches one of the patterns."""
    return [case for case in cases if any(fnmatch(name, p) for p in patterns for name in (case.name, case.flow.name))]


def named(name: str) -> Case:
    """The case with this name; its batch size may be any number."""
    flow, _, call = name.partition("/")
    work, _, batch = call.partition("@")
    flows = {flow.name: flow for flow in (*FLOWS, *(case.flow for case in ENSEMBLES))}
    if flow not in flows or work not in WORKS or not batch.isdigit() or not int(batch):
        raise SystemExit(
            f"{name!r} is not a case: write FLOW/WORK@BATCH, such as nsfc-d63-h128/log_prob@512; the flows are "
            f"{', '.join(flows)} and the works {', '.join(WORKS)}."
        )
    return Case(flows[flow], work, int(batch))


def batches(features: int, rows: int, dtype: str) -> Iterator[NDArray[Any]]:
    """An endless iterator of eight batches, the same for every library: standardized, skewed and dependent."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((max(8 * rows, 4096) if rows <= 8192 else rows, features))
    mixed = drawn.copy()
    mixed[:, 1:] += 0.6 * drawn[:, :-1] ** 2 + 0.5 * drawn[:, :-1]
    x = ((mixed - mixed.mean(0)) / mixed.std(0)).astype(dtype)
    while True:
        for start in range(0, len(x) - rows + 1, rows)[:8]:
            yield x[start : start + rows]
