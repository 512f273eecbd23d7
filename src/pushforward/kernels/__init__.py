"""Heavy elementwise functions, each in a plain version (the reference) and a native one compiled at first use."""

from pushforward.kernels.native import kernels, use_kernels
from pushforward.kernels.program import Program
from pushforward.kernels.spline import SplineLaw, spline

__all__ = ["Program", "SplineLaw", "kernels", "spline", "use_kernels"]
