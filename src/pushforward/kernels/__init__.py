"""Heavy functions, each in a plain version (the reference) and a native one compiled at first use."""

from pushforward.kernels.conv import conv_stack
from pushforward.kernels.made import AffineSettings, ShiftSettings, Stage, invert_made
from pushforward.kernels.memory import freed_memory_kept, keep_freed_memory
from pushforward.kernels.native import kernels, usable, use_kernels
from pushforward.kernels.program import Program
from pushforward.kernels.spline import SplineSettings, spline
from pushforward.kernels.spline_steps import SplineSteps

__all__ = [
    "AffineSettings",
    "Program",
    "ShiftSettings",
    "SplineSettings",
    "SplineSteps",
    "Stage",
    "conv_stack",
    "freed_memory_kept",
    "invert_made",
    "keep_freed_memory",
    "kernels",
    "spline",
    "usable",
    "use_kernels",
]
