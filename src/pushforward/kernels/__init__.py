"""Heavy functions, each in a plain version (the reference) and a native one compiled at first use."""

from pushforward.kernels.conv import conv_stack
from pushforward.kernels.native import kernels, use_kernels
from pushforward.kernels.program import Program
from pushforward.kernels.spline import SplineLaw, spline

__all__ = ["Program", "SplineLaw", "conv_stack", "kernels", "spline", "use_kernels"]
