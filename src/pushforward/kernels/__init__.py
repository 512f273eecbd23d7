"""Functions that take most of the time, each in plain PyTorch operations (the reference) and as a native kernel.

The native kernels are built when the package is installed (:mod:`pushforward.kernels.native`).
"""

from pushforward.kernels.conv import conv_stack
from pushforward.kernels.made import AffineSettings, ShiftSettings, Stage, invert_made
from pushforward.kernels.memory import freed_memory_kept
from pushforward.kernels.native import description, kernels, usable, use_kernels
from pushforward.kernels.program import Program
from pushforward.kernels.spline import spline
from pushforward.kernels.spline_reference import SplineSettings
from pushforward.kernels.spline_steps import SplineSteps

__all__ = [
    "AffineSettings",
    "Program",
    "ShiftSettings",
    "SplineSettings",
    "SplineSteps",
    "Stage",
    "conv_stack",
    "description",
    "freed_memory_kept",
    "invert_made",
    "kernels",
    "spline",
    "usable",
    "use_kernels",
]
