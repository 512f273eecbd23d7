"""How time and memory of pushforward grow with D, depth, batch and bins, and with what exponent.

One quantity varies, and the others have base values: D 16, width 64, the depth of the family, batch 512, 8 bins. Each size of a sweep
has its own process, which is also used for the next sweep (it returns freed memory to the system before a peak is measured, which
agrees with a new process within about 5 %). The exponent is the slope of the least-squares line through the logarithms; the exponent
of the last step is that of the two largest sizes, where the fixed cost of a call matters least.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.speed.cases import WORKS, Case, Flow
from benchmarks.speed.runner import Entry, Workers, interleave

__all__ = ["SWEEPS", "Sweep", "exponents", "measure"]

BASES = (Flow("maf", 16, 64, 5), Flow("rnvp", 16, 64, 8), Flow("nsfc", 16, 64, 8), Flow("nsfar", 16, 64, 5))
BATCH = 512
SIZES = {
    "features": (8, 16, 32, 64, 128),
    "layers": (2, 4, 8, 16, 32),
    "batch": (128, 512, 2048, 8192, 32_768),
    "bins": (4, 8, 16, 32, 64),
}


@dataclass(frozen=True)
class Sweep:
    """One work of one flow family at several sizes of one quantity."""

    base: Flow
    work: str
    quantity: str

    @property
    def name(self) -> str:
        return f"{self.base.kind}/{self.work}/{self.quantity}"

    def entries(self) -> dict[str, Entry]:
        found = {}
        for size in SIZES[self.quantity]:
            flow = self.base if self.quantity == "batch" else replace(self.base, **{self.quantity: size})
            batch = size if self.quantity == "batch" else BATCH
            found[str(size)] = Entry("pushforward", Case(flow, self.work, batch))
        return found


def sweeps() -> Iterator[Sweep]:
    for base in BASES:
        for work in WORKS:
            for quantity in SIZES:
                if quantity != "bins" or base.spline:
                    yield Sweep(base, work, quantity)


SWEEPS = tuple(sweeps())


def measure(workers: Workers, sweep: Sweep) -> dict[str, dict[str, Any]]:
    """Time and memory at each size; ``above`` is in MiB."""
    found = interleave(workers, sweep.entries())
    for size, reading in found.items():
        if "note" not in reading:
            reading["above"] = workers.get(size, "pushforward").ask("memory").get("above")
    return found


def exponents(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float] | None:
    """Exponent over all sizes, and over the last step; None where there are fewer than two costs above zero."""
    points = [(math.log(size), math.log(cost)) for size, cost in zip(sizes, costs, strict=True) if cost > 0]
    if len(points) < 2:
        return None
    x, y = zip(*points, strict=True)
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return statistics.linear_regression(x, y).slope, last
